"""A comparison -> one HTML file that anyone can open: no network, no scripts, all numbers inside."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, Template

from profiler import __version__
from profiler.analysis.budgets import Tier
from profiler.analysis.footprint import Footprint
from profiler.errors import SpecError
from profiler.figures.comparison import NOT_MEASURED, loss, loss_change, step_time, wall_time
from profiler.figures.theme import DARK, LIGHT, STACK_ORDER
from profiler.optimizations.export import Program, export_job
from profiler.planner.comparison import Compared, Switched, name_of
from profiler.recording import Category
from profiler.units import exact_bytes, format_bytes, format_duration_us


@dataclass(frozen=True)
class _Piece:
    """One rectangle of a bar, in percent of the chart's width."""

    left: float
    width: float
    css_class: str
    hint: str


@dataclass(frozen=True)
class _Bar:
    name: str
    label: str
    pieces: list[_Piece]


def report_html(compared: Compared) -> str:
    """Return the report, with the run that was asked for as code.

    Args:
        compared: with the baseline among its runs; a budget of the device is drawn as the line that a run must stay under.
    """
    shown, budget_bytes = _shown(compared), compared.budgets.device_bytes
    widest = max([*(footprint.peak_bytes for footprint in shown.values()), budget_bytes or 0, 1])
    used = [category for category in STACK_ORDER if any(category in footprint.peak.categories for footprint in shown.values())]
    data = compared.to_json()
    return _template().render(
        title=compared.comparison.job(()).title,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
        provenance=", ".join(sorted({str(footprint.provenance) for footprint in compared.footprints.values()})),
        categories=[{"name": category.name.lower(), "label": category.label} for category in used],
        colors={category.name.lower(): (LIGHT.colors[category], DARK.colors[category]) for category in used},
        bars=[_stacked(switched, footprint, widest) for switched, footprint in shown.items()],
        budget=None if budget_bytes is None else {"left": 100 * budget_bytes / widest, "text": format_bytes(budget_bytes)},
        budget_names=_budget_names(compared),
        waterfall=_waterfall(compared, widest),
        order=" → ".join(step.toggle for step in compared.savings),
        runs=[_row(switched, footprint, compared) for switched, footprint in compared.footprints.items()],
        differences=_differences(compared, used),
        interactions=[
            {"toggle": item.toggle, "alone": _or_unknown(item.alone_bytes), "last": _or_unknown(item.last_bytes), "kind": item.kind}
            for item in compared.interactions
        ],
        explanations=data["explanations"],
        refused=data["refused"],
        programs=_programs(compared),
        data=json.dumps(data, indent=1).replace("<", "\\u003c"),
    )


@cache
def _template() -> Template:
    return Environment(
        loader=PackageLoader("profiler.figures.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("report.html")


def _programs(compared: Compared) -> tuple[Program, ...]:
    """Return the run that was asked for in the words of each tool; none where it was refused, which the report says above."""
    try:
        return export_job(compared.comparison.job(compared.comparison.asked))
    except SpecError:
        return ()


def _shown(compared: Compared) -> dict[Switched, Footprint]:
    """Return the runs of the chart: the baseline and each prefix of the waterfall, or each toggle alone."""
    comparison = compared.comparison
    wanted = comparison.steps or tuple((toggle,) for toggle in comparison.toggles)
    return {switched: compared.footprints[switched] for switched in ((), *wanted) if switched in compared.footprints}


def _stacked(switched: Switched, footprint: Footprint, widest: int) -> _Bar:
    pieces, left = [], 0
    for category in STACK_ORDER:
        num_bytes = footprint.peak.categories.get(category, 0)
        if num_bytes:
            hint = f"{category.label}: {format_bytes(num_bytes)} ({exact_bytes(num_bytes)})"
            pieces.append(_Piece(100 * left / widest, 100 * num_bytes / widest, category.name.lower(), hint))
            left += num_bytes
    name = name_of(switched) if len(switched) <= 1 else f"+ {switched[-1]}"
    return _Bar(name, format_bytes(footprint.peak_bytes), pieces)


def _waterfall(compared: Compared, widest: int) -> list[_Bar]:
    """Return one floating bar a toggle, from the peak before to the peak after."""
    if not compared.comparison.together:
        return []
    bars = []
    for step in compared.savings:
        low, high = sorted((step.before.peak_bytes, step.after.peak_bytes))
        kind = "saved" if step.saved_bytes >= 0 else "cost"
        hint = f"{step.toggle}: {exact_bytes(abs(step.saved_bytes))} {kind}"
        bars.append(
            _Bar(
                step.toggle,
                format_bytes(-step.saved_bytes, signed=True),
                [_Piece(100 * low / widest, 100 * (high - low) / widest, kind, hint)],
            )
        )
    return bars


def _row(switched: Switched, footprint: Footprint, compared: Compared) -> dict[str, Any]:
    estimated = footprint.estimated_step_seconds
    return {
        "name": name_of(switched),
        "dominated": switched in compared.dominated,
        "peak": format_bytes(footprint.peak_bytes),
        "exact": exact_bytes(footprint.peak_bytes),
        "phase": str(footprint.peak.phase),
        "reserved": _or_unknown(footprint.reserved_bytes),
        "host": _or_unknown(footprint.host_bytes or None),
        "verdicts": compared.budgets.verdicts(footprint),
        "cpu": NOT_MEASURED if footprint.cpu_seconds is None else step_time(footprint),
        "wall": wall_time(footprint),
        "estimated": "" if estimated is None else format_duration_us(estimated * 1e6),
        "loss": loss(footprint),
        "loss_change": loss_change(footprint, compared.footprints[()]) if () in compared.footprints else NOT_MEASURED,
    }


def _budget_names(compared: Compared) -> list[str]:
    """Return what each budget is called, in the order in which every run is held against them."""
    limits = ((Tier.DEVICE, compared.budgets.device_bytes), (Tier.HOST, compared.budgets.host_bytes))
    return [f"{tier.budget_name.capitalize()}, {format_bytes(limit)}" for tier, limit in limits if limit is not None]


def _differences(compared: Compared, used: list[Category]) -> list[dict[str, Any]]:
    rows = []
    for step in compared.savings:
        by = step.saved_by_category
        cells = [format_bytes(-by[category], signed=True) if category in by else "" for category in used]
        rows.append({"name": step.toggle, "cells": cells, "total": format_bytes(-step.saved_bytes, signed=True)})
    return rows


def _or_unknown(num_bytes: int | None) -> str:
    return "" if num_bytes is None else format_bytes(num_bytes)
