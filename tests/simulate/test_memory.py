"""Where simulated tensors live: which of several free blocks a GPU's allocator takes."""

from __future__ import annotations

from profiler.simulate.memory import DeviceMemory

MIB = 1 << 20


def test_of_free_blocks_of_one_size_the_newest_is_taken() -> None:
    memory = DeviceMemory(lambda *_: None)
    old, new = (memory.allocate(20 * MIB).address for _ in range(2))
    assert new < old
    memory.free(old)
    memory.free(new)
    assert memory.allocate(20 * MIB).address == new
