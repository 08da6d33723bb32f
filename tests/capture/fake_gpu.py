"""A caching allocator in a few lines that tells what it does in torch's two ways: to torch.profiler, and in its own history."""

from __future__ import annotations

from typing import Any

from profiler.tracing.raw import MemoryEvent, RawWindow

SECOND = 10**9
_ROUNDING, _SMALL, _SMALL_SEGMENT, _LARGE_SEGMENT = 512, 2**20, 2 * 2**20, 20 * 2**20


class FakeGpu:
    """One GPU. Blocks are cut from segments in order; a freed block is given away again, whole, to the next that fits."""

    def __init__(self, device: int = 0, skew_ns: int = 3_000) -> None:
        self.device = device
        self.skew_ns = skew_ns
        """By how much the history's clock is behind."""
        self.now = SECOND
        self.settings: dict[str, Any] = {}
        """What torch says of them, as in ``torch.cuda.memory._snapshot()["allocator_settings"]``."""
        self.segments: dict[int, list[int]] = {}
        """By address: bytes, bytes cut off so far."""
        self.blocks: dict[int, dict[str, Any]] = {}
        """By address: every block that was ever cut, as torch tells it."""
        self.allocated = self.reserved = 0
        self.events: list[MemoryEvent] = []
        self.trace: list[dict[str, Any]] = []

    def window(self) -> tuple[RawWindow, dict[str, Any]]:
        """Return what the profiler saw since the last call, and the snapshot."""
        events, self.events = self.events, []
        raw = RawWindow(self.now - SECOND, self.now, list(events))
        snapshot = self.snapshot()
        self.trace = []
        return raw, snapshot

    def snapshot(self) -> dict[str, Any]:
        """Return the state and the history as torch.cuda.memory._snapshot does."""
        segments = []
        for address, (size, _) in self.segments.items():
            inside = [block for start, block in sorted(self.blocks.items()) if address <= start < address + size]
            segments.append(
                {
                    "device": self.device,
                    "address": address,
                    "total_size": size,
                    "stream": 0,
                    "segment_type": "small" if size == _SMALL_SEGMENT else "large",
                    "segment_pool_id": (0, 0),
                    "is_expandable": False,
                    "blocks": [dict(block) for block in inside],
                }
            )
        traces: list[list[dict[str, Any]]] = [[] for _ in range(self.device + 1)]
        traces[self.device] = list(self.trace)
        return {"segments": segments, "device_traces": traces, "allocator_settings": dict(self.settings), "external_annotations": []}

    def malloc(self, requested: int, *, seen: bool = True, operator: str = "aten::mm", line: int = 1) -> int:
        """Allocate; ``seen`` by the profiler or in a thread that it does not know."""
        self.now += 10_000
        size = -(-requested // _ROUNDING) * _ROUNDING
        address = self._free_block(size) or self._cut(size)
        block = self.blocks[address]
        block |= {"state": "active_allocated", "requested_size": requested}
        self.allocated += block["size"]
        self._tell("alloc", address, requested, line)
        if seen:
            self._report(address, block["size"], operator)
        return address

    def free(self, address: int, *, seen: bool = True, delayed: bool = False) -> None:
        """Free; a ``delayed`` one is completed by `complete`."""
        self.now += 10_000
        block = self.blocks[address]
        self.allocated -= block["size"]
        block["state"] = "active_awaiting_free"
        self._tell("free_requested", address, block["requested_size"])
        if not delayed:
            self._complete(address)
        if seen:
            self._report(address, -block["size"], "aten::mm")

    def complete(self, address: int) -> None:
        """The stream that still used a freed block is done with it."""
        self.now += 10_000
        self._complete(address)

    def empty_cache(self) -> None:
        """Give segments back that hold nothing."""
        self.now += 10_000
        for address, (size, _) in list(self.segments.items()):
            inside = [start for start in self.blocks if address <= start < address + size]
            if all(self.blocks[start]["state"] == "inactive" for start in inside):
                for start in inside:
                    del self.blocks[start]
                del self.segments[address]
                self.reserved -= size
                self._tell("segment_free", address, size)

    def run_out(self, requested: int, device_free: int) -> None:
        """Fail to allocate."""
        self.now += 10_000
        self.trace.append(self._entry("oom", 0, requested) | {"device_free": device_free})
        del self.trace[-1]["addr"]

    def _complete(self, address: int) -> None:
        self._tell("free_completed", address, self.blocks[address]["requested_size"])
        self.blocks[address]["state"] = "inactive"

    def _free_block(self, size: int) -> int | None:
        fits = (start for start, block in self.blocks.items() if block["state"] == "inactive" and size <= block["size"])
        return next((start for start in fits if (size > _SMALL) == (self.blocks[start]["size"] > _SMALL)), None)

    def _cut(self, size: int) -> int:
        for address, segment in self.segments.items():
            total, used = segment
            if (size > _SMALL) == (total > _SMALL_SEGMENT) and used + size <= total:
                segment[1] += size
                self.blocks[address + used] = {
                    "address": address + used,
                    "size": size,
                    "state": "inactive",
                    "requested_size": 0,
                    "frames": [],
                }
                return address + used
        total = _SMALL_SEGMENT if size <= _SMALL else max(_LARGE_SEGMENT, -(-size // _SMALL_SEGMENT) * _SMALL_SEGMENT)
        address = max(self.segments, default=0x7F0000000000) + 2**30
        self.segments[address] = [total, 0]
        self.reserved += total
        self._tell("segment_alloc", address, total)
        return self._cut(size)

    def _tell(self, action: str, address: int, size: int, line: int = 1) -> None:
        self.trace.append(self._entry(action, address, size, line))

    def _entry(self, action: str, address: int, size: int, line: int = 1) -> dict[str, Any]:
        frames = [
            {"filename": "/opt/somebody/env/lib/python3.11/site-packages/torch/nn/modules/linear.py", "line": 125, "name": "forward"},
            {"filename": "/opt/somebody/project/train.py", "line": line, "name": "<module>"},
        ]
        return {
            "action": action,
            "addr": address,
            "size": size,
            "stream": 0,
            "time_us": (self.now - self.skew_ns) // 1000,
            "compile_context": "N/A",
            "user_metadata": "",
            "pool_id": (0, 0),
            "frames": frames,
        }

    def _report(self, address: int, size: int, operator: str) -> None:
        event = MemoryEvent(self.now, address, size, self.allocated, self.device, "layer", operator, total_reserved=self.reserved)
        self.events.append(event)
