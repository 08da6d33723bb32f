"""Where simulated tensors live: the host's memory, which gives what is asked for, and a GPU's, behind the allocator's model."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch

from profiler.allocator.allocator import CachingAllocator
from profiler.allocator.blocks import Block
from profiler.allocator.config import AllocatorConfig
from profiler.allocator.driver import Driver
from profiler.tracing.raw import Allocation

HOST_DEVICE = torch.device("cpu")
GPU_DEVICE = torch.device("cpu", 1)
"""Fake tensors cannot pretend to be on CUDA without a CUDA build of torch: their backward fails. On a second CPU device everything works,
and what is on the GPU stays apart from what is on the host."""
_HOST_ALIGNMENT_BYTES = 64
"""The CPU allocator's alignment (c10/core/alignment.h, gAlignment); addresses only, no size is rounded."""


class Place(NamedTuple):
    """Where a storage lives."""

    address: int
    num_bytes: int
    """Of the block that holds it."""
    allocation: Allocation | None


class Memory(Protocol):
    """One device's memory."""

    index: int
    """The device: -1 the host, else a GPU."""

    def allocate(self, num_bytes: int) -> Place:
        """Return the place of a new storage."""

    def free(self, address: int) -> None:
        """Give a place back."""


class HostMemory:
    """The host: no address is given twice, so none can be mistaken for another."""

    index = -1

    def __init__(self) -> None:
        self._next = _HOST_ALIGNMENT_BYTES  # 0 would read as no memory at all

    def allocate(self, num_bytes: int) -> Place:
        """Return the next address."""
        address = self._next
        self._next += num_bytes + -num_bytes % _HOST_ALIGNMENT_BYTES
        return Place(address, num_bytes, None)

    def free(self, address: int) -> None:
        """Do nothing: the host's allocator keeps nothing."""


class DeviceMemory:
    """A GPU of unlimited size behind PyTorch's caching allocator; whether a real card holds it is asked of the finished recording.

    Its driver hands out addresses downwards, as CUDA does for processes on Linux: of free blocks of one size the allocator takes that of
    the lowest address, so the newest. That decides which one is split, and so how much is reserved.

    Args:
        on_segment: is told what the allocator does with the driver: action, address, bytes and stream.
        config: the allocator's settings; torch's by default.
        index: the GPU.
    """

    def __init__(self, on_segment: Callable[[str, int, int, int], None], config: AllocatorConfig | None = None, index: int = 0) -> None:
        self.index = index
        self.allocator = CachingAllocator(config, driver=Driver(descending=True), on_segment=on_segment)
        self.held: dict[str, Place] = {}
        """What libraries keep until the process ends, by what it is for."""
        self._blocks: dict[int, Block] = {}
        self._streams: dict[object, int] = {torch.cpu.current_stream(): 0}

    def allocate(self, num_bytes: int) -> Place:
        """Return the block that the allocator chooses, of those of the stream that a library works on."""
        stream = self._streams.setdefault(torch.cpu.current_stream(), len(self._streams))  # the device's stand-in is a CPU
        block = self.allocator.malloc(num_bytes, stream)
        assert isinstance(block, Block), "a card without a limit never runs out of memory"
        self._blocks[block.address] = block
        return Place(block.address, block.size, Allocation(num_bytes, block.stream, block.segment.address, None))

    def free(self, address: int) -> None:
        """Give the block back to the allocator."""
        self.allocator.free(self._blocks.pop(address))
