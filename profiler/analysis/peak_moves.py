"""The peaks of two runs -> where each is, by phase, module and operator, and what is alive at the second that was not at the first."""

from __future__ import annotations

from profiler.analysis.explain import in_sentence, joined, phase_in_sentence
from profiler.analysis.footprint import WORTH_NAMING, Holder, Level
from profiler.analysis.module_tree import ANY_LAYER, unwrapped
from profiler.analysis.savings import Saving
from profiler.recording import Phase
from profiler.units import format_bytes

_MAX_HOLDERS = 2


def peak_move(saving: Saving) -> str:
    """Return where the peak was and is, as far as both recordings tell, and what came to be alive there where it moved."""
    before, after = saving.before.peak, saving.after.peak
    if before.phase is after.phase:
        return f"The peak is still {within(after.phase)}{_within_phase(before, after)}."
    for run, with_or_without in ((saving.before, "without"), (saving.after, "with")):
        if run.peak.phase is Phase.OTHER and not set(run.phases) - {Phase.OTHER}:
            return f"Whether the peak moved is not known: the run {with_or_without} {saving.toggle} names no phases."
    old, new = _phase_and_place(before), _phase_and_place(after)
    return " ".join(filter(None, (f"The peak moved from {old}{',' * (',' in old)} to {new}.", _newly_alive(saving))))


def within(phase: Phase) -> str:
    """Return where an instant of a phase is, such as ``in forward``."""
    return "outside the named phases" if phase is Phase.OTHER else f"in {phase_in_sentence(phase)}"


def _within_phase(before: Level, after: Level) -> str:
    """Return how to go on where the peak's instant moved inside of its phase; empty where it did not, or where nothing tells."""
    modules = [unwrapped(level.module or "") for level in (before, after)]
    operators = [level.operator or "" for level in (before, after)]
    is_other_module, is_other_operator = (all(pair) and len(set(pair)) > 1 for pair in (modules, operators))
    if is_other_module and not is_other_operator:
        layers = _layers(*modules)
        if layers is not None:
            (old, new), path = layers
            return f", but moved from layer {old} to layer {new} ({path})"
    if is_other_module or is_other_operator:
        return f", but moved from {_place(before)} to {_place(after)}"
    return f", at {_place(after)}" if _place(before) == _place(after) != "" else ""


def _layers(before: str, after: str) -> tuple[tuple[str, str], str] | None:
    """Return the numbers of two layers and the path that they share; None where more than the first number of the paths differs."""
    old, new = before.split("."), after.split(".")
    first = next((place for place, part in enumerate(old) if part.isdecimal()), None)
    if first is None or len(new) <= first or not new[first].isdecimal():
        return None
    path, other = ([*parts[:first], ANY_LAYER, *parts[first + 1 :]] for parts in (old, new))
    return ((old[first], new[first]), ".".join(path)) if path == other else None


def _place(level: Level) -> str:
    """Return what ran at an instant, such as ``lm_head (aten::mm)``; empty where unknown."""
    module, operator = unwrapped(level.module or ""), level.operator or ""
    return f"{module} ({operator})" if module and operator else module or operator


def _phase_and_place(level: Level) -> str:
    """Return where a peak is, such as ``backward, at lm_head (aten::mm)``, as far as the recording tells."""
    place = _place(level)
    if level.phase is Phase.OTHER:
        return place or "outside the named phases"
    return phase_in_sentence(level.phase) + (f", at {place}" if place else "")


def _newly_alive(saving: Saving) -> str:
    """Return the largest of what is held at the new peak and was not at the old one; empty where a recording does not tell."""
    before, after = saving.before.alive, saving.after.alive
    if not before or not after:
        return ""
    gains = {holder: num_bytes - before.get(holder, 0) for holder, num_bytes in after.items()}
    largest = sorted(gains, key=lambda holder: -gains[holder])[:_MAX_HOLDERS]
    named = [holder for holder in largest if gains[holder] >= WORTH_NAMING * saving.after.peak_bytes]
    parts = [f"{format_bytes(gains[holder])}{' more' * (holder in before)} of {_held_for(holder)}" for holder in named]
    return f"Alive there and not at the old peak: {joined(parts)}." if parts else ""


def _held_for(holder: Holder) -> str:
    return in_sentence(holder.category) + (f" ({holder.place})" if holder.place else "")
