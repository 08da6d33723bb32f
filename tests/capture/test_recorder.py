"""record(): any PyTorch loop, its categories counted by hand."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch.nn.modules import module as module_hooks
from torch.optim.optimizer import _global_optimizer_post_hooks
from torch.utils.checkpoint import checkpoint

from profiler import read_recording, record
from profiler.analysis.attribution import module_tree
from profiler.analysis.summary import summarize
from profiler.analysis.timeline import Timeline
from profiler.errors import CaptureUnavailable, SpecError, StorageError
from profiler.recording import Category, Phase, Recording, Role
from profiler.storage import recover
from tests.capture.networks import Mlp, Residual, train_step


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_hook_is_left() -> None:
    yield
    assert not module_hooks._global_forward_pre_hooks
    assert not module_hooks._global_forward_hooks
    assert not _global_optimizer_post_hooks


def phase_end(recording: Recording, step: int, phase: Phase) -> int:
    """Return the last event of a phase."""
    events = recording.events.to_pandas()
    return int(np.flatnonzero((events.step == step) & (events.phase == phase.value))[-1])


def categories_at_end(recording: Recording, step: int, phase: Phase) -> dict[Category, int]:
    timeline = Timeline.of(recording)
    return {name: size for name, size in timeline.categories_at(phase_end(recording, step, phase)).items() if size}


def record_steps(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, num_steps: int = 2, batch: int = 5) -> Recording:
    width = next(model.parameters()).shape[1]
    with record(path, model=model, optimizer=optimizer) as r:
        for _ in range(num_steps):
            with r.phase(Phase.DATA):
                x, y = torch.randn(batch, width), torch.randint(0, 4, (batch,))
            train_step(model, optimizer, x, y)
            r.step()
    return read_recording(r.path)


def bytes_of_libraries(recording: Recording) -> int:
    """Return the bytes of tensors that were there before the recording and that nobody named: what libraries keep in their globals."""
    rows = recording.events.select(["action", "roles", "requested_bytes"]).to_pylist()
    return sum(row["requested_bytes"] for row in rows if row["action"] == "preexisting" and not row["roles"])


def test_every_category_of_a_two_layer_network_equals_a_hand_count(tmp_path: Path) -> None:
    model = Mlp()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    weights = 4 * (8 * 16 + 16 + 16 * 4 + 4)  # float32
    moments_and_steps = 2 * weights + 4 * 4  # two moments, and one float32 counter for each of four tensors
    batch = 5 * 8 * 4 + 5 * 8  # x in float32 and y in int64
    hidden = 5 * 16 * 4  # what ReLU returns: saved by ReLU and by the second layer
    log_probabilities, losses = 5 * 4 * 4, 4 + 4  # the loss, and the sum of its weights

    recording = record_steps(tmp_path / "mlp", model, optimizer)

    loss_gradient = 4  # backward() begins with a one
    forward = categories_at_end(recording, 1, Phase.FORWARD)
    assert forward.pop(Category.UNKNOWN, 0) == bytes_of_libraries(recording)
    assert forward == {
        Category.PARAMETER: weights,
        Category.OPTIMIZER_STATE: moments_and_steps,
        Category.ACTIVATION: hidden,
        Category.LOGITS: log_probabilities + losses + loss_gradient,  # nobody holds the logits themselves any more
        Category.INPUT: batch,
    }
    backward = categories_at_end(recording, 1, Phase.BACKWARD)
    assert backward[Category.GRADIENT] == weights
    assert Category.ACTIVATION not in backward
    assert backward.get(Category.UNKNOWN, 0) == bytes_of_libraries(recording)


def test_tensors_are_named_by_parameter_gradient_and_state(tmp_path: Path) -> None:
    model = Mlp()
    recording = record_steps(tmp_path / "named", model, torch.optim.AdamW(model.parameters(), foreach=False))
    names = {name for name in recording.events["tensor"].to_pylist() if name}
    assert {"first.weight", "second.bias", "first.weight.grad", "second.bias.grad"} <= names
    assert {"first.weight.exp_avg", "second.bias.exp_avg_sq", "first.bias.step"} <= names


def test_backward_allocations_are_attributed_to_the_forward_module(tmp_path: Path) -> None:
    model = Residual()
    recording = record_steps(tmp_path / "modules", model, torch.optim.SGD(model.parameters(), lr=0.1))
    events = recording.events.to_pandas()
    gradients = events[(events.step == 1) & (events.action == "alloc") & ((events.roles & int(Role.GRADIENT)) != 0)]
    assert len(gradients) == len(list(model.parameters()))
    owners = dict(zip(gradients.tensor, gradients.module, strict=True))
    assert owners == {f"{name}.grad": name.rpartition(".")[0] for name, _ in model.named_parameters()}


def test_a_model_is_the_parent_of_its_layers_in_the_tree_of_modules(tmp_path: Path) -> None:
    model = Mlp()
    recording = record_steps(tmp_path / "run", model, torch.optim.SGD(model.parameters(), lr=0.1))

    assert recording.metadata.facts["layers"] == {"Mlp": ["first", "second"]}
    tree = module_tree(timeline := Timeline.of(recording), timeline.peak_event)
    assert {"all.Mlp.first", "all.Mlp.second"} <= set(tree["id"])
    assert not {"all.first", "all.second"} & set(tree["id"])


def test_recording_does_not_change_what_the_program_allocates(tmp_path: Path) -> None:
    def run() -> list[int]:
        torch.manual_seed(0)
        model = Residual()
        optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
        x, y = torch.randn(32, 64), torch.randint(0, 10, (32,))
        train_step(model, optimizer, x, y)
        with torch.profiler.profile(profile_memory=True) as profile:
            train_step(model, optimizer, x, y)
        nodes = list(profile.profiler.kineto_results.experimental_event_tree())
        sizes = []
        while nodes:
            node = nodes.pop(0)
            if node.name == "[memory]":
                sizes.append((node.start_time_ns, node.extra_fields.alloc_size))
            nodes.extend(node.children)
        return [size for _, size in sorted(sizes)]

    plain = run()
    torch.manual_seed(0)
    model = Residual()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    x, y = torch.randn(32, 64), torch.randint(0, 10, (32,))
    train_step(model, optimizer, x, y)
    with record(tmp_path / "same", model=model, optimizer=optimizer):
        train_step(model, optimizer, x, y)
    events = read_recording(tmp_path / "same.headroom").events.to_pandas()
    events = events[events.action != "preexisting"]
    signed = np.where(events.action == "alloc", events.requested_bytes, -events.requested_bytes)
    assert signed.tolist() == plain


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_activations_are_those_held_and_those_recomputed(tmp_path: Path, reentrant: bool) -> None:
    batch, hidden, wide = 32, 32 * 64 * 4, 32 * 256 * 4
    model = Residual(partial(checkpoint, use_reentrant=reentrant, preserve_rng_state=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(tmp_path / "checkpointed", model=model, optimizer=optimizer) as r:
        for _ in range(2):
            with r.phase(Phase.DATA):
                x, y = torch.randn(batch, 64, requires_grad=reentrant), torch.randint(0, 10, (batch,))
            train_step(model, optimizer, x, y)
            del x, y
            r.step()
    recording = read_recording(tmp_path / "checkpointed.headroom")

    forward = categories_at_end(recording, 1, Phase.FORWARD)
    block_outputs = 4  # of the inputs of four blocks and of the head, the first is the batch
    assert forward[Category.ACTIVATION] == block_outputs * hidden
    events = recording.events.to_pandas()
    recomputed = events[(events.step == 1) & (events.phase == "backward") & ((events.roles & int(Role.RECOMPUTED)) != 0)]
    saved = recomputed[(recomputed.roles & int(Role.SAVED | Role.SAVED_BY_HOOK)) != 0]
    assert sorted(saved.requested_bytes) == [wide] * 8  # what GELU takes and returns, in each of four blocks
    assert set(saved.module) == {name for i in range(4) for name in (f"blocks.{i}", f"blocks.{i}.up")}


def test_offloaded_copies_are_activations(tmp_path: Path) -> None:
    def pack(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone()

    model = Residual()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(tmp_path / "offloaded", model=model, optimizer=optimizer) as r:
        x, y = torch.randn(32, 64), torch.randint(0, 10, (32,))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed):
            loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        r.step()
    events = read_recording(tmp_path / "offloaded.headroom").events.to_pandas()
    offloaded = events[(events.roles & int(Role.OFFLOADED)) != 0]
    assert (offloaded.operator == "aten::clone").all()
    assert len(offloaded) >= 4 * 3


def test_what_existed_before_is_counted_and_its_end_is_seen(tmp_path: Path) -> None:
    model = Mlp()
    kept = torch.ones(10_007)
    dropped = torch.ones(5_003)
    with record(tmp_path / "before", model=model):
        del dropped
        torch.ones(1)
    events = read_recording(tmp_path / "before.headroom").events.to_pandas()
    sizes = events[events.action == "preexisting"].requested_bytes.tolist()
    assert {40_028, 20_012, 8 * 16 * 4, 16 * 4} <= set(sizes)
    freed = events[events.action == "free_completed"].requested_bytes.tolist()
    assert 20_012 in freed
    assert 40_028 not in freed
    assert kept.numel() == 10_007


def test_batches_from_foreign_memory_come_and_go(tmp_path: Path) -> None:
    model = Mlp()
    with record(tmp_path / "numpy", model=model):
        for _ in range(3):
            batch = torch.from_numpy(np.zeros((50, 8), np.float32))
            model(batch)
            del batch
    events = read_recording(tmp_path / "numpy.headroom").events.to_pandas()
    batches = events[events.requested_bytes == 50 * 8 * 4]
    assert batches.action.tolist() == ["preexisting", "free_completed"] * 3


def test_a_graph_that_is_never_run_backward_is_freed_as_without_a_recording(tmp_path: Path) -> None:
    model = Mlp()
    x = torch.randn(5, 8)
    gc.disable()
    try:
        with record(tmp_path / "forward_only", model=model) as r:
            for _ in range(3):
                model(x)
                r.step()
    finally:
        gc.enable()
    events = read_recording(r.path).events.to_pandas()
    assert (events.action == "alloc").sum() == (events.action == "free_completed").sum() > 0


def test_without_saved_tensor_hooks_torch_func_runs_and_activations_are_told_by_their_end(tmp_path: Path) -> None:
    model = Residual()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(tmp_path / "func", model=model, optimizer=optimizer, saved_tensors=False) as r:
        torch.func.grad(lambda x: (x.sin() * x).sum())(torch.randn(3))
        train_step(model, optimizer, torch.randn(32, 64), torch.randint(0, 10, (32,)))
    forward = categories_at_end(read_recording(r.path), 0, Phase.FORWARD)
    hidden, wide = 32 * 64 * 4, 32 * 256 * 4
    assert forward[Category.ACTIVATION] == 4 * (2 * wide + hidden)  # of each block: GELU's input and output, and what the block returns


def test_compiled_functions_are_recorded(tmp_path: Path) -> None:
    compiled = torch.compile(lambda x: (x.sin() * x).sum(), backend="aot_eager")
    with record(tmp_path / "compiled") as r:
        compiled(torch.randn(1000, requires_grad=True)).backward()
    assert summarize(read_recording(r.path))["peak_allocated_bytes"] > 4000


def test_steps_are_found_where_nobody_says_them(tmp_path: Path) -> None:
    model = Mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(tmp_path / "found"):
        for _ in range(3):
            train_step(model, optimizer, torch.randn(5, 8), torch.randint(0, 4, (5,)))
    recording = read_recording(tmp_path / "found.headroom")
    assert summarize(recording)["steps"] == [0, 1, 2]
    phases = recording.marks.to_pandas().query("kind == 'phase' and step == 1").name.tolist()
    assert phases == ["forward", "backward", "optimizer", "zero_grad"]


def test_marks_of_the_program_outrank_derived_phases_and_regions_are_kept(tmp_path: Path) -> None:
    model = Mlp()
    with record(tmp_path / "marked") as r:
        with r.phase("prefill"), torch.no_grad():
            model(torch.randn(5, 8))
        with r.region("my region"), torch.no_grad():
            model(torch.randn(5, 8))
        r.scalar("loss", 1.5)
    recording = read_recording(tmp_path / "marked.headroom")
    marks = recording.marks.to_pandas()
    assert marks[marks.kind == "phase"].name.tolist() == ["prefill", "forward"]
    assert marks[marks.kind == "region"].name.tolist() == ["my region"]
    assert recording.scalars.to_pylist() == [{"step": 0, "name": "loss", "value": 1.5}]


def test_an_out_of_memory_error_ends_with_a_recording_of_what_was_alive(tmp_path: Path) -> None:
    model = Mlp()
    held = torch.ones(250_000)
    with pytest.raises(RuntimeError, match="can't allocate memory"), record(tmp_path / "oom", model=model):
        torch.empty(2**60)
    recording = read_recording(tmp_path / "oom.headroom")
    assert recording.metadata.facts["out_of_memory"] is True
    assert any("ran out of memory in step 0" in warning for warning in recording.metadata.warnings)
    assert summarize(recording)["final_allocated_bytes"] >= held.nbytes


def test_a_second_profiler_is_refused_in_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    with torch.profiler.profile(), pytest.raises(CaptureUnavailable, match="only one can run at a time"), record(tmp_path / "second"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": "gpt2"}, "model is of type str, not torch.nn.Module."),
        ({"optimizer": 3}, "optimizer is of type int, not torch.optim.Optimizer."),
    ],
)
def test_what_is_no_model_is_refused_and_leaves_nothing_running(tmp_path: Path, arguments: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said), record(tmp_path / "wrong", **arguments):
        raise AssertionError("the block must not run")
    assert not list(tmp_path.iterdir())

    with record(tmp_path / "right", model=Mlp()) as r, pytest.raises(SpecError, match=said):
        r.add(**arguments)
    assert read_recording(tmp_path / "right.headroom").metadata.complete


def test_a_folder_that_cannot_be_made_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match="cannot be written"), record(tmp_path / "file" / "run"):
        raise AssertionError("the block must not run")


@pytest.mark.slow
def test_memory_stays_flat_over_a_thousand_steps(tmp_path: Path) -> None:
    model = Mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(5, 8), torch.randint(0, 4, (5,))
    process = psutil.Process()
    gc.collect()
    gc.disable()  # cycles of the profiler must not need the collector
    try:
        with record(tmp_path / "long", model=model, optimizer=optimizer) as r:
            for step in range(1000):
                train_step(model, optimizer, x, y)
                r.step()
                if step == 200:
                    early = process.memory_info().rss
            grown = process.memory_info().rss - early
    finally:
        gc.enable()
    assert grown < 16 * 1024**2
    assert summarize(read_recording(tmp_path / "long.headroom"))["steps"] == list(range(1000))


SCRIPT = """
import sys, time
import torch
from torch import nn
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(int(sys.argv[1])):
    nn.functional.cross_entropy(model(torch.randn(5, 8)), torch.randint(0, 4, (5,))).backward()
    optimizer.step()
    optimizer.zero_grad()
print("trained", flush=True)
time.sleep(float(sys.argv[2]))
"""


def run_script(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, "-m", "profiler", "record", "--out", str(tmp_path / "script.headroom"), str(script), *arguments]
    inherited = {name: value for name, value in os.environ.items() if name != "KINETO_LOG_LEVEL"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=inherited | environment, cwd=Path(__file__).parents[2]
    )


def test_a_script_is_recorded_and_nothing_of_kineto_is_on_stderr(tmp_path: Path) -> None:
    process = run_script(tmp_path, "3", "0")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "trained" in out
    assert not [line for line in err.splitlines() if "profiler" in line.lower() or "kineto" in line.lower()]
    assert summarize(read_recording(tmp_path / "script.headroom"))["steps"] == [0, 1, 2]


def test_each_rank_writes_its_own_file(tmp_path: Path) -> None:
    process = run_script(tmp_path, "2", "0", RANK="1", WORLD_SIZE="2")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    recording = read_recording(tmp_path / "script.rank1.headroom")
    assert set(recording.events["rank"].to_pylist()) == {1}


def test_a_killed_training_keeps_what_was_recorded(tmp_path: Path) -> None:
    process = run_script(tmp_path, "3", "60")
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "trained"
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    process.wait(timeout=30)
    process.stdout.close()
    process.stderr.close()
    in_progress = read_recording(tmp_path / "script.partial")
    assert in_progress.metadata.complete is False
    recovered = read_recording(recover(tmp_path / "script.partial"))
    assert summarize(recovered)["steps"] == [0, 1]
    assert not recovered.metadata.complete
    assert recovered.events.num_rows == in_progress.events.num_rows
