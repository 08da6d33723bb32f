"""Allocator: how the caching allocator cuts and keeps the memory that it got from the driver."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from profiler.optimizations.base import Family, Optimization, Parameter, ParameterKind, Value
from profiler.optimizations.scope import Scope
from profiler.spec import Job

if TYPE_CHECKING:
    from profiler.workloads import Setup

ALLOCATOR = Family(
    name="allocator",
    label="Allocator",
    question="How does the caching allocator cut what it got from the driver?",
    exclusive=False,
    off_label="torch's defaults",
)
_DOCS = "PYTORCH_ALLOC_CONF: https://docs.pytorch.org/docs/stable/notes/cuda.html#optimizing-memory-usage-with-pytorch-alloc-conf"


class AllocatorSetting(Optimization):
    """A setting of PYTORCH_ALLOC_CONF."""

    family = ALLOCATOR
    applies_to = Scope(part="CUDA's caching allocator", on_cpu=False)
    source = _DOCS

    @abstractmethod
    def text(self, options: Mapping[str, Value]) -> str:
        """Return what PYTORCH_ALLOC_CONF would say."""

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Add it to the settings."""
        setup.allocator_settings = ",".join(filter(None, (setup.allocator_settings, self.text(options))))


class ExpandableSegments(AllocatorSetting):
    """Segments that grow by pages."""

    name = "expandable-segments"
    label = "Expandable segments"
    formula = "reserved - allocated = less than one page of 2 MiB (20 MiB for large blocks) a stream and pool, plus the holes in between"
    explanation = (
        "The allocator keeps one growing segment for each stream and maps pages to its end, where it otherwise asks for a new segment "
        "whenever no free block is large enough. Reserved memory comes close to allocated memory, most of all where sizes change from "
        "step to step. Allocated memory stays the same, but for what a block that was cut keeps of the rest, less than 1 MiB each; the "
        "setting saves nothing where little is fragmented."
    )

    def text(self, options: Mapping[str, Value]) -> str:
        """Return the setting."""
        return "expandable_segments:True"


class MaxSplitSize(AllocatorSetting):
    """Large blocks stay whole."""

    name = "max-split-size"
    label = "Largest block that is split"
    parameters = (
        Parameter(
            name="mib",
            kind=ParameterKind.INTEGER,
            default=128,
            low=21,
            high=1_000_000,
            help="Blocks of so many MiB and more are never split.",
        ),
    )
    formula = "a block of mib and more holds one request, of at most 20 MiB less than its size"
    explanation = (
        "Keeps large free blocks whole for large requests, where a small one would otherwise cut a piece out and keep the rest from being "
        "given back. It can end an out-of-memory error that comes of fragmentation, and it can also reserve more, since each large "
        "request needs a block of nearly its own size. Allocated memory stays the same."
    )

    def text(self, options: Mapping[str, Value]) -> str:
        """Return the setting."""
        return f"max_split_size_mb:{options['mib']}"


class RoundupPower2(AllocatorSetting):
    """Coarser sizes."""

    name = "roundup-power2"
    label = "Rounding to steps of a power of two"
    parameters = (
        Parameter(
            name="divisions",
            kind=ParameterKind.CHOICE,
            default="8",
            choices=("2", "4", "8", "16", "32", "64"),
            help="Steps between one power of two and the next; with fewer of them, sizes are rounded up further.",
        ),
    )
    formula = "a block is at most 1 / divisions larger than its request"
    explanation = (
        "Rounds sizes up to one of a few steps, so that a freed block fits the next request of nearly its size. Helps where sizes change "
        "from step to step, as with sequences of different lengths, and there reserves less. Every block grows by up to 1 / divisions, so "
        "allocated memory grows too: with the same sizes in every step it costs memory and saves none."
    )

    def text(self, options: Mapping[str, Value]) -> str:
        """Return the setting."""
        return f"roundup_power2_divisions:{options['divisions']}"


OPTIMIZATIONS: tuple[Optimization, ...] = (ExpandableSegments(), MaxSplitSize(), RoundupPower2())
