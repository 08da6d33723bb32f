"""How the recorder uses the CUDA allocator's history: torch's own functions are replaced, the rest is real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from profiler import read_recording
from profiler.allocator.recorded import recorded
from profiler.analysis.allocator_settings import text_of
from profiler.capture import gpu, recorder
from profiler.capture.cuda_history import MAX_ENTRIES, CudaHistory
from profiler.capture.recorder import Recorder
from tests.capture.fake_gpu import FakeGpu
from tests.capture.networks import Mlp, train_step

RecordHistory = Callable[..., None]


class Cuda:
    """Stands where torch.cuda's functions are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Any, dict[str, Any]]] = []
        self.gpu = FakeGpu()
        self.backend, self.enabled, self.broken = "native", False, False
        monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", self.newer)
        monkeypatch.setattr(torch.cuda.memory, "_snapshot", self.snapshot)
        monkeypatch.setattr(torch.cuda.memory, "get_allocator_backend", lambda: self.backend)
        monkeypatch.setattr(torch._C, "_cuda_isHistoryEnabled", lambda: self.enabled, raising=False)
        monkeypatch.setattr(recorder, "describe_gpu", lambda: {"kind": "cuda", "name": "Fake"})
        monkeypatch.setattr(gpu, "workspace_sizes", frozenset)

    def newer(
        self, enabled: str | None = "all", context: str = "", stacks: str = "", max_entries: int = 0, clear_history: bool = False
    ) -> None:
        self.calls.append((enabled, {"clear_history": clear_history, "context": context, "stacks": stacks, "max_entries": max_entries}))

    def older(self, enabled: str | None = "all", context: str = "", stacks: str = "", max_entries: int = 0) -> None:
        self.calls.append((enabled, {}))

    def snapshot(self) -> dict[str, Any]:
        if self.broken:
            raise RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA")
        return self.gpu.window()[1]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return Cuda(monkeypatch)


def record_two_steps(path: Path, between: Callable[[], None] = lambda: None) -> Any:
    model = Mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recording = Recorder(path, on_gpu=True)
    recording.start(model, optimizer)
    for _ in range(2):
        train_step(model, optimizer, torch.randn(5, 8), torch.randint(0, 4, (5,)))
        recording.step()
        between()
    recording.stop()
    return read_recording(recording.path)


def own_warnings(recording: Any) -> list[str]:
    return [warning for warning in recording.metadata.warnings if not warning.startswith("NVML")]


def test_the_history_is_bounded_and_emptied_at_every_window(cuda: Cuda) -> None:
    history = CudaHistory()
    history.start()
    history.take()
    history.stop()
    assert [enabled for enabled, _ in cuda.calls] == ["all", "all", "all", None]
    assert [options["clear_history"] for _, options in cuda.calls] == [False, True, True, False]
    assert all(options["max_entries"] == MAX_ENTRIES and options["stacks"] == "python" for _, options in cuda.calls[:-1])


def test_an_older_torch_is_emptied_by_switching_off_and_on(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", cuda.older)
    CudaHistory().start()
    assert [enabled for enabled, _ in cuda.calls] == ["all", None, "all"]


def test_a_recording_holds_what_only_the_history_saw(cuda: Cuda, tmp_path: Path) -> None:
    kept = cuda.gpu.malloc(1000)

    recording = record_two_steps(tmp_path / "run", between=lambda: cuda.gpu.free(cuda.gpu.malloc(700)))

    events = recording.events.to_pandas().query("device == 0")
    assert events.action.tolist() == ["preexisting", *["alloc", "free_requested", "free_completed"] * 2]
    assert events.address.tolist()[0] == kept
    assert recording.segments["action"].to_pylist() == ["preexisting"]
    assert recording.stacks.num_rows == 1
    assert recording.metadata.engine == "torch.profiler cuda"
    assert recording.metadata.device == {"kind": "cuda", "name": "Fake"}
    assert own_warnings(recording) == ["4 allocations and frees on GPUs ran where torch.profiler does not see them: they have no operator."]
    assert cuda.calls[-1][0] is None


def test_the_settings_of_the_allocator_are_those_that_a_replay_begins_with(cuda: Cuda, tmp_path: Path) -> None:
    cuda.gpu.settings = {
        "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:128,garbage_collection_threshold:0.8",
        "max_split_size": 128 * 2**20,
        "garbage_collection_threshold": 0.8,
        "expandable_segments": False,
        "roundup_power2_divisions": {str(1 << slot): 4 for slot in range(16)},
    }
    cuda.gpu.malloc(1000)

    recording = record_two_steps(tmp_path / "run")

    assert recording.metadata.facts["allocator_settings"] == cuda.gpu.settings
    config = recorded(recording).config
    assert text_of(config) == "max_split_size_mb:128,garbage_collection_threshold:0.8,roundup_power2_divisions:4"
    assert config.torch_version == tuple(int(part) for part in torch.__version__.split(".")[:2])


def test_a_program_that_keeps_a_history_itself_is_left_alone(cuda: Cuda, tmp_path: Path) -> None:
    cuda.enabled = True
    recording = record_two_steps(tmp_path / "run")
    assert cuda.calls == []
    assert "was left alone" in own_warnings(recording)[0]


def test_an_allocator_without_a_history_is_said(cuda: Cuda, tmp_path: Path) -> None:
    cuda.backend = "cudaMallocAsync"
    assert "cudaMallocAsync, which keeps no history" in own_warnings(record_two_steps(tmp_path / "run"))[0]


def test_a_gpu_that_fails_does_not_lose_the_recording(cuda: Cuda, tmp_path: Path) -> None:
    def fail() -> None:
        cuda.broken = True

    recording = record_two_steps(tmp_path / "run", between=fail)
    assert own_warnings(recording) == [
        "The CUDA allocator's history ends early, because the GPU failed: CUDA error: device-side assert triggered"
    ]
    assert set(recording.events["step"].to_pylist()) >= {0, 1}
