"""The decisions of the real allocator, recorded once, made again.

`recorded_decisions.json` holds two made-up programs and what the library of torch 2.11.0 did with them under 14 settings, on a stand-in for
the driver that hands out ascending addresses up to a capacity. A checkpoint is: steps so far, a hash of all lines so far (address or oom,
what was asked of the driver, and the numbers), then reserved, allocated, active, inactive split bytes, retries, out-of-memory errors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from profiler.allocator.allocator import CachingAllocator, OutOfMemory
from profiler.allocator.blocks import Block
from profiler.allocator.config import AllocatorConfig
from profiler.allocator.driver import Driver
from profiler.units import MIB

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "recorded_decisions.json").read_text())


@pytest.mark.parametrize("run", RECORDED["runs"], ids=lambda run: f"{run['program']}, {run['settings'] or 'default'}")
def test_every_decision_is_that_of_the_real_allocator(run: dict[str, Any]) -> None:
    expected = {checkpoint[0]: checkpoint[1:] for checkpoint in run["checkpoints"]}
    digest = hashlib.sha256()
    for number, (line, numbers) in enumerate(decisions(run), 1):
        digest.update(line.encode())
        if number in expected:
            assert [digest.hexdigest()[:16], *numbers] == expected.pop(number), f"before step {number}"
    assert not expected


def decisions(run: dict[str, Any]) -> Iterator[tuple[str, list[int]]]:
    """Yield a line and the numbers after each step; steps on blocks that could not be had are left out."""
    program = RECORDED["programs"][run["program"]]
    config = AllocatorConfig.parse(run["settings"], (2, 11))
    if run["memory_fraction"] is not None:
        config = replace(config, memory_fraction=run["memory_fraction"])
    asked: list[str] = []
    driver = Driver(program["capacity_mib"] * MIB, program["total_mib"] * MIB)
    allocator = CachingAllocator(config, driver, lambda action, address, size, _: asked.append(f" {action}:{address}:{size}"))
    live: dict[int, Block] = {}
    for step in program["steps"]:
        asked.clear()
        answer = do(allocator, live, step)
        if answer is not None:
            stats = allocator.stats
            numbers = [stats.reserved_bytes, stats.allocated_bytes, stats.active_bytes, allocator.inactive_split_bytes]
            numbers += [stats.num_alloc_retries, stats.num_ooms]
            yield f"{answer} |{''.join(asked)} | {' '.join(map(str, numbers))}\n", numbers


def do(allocator: CachingAllocator, live: dict[int, Block], step: list[Any]) -> str | None:
    """a: allocate, A: the same after all streams caught up, f: free, r: use on another stream, e: empty the cache."""
    action, *arguments = step
    if action in "fr" and arguments[0] not in live:
        return None
    if action in "aA":
        size, stream, name = arguments
        if action == "A":
            allocator.events_done()
        block = allocator.malloc(size, stream)
        if isinstance(block, OutOfMemory):
            return "oom"
        live[name] = block
        return str(block.address)
    if action == "f":
        allocator.free(live.pop(arguments[0]))
    elif action == "r":
        allocator.record_stream(live[arguments[0]], arguments[1])
    else:
        allocator.empty_cache()
    return action
