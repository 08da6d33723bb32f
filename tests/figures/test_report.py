"""The report: one file with every number, that asks nothing of a network and runs nothing."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Browser

from profiler.analysis.budgets import NO_BUDGETS, Budgets
from profiler.analysis.footprint import Footprint, Level, Spread
from profiler.figures.report import report_html
from profiler.optimizations.export import export_job
from profiler.planner.comparison import Compared, Comparison, Switched, parse_toggles
from profiler.recording import Category, Phase, Provenance
from profiler.spec import Job, Model, Workload
from profiler.units import GIB

HOSTILE = '<script>alert("x")</script>'


def compared(*sizes: int, model: str = "tiny-llama", budgets: Budgets = NO_BUDGETS) -> Compared:
    comparison = Comparison(
        baseline=Job(model=Model.from_config(model, CONFIG), workload=Workload(batch=1, seq=8)),
        toggles=parse_toggles(["bfloat16", "checkpointing"]),
    )
    toggles = comparison.toggles
    runs: list[Switched] = [(), toggles[:1], toggles, toggles[1:]]
    return Compared(comparison=comparison, footprints=dict(zip(runs, map(footprint, sizes), strict=False)), budgets=budgets)


CONFIG = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
}


def footprint(gib: int) -> Footprint:
    level = Level(Phase.BACKWARD, gib * GIB, {Category.PARAMETER: GIB, Category.ACTIVATION: (gib - 1) * GIB})
    return Footprint(recording_id=f"of {gib} GiB", provenance=Provenance.SIMULATED, peak=level, peak_step=1, phases={Phase.BACKWARD: level})


def test_it_holds_every_number_and_names_what_was_not_measured() -> None:
    asked = compared(10, 6, 3, 8, budgets=Budgets(device_bytes=4 * GIB))
    text = report_html(asked)
    data = json.loads(html.unescape(re.search(r'<pre id="data">(.*?)</pre>', text, re.DOTALL)[1]))  # type: ignore[index]
    assert data == asked.to_json()
    assert "10,737,418,240 B" in text
    assert "bfloat16 saved 4.00 GiB, 40 % of the peak" in text
    assert "not measured" in text
    assert len(text.encode()) < 3_000_000


def test_a_run_that_saves_by_what_the_host_holds_beats_nobody_there() -> None:
    asked = compared(10, 6)
    (toggle, _) = asked.comparison.toggles
    on_host, beside = (
        replace(asked, footprints=asked.footprints | {(toggle,): replace(footprint(6), host_bytes=held)}) for held in (GIB, GIB // 100)
    )

    assert asked.dominated == {()}
    assert on_host.dominated == set(), "4 GiB less on the GPU, 1 GiB more on the host"
    assert beside.dominated == {()}, "what a generator keeps there counts for nothing"


def test_every_run_is_held_against_both_budgets() -> None:
    asked = compared(10, 6, budgets=Budgets(device_bytes=8 * GIB, host_bytes=2 * GIB))
    (toggle, _) = asked.comparison.toggles
    on_host = asked.footprints | {(toggle,): replace(footprint(6), host_bytes=5 * GIB)}
    text = report_html(replace(asked, footprints=on_host))

    assert "<th>Budget, 8.00 GiB</th><th>Host budget, 2.00 GiB</th>" in text
    cells = re.findall(r'<td(?: class="(over)")?>(\d\.\d\d GiB) (to spare|too much), (?:allocated|held)</td>', text)
    assert cells == [
        ("over", "2.00 GiB", "too much"),
        ("", "2.00 GiB", "to spare"),
        ("", "2.00 GiB", "to spare"),
        ("over", "3.00 GiB", "too much"),
    ]
    assert "What limits now: the host." in text
    assert "udget" not in report_html(compared(10, 6)).partition("<body>")[2].partition('<pre id="data">')[0]


def test_it_has_the_run_as_code_and_what_each_tool_cannot_say() -> None:
    asked = compared(10, 6, 3, 8)
    text = html.unescape(report_html(asked))
    programs = export_job(asked.comparison.job(asked.comparison.asked))
    assert len(programs) == 5
    for program in programs:
        assert f"As code: {program.tool}" in text
        assert program.text in text
        assert all(f"Not said: {sentence}" in text for sentence in program.missing)
    assert sum(len(program.missing) for program in programs) > 2


def test_what_was_measured_has_its_tolerance_and_the_time_on_the_clock() -> None:
    measured = replace(footprint(10), losses=(3.25,), repeated_losses=(3.252,), wall_seconds=Spread(0.004, 0.003, 0.005, num=3))
    text = report_html(replace(compared(10), footprints={(): measured}))
    assert "3.2500 ± 0.002" in text
    assert "4.00 ms (3.00 ms to 5.00 ms)" in text


def test_it_refers_to_nothing_outside_and_runs_nothing() -> None:
    text = report_html(compared(10, 6, 3, 8, model=HOSTILE))
    assert HOSTILE not in text
    assert not re.search(r"(?:src|href)\s*=|url\(|@import|https?://", text)


def test_half_a_comparison_is_a_report_too() -> None:
    assert "baseline" in report_html(compared(10))


def test_it_opens_offline_with_its_bars_where_the_numbers_say(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(report_html(compared(10, 6, 3, 8, budgets=Budgets(device_bytes=5 * GIB))), encoding="utf-8")
    page = browser.new_page(offline=True)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.goto(path.as_uri())
    pieces = page.locator(".chart >> nth=0 >> .piece")
    widths = [pieces.nth(num).evaluate("piece => piece.style.width") for num in range(2)]
    assert widths == ["10%", "90%"]
    assert page.locator(".budget").first.evaluate("line => line.style.left") == "50%"
    assert page.get_by_role("heading", name="What each toggle saves").is_visible()
    assert not problems
    page.close()
