"""Recordings on a real GPU, held to the byte against torch's own statistics. Run with ``pytest -m gpu``."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from profiler import read_recording, record
from profiler.analysis.blocks import Lane
from profiler.analysis.summary import summarize
from profiler.analysis.timeline import Timeline
from profiler.capture.engine import capture_job
from profiler.recording import Recording, Role
from profiler.spec import Job, Model, Workload, WorkloadKind
from profiler.tracing.workspaces import workspace_sizes
from tests.capture.networks import Mlp, Residual, train_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("default"),  # drivers and libraries have their own
]

_GPU = Lane(0, 0)
_SIGNS = {"preexisting": 1, "segment_alloc": 1, "segment_map": 1, "segment_free": -1, "segment_unmap": -1}


@pytest.fixture(autouse=True)
def clean_gpu() -> None:
    torch.cuda.set_device(0)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def own_warnings(recording: Recording) -> list[str]:
    return [warning for warning in recording.metadata.warnings if not warning.startswith("NVML")]


def gpu_events(recording: Recording) -> Any:
    return recording.events.to_pandas().query("device == 0")


def requested(recording: Recording) -> np.ndarray[Any, Any]:
    """Return the bytes asked for by blocks in use, after every event; torch lowers them when a free is completed."""
    events = gpu_events(recording)
    sign = np.where(events.action.isin(["alloc", "preexisting"]), 1, np.where(events.action == "free_completed", -1, 0))
    return np.cumsum(sign * events.requested_bytes.to_numpy())


def reserved(recording: Recording) -> np.ndarray[Any, Any]:
    segments = recording.segments.to_pandas().query("device == 0")
    return np.cumsum(segments.action.map(_SIGNS).fillna(0).astype(int).to_numpy() * segments.bytes.to_numpy())


def assert_equals_torch(recording: Recording, stats: dict[str, Any]) -> None:
    assert own_warnings(recording) == []
    total = Timeline.of(recording, lane=_GPU).total
    assert int(total.max()) == stats["allocated_bytes.all.peak"]
    assert int(requested(recording).max()) == stats["requested_bytes.all.peak"]
    assert int(reserved(recording).max()) == stats["reserved_bytes.all.peak"]
    assert int(reserved(recording)[-1]) == stats["reserved_bytes.all.current"]


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-bert", "tiny-llama", "tiny-lstm"])
def test_training_equals_the_statistics_of_torch(tmp_path: Path, name: str) -> None:
    job = Job(model=Model(name=name), workload=Workload(kind=WorkloadKind.TRAIN, batch=4, seq=64, steps=2), device="cuda")
    capture_job(job, tmp_path / "train.headroom")
    recording = read_recording(tmp_path / "train.headroom")
    assert_equals_torch(recording, torch.cuda.memory_stats())
    assert recording.metadata.engine == "torch.profiler cuda"
    assert recording.metadata.device["kind"] == "cuda"
    assert recording.metadata.device["total_bytes"] == torch.cuda.get_device_properties(0).total_memory
    summary = summarize(recording)
    assert summary["categories_at_peak"].get("UNKNOWN", 0) <= 0.01 * summary["peak_allocated_bytes"]


@pytest.mark.parametrize("kind", [WorkloadKind.PREFILL, WorkloadKind.DECODE])
def test_inference_equals_the_statistics_of_torch(tmp_path: Path, kind: WorkloadKind) -> None:
    job = Job(model=Model(name="tiny-llama"), workload=Workload(kind=kind, batch=2, seq=64, steps=1, new_tokens=4), device="cuda")
    capture_job(job, tmp_path / "inference.headroom")
    assert_equals_torch(read_recording(tmp_path / "inference.headroom"), torch.cuda.memory_stats())


def test_every_block_has_its_bytes_its_segment_and_where_it_was_asked_for(tmp_path: Path) -> None:
    model = Residual().cuda()
    optimizer = torch.optim.AdamW(model.parameters())
    with record(tmp_path / "run", model=model, optimizer=optimizer) as r:
        for _ in range(2):
            train_step(model, optimizer, torch.randn(32, 64, device="cuda"), torch.randint(0, 10, (32,), device="cuda"))
            r.step()
    recording = read_recording(r.path)
    born = gpu_events(recording).query("action == 'alloc'")
    assert born[["requested_bytes", "block_bytes", "pool", "segment", "stream"]].notna().all(axis=None)
    assert (born.requested_bytes <= born.block_bytes).all()
    stacks = dict(zip(recording.stacks["stack"].to_pylist(), recording.stacks["frames"].to_pylist(), strict=True))
    assert any("torch/nn/modules/linear.py" in stacks[int(stack)] for stack in born.stack.dropna())  # backward's thread has no Python
    gradients = born[(born.step == 1) & ((born.roles & int(Role.GRADIENT)) != 0)]
    owners = dict(zip(gradients.tensor, gradients.module, strict=True))
    assert owners == {f"{name}.grad": name.rpartition(".")[0] for name, _ in model.named_parameters()}


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_backward_recomputes_on_its_own_thread_is_named(tmp_path: Path, reentrant: bool) -> None:
    model = Residual(partial(checkpoint, use_reentrant=reentrant, preserve_rng_state=False)).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(tmp_path / "checkpointed", model=model, optimizer=optimizer) as r:
        for _ in range(2):
            x = torch.randn(32, 64, device="cuda", requires_grad=reentrant)
            train_step(model, optimizer, x, torch.randint(0, 10, (32,), device="cuda"))
            r.step()
    events = gpu_events(read_recording(r.path))
    recomputed = events[(events.step == 1) & (events.phase == "backward") & ((events.roles & int(Role.RECOMPUTED)) != 0)]
    saved = recomputed[(recomputed.roles & int(Role.SAVED | Role.SAVED_BY_HOOK)) != 0]
    assert set(saved.module) == {path for i in range(4) for path in (f"blocks.{i}", f"blocks.{i}.up")}


def test_workspaces_of_cublas_are_found(tmp_path: Path) -> None:
    torch._C._cuda_clearCublasWorkspaces()
    with record(tmp_path / "products") as r:
        product = torch.randn(64, 64, device="cuda") @ torch.randn(64, 64, device="cuda")
    born = gpu_events(read_recording(r.path)).query("action == 'alloc'")
    workspaces = born[(born.roles & int(Role.WORKSPACE)) != 0]
    assert len(workspaces) == 1
    assert set(workspaces.requested_bytes) <= workspace_sizes()
    assert product.shape == (64, 64)


def test_a_block_that_another_stream_uses_is_completed_later(tmp_path: Path) -> None:
    side = torch.cuda.Stream()
    with record(tmp_path / "streams") as r:
        tensor = torch.zeros(1_000_003, device="cuda")
        with torch.cuda.stream(side):
            torch.cuda._sleep(100_000_000)
            tensor.record_stream(side)
        del tensor
        torch.zeros(7, device="cuda")
        torch.cuda.synchronize()
        torch.zeros(7, device="cuda")
    events = gpu_events(read_recording(r.path))
    actions = events[events.requested_bytes == 4_000_012].action.tolist()
    assert actions == ["alloc", "free_requested", "free_completed"]
    between = events.loc[events.query("requested_bytes == 4000012 and action != 'alloc'").index[0] + 1 :]
    assert between.action.iloc[0] == "alloc"


def test_threads_without_the_profiler_are_counted(tmp_path: Path) -> None:
    kept: list[torch.Tensor] = []
    with record(tmp_path / "threads") as r:
        torch.ones(10, device="cuda")
        thread = threading.Thread(target=lambda: kept.append(torch.ones(3_000_000, device="cuda")))
        thread.start()
        thread.join()
    recording = read_recording(r.path)
    assert int(Timeline.of(recording, lane=_GPU).total[-1]) == torch.cuda.memory_allocated()
    assert any("ran where torch.profiler does not see them" in warning for warning in own_warnings(recording))
    assert kept[0].numel() == 3_000_000


def test_running_out_of_memory_ends_with_a_recording(tmp_path: Path) -> None:
    with pytest.raises(torch.OutOfMemoryError), record(tmp_path / "oom"):
        torch.empty(2**45, dtype=torch.uint8, device="cuda")
    recording = read_recording(tmp_path / "oom.headroom")
    assert recording.metadata.facts["ooms"][-1]["requested_bytes"] == 2**45
    assert "oom" in recording.segments["action"].to_pylist()
    assert recording.metadata.facts["out_of_memory"] is True


@pytest.mark.slow
def test_memory_stays_flat_over_a_thousand_steps(tmp_path: Path) -> None:
    model = Mlp().cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(5, 8, device="cuda"), torch.randint(0, 4, (5,), device="cuda")
    process = psutil.Process()
    early = 0
    with record(tmp_path / "long", model=model, optimizer=optimizer) as r:
        for step in range(1000):
            train_step(model, optimizer, x, y)
            r.step()
            if step == 200:
                early = process.memory_info().rss
        grown = process.memory_info().rss - early
    assert grown < 16 * 1024**2
    assert own_warnings(read_recording(r.path)) == []
