"""Jobs run for real on this machine's CPU, held against what torch itself reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import torch

from profiler import read_recording
from profiler.analysis.summary import summarize
from profiler.analysis.timeline import Timeline
from profiler.capture import window
from profiler.capture.engine import capture_job
from profiler.errors import CaptureUnavailable, SpecError
from profiler.models.catalogue import CATALOGUE
from profiler.models.config import Head
from profiler.recording import Category, Phase, Recording
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind
from profiler.tracing.progress import Progress

TINY = [name for name, entry in CATALOGUE.items() if entry.tiny]
ORACLES = ["tiny-gpt2", "tiny-bert", "tiny-llama", "tiny-lstm"]


def job(name: str, kind: WorkloadKind = WorkloadKind.TRAIN, **workload: int) -> Job:
    return Job(model=Model(name=name), workload=Workload(kind=kind, **{"batch": 2, "seq": 64, "steps": 1, "new_tokens": 4, **workload}))


def capture(path: Path, wanted: Job) -> Recording:
    capture_job(wanted, path)
    return read_recording(path)


@pytest.fixture
def chrome_traces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Export every profiler window as torch's own Chrome trace too: a second way to the same events."""
    traces: list[Path] = []
    stop = window.Window.stop

    def exported(self: window.Window, notes: list[window.Note]) -> window.RawWindow:
        self._profile.stop()
        traces.append(tmp_path / f"trace{len(traces)}.json")
        self._profile.export_chrome_trace(str(traces[-1]))
        self._profile.stop = lambda: None
        return stop(self, notes)

    monkeypatch.setattr(window.Window, "stop", exported)
    return traces


def torch_totals(traces: list[Path]) -> tuple[list[int], list[int]]:
    """Return the bytes of each of torch's memory events, and torch's own running total at it."""
    memory = []
    for trace in traces:
        events = json.loads(trace.read_text())["traceEvents"]
        found = [event for event in events if event["name"] == "[memory]"]
        memory += sorted(found, key=lambda event: event["ts"])
    return [event["args"]["Bytes"] for event in memory], [event["args"]["Total Allocated"] for event in memory]


@pytest.mark.parametrize("kind", [WorkloadKind.TRAIN, WorkloadKind.PREFILL])
@pytest.mark.parametrize("name", ORACLES)
def test_the_timeline_equals_torchs_own_events_byte_for_byte(
    tmp_path: Path, chrome_traces: list[Path], name: str, kind: WorkloadKind
) -> None:
    recording = capture(tmp_path / "exact.headroom", job(name, kind))

    torch_bytes, torch_total = torch_totals(chrome_traces)
    events = recording.events.to_pandas()
    reported = events.action.isin(["alloc", "free_completed"]).to_numpy()
    timeline = Timeline.of(recording)
    baseline = int(events[events.action == "preexisting"].requested_bytes.sum())
    offset = torch_total[0] - torch_bytes[0]
    signed = np.where(events.action == "alloc", events.requested_bytes, -events.requested_bytes)[reported]
    assert signed.tolist() == torch_bytes
    assert timeline.total[reported].tolist() == [total - offset + baseline for total in torch_total]
    counted = events.step.to_numpy()[reported] >= recording.metadata.warmup_steps
    assert timeline.peak_bytes == max(np.asarray(torch_total)[counted]) - offset + baseline


@pytest.mark.parametrize("kind", list(WorkloadKind))
@pytest.mark.parametrize("name", TINY)
def test_unknown_stays_under_one_percent_at_the_peak(tmp_path: Path, name: str, kind: WorkloadKind) -> None:
    if kind is WorkloadKind.DECODE and CATALOGUE[name].head is Head.MASKED_LM:
        with pytest.raises(SpecError, match="cannot decode"):
            capture_job(job(name, kind), tmp_path / "refused.headroom")
        assert not list(tmp_path.iterdir())
        return
    recording = capture(tmp_path / "family.headroom", job(name, kind))
    timeline = Timeline.of(recording)
    at_peak = timeline.categories_at(timeline.peak_event)
    assert sum(at_peak.values()) == timeline.peak_bytes > 0
    preexisting = recording.events.filter(pc.equal(recording.events["action"], "preexisting"))
    left = pc.sum(preexisting["requested_bytes"]).as_py() or 0  # by other tests of this process
    assert at_peak.get(Category.UNKNOWN, 0) - left < 0.01 * (timeline.peak_bytes - left)
    assert not recording.metadata.warnings or all("NVML" in warning for warning in recording.metadata.warnings)


def test_parameters_gradients_and_adam_states_have_the_bytes_of_the_formula(tmp_path: Path) -> None:
    recording = capture(tmp_path / "formula.headroom", job("tiny-gpt2"))
    num_parameters = recording.metadata.facts["num_parameters"]
    num_tensors = len({name for name in recording.events["tensor"].to_pylist() if name and name.endswith(".step")})
    events = recording.events.to_pandas()
    last_backward = int(np.flatnonzero((events.step == 1) & (events.phase == Phase.BACKWARD.value))[-1])
    at_end = Timeline.of(recording).categories_at(last_backward)
    assert num_parameters == CATALOGUE["tiny-gpt2"].num_parameters
    assert at_end[Category.PARAMETER] == 4 * num_parameters
    assert at_end[Category.GRADIENT] == 4 * num_parameters
    assert at_end[Category.OPTIMIZER_STATE] == 8 * num_parameters + 4 * num_tensors


def test_the_kv_cache_has_the_bytes_of_the_formula_at_every_token(tmp_path: Path) -> None:
    prompt, new = 64, 4
    recording = capture(tmp_path / "decode.headroom", job("tiny-llama", WorkloadKind.DECODE, seq=prompt, new_tokens=new))
    config = CATALOGUE["tiny-llama"].config
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    per_token = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head_dim * 4 * 2  # K and V, float32, batch 2
    timeline = Timeline.of(recording)
    events = recording.events.to_pandas()
    last = int(np.flatnonzero((events.step == 1) & (events.phase == Phase.DECODE.value))[-1])
    assert timeline.categories_at(last)[Category.KV_CACHE] == per_token * (prompt + new)


def test_a_second_run_of_a_job_has_the_same_peak_and_the_same_loss(tmp_path: Path) -> None:
    first, second = (capture(tmp_path / f"{i}.headroom", job("tiny-lstm", steps=2)) for i in range(2))
    assert summarize(first)["peak_allocated_bytes"] == summarize(second)["peak_allocated_bytes"]
    assert first.scalars.to_pylist() == second.scalars.to_pylist()
    assert [row["step"] for row in first.scalars.to_pylist()] == [0, 1, 2]


def test_garbage_of_before_is_no_part_of_a_recording(tmp_path: Path) -> None:
    cycle: list[object] = [torch.zeros(54_321)]
    cycle.append(cycle)
    del cycle

    recording = capture(tmp_path / "garbage.headroom", job("tiny-lstm"))

    assert 4 * 54_321 not in recording.events["requested_bytes"].to_pylist()


def test_phases_stand_in_the_order_of_the_statements(tmp_path: Path) -> None:
    recording = capture(tmp_path / "phases.headroom", job("tiny-gpt2"))
    marks = recording.marks.to_pandas()
    phases = marks[(marks.kind == "phase") & (marks.step == 1)].name.tolist()
    assert phases == ["data", "forward", "backward", "optimizer", "zero_grad"]
    assert marks[marks.kind == "step"].step.tolist() == [0, 1]
    assert (marks[marks.kind == "phase"].step.iloc[0], marks[marks.kind == "phase"].name.iloc[0]) == (-1, "build")


def test_half_precision_halves_weights_and_keeps_the_attribution(tmp_path: Path) -> None:
    wanted = Job(model=Model(name="tiny-gpt2"), workload=Workload(batch=2, seq=64, steps=1), toggles=(Toggle("bfloat16"),))
    recording = capture(tmp_path / "bf16.headroom", wanted)
    summary = summarize(recording)
    assert summary["categories_at_peak"]["PARAMETER"] == 2 * CATALOGUE["tiny-gpt2"].num_parameters
    assert recording.metadata.job is not None
    assert "bfloat16" in recording.metadata.job["toggles"]


def test_progress_names_every_phase(tmp_path: Path) -> None:
    seen: list[Progress] = []
    capture_job(job("tiny-lstm"), tmp_path / "progress.headroom", progress=seen.append)
    assert {progress.phase for progress in seen} >= {"build", "data", "forward", "backward", "optimizer", "zero_grad"}
    assert {progress.num_steps for progress in seen} == {2}
    assert max(progress.allocated_bytes or 0 for progress in seen) > 0


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "rtx-4090", "tpu"])
def test_a_device_that_is_not_here_is_refused_before_anything_is_written(tmp_path: Path, device: str) -> None:
    import torch

    if device.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    wanted = Job(model=Model(name="tiny-gpt2"), device=device)
    with pytest.raises((CaptureUnavailable, SpecError)):
        capture_job(wanted, tmp_path / "nowhere.headroom")
    assert not list(tmp_path.iterdir())


def test_what_was_there_before_a_job_is_no_part_of_it(tmp_path: Path) -> None:
    wanted = job("tiny-lstm", WorkloadKind.PREFILL, batch=1, seq=8)
    alone = capture(tmp_path / "alone.headroom", wanted)
    held = torch.ones(1_000_003)
    beside = capture(tmp_path / "beside.headroom", wanted)

    assert held.nbytes not in beside.events["requested_bytes"].to_pylist()
    assert Timeline.of(beside).peak_bytes == Timeline.of(alone).peak_bytes
