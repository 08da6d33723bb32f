"""A measured recording -> the blocks that no simulation of its job has, by the mechanism that makes them.

They come from the machine's libraries and not from the job: what they take is read from the recording, block by block, and nothing is
assumed of their sizes. All else that two engines differ by has no name, and is said to have none.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from profiler.analysis.blocks import Blocks
from profiler.analysis.columns import Array, read_numbers
from profiler.analysis.timeline import Timeline
from profiler.recording import HOST, Provenance, Recording
from profiler.units import exact_bytes

PACKED = "of scratch, in which oneDNN packs the operands of a product of matrices"
"""The one mechanism that is known, as it stands after its bytes."""
_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")


def measured_only(recording: Recording, timeline: Timeline) -> dict[str, int]:
    """Return by how many bytes each mechanism raises the peak of a recording, by its name; one that raises it by none is left out.

    Args:
        recording: only measured ones of CPUs have any.
        timeline: of the recording.
    """
    left = without_packed(recording, timeline.blocks)
    raised = 0 if left is recording else timeline.peak_bytes - Timeline.of(left).peak_bytes
    return {PACKED: raised} if raised else {}


def without_packed(recording: Recording, blocks: Blocks) -> Recording:
    """Return a recording without the blocks in which operands are packed."""
    if recording.metadata.provenance is not Provenance.MEASURED or not (blocks.device == HOST).all():
        return recording
    packed = _packed(blocks)
    if not packed.any():
        return recording
    number = read_numbers(recording.events["block"], -1)
    kept = ~np.isin(number, number[blocks.birth_event[packed]])
    return Recording(metadata=recording.metadata, events=recording.events.filter(pa.array(kept)), marks=recording.marks)


def _packed(blocks: Blocks) -> Array:
    """Blocks that a product of matrices frees again before anything else is allocated; its result outlives it."""
    in_product = blocks.operator.mapped(dict.fromkeys(_PRODUCTS, 1), 0) == 1
    return np.asarray(in_product & (blocks.death_event == blocks.birth_event + 1))


def difference_sentence(measured_bytes: int, simulated_bytes: int, named: Mapping[str, int]) -> str:
    """Return by how much two peaks of one job differ, what of it has a name, and what has none; empty where nothing is to be said.

    Args:
        measured_bytes: the measured peak.
        simulated_bytes: the simulated one.
        named: what `measured_only` says of the measured recording.
    """
    difference = measured_bytes - simulated_bytes
    unnamed = difference - sum(named.values())
    if not difference and not unnamed:
        return ""
    parts = [f"{exact_bytes(num_bytes)} {name}" for name, num_bytes in named.items()]
    if unnamed:
        parts.append(f"{_more_or_less(unnamed)} {'has' if abs(unnamed) == 1 else 'have'} no named mechanism")
    return f"measured is {_more_or_less(difference) if difference else 'equal'}: {'; '.join(parts)}."


def _more_or_less(num_bytes: int) -> str:
    return f"{exact_bytes(abs(num_bytes))} {'more' if num_bytes > 0 else 'less'}"
