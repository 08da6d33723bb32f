"""Call stacks as a tree: own code is kept, library frames are folded, and the sums are exact."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.stack_tree import BACKWARD, NO_OWN_CODE, NO_STACK, call_path, has_modules, has_stacks, stack_tree
from profiler.analysis.timeline import Timeline
from tests.builders import MIB, small_training
from tests.gpu_programs import run_on_gpu, with_stacks

PYTHON = """/env/lib/python3.11/site-packages/torch/nn/functional.py:2901:layer_norm
/env/lib/python3.11/site-packages/torch/nn/modules/normalization.py:217:forward
/env/lib/python3.11/site-packages/torch/nn/modules/module.py:1751:_call_impl
model/block.py:31:forward
/env/lib/python3.11/site-packages/torch/nn/modules/module.py:1751:_call_impl
model/gpt.py:40:forward
train.py:12:<module>
/usr/lib/python3.11/runpy.py:88:_run_code
<frozen runpy>:198:_run_module_as_main"""
NATIVE = """??:0:torch::unwind::unwind()
CUDACachingAllocator.cpp:0:c10::cuda::CUDACachingAllocator::Native::DeviceCachingAllocator::malloc(unsigned long)
:0:at::_ops::empty_strided::call(c10::ArrayRef<c10::SymInt>)
??:0:at::_ops::mm::redispatch(c10::DispatchKeySet, at::Tensor const&)
??:0:at::_ops::mm::call(at::Tensor const&, at::Tensor const&)"""
ENGINE = "??:0:torch::autograd::generated::MmBackward0::apply(std::vector<at::Tensor>&&)\n??:0:torch::autograd::Engine::thread_main()"


@pytest.mark.parametrize(
    ("frames", "path"),
    [
        ("", [NO_STACK]),
        (PYTHON, ["<module> (train.py:12)", "forward (gpt.py:40)", "forward (block.py:31)", "torch: layer_norm"]),
        (NATIVE + "\ntrain.py:7:step", ["step (train.py:7)", "aten::mm"]),
        (NATIVE, [NO_OWN_CODE, "aten::mm"]),
        (ENGINE, [BACKWARD, "backward: MmBackward0"]),
        (NATIVE + "\n" + ENGINE, [BACKWARD, "backward: MmBackward0"]),
        (
            r"D:\my\.venv\Lib\site-packages\einops\einops.py:9:einsum" + "\n" + r"D:\my\model.py:39:forward",
            ["forward (model.py:39)", "einops: einsum"],
        ),
        ("torch/optim/adamw.py:60:step\nmine/loop.py:5:train", ["train (loop.py:5)", "torch: step"]),
        ("threading.py:9:run", [NO_OWN_CODE, "python: run"]),
        ("<ipython-input-3>:1:<module>", ["<module> (<ipython-input-3>:1)"]),
        ("no colon at all", [NO_OWN_CODE]),
    ],
)
def test_own_code_is_kept_and_library_frames_are_folded(frames: str, path: list[str]) -> None:
    assert call_path(frames) == path


def test_a_deep_recursion_is_cut_and_keeps_what_it_called() -> None:
    path = call_path("\n".join([NATIVE, *["deep.py:3:again"] * 200]))

    assert len(path) == 24
    assert path[-1] == "aten::mm"


def two_stacks() -> tuple[Timeline, object]:
    program = [("alloc", 4 * MIB, 0), ("alloc", 6 * MIB, 0), ("alloc", 2 * MIB, 0)]
    recording = with_stacks(run_on_gpu(program).recording, [PYTHON, NATIVE + "\nmodel/gpt.py:50:forward\ntrain.py:12:<module>"])
    return Timeline.of(recording), recording.stacks


def test_the_tree_sums_what_is_alive_by_call() -> None:
    timeline, stacks = two_stacks()
    tree = stack_tree(timeline, stacks, timeline.num_events - 1).set_index("id")["bytes"]

    assert has_stacks(timeline)
    assert not has_modules(timeline)
    assert tree["all"] == 12 * MIB
    assert tree["all > <module> (train.py:12)"] == 12 * MIB
    assert tree["all > <module> (train.py:12) > forward (gpt.py:40) > forward (block.py:31) > torch: layer_norm"] == 6 * MIB
    assert tree["all > <module> (train.py:12) > forward (gpt.py:50) > aten::mm"] == 6 * MIB


def test_parents_come_before_their_children() -> None:
    timeline, stacks = two_stacks()
    tree = stack_tree(timeline, stacks, timeline.num_events - 1)
    seen = {""}
    for node, parent in zip(tree["id"], tree["parent"], strict=True):
        assert parent in seen
        seen.add(node)


_LINES = st.sampled_from(["a.py:1:f", "b.py:2:g", "c.py:3:h", "torch/x.py:4:k", ":0:at::_ops::add_Tensor::call()", "??:0:x"])


@given(st.lists(st.lists(_LINES, max_size=8).map("\n".join), min_size=1, max_size=6), st.integers(3, 12))
def test_every_node_is_its_own_bytes_and_its_childrens(stacks: list[str], max_nodes: int) -> None:
    program = [("alloc", size * 1000, 0) for size in range(1, 13)]
    recording = with_stacks(run_on_gpu(program).recording, stacks)
    timeline = Timeline.of(recording)
    tree = stack_tree(timeline, recording.stacks, timeline.num_events - 1, max_nodes)

    assert len(tree) <= max_nodes
    assert tree["bytes"].iloc[0] == timeline.total[-1]
    children = tree.groupby("parent")["bytes"].sum()
    for node, size, own in zip(tree["id"], tree["bytes"], tree["own_bytes"], strict=True):
        assert size == own + children.get(node, 0)


def test_a_recording_without_stacks_has_none() -> None:
    timeline = Timeline.of(small_training())

    assert not has_stacks(timeline)
    assert has_modules(timeline)
