"""Results of the compression lab -> the table of all, size against quality, what each stage did, and what was tried for a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from profiler.compression.result import Quality, Result, Size
from profiler.compression.target import Candidate, Goal, Target, Worth, given_up, known_worths, loss_gain, pareto
from profiler.figures.axes import empty_figure, plain
from profiler.figures.points import HEIGHT, Point, points_figure
from profiler.figures.theme import ThemeName, theme_named
from profiler.units import format_bytes, format_duration_us

UNTOUCHED = "untouched"
GOALS = {Goal.MEMORY: "Held in memory", Goal.DISK: "File"}
"""What people call the bytes of a goal."""
WORTHS = {Worth.LOSS: "Loss", Worth.ACCURACY: "Accuracy", Worth.BLEU: "BLEU"}
"""What people call that by which models are judged."""
_LINEAR = {Worth.LOSS: 0.001, Worth.ACCURACY: 0.1, Worth.BLEU: 0.1}
"""Below so much given up the axis is nearly linear."""
_DECADES = range(6)


def results_table(results: Sequence[Result]) -> pd.DataFrame:
    """Return one row a result after one of the untouched model.

    Columns: technique, held_bytes and held_share of the baseline's, file_bytes, file_share, pass_us (processor time of a forward pass of
    a batch, the median of several), pass_share, loss, loss_gain, accuracy_share, bleu where it is known, resident_bytes,
    conversion_peak_bytes, fastest_us and slowest_us of those passes, perplexity, of models of tokens loss_per_byte and
    perplexity_per_byte, agreement_share, promised (what is commonly claimed).
    """
    first = results[0] if results else None
    rows = [_row(UNTOUCHED, first.baseline_size, first.baseline_quality, first, "baseline_")] if first else []
    for result in results:
        row = _row(name_of(result), result.size, result.quality, result)
        promised = " ".join(item.promise for item in result.experiment.techniques)
        facts = {"conversion_peak_bytes": result.conversion_peak_bytes, "agreement_share": result.agreement, "promised": promised}
        rows.append(row | facts)
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows).astype({"conversion_peak_bytes": "Int64"})
    left_out = [] if Worth.BLEU in known_worths(results) else ["bleu"]
    left_out += [] if results[0].unit == "token" else ["loss_per_byte", "perplexity_per_byte"]
    return table.drop(columns=left_out)


def size_quality_figure(results: Sequence[Result], goal: Goal, worth: Worth = Worth.LOSS, *, theme: ThemeName = "light") -> go.Figure:
    """Return one point a result and one for the untouched model: bytes to the right, what is given up upward.

    That axis is linear near 0 and logarithmic beyond, so that models that lost much leave room for those that lost little.

    Args:
        results: of one model.
        goal: which bytes.
        worth: what is given up.
        theme: ``light`` or ``dark``.
    """
    colors = theme_named(theme)
    lost = {id(result): value for result in results if (value := given_up(result, worth)) is not None}
    if not lost:
        return empty_figure(colors, HEIGHT, "Nothing was measured on this model yet.")
    front = set(map(id, pareto(results, goal, worth)))
    points = [
        Point(
            name_of(result), getattr(result.size, goal.value), _drawn(lost[id(result)], worth), id(result) not in front, _said(result, goal)
        )
        for result in results
        if id(result) in lost
    ]
    first = results[0]
    size = getattr(first.baseline_size, goal.value)
    beaten = any(point.num_bytes <= size and point.cost <= 0 for point in points)
    points.append(Point(UNTOUCHED, size, 0.0, beaten, f"{UNTOUCHED}<br>{format_bytes(size)}<br>{_judged(first.baseline_quality)}"))
    unit = f"nats per {first.unit}" if worth is Worth.LOSS else "points of 100"
    title = f"{WORTHS[worth]} given up ({unit})"
    figure = points_figure(points, theme=colors, bytes_title=GOALS[goal], cost_title=title, cost_from_zero=False, what="result")
    ticks = _ticks([*lost.values(), 0.0], worth)
    return figure.update_yaxes(tickvals=[_drawn(tick, worth) for tick in ticks], ticktext=[f"{tick:g}" for tick in ticks])


def stages_table(result: Result) -> pd.DataFrame:
    """Return one row a stage, after one of the untouched model.

    Columns: stage, held_bytes, file_bytes, loss, control_loss where one was trained, conversion_peak_bytes, conversion_us (processor
    time), and what else techniques counted.
    """
    before = result.baseline_size
    rows: list[dict[str, Any]] = [
        {"stage": UNTOUCHED, "held_bytes": before.held_bytes, "file_bytes": before.file_bytes, "loss": result.baseline_quality.loss}
    ]
    for stage in result.stages:
        row = {"stage": stage.stage, "held_bytes": stage.held_bytes, "file_bytes": stage.file_bytes, "loss": stage.loss}
        row |= {"conversion_peak_bytes": stage.conversion_peak_bytes, "conversion_us": stage.conversion_seconds * 1e6}
        rows.append(row | stage.extra)
    table = pd.DataFrame(rows)
    if "control_loss" in table:
        table.insert(list(table).index("loss") + 1, "control_loss", table.pop("control_loss"))
    return table


def candidates_table(candidates: Sequence[Candidate]) -> pd.DataFrame:
    """Return one row a candidate: meets, technique, bytes_share of the baseline's, loss_gain, time_share, loss_and_time (of which), why."""
    rows = [
        {
            "meets": "yes" if one.meets else "no",
            "technique": one.experiment.technique,
            "bytes_share": one.ratio,
            "loss_gain": one.loss_gain,
            "time_share": one.time_ratio,
            "loss_and_time": one.known.value,
            "why": one.reason,
        }
        for one in candidates
    ]
    return pd.DataFrame(rows)


def tried_table(results: Sequence[Result], target: Target) -> pd.DataFrame:
    """Return one row a result: technique, meets, the goal's bytes, of_untouched_share, loss_gain, time_share, misses."""
    rows = [
        {
            "technique": name_of(result),
            "meets": "yes" if target.met_by(result) else "no",
            target.goal.value: getattr(result.size, target.goal.value),
            "of_untouched_share": result.ratio(target.goal.value),
            "loss_gain": loss_gain(result),
            "time_share": result.seconds / result.baseline_seconds if result.baseline_seconds else None,
            "misses": "; ".join(target.missed_by(result)),
        }
        for result in results
    ]
    return pd.DataFrame(rows)


def name_of(result: Result) -> str:
    """Return what a result is called beside others of its model."""
    seed = result.experiment.seed
    return result.experiment.technique + (f", seed {seed}" if seed else "")


def _row(name: str, size: Size, quality: Quality, result: Result, prefix: str = "") -> dict[str, Any]:
    """Return the numbers of a model, or with a prefix of its baseline, beside the baseline's; what only a result has is left open."""
    before, seconds = result.baseline_size, getattr(result, f"{prefix}seconds")
    low, high = getattr(result, f"{prefix}seconds_spread") or (None, None)
    return {
        "technique": name,
        "held_bytes": size.held_bytes,
        "held_share": size.held_bytes / max(1, before.held_bytes),
        "file_bytes": size.file_bytes,
        "file_share": size.file_bytes / max(1, before.file_bytes),
        "pass_us": seconds * 1e6,
        "pass_share": seconds / result.baseline_seconds if result.baseline_seconds else None,
        "loss": quality.loss,
        "loss_gain": quality.loss - result.baseline_quality.loss,
        "accuracy_share": quality.accuracy,
        "bleu": quality.bleu,
        "resident_bytes": size.resident_bytes,
        "conversion_peak_bytes": None,
        "fastest_us": None if low is None else low * 1e6,
        "slowest_us": None if high is None else high * 1e6,
        "perplexity": quality.perplexity,
        "loss_per_byte": result.loss_per_byte(quality),
        "perplexity_per_byte": result.perplexity_per_byte(quality),
        "agreement_share": 1.0,
    }


def _said(result: Result, goal: Goal) -> str:
    size, time = format_bytes(getattr(result.size, goal.value)), format_duration_us(result.seconds * 1e6)
    lines = (plain(name_of(result)), f"{size}, {result.ratio(goal.value):.3f} of the untouched model", _judged(result.quality))
    return "<br>".join((*lines, f"{time} a pass"))


def _judged(quality: Quality) -> str:
    return f"loss {quality.loss:.4f}, accuracy {quality.accuracy:.1%}" + (f", BLEU {quality.bleu:.1f}" if quality.bleu is not None else "")


def _drawn(lost: float, worth: Worth) -> float:
    """Return where on the axis something given up is: linear near 0, logarithmic beyond, on both sides."""
    return math.asinh(lost / _LINEAR[worth])


def _ticks(lost: Sequence[float], worth: Worth) -> list[float]:
    """Return 0 and the powers of ten on both sides, up to the first beyond what is drawn."""
    powers = [_LINEAR[worth] * 10**decade for decade in _DECADES]
    above = [power for power in powers if power < 10 * max(lost)]
    below = [-power for power in powers if power < -10 * min(lost)]
    return sorted({0.0, *above, *below})
