"""What a toggle changed, as numbers -> the sentences a person would say about it: which part fell, where the peak went, what limits now.

Every sentence is made from the footprints of the two runs; none is kept for a toggle.
"""

from __future__ import annotations

from profiler.analysis.budgets import NO_BUDGETS, Budgets, Tier, Verdict
from profiler.analysis.explain import in_sentence, joined, phase_in_sentence
from profiler.analysis.footprint import WORTH_NAMING, Footprint, Level
from profiler.analysis.peak_moves import peak_move, within
from profiler.analysis.savings import Saving
from profiler.recording import Category, Phase
from profiler.units import format_bytes, format_duration_us

_LEFT_WORTH_NAMING = 0.05
_MAX_PARTS = 3


def explain_saving(saving: Saving, budgets: Budgets = NO_BUDGETS) -> list[str]:
    """Return what was saved and why, where the peak is now, and what would have to give way first; for nothing saved, why not.

    Args:
        saving: of one toggle.
        budgets: what both runs are held against.
    """
    if not saving.before.peak_bytes:
        return []
    if saving.before.recording_id is not None and saving.before.recording_id == saving.after.recording_id:
        return [f"{saving.toggle} changed nothing: the run without it is set so already."]
    is_host_the_limit = [verdict.tier for verdict in budgets.verdicts(saving.after) if not verdict.fits] == [Tier.HOST]
    if abs(saving.saved_bytes) < max(1, saving.before.peak_bytes // 10_000):
        sentences = _why_nothing(saving)
    else:
        sentences = [_saved(saving), _bands(saving), peak_move(saving)]
        sentences += [] if is_host_the_limit else [_limit(saving.after), _further(saving)]
    host = (_host(saving), *_crossings(saving, budgets), "What limits now: the host." if is_host_the_limit else "")
    return [sentence for sentence in (*sentences, *host, _loss(saving), *saving.after.notes) if sentence]


def _saved(saving: Saving) -> str:
    share = 100 * abs(saving.saved_bytes) / saving.before.peak_bytes
    verb = "saved" if saving.saved_bytes > 0 else "cost"
    return (
        f"{saving.toggle} {verb} {format_bytes(abs(saving.saved_bytes))}, {share:.0f} % of the peak: "
        f"{format_bytes(saving.before.peak_bytes)} became {format_bytes(saving.after.peak_bytes)}."
    )


def _bands(saving: Saving) -> str:
    """Say which categories at the peak fell and which rose."""
    least = WORTH_NAMING * saving.before.peak_bytes
    changes = {category: change for category, change in saving.saved_by_category.items() if abs(change) >= least}
    parts = []
    for verb, sign in (("fell", 1), ("rose", -1)):
        changed = [(in_sentence(name), format_bytes(abs(change))) for name, change in changes.items() if change * sign > 0][:_MAX_PARTS]
        if changed:
            (name, by), *others = changed
            parts.append(joined([f"{name} {verb} by {by}", *(f"{name} by {by}" for name, by in others)]))
    return f"At the peak, {', while '.join(parts)}." if parts else ""


def _needing(phase: Phase) -> str:
    """Return a phase as what needs memory."""
    return "what is outside the named phases" if phase is Phase.OTHER else phase_in_sentence(phase)


def _limit(after: Footprint) -> str:
    ranked = sorted(after.peak.categories.items(), key=lambda item: -item[1])
    parts = [
        f"{in_sentence(category)} ({100 * num_bytes / after.peak_bytes:.0f} %)"
        for category, num_bytes in ranked[:_MAX_PARTS]
        if num_bytes >= _LEFT_WORTH_NAMING * after.peak_bytes
    ]
    return f"What limits now: {joined(parts)}." if parts else ""


def _further(saving: Saving) -> str:
    """Say when more of the same cannot help: where the peak left the phase that fell, or where nothing is left of what fell."""
    if saving.saved_bytes <= 0:
        return ""
    after = saving.after
    gap = _gap_to(after, saving.before.peak.phase)
    if gap is not None and gap > 0:
        old, new = _needing(saving.before.peak.phase), _needing(after.peak.phase)
        return f"This cannot help further until {new} needs less: {old} is {format_bytes(gap)} below the peak now."
    fell = next((category for category, change in saving.saved_by_category.items() if change > 0), None)
    left = after.peak.categories.get(fell, 0) if fell is not None else 0
    if fell is not None and left < _LEFT_WORTH_NAMING * after.peak_bytes:
        return f"More of it cannot help much: {format_bytes(left)} of {in_sentence(fell)} are left at the peak."
    return ""


def _gap_to(after: Footprint, phase: Phase) -> int | None:
    level = after.phases.get(phase)
    return None if level is None or phase is after.peak.phase else after.peak_bytes - level.num_bytes


def _host(saving: Saving) -> str:
    change = saving.after.host_bytes - saving.before.host_bytes
    if change < WORTH_NAMING * saving.before.peak_bytes:
        return ""
    return f"The host holds {format_bytes(change)} more for it."


def _crossings(saving: Saving, budgets: Budgets) -> list[str]:
    """Say of each budget that one of the two runs is over, whether it is still exceeded, no longer, or now."""
    pairs = zip(budgets.verdicts(saving.before), budgets.verdicts(saving.after), strict=True)
    return [_crossing(old, new) for old, new in pairs if not (old.fits and new.fits)]


def _crossing(old: Verdict, new: Verdict) -> str:
    budget = f"the {new.tier.budget_name}: {format_bytes(new.needed_bytes)} are {new.kind}"
    if new.fits:
        return f"The run is now under {budget}, {format_bytes(new.left_bytes)} less than {format_bytes(new.budget_bytes)}."
    when = "now" if old.fits else "still"
    return f"The run is {when} over {budget}, {format_bytes(new.over_bytes)} more than {format_bytes(new.budget_bytes)}."


def _why_nothing(saving: Saving) -> list[str]:
    """Explain a peak that stayed: nothing changed anywhere, or only where the peak is not."""
    before, after = saving.before, saving.after
    changed = [
        (phase, level, after.phases[phase])
        for phase, level in before.phases.items()
        if phase in after.phases and level.num_bytes != after.phases[phase].num_bytes
    ]
    first = f"{saving.toggle} saved nothing at the peak."
    if not changed:
        return [first, f"No phase of the step needs more or less than before{_by_operators(before, after)}.", _time(before, after)]
    phase, old, new = max(changed, key=lambda item: abs(item[1].num_bytes - item[2].num_bytes))
    verb = "lowered" if new.num_bytes < old.num_bytes else "raised"
    return [
        first,
        f"It {verb} the most that {_needing(phase)} needs from {format_bytes(old.num_bytes)} to {format_bytes(new.num_bytes)}, "
        f"but the peak, {format_bytes(after.peak_bytes)}, is {within(after.peak.phase)}: {_held(after.peak)}.",
    ]


def _by_operators(before: Footprint, after: Footprint) -> str:
    """Return how to go on after that the bytes are the same: by which operators; empty where either recording does not tell."""
    if not before.operators or not after.operators:
        return ""
    gone, new = (_some(sorted(names)) for names in (before.operators - after.operators, after.operators - before.operators))
    if gone and new:
        return f": the same bytes, but by other operators, {new} instead of {gone}"
    if gone or new:
        return f": the same bytes, but {'now also' if new else 'no longer'} by {new or gone}"
    return ": the operators that allocate are the same"


def _some(names: list[str]) -> str:
    more = len(names) - _MAX_PARTS
    return joined([*names[:_MAX_PARTS], f"{more} more"] if more > 0 else names) if names else ""


def _time(before: Footprint, after: Footprint) -> str:
    """Say how the estimated time of a simulated step changed; a measured one has a spread, which the table shows."""
    old, new = before.estimated_step_seconds, after.estimated_step_seconds
    if old is None or new is None:
        return ""
    time, before_time = (format_duration_us(seconds * 1e6) for seconds in (new, old))
    if time == before_time:
        return f"The estimated time of a step stays {time}."
    return f"The estimated time of a step goes from {before_time} to {time}."


def _loss(saving: Saving) -> str:
    found = saving.after.loss_against(saving.before)
    if found is None:
        return ""
    gain, is_told = found
    if not is_told:
        return "The loss is the same, as far as reruns tell."
    return f"The loss of the last step is {abs(gain):.4g} {'higher' if gain > 0 else 'lower'}, more than reruns differ."


def _held(level: Level) -> str:
    ranked: list[tuple[Category, int]] = sorted(level.categories.items(), key=lambda item: -item[1])[:_MAX_PARTS]
    return "there are " + joined([f"{format_bytes(num_bytes)} of {in_sentence(category)}" for category, num_bytes in ranked])
