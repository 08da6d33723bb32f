"""Backward on a GPU has a thread of its own. A device that exists only in Python gives this machine such a thread, too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from profiler import read_recording
from profiler.capture.window import _EventType, _Walk
from profiler.recording import Role
from profiler.tracing.notes import Note
from tests.conftest import ROOT

SCRIPT = """
import sys, threading
import torch
from torch import nn
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from profiler import record

torch.set_num_threads(1)
_setup_privateuseone_for_python_backend("other")
main = threading.get_ident()
seen = []


def elsewhere():
    return torch._C._acc.create_empty_tensor((5, 4), torch.float32)


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


class Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, head):
        ctx.save_for_backward(x)
        ctx.head = head
        head(x)
        return elsewhere()

    @staticmethod
    def backward(ctx, gradient):
        seen.append(threading.get_ident() != main)
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            y = ctx.head(x)
        torch.autograd.backward(y, torch.ones(5, 4))
        return x.grad, None


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(8, 8), Head()

    def forward(self, x):
        return Recomputed.apply(self.stem(x), self.head)


net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
with record(sys.argv[1], model=net, optimizer=optimizer) as r:
    for _ in range(2):
        with r.phase("data"):
            x = torch.randn(5, 8)
        net(x).backward(elsewhere())
        optimizer.step()
        optimizer.zero_grad()
        r.step()
assert seen == [True, True], seen
"""


@pytest.mark.skipif(not hasattr(torch._C, "_acc"), reason="needs torch 2.9 or newer, which makes devices in Python")
def test_what_runs_on_the_backward_thread_is_named_like_all_else(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "thread")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    recording = read_recording(tmp_path / "thread.headroom")
    assert not [warning for warning in recording.metadata.warnings if not warning.startswith("NVML")]
    events = recording.events.to_pandas()
    born = events[(events.step == 1) & (events.action == "alloc")]

    gradients = born[(born.roles & int(Role.GRADIENT)) != 0]
    assert dict(zip(gradients.tensor, gradients.module, strict=True)) == {
        f"{layer}.{name}.grad": layer for layer in ("stem", "head.up", "head.down") for name in ("weight", "bias")
    }
    recomputed = born[(born.roles & int(Role.RECOMPUTED)) != 0]
    assert recomputed.module.tolist() == ["head.up", "head", "head.down"]
    assert set(recomputed.phase) == {"backward"}
    saved = recomputed[(recomputed.roles & int(Role.SAVED)) != 0]
    assert saved.operator.tolist() == ["aten::clamp_min"]  # what ReLU returns: noted by a hook on the backward thread
    assert born[born.operator == "aten::ones"].module.tolist() == ["Net"]  # in a node that the other thread made


def operator(name: str, thread: int, start: int, *children: SimpleNamespace, sequence: int = -1, number: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        tag=_EventType.TorchOp,
        name=name,
        start_time_ns=start,
        end_time_ns=start + 5,
        start_tid=thread,
        correlation_id=number,
        children=list(children),
        extra_fields=SimpleNamespace(sequence_number=sequence),
    )


def allocation(start: int) -> SimpleNamespace:
    device = torch.device("cuda", 0)
    fields = SimpleNamespace(device=device, ptr=4096, alloc_size=512, total_allocated=512, total_reserved=2**21)
    return SimpleNamespace(tag=_EventType.Allocation, start_time_ns=start, start_tid=2, extra_fields=fields, children=[])


def test_a_backward_that_torch_lists_before_its_forward_still_finds_the_module() -> None:
    backward = operator("autograd::engine::evaluate_function: MmBackward0", 2, 200, allocation(201), sequence=0, number=7)
    own = operator("aten::mm", 2, 100, sequence=0)  # the backward thread's own number 0
    forward = operator("headroom:0", 1, 50, operator("aten::mm", 1, 51, sequence=0))

    raw = _Walk([Note("module", "layer")], {7: 1}).run([backward, own, forward])

    assert [(event.module, event.in_backward, event.total_reserved) for event in raw.events if hasattr(event, "pointer")] == [
        ("layer", True, 2**21)
    ]
