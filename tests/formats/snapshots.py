"""Small CUDA snapshots made by hand, as torch writes them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

MIB = 2**20
START = 1_700_000_000_000_000
BASE = 0x7F00_0000_0000


def frame(file: str, function: str, line: int = 1) -> dict[str, Any]:
    return {"filename": file, "name": function, "line": line}


SCRIPT = frame("/job/train.py", "<module>", 10)
CALL = frame("/venv/lib/python3.12/site-packages/torch/nn/modules/module.py", "_call_impl", 1790)
FORWARD = [frame("/job/model.py", "forward", 7), CALL, SCRIPT]
BACKWARD = [frame("", "torch::autograd::Engine::thread_main(std::shared_ptr<torch::autograd::GraphTask> const&)", 0)]
STEP = [frame("/venv/lib/python3.12/site-packages/torch/optim/adam.py", "step", 248), SCRIPT]
ZERO = [frame("/venv/lib/python3.12/site-packages/torch/optim/optimizer.py", "zero_grad", 1066), SCRIPT]
BUILD = [frame("/venv/lib/python3.12/site-packages/torch/nn/modules/module.py", "_apply", 950), SCRIPT]
NONE: list[dict[str, Any]] = []


class History:
    """Writes events in the order of time, one every ten microseconds."""

    def __init__(self, **extra: Any) -> None:
        self.events: list[dict[str, Any]] = []
        self.extra = extra

    def add(self, action: str, addr: int, size: int, frames: list[dict[str, Any]] = NONE, **more: Any) -> History:
        event = {"action": action, "addr": addr, "size": size, "stream": 0, "time_us": START + 10 * len(self.events), "frames": frames}
        self.events.append({**event, **self.extra, **more})
        return self

    def alloc(self, addr: int, size: int, frames: list[dict[str, Any]] = NONE, **more: Any) -> History:
        return self.add("alloc", addr, size, frames, **more)

    def free(self, addr: int, size: int, frames: list[dict[str, Any]] = NONE) -> History:
        return self.add("free_requested", addr, size, frames).add("free_completed", addr, size, frames)


def block(address: int, size: int, requested: int, state: str = "active_allocated", frames: list[dict[str, Any]] = NONE) -> dict[str, Any]:
    return {"address": address, "size": size, "requested_size": requested, "state": state, "frames": frames}


def segment(address: int, size: int, blocks: list[dict[str, Any]], device: int = 0, **more: Any) -> dict[str, Any]:
    active = [b for b in blocks if b["state"] != "inactive"]
    return {
        "device": device,
        "address": address,
        "total_size": size,
        "allocated_size": sum(b["size"] for b in active),
        "active_size": sum(b["size"] for b in active),
        "requested_size": sum(b["requested_size"] for b in active),
        "stream": 0,
        "segment_type": "small" if size <= 2 * MIB else "large",
        "segment_pool_id": (0, 0),
        "is_expandable": False,
        "frames": [],
        "blocks": blocks,
        **more,
    }


def training() -> dict[str, Any]:
    """One training step on 20 MiB segments: a weight built, an activation, its gradient, a state, a temporary; every size is 2 MiB or more.

    Layout of the one segment at BASE: weight 4 MiB | activation 4 MiB | gradient 4 MiB | state 4 MiB | free 4 MiB; the logits, freed in
    backward, and the temporary of the optimizer lie where the activation was.
    """
    weight, activation, gradient, state = (BASE + n * 4 * MIB for n in range(4))
    size = 4 * MIB
    history = (
        History()
        .add("segment_alloc", BASE, 20 * MIB, BUILD)
        .alloc(weight, size, BUILD)
        .alloc(activation, size, FORWARD)
        .alloc(gradient, size, BACKWARD)
        .free(activation, size, BACKWARD)
        .alloc(activation, 3 * MIB, STEP)
        .alloc(state, size, STEP)
        .free(activation, 3 * MIB, STEP)
        .free(gradient, size, ZERO)
    )
    blocks = [
        block(weight, size, size, frames=BUILD),
        block(activation, 2 * size, 0, "inactive"),
        block(state, size, size, frames=STEP),
        block(BASE + 16 * MIB, size, 0, "inactive"),
    ]
    return snapshot([segment(BASE, 20 * MIB, blocks)], [history.events])


def snapshot(segments: list[dict[str, Any]], traces: list[list[dict[str, Any]]], **more: Any) -> dict[str, Any]:
    settings = {"PYTORCH_CUDA_ALLOC_CONF": "", "max_split_size": -1, "garbage_collection_threshold": 0.0, "expandable_segments": False}
    return {"segments": segments, "device_traces": traces, "allocator_settings": settings, "external_annotations": [], **more}


def write(path: Path, data: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(data, protocol))
    return path
