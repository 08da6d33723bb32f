"""A recording -> why its last request failed, or what its peak was made of, in the form that a pasted message's explanation has."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from profiler.allocator.config import AllocatorConfig
from profiler.allocator.out_of_memory import Explanation, Unusable
from profiler.allocator.recorded import recorded_config
from profiler.allocator.sizes import SMALL_BYTES, round_size
from profiler.analysis.blocks import Lane
from profiler.analysis.explain import explain, phase_in_sentence
from profiler.analysis.instants import instant_facts
from profiler.analysis.recorded_failure import RecordedFailure, explain_recorded_failure
from profiler.analysis.segment_map import MappedSegment, SegmentMap, Use, recorded_map
from profiler.analysis.timeline import Timeline
from profiler.formats.messages import RECORDING, MemoryFacts
from profiler.formats.redact import redact
from profiler.formats.tensor_sizes import SizedTensor, driver_bytes, tensors_of_size
from profiler.formats.triage import Triage, suggestions
from profiler.recording import Category, Phase, Recording
from profiler.spec import Model, Workload
from profiler.units import format_bytes

_MAX_ROWS = 10
_MAX_TENSORS = 5
_NOT_GIVEN = "in blocks that were large enough, but of a private pool or not to be split"


def triage_recording(
    recording: Recording, model: Model | None = None, workload: Workload | None = None, *, names: tuple[str, ...] = ()
) -> Triage:
    """Return what is known of the last out-of-memory error that a recording holds; of its peak where it holds none.

    Args:
        recording: of any engine.
        model: what ran, where known: tells which tensor has the requested size.
        workload: its batch and sequence.
        names: words to leave out.

    Raises:
        FormatError: its blocks overlap or reach out of their segments.
        SpecError: the model is not known, or the recording holds impossible settings.
    """
    error = _last_error(recording)
    if error is None:
        return _of_peak(recording, names)
    timeline = Timeline.of(recording, lane=Lane(error["device"], error["rank"] or 0))
    failure = explain_recorded_failure(recording, timeline)
    assert failure is not None, "the lane is the error's"
    where, config = failure.facts, recorded_config(recording, *timeline.lane)
    facts = _facts(failure, timeline.lane)
    tensors = _tensors(where["requested_bytes"], config, model, workload)
    said = [_place(where), *failure.sentences(), *([f"It is the size of {'; or of '.join(map(str, tensors))}."] if tensors else [])]
    if failure.explanation is None:
        held = _Held.when(recording, timeline, where["event"], error)
        said += held.sentences()
        could_serve = 0 if config.expandable_segments else held.bytes_of(Unusable.TOO_SMALL)
        tried = suggestions(replace(facts, unallocated_bytes=could_serve), tensors)
    else:
        tried = [*_remedies(failure.explanation), *suggestions(replace(facts, unallocated_bytes=0), tensors)]
    return Triage(
        facts=facts,
        verdict=_verdict(facts, timeline.lane),
        explanation=tuple(redact(sentence, names) for sentence in said),
        suggestions=tuple(tried),
        tensors=tensors,
        quote=redact("\n".join(where["frames"]), names),
        alive=_alive(where, names),
    )


def _of_peak(recording: Recording, names: tuple[str, ...]) -> Triage:
    timeline = Timeline.of(recording)
    where = instant_facts(recording, timeline, timeline.peak_event)
    facts = MemoryFacts(source=RECORDING, device=_gpu(timeline.lane), peak_allocated_bytes=timeline.peak_bytes)
    return Triage(
        facts=facts,
        verdict="No out-of-memory error was recorded; this is the peak of what was.",
        explanation=tuple(redact(sentence, names) for sentence in explain(timeline)),
        suggestions=tuple(suggestions(facts)),
        tensors=(),
        quote="",
        alive=_alive(where, names),
    )


def _last_error(recording: Recording) -> dict[str, Any] | None:
    """Return the row of the last out-of-memory error of any memory."""
    segments = recording.segments
    found = segments.filter(pc.equal(segments["action"].cast(pa.string()), "oom")).sort_by("time_us")
    return found.slice(len(found) - 1).to_pylist()[0] if len(found) else None


@dataclass(frozen=True)
class _Held:
    """What the allocator held free when memory ran out, as it was recorded: said where no replay explains the error."""

    knows_segments: bool
    largest_free_bytes: int
    """In the pool and on the stream that the request was of."""
    unusable: Mapping[str, list[int]]
    """Sizes of free blocks by why they were of no use."""

    @classmethod
    def when(cls, recording: Recording, timeline: Timeline, event: int, error: Mapping[str, Any]) -> _Held:
        if event < 0:
            return cls(False, 0, {})
        return cls.of(recorded_map(recording, timeline, event, until_us=error["time_us"]), error["bytes"], error["stream"] or 0)

    @classmethod
    def of(cls, found: SegmentMap, requested_bytes: int, stream: int) -> _Held:
        unusable: dict[str, list[int]] = defaultdict(list)
        largest = 0
        for segment in found.segments:
            why = _why(segment, requested_bytes, stream)
            for piece in segment.pieces:
                if piece.use is Use.WAITING:
                    unusable[Unusable.PENDING.value].append(piece.bytes)
                elif piece.use is Use.FREE:
                    is_usable = why is Unusable.TOO_SMALL
                    largest = max(largest, piece.bytes) if is_usable else largest
                    unusable[_NOT_GIVEN if is_usable and piece.bytes >= requested_bytes else why.value].append(piece.bytes)
        return cls(bool(found.segments), largest, unusable)

    def bytes_of(self, why: Unusable | None = None) -> int:
        """Return the free bytes that were of no use, for one reason or for any."""
        return sum(sum(sizes) for reason, sizes in self.unusable.items() if why is None or reason == why.value)

    def sentences(self) -> list[str]:
        if not self.knows_segments:
            return ["What was reserved and held by no tensor is not in the recording."]
        ranked = sorted(self.unusable.items(), key=lambda item: -sum(item[1]))
        return [
            f"The largest free block that could be used was {format_bytes(self.largest_free_bytes)}.",
            *(f"{format_bytes(sum(sizes))} were free but {why}." for why, sizes in ranked),
        ]


def _why(segment: MappedSegment, requested_bytes: int, stream: int) -> Unusable:
    if segment.is_small != (requested_bytes <= SMALL_BYTES):
        return Unusable.OTHER_POOL
    return Unusable.TOO_SMALL if segment.stream == stream else Unusable.OTHER_STREAM


def _remedies(explanation: Explanation) -> list[str]:
    """Return the setting under which a replay passes, as a suggestion; nothing where none does."""
    if not explanation.remedies:
        return []
    return [f"Set PYTORCH_CUDA_ALLOC_CONF={explanation.remedies[0].name} before Python starts: replayed under it, the request passes."]


def _facts(failure: RecordedFailure, lane: Lane) -> MemoryFacts:
    allocated_bytes = sum(failure.facts["categories_alive"].values())
    knows_reserved = failure.reserved_bytes >= max(allocated_bytes, 1)
    return MemoryFacts(
        source=RECORDING,
        device=_gpu(lane),
        requested_bytes=failure.facts["requested_bytes"],
        free_bytes=failure.device_free_bytes,
        allocated_bytes=allocated_bytes,
        unallocated_bytes=failure.reserved_bytes - allocated_bytes if knows_reserved else None,
    )


def _gpu(lane: Lane) -> int | None:
    return lane.device if lane.device >= 0 else None


def _verdict(facts: MemoryFacts, lane: Lane) -> str:
    asked, allocated = format_bytes(facts.requested_bytes or 0), format_bytes(facts.allocated_bytes or 0)
    reserved = "" if facts.reserved_bytes is None else f" of {format_bytes(facts.reserved_bytes)} that PyTorch had reserved"
    free = "" if facts.free_bytes is None else f", and the driver had {format_bytes(facts.free_bytes)} left"
    return f"{asked} could not be had on {lane.label}: tensors held {allocated}{reserved}{free}."


def _place(where: Mapping[str, Any]) -> str:
    """Return where the program was when its request failed."""
    when = f"in step {where['step']}" if where["step"] >= 0 else "before the first step"
    phase = Phase(where["phase"]) if where["phase"] else Phase.OTHER
    during = "" if phase is Phase.OTHER else f", in {phase_in_sentence(phase)}"
    module = f", in {where['module']}" if where["module"] else ""
    return f"The last that happened before was {when}{during}{module}."


def _tensors(requested_bytes: int, config: AllocatorConfig, model: Model | None, workload: Workload | None) -> tuple[SizedTensor, ...]:
    """Return the model's tensors of this size; a recording names it exactly, but for the allocator's rounding."""
    if model is None:
        return ()
    size = round_size(requested_bytes, config)
    near = tensors_of_size(driver_bytes(requested_bytes), model, workload)
    return tuple(tensor for tensor in near if round_size(tensor.bytes, config) == size)[:_MAX_TENSORS]


def _alive(where: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Return who held most, by category, and by module or the call stack, whose paths and names are left out."""
    modules: Counter[str] = Counter()
    for name, num_bytes in where["modules_alive"].items():
        modules[redact(name, names)] += num_bytes
    categories = Counter({Category[name].label: num_bytes for name, num_bytes in where["categories_alive"].items()})
    tables = {"Alive by category": categories, "Alive by module or call stack": modules}
    return {title: dict(held.most_common(_MAX_ROWS)) for title, held in tables.items() if held}
