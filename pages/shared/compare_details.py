"""The details of a comparison, one at a time: a table of all runs, how toggles meet, bytes against time and loss, two runs, formulas."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import streamlit as st

from pages.shared import compare_agreement, compare_pair, compare_results, components, formulas, session
from profiler.figures.comparison import comparison_table
from profiler.figures.pareto import known_costs, pareto_figure
from profiler.figures.report import report_html
from profiler.figures.waterfall import waterfall_table
from profiler.planner.comparison import Compared, name_of


class Shown(NamedTuple):
    """What the details are about."""

    compared: Compared
    engine: str


def panel(compared: Compared, engine: str) -> None:
    """Draw the choice of details and the chosen one."""
    st.subheader("Details", anchor=False)
    names = list(_DETAILS)
    chosen = str(st.segmented_control("Details", names, required=True, label_visibility="collapsed", **session.linked("details", names)))
    _DETAILS[chosen](Shown(compared, engine))


def downloads(compared: Compared) -> None:
    """Draw what can be taken away; each is made when it is asked for."""
    name = f"compare-{compared.comparison.baseline.id[:8]}"
    runs = compare_results.named_runs(compared)
    with st.container(horizontal=True, vertical_alignment="center"):
        components.download("Report as HTML", lambda: report_html(compared), f"{name}.html", "text/html")
        components.download(
            "Runs as CSV", lambda: str(comparison_table(runs, compared.budgets).to_csv(index=False)), f"{name}.csv", "text/csv"
        )
        components.download(
            "Waterfall as CSV", lambda: str(waterfall_table(compared.savings).to_csv(index=False)), f"{name}-waterfall.csv", "text/csv"
        )
        components.download("Comparison as JSON", lambda: json.dumps(compared.to_json(), indent=1), f"{name}.json", "application/json")


def _table(shown: Shown) -> None:
    runs = compare_results.named_runs(shown.compared)
    table = comparison_table(runs, shown.compared.budgets)
    components.table(table, key="compare_table", alt="Every run: its peak, and by category what differs", height="content")
    st.caption("By category: bytes at the run's peak minus those at the first run's; they sum to the column Against first.")
    for reason in dict.fromkeys(shown.compared.comparison.refusals().values()):
        names = [name_of(switched) for switched, why in shown.compared.comparison.refusals().items() if why == reason]
        st.caption(f"Not run, {', '.join(names)}: {reason}")


def _interactions(shown: Shown) -> None:
    found = shown.compared.interactions
    if not found:
        st.caption("Toggles meet where they are on together: choose two or more, and wait until all together is done.")
        return
    rows = [(one.toggle, one.alone_bytes, one.last_bytes, _difference(one.alone_bytes, one.last_bytes), one.kind) for one in found]
    columns = ["toggle", "saved_alone_bytes", "saved_last_bytes", "difference_bytes", "kind"]
    frame = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[1:4], "Int64"))
    components.table(frame, key="interactions", alt="What each toggle saves alone and as the last one", height="content")
    st.caption(
        "Alone: on the baseline. Last: when all others are on. Overlap: others save part of it already; synergy: it saves more then."
    )


def _difference(alone: int | None, last: int | None) -> int | None:
    return None if alone is None or last is None else last - alone


def _pareto(shown: Shown) -> None:
    runs = compare_results.named_runs(shown.compared)
    costs = known_costs(runs)
    if not costs:
        st.caption(
            "Neither time nor loss was measured here, and for this machine's CPU no time is estimated: there is nothing to set against."
        )
        return
    labels = {"time": "Time", "loss": "Loss"}
    cost = st.segmented_control("Bytes against", costs, format_func=labels.__getitem__, required=True, **session.linked("cost", costs))
    dominated = frozenset(map(name_of, shown.compared.dominated))
    budget_bytes = shown.compared.budgets.device_bytes
    figure = pareto_figure(runs, dominated, cost=cost or costs[0], theme=session.theme(), budget_bytes=budget_bytes)
    components.chart(figure, key="compare_pareto", alt="Peak bytes of each run against its time or loss; Table has the numbers.")
    st.caption(
        "Lower left is better. Open circles: another run is nowhere worse in bytes (the host's too), time and loss, and somewhere better."
    )


def _formulas(shown: Shown) -> None:
    jobs = {name_of(switched): job for switched, job in shown.compared.comparison.jobs().items()}
    name = str(st.selectbox("Run", list(jobs), **session.linked("formula_of", list(jobs))))
    formulas.panel(jobs[name])


def _agreement(shown: Shown) -> None:
    compare_agreement.panel(shown.compared, shown.engine)


def _pair(shown: Shown) -> None:
    compare_pair.panel(shown.compared)


_DETAILS: dict[str, Callable[[Shown], None]] = {
    "Table": _table,
    "Interactions": _interactions,
    "Bytes, time and loss": _pareto,
    "Two runs": _pair,
    "Formulas": _formulas,
    "Measured and simulated": _agreement,
}
