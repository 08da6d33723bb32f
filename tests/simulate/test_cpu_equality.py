"""A simulated step on the CPU equals a measured one: bytes at every phase's end, its peak, and every category at the peak."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from profiler import read_recording
from profiler.analysis.equality import compare_recordings
from profiler.capture.engine import capture_job
from profiler.recording import Recording
from profiler.simulate.engine import simulate_job
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind


@pytest.fixture(autouse=True)
def _without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN keeps scratch of its own that no operator shows."""
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)


def recordings(folder: Path, model: str, kind: str, *toggles: str) -> tuple[Recording, Recording]:
    job = Job(
        model=Model(name=model),
        workload=Workload(kind=WorkloadKind(kind), batch=2, seq=48, steps=1, new_tokens=3),
        toggles=tuple(Toggle.parse(text) for text in toggles),
    )
    gc.collect()  # models of earlier tests that refer to themselves would count as memory that was there before
    capture_job(job, folder / "measured.headroom")
    simulate_job(job, folder / "simulated.headroom")
    return read_recording(folder / "measured.headroom"), read_recording(folder / "simulated.headroom")


MODELS = ("tiny-gpt2", "tiny-bert", "tiny-llama", "tiny-lstm", "tiny-t5", "tiny-qwen")
KINDS = ("train", "prefill", "decode")
ENCODERS = ("tiny-bert",)


@pytest.mark.parametrize(
    ("model", "kind"), [(model, kind) for model in MODELS for kind in KINDS if kind != "decode" or model not in ENCODERS]
)
def test_simulated_bytes_are_the_measured_ones(tmp_path: Path, model: str, kind: str) -> None:
    measured, simulated = recordings(tmp_path, model, kind)
    assert_equal(measured, simulated)


@pytest.mark.parametrize(
    ("model", "toggles"),
    [
        ("tiny-llama", ("checkpointing",)),
        ("tiny-gpt2", ("checkpointing:every=2", "bfloat16")),
        ("tiny-llama", ("lora:rank=4",)),
        ("tiny-llama", ("eager", "sgd:momentum=0.9")),
        ("tiny-qwen", ("math",)),
        ("tiny-llama", ("adamw:implementation=foreach",)),
        ("tiny-gpt2", ("adafactor",)),
        ("tiny-llama", ("amp",)),
        ("tiny-qwen", ("amp", "checkpointing")),
        ("tiny-bert", ("amp",)),
        ("tiny-gpt2", ("amp:dtype=float16",)),
    ],
)
def test_toggles_change_a_simulation_as_they_change_a_measurement(tmp_path: Path, model: str, toggles: tuple[str, ...]) -> None:
    measured, simulated = recordings(tmp_path, model, "train", *toggles)
    assert_equal(measured, simulated)


def test_inference_in_mixed_precision_casts_weights_at_every_use(tmp_path: Path) -> None:
    measured, simulated = recordings(tmp_path, "tiny-llama", "decode", "amp")
    assert_equal(measured, simulated)


def assert_equal(measured: Recording, simulated: Recording) -> None:
    """Hold every phase, the peak and its categories to the byte."""
    equality = compare_recordings(measured, simulated)
    assert equality.largest_difference == 0, [phase for phase in equality.phases if phase.end.difference or phase.peak.difference]
