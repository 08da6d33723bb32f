"""Allocator settings and GPU switches: what they set, what they change in a simulated run, and what they say where they change nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.recorded import recorded_config
from profiler.analysis.blocks import Blocks
from profiler.analysis.fit import judge_fit
from profiler.capture import gpu as gpu_capture
from profiler.devices import GPUS
from profiler.errors import SpecError
from profiler.optimizations.registry import setup_for, switch_on, validate
from profiler.recording import Recording
from profiler.simulate.engine import simulate_job
from profiler.spec import Job, Model, Toggle, Workload
from profiler.storage import read_recording
from profiler.units import MIB

GPU = "a100-80gb"
SWITCHES = ("tf32", "cudnn-benchmark")
SETTINGS = ("expandable-segments", "max-split-size", "roundup-power2")


def job(*toggles: str, device: str = GPU, **sizes: int) -> Job:
    workload = Workload(**({"batch": 3, "seq": 100, "steps": 1} | sizes))  # no power of two
    return Job(model=Model(name="tiny-llama"), workload=workload, device=device, toggles=tuple(map(Toggle.parse, toggles)))


def simulated(folder: Path, *toggles: str, **workload: int) -> Recording:
    simulate_job(job(*toggles, **workload), folder / "run.headroom")
    return read_recording(folder / "run.headroom")


def reserved(recording: Recording) -> tuple[int, int]:
    """Return the largest sums of reserved and of allocated bytes."""
    rows = recording.segments.to_pylist()
    signed = [row["bytes"] * (-1 if row["action"] in ("segment_free", "segment_unmap") else 1) for row in rows]
    blocks = Blocks.of(recording)
    on_gpu = np.flatnonzero(blocks.device == 0)
    change = np.zeros(blocks.num_events + 1, np.int64)
    np.add.at(change, blocks.birth_event[on_gpu], blocks.bytes[on_gpu])
    np.add.at(change, np.minimum(blocks.death_event[on_gpu], blocks.num_events), -blocks.bytes[on_gpu])
    return int(np.cumsum(signed).max()), int(np.cumsum(change).max())


@pytest.mark.parametrize("name", [*SWITCHES, *SETTINGS])
def test_on_a_cpu_they_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(SpecError, match=rf"^{name} applies to .* on GPUs, and the device is cpu\. Choose a GPU, or switch it off\.$"):
        validate(job(name, device="cpu"))


@pytest.mark.parametrize(
    ("toggles", "text"),
    [
        (("expandable-segments",), "expandable_segments:True"),
        (("max-split-size:mib=64",), "max_split_size_mb:64"),
        (("roundup-power2:divisions=4",), "roundup_power2_divisions:4"),
        (SETTINGS, "expandable_segments:True,max_split_size_mb:128,roundup_power2_divisions:8"),
    ],
)
def test_settings_are_torchs_text_and_the_model_reads_it(toggles: tuple[str, ...], text: str) -> None:
    assert setup_for(job(*toggles)).allocator_settings == text
    assert AllocatorConfig.parse(text) != AllocatorConfig()


@pytest.mark.parametrize("text", ["", "expandable_segments:True", "max_split_size_mb:64,roundup_power2_divisions:[64:2,256:4,>:8]"])
def test_settings_survive_being_told_as_a_snapshot_tells_them(text: str) -> None:
    config = AllocatorConfig.parse(text)
    assert AllocatorConfig.from_settings(config.to_settings()) == config


def test_switching_a_setting_on_again_replaces_it_and_keeps_the_others() -> None:
    again = switch_on(job("roundup-power2:divisions=4", "expandable-segments"), [Toggle.parse("roundup-power2:divisions=16")])
    assert {"expandable-segments", "roundup-power2:divisions=16"} == {str(toggle) for toggle in again.toggles} - {"adamw", "float32"}


def test_a_setting_below_what_torch_allows_is_refused() -> None:
    with pytest.raises(SpecError, match=re.escape("mib=20 is not possible. Use a whole number from 21 to")):
        validate(job("max-split-size:mib=20"))


def test_expandable_segments_reserve_whole_pages_of_what_is_allocated_and_little_more(tmp_path: Path) -> None:
    plain, expandable = simulated(tmp_path / "a"), simulated(tmp_path / "b", "expandable-segments")

    assert {row["action"] for row in plain.segments.to_pylist()} == {"segment_alloc"}
    assert {row["action"] for row in expandable.segments.to_pylist()} == {"segment_map"}
    assert {row["bytes"] % (2 * MIB) for row in expandable.segments.to_pylist()} == {0}
    assert reserved(plain)[1] - MIB < reserved(expandable)[1] <= reserved(plain)[1]  # of a block that is cut, less than 1 MiB stays uncut
    assert reserved(expandable)[1] < reserved(expandable)[0] < reserved(plain)[0]
    assert recorded_config(expandable).expandable_segments
    assert judge_fit(expandable, GPUS[GPU]).reserved_bytes == reserved(expandable)[0]


@pytest.mark.parametrize("divisions", [2, 8])
def test_rounding_up_makes_every_block_that_step_of_a_power_of_two(tmp_path: Path, divisions: int) -> None:
    recording = simulated(tmp_path, f"roundup-power2:divisions={divisions}", "expandable-segments")  # these leave nothing uncut
    events = recording.events.to_pylist()
    blocks = {(row["requested_bytes"], row["block_bytes"]) for row in events if row["action"] == "alloc" and row["device"] == 0}

    assert any(block % 512 == 0 and block > requested + 512 for requested, block in blocks)
    for requested, block in blocks:
        steps = [2**power * (divisions + step) // divisions for power in range(40) for step in range(divisions + 1)]
        if requested > 512 * divisions:
            assert block == min(step for step in steps if step >= requested)


def test_large_blocks_stay_whole_above_the_largest_split(tmp_path: Path) -> None:
    limit = 21 * MIB
    recording = simulated(tmp_path, "max-split-size:mib=21", batch=32, seq=256)
    segments = {row["address"]: row["bytes"] for row in recording.segments.to_pylist() if row["bytes"] >= limit}
    inside = [row for row in recording.events.to_pylist() if row["segment"] in segments]

    assert recorded_config(recording).max_split_size_bytes == limit
    assert segments
    assert {row["block_bytes"] for row in inside} <= set(segments.values())


@pytest.mark.parametrize(
    ("toggles", "note"),
    [
        (("tf32",), "tf32 changes time, not memory"),
        (("tf32", "bf16"), "tf32 changes nothing here: products are in bfloat16, not in float32."),
        (("cudnn-benchmark",), "cudnn-benchmark: 0 layers changed, since the model has no convolution."),
    ],
)
def test_a_switch_changes_no_byte_and_says_so(tmp_path: Path, toggles: tuple[str, ...], note: str) -> None:
    plain, switched = simulated(tmp_path / "a", *toggles[1:]), simulated(tmp_path / "b", *toggles)

    assert plain.events.select(["action", "requested_bytes", "block_bytes"]) == switched.events.select(
        ["action", "requested_bytes", "block_bytes"]
    )
    [found] = switched.metadata.facts["notes"]
    assert note in found


def test_tf32_makes_the_estimated_step_of_float32_shorter_and_says_so(tmp_path: Path) -> None:
    def step(*toggles: str) -> dict[str, Any]:
        return simulated(tmp_path, *toggles, batch=64, seq=512).metadata.facts

    plain, fast = step(), step("tf32")
    assert fast["estimated_step_seconds"] < plain["estimated_step_seconds"]
    assert "Products in float32 run as tf32." in fast["assumptions"]
    assert fast["flops_per_step"] == plain["flops_per_step"]


def test_switches_hold_around_the_steps_and_are_put_back() -> None:
    setup = setup_for(job(*SWITCHES))
    tf32, benchmark = setup.contexts
    before = torch.backends.cuda.matmul.fp32_precision
    with tf32(), benchmark():
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
        assert torch.backends.cudnn.benchmark
    assert torch.backends.cuda.matmul.fp32_precision == before
    assert not torch.backends.cudnn.benchmark


def test_convolutions_are_counted() -> None:
    setup = setup_for(job("cudnn-benchmark"))
    [transform] = setup.transforms
    transform(nn.Sequential(nn.Conv1d(1, 1, 1), nn.Conv2d(1, 1, 1), nn.Linear(1, 1)))
    assert "2 convolutions" in setup.notes[0]


def test_a_measurement_puts_settings_in_force_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", told.append)
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "garbage_collection_threshold:0.8")
    before = "expandable_segments:False,garbage_collection_threshold:0.8"
    with gpu_capture.allocating_with("max_split_size_mb:64"):
        assert told == [f"{before},max_split_size_mb:64"]
    assert told[1:] == [before]
    with gpu_capture.allocating_with(""):
        assert len(told) == 2


def test_torch_takes_the_text_that_is_put_in_force() -> None:
    with gpu_capture.allocating_with(setup_for(job(*SETTINGS)).allocator_settings):
        pass  # a text that torch cannot read fails, also without a GPU
    with pytest.raises(ValueError, match="power of 2"), gpu_capture.allocating_with("roundup_power2_divisions:3"):
        pass
