"""``compare``: the baseline, every toggle alone, in order and together, in one JSON value; limits as exit codes."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from profiler.storage import RunStore
from profiler.units import exact_bytes
from tests.cli.conftest import Run
from tests.conftest import ROOT

TINY = ("compare", "--model", "tiny-llama", "--batch", "1", "--seq", "8", "--toggle", "bf16", "--toggle", "checkpointing")

SAMPLE = next((ROOT / "sample_traces").glob("*.headroom"))


def test_a_simulated_comparison_adds_up_and_has_no_loss(run: Run, home: Path) -> None:
    found = run(*TINY, "--gpu", "rtx-4090", "--json")
    assert found.code == 0, found.err
    data: Any = found.json
    peaks = {tuple(row["toggles"]): row["peak_allocated_bytes"] for row in data["runs"]}
    assert list(peaks) == [(), ("bfloat16", "checkpointing"), ("bfloat16",), ("checkpointing",)]
    assert [step["toggle"] for step in data["waterfall"]] == ["bfloat16", "checkpointing"]
    assert sum(step["saved_bytes"] for step in data["waterfall"]) == peaks[()] - peaks["bfloat16", "checkpointing"]
    for row in data["runs"]:
        assert (row["cpu_seconds"], row["loss"]) == (None, None)
        assert row["estimated_step_seconds"] > 0
        assert sum(row["categories_at_peak"].values()) == row["peak_allocated_bytes"]
    assert set(data["explanations"]) == {"bfloat16", "checkpointing"}
    assert "bfloat16 saved" in data["explanations"]["bfloat16"][0]

    reserved = {tuple(row["toggles"]): row["peak_reserved_bytes"] for row in data["runs"]}["bfloat16", "checkpointing"]
    assert run(*TINY, "--gpu", "rtx-4090", "--budget", str(reserved)).code == 0
    above = run(*TINY, "--gpu", "rtx-4090", "--budget", str(reserved - 1))
    assert above.code == 4
    assert "1 B more than the budget allows" in above.err

    together = next(e for e in RunStore(home).list() if {"bfloat16", "checkpointing"} <= {t for t in (e.metadata.job or {})["toggles"]})
    alone = ("compare", "--model", "tiny-llama", "--batch", "1", "--seq", "8", "--gpu", "rtx-4090", "--baseline", str(together.path))
    regressed = run(*alone, "--tolerance", "1%")
    assert regressed.code == 4
    assert "more than the baseline allows" in regressed.err
    assert run(*TINY, "--gpu", "rtx-4090", "--baseline", str(together.path), "--tolerance", "0%").code == 0


def test_the_host_has_a_budget_of_its_own_beside_a_simulated_gpu(run: Run, home: Path) -> None:
    offload = ("compare", "--model", "tiny-llama", "--batch", "1", "--seq", "8", "--toggle", "offload-optimizer")
    gpu = (*offload, "--gpu", "rtx-4090")
    baseline, together = run(*gpu, "--json").json["runs"]
    held = together["host_peak_bytes"]
    assert held > (baseline["host_peak_bytes"] or 0)
    assert together["budgets"] == {}

    assert run(*gpu, "--host-budget", str(held)).code == 0
    above = run(*gpu, "--host-budget", str(held - 1), "--budget", "24GiB", "--json")
    assert above.code == 4
    assert above.err.count("\n") == 1
    assert f"{held:,} B are held on the host with offload-optimizer, 1 B more than the host budget allows ({held - 1:,} B)." in above.err
    baseline, together = above.json["runs"]
    assert together["budgets"]["host"] == {"budget_bytes": held - 1, "needed_bytes": held, "over_bytes": 1, "fits": False}
    assert together["budgets"]["device"]["fits"]
    assert baseline["budgets"]["host"]["fits"]
    assert any("The run is now over the host budget" in sentence for sentence in above.json["explanations"]["offload-optimizer"])
    assert "On the host" in run(*gpu).out
    refused = run(*offload, "--host-budget", "24GiB")
    assert refused.code == 2
    assert "a CPU has one memory. Name a GPU with --gpu, or use --budget." in refused.err


def test_the_report_has_the_numbers_of_the_comparison(run: Run, home: Path, tmp_path: Path) -> None:
    data: Any = run(*TINY, "--gpu", "rtx-4090", "--json").json
    stored = {entry.path: entry.path.stat().st_mtime_ns for entry in RunStore(home).list()}
    report = tmp_path / "report.html"

    reported = run(*TINY, "--gpu", "rtx-4090", "--json", "--report", report)

    assert reported.code == 0, reported.err
    assert {entry.path: entry.path.stat().st_mtime_ns for entry in RunStore(home).list()} == stored  # nothing was run twice
    page = report.read_text(encoding="utf-8")
    embedded = re.search('<pre id="data">(.*?)</pre>', page, re.DOTALL)
    assert embedded
    assert json.loads(html.unescape(embedded[1])) == data == reported.json

    peaks = {" + ".join(row["toggles"]) or "baseline": row["peak_allocated_bytes"] for row in data["runs"]}
    rows = [re.findall("<td[^>]*>(.*?)</td>", line) for line in section(page, "All runs").splitlines()]
    assert {row[0]: row[2] for row in rows if row} == {name: exact_bytes(num_bytes) for name, num_bytes in peaks.items()}

    steps = re.findall('title="([a-z0-9-]+): ([0-9,]+) B (saved|cost)"', section(page, "What each saved, in this order"))
    saved = [(name, int(num_bytes.replace(",", "")) * (1 if kind == "saved" else -1)) for name, num_bytes, kind in steps]
    assert saved == [(step["toggle"], step["saved_bytes"]) for step in data["waterfall"]]
    assert sum(num_bytes for _, num_bytes in saved) == peaks["baseline"] - peaks["bfloat16 + checkpointing"]


def test_a_sweep_is_judged_run_by_run_and_says_what_it_left_out(run: Run, home: Path) -> None:
    sweep = ("compare", "--model", "tiny-llama", "--batch", "1", "--seq", "8", "--gpu", "rtx-4090", "--sweep", "activations")
    rows = run(*sweep, "--json").json["runs"]
    reserved = {" + ".join(row["toggles"]): row["peak_reserved_bytes"] for row in rows}
    limit = max(reserved.values()) - 1

    above = run(*sweep, "--budget", str(limit))

    assert above.code == 4
    for name, needed in reserved.items():
        assert (f"are needed with {name or 'baseline'}," in above.err) == (needed > limit)
    assert "not measured" in above.out
    assert "Step time is estimated" in above.out
    parallel = run("compare", "--model", "tiny-llama", "--batch", "1", "--seq", "8", "--steps", "1", "--sweep", "parallelism")
    assert parallel.code == 0, parallel.err
    assert "Not run, ddp: ddp can only be simulated" in parallel.out
    refused = run(*TINY[:-2], "--toggle", "ddp:ranks=2", "--engine", "measured")
    assert refused.code == 2
    assert "ddp can only be simulated" in refused.err


def test_a_measured_comparison_has_times_and_losses(run: Run, home: Path) -> None:
    data: Any = run(*TINY[:-2], "--engine", "measured", "--steps", "2", "--json").json
    baseline, together = data["runs"]
    for row in (baseline, together):
        spread = row["cpu_seconds_spread"]
        assert 0 < spread["low"] <= row["cpu_seconds"] <= spread["high"]
        assert spread["num"] == 2
        assert row["estimated_step_seconds"] is None
        assert row["loss_tolerance"] >= 0
    assert baseline["loss"] == pytest.approx(together["loss"], abs=0.5)
    assert baseline["loss"] != together["loss"]


def section(page: str, heading: str) -> str:
    """Return what stands in a report between a heading and the next."""
    return page.partition(f"<h2>{heading}</h2>")[2].partition("<h2>")[0]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--toggle", "fp16"), "bfloat16 and float16 are both switched on"),
        (("--sweep", "precision"), "Leave one out"),
        (("--engine", "measured", "--gpu", "rtx-4090"), "Leave one out"),
        (("--tolerance", "2", "--baseline", str(SAMPLE)), "not a share"),
        (("--budget", "much"), "not a size"),
        (("--gpu", "rtx-4090", "--host-budget", "much"), "not a size"),
        (("--toggle", "bf61"), "bf16"),
    ],
)
def test_what_is_not_possible_is_one_sentence(run: Run, home: Path, options: tuple[str, ...], reason: str) -> None:
    found = run(*TINY, *options)
    assert found.code == 2
    assert reason in found.err
