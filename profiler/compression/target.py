"""A target -> the experiments worth trying, ranked by what is known, and of those measured the best that meets it. Loads no torch.

The guided run: state the target, see the candidates, measure them in their order, adjust, end with what was tried and the best of it.
What is known of an experiment is its result on this model. Before there is one it is what was published of this model. Else its bytes are
expected by the formulas of the techniques and by where this model has its parameters, its loss and time are those of the lab's Llama. A
candidate says which; a number of another model is never shown without its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from profiler.compression import lab, published
from profiler.compression.base import Kind
from profiler.compression.expectations import WORTH_TRYING, Expectation, expected_ratio
from profiler.compression.experiment import Experiment
from profiler.compression.published import Published
from profiler.compression.result import Result
from profiler.errors import SpecError
from profiler.spec import Toggle

_LLAMA = "lab"
"""The model of the lab whose losses stand in where a model's own are not known."""

STEPS = (
    "State the target: bytes in memory or on disk, time, and the loss that may be given up.",
    "See the candidates, ranked by what is known of them.",
    "Apply the first and measure it.",
    "Adjust: more of it, less of it, another, or two together.",
    "Keep the best that meets the target.",
)
"""What practitioners are told to do, in order."""


class Goal(StrEnum):
    """What is to be small."""

    MEMORY = "held_bytes"
    DISK = "file_bytes"


_WHERE = {Goal.MEMORY: "in memory", Goal.DISK: "on disk"}


class Worth(StrEnum):
    """By what a model is judged; the values are fields of `Quality`."""

    LOSS = "loss"
    ACCURACY = "accuracy"
    BLEU = "bleu"


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a compressed model must be.

    Raises:
        SpecError: a number is not possible.
    """

    goal: Goal
    ratio: float
    """At most so much of the baseline's bytes."""
    loss_gain: float = 0.05
    """At most so many nats more."""
    time_ratio: float | None = None
    """At most so much of the baseline's time; None: any."""

    def __post_init__(self) -> None:
        for name, value, low, high in (("ratio", self.ratio, 0.001, 1.0), ("loss_gain", self.loss_gain, 0.0, 100.0)):
            if not low <= value <= high:
                raise SpecError(f"{name}={value} is not possible. Use a number from {low:g} to {high:g}.")
        if self.time_ratio is not None and not 0 < self.time_ratio <= 100:
            raise SpecError(f"time_ratio={self.time_ratio} is not possible. Use a number above 0 and at most 100, or none.")

    def met_by(self, result: Result) -> bool:
        """Return whether a result meets it."""
        return not self.missed_by(result)

    def missed_by(self, result: Result) -> list[str]:
        """Return what of it a result misses, a phrase each."""
        ratio, gain = result.ratio(self.goal.value), loss_gain(result)
        time = result.seconds / result.baseline_seconds
        return [
            *([f"bytes {ratio:.3f}, above {self.ratio:.3f}"] if ratio > self.ratio else []),
            *([f"loss {gain:+.4f}, above {self.loss_gain:+.4f}"] if gain > self.loss_gain else []),
            *([f"time {time:.2f}, above {self.time_ratio:.2f}"] if self.time_ratio is not None and time > self.time_ratio else []),
        ]


class Known(StrEnum):
    """Of which model a candidate's loss and time are."""

    MEASURED = "measured on this model"
    PUBLISHED = "published of this model"
    LLAMA = "measured on the lab's Llama"
    NOTHING = "not measured"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An experiment worth trying."""

    experiment: Experiment
    ratio: float
    """Of the target's bytes: measured, published, or expected of this model by formula."""
    loss_gain: float | None
    """Nats per unit of the model that `known` names; None where no model's is known."""
    time_ratio: float | None
    known: Known
    meets: bool
    """As far as is known."""
    reason: str
    """One or two sentences."""

    @property
    def measured(self) -> bool:
        """Whether all of it is a result of this very experiment."""
        return self.known is Known.MEASURED

    @property
    def borrowed(self) -> bool:
        """Whether its loss is another model's."""
        return self.known is Known.LLAMA and self.experiment.model != _LLAMA


def candidates(model: str, target: Target, results: Iterable[Result] = ()) -> list[Candidate]:
    """Return the experiments worth trying on a model: those that meet the target first, then by the loss they cost.

    Losses of another model, which may be per another unit, come after those of this one and are ranked among themselves.

    Args:
        model: a name of the lab's models.
        target: what it must be.
        results: what was measured before, newest first; of this model they replace what is expected, and what was tried beyond the list
            joins it.
    """
    measured: dict[tuple[Toggle, ...], Result] = {}
    for result in results:
        if result.experiment.model == model and result.experiment.stages:
            measured.setdefault(result.experiment.stages, result)
    known = {Experiment.of(model, item.stages): item for item in WORTH_TRYING if item.model in (None, model)}
    rows = [_expected(experiment, item, target) for experiment, item in known.items() if experiment.stages not in measured]
    rows += [_found(result, target) for result in measured.values()]
    return sorted(rows, key=lambda row: (not row.meets, row.meets and row.borrowed, row.loss_gain if row.meets else row.ratio, row.ratio))


def best(target: Target, results: Sequence[Result]) -> Result | None:
    """Return the result that meets the target with the smallest loss, the fewest bytes among equals; None where none does."""
    meeting = [result for result in results if target.met_by(result)]
    return min(meeting, key=lambda result: (round(result.quality.loss, 4), result.ratio(target.goal.value)), default=None)


def pareto(results: Sequence[Result], goal: Goal, worth: Worth = Worth.LOSS) -> list[Result]:
    """Return the results that no other beats in both bytes and what they give up, from few bytes to many; without those not so judged."""
    front: list[Result] = []
    least = float("inf")
    judged = [(result.ratio(goal.value), lost, result) for result in results if (lost := given_up(result, worth)) is not None]
    for _, lost, result in sorted(judged, key=lambda row: row[:2]):
        if lost < least:
            front.append(result)
            least = lost
    return front


def given_up(result: Result, worth: Worth) -> float | None:
    """Return how much worse a result is than its baseline: nats of loss, or points of 100 of accuracy or BLEU; None where unknown."""
    after, before = getattr(result.quality, worth), getattr(result.baseline_quality, worth)
    if after is None or before is None:
        return None
    lost = {Worth.LOSS: after - before, Worth.ACCURACY: 100 * (before - after), Worth.BLEU: before - after}
    return float(lost[worth])


def known_worths(results: Sequence[Result]) -> list[Worth]:
    """Return by what results can be compared."""
    return [worth for worth in Worth if any(given_up(result, worth) is not None for result in results)]


def loss_gain(result: Result) -> float:
    """Return how many nats of loss a result has more than its baseline."""
    return result.quality.loss - result.baseline_quality.loss


def _expected(experiment: Experiment, item: Expectation, target: Target) -> Candidate:
    known, row = _published(experiment)
    ratio, source = _expected_bytes(experiment, item, target.goal)
    loss, time = (row.loss_gain, row.time_ratio) if row else (None, None)
    small = ratio <= target.ratio and loss is not None and loss <= target.loss_gain
    fast = target.time_ratio is None or (time is not None and time <= target.time_ratio)
    return Candidate(
        experiment=experiment,
        ratio=ratio,
        loss_gain=loss,
        time_ratio=time,
        known=known,
        meets=small and fast,
        reason=f"About {ratio:.2f} of the bytes {_WHERE[target.goal]}, {source}. {_expected_loss(experiment.model, known, row)}",
    )


def _published(experiment: Experiment) -> tuple[Known, Published | None]:
    """Return what was published of an experiment on its own model, else on the lab's Llama, and which of them it is."""
    for model in (experiment.model, _LLAMA):
        row = published.find(model, experiment.stages)
        if row is not None:
            return (Known.LLAMA if model == _LLAMA else Known.PUBLISHED), row
    return Known.NOTHING, None


def _expected_bytes(experiment: Experiment, item: Expectation, goal: Goal) -> tuple[float, str]:
    """Return the share of the bytes that is expected of a model, and where it is from."""
    row = published.find(experiment.model, experiment.stages)
    counted = None if row is None else row.held_share if goal is Goal.MEMORY else row.file_share
    if counted is not None:
        return counted, "as published of this model"
    ratio = expected_ratio(lab.find(experiment.model).shape, item.reach, item.memory if goal is Goal.MEMORY else item.disk)
    is_coded = goal is Goal.DISK and any(one.kind is Kind.CODING for one in experiment.techniques)
    return ratio, "if its weights are coded as well as the lab's Llama's" if is_coded else "by formula"


def _expected_loss(model: str, known: Known, row: Published | None) -> str:
    """Return what is known of a loss and a time, and of which model."""
    if row is None:
        return "Its loss was not measured on any model."
    unit = " nats per byte" if known is Known.LLAMA else ""
    time = f", time {row.time_ratio:.2f}" if row.time_ratio is not None else ""
    careful = "; this model may lose more" if known is Known.LLAMA and model != _LLAMA else ""
    return f"Loss {row.loss_gain:+.4f}{unit}{time}: {known}{careful}."


def _found(result: Result, target: Target) -> Candidate:
    missed = target.missed_by(result)
    ratio = result.ratio(target.goal.value)
    return Candidate(
        experiment=result.experiment,
        ratio=ratio,
        loss_gain=loss_gain(result),
        time_ratio=result.seconds / result.baseline_seconds,
        known=Known.MEASURED,
        meets=not missed,
        reason=f"Measured: misses the target ({'; '.join(missed)})."
        if missed
        else f"Measured: {ratio:.3f} of the bytes, meets the target.",
    )
