"""Histories that other people recorded on their cards, replayed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.snapshots import measure

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "recordings"
GIB = 1024**3
FILES = (
    "cherryni_small_ctx512_wrapped.pickle",
    "flexgen_opt1.3b_oom_torch2.0.pickle",
    "linyun_xl_ctx128_forward_fp32.pickle",
    "linyun_xl_ctx512_train_amp.pickle",
    "magma_train_windows.pickle",
    "niu_forward_ctx200_amp.pickle",
    "niu_train_ctx100.pickle",
    "silmont_forward_ctx128.html",
    "silmont_forward_ctx128.pickle",
    "wedsonlin_medium_ctx128_train.pickle",
)


@pytest.fixture(scope="module")
def expected() -> dict[str, dict[str, Any]]:
    if not FOLDER.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail("the shared recordings are missing; in CI they must be tested")
        pytest.skip("the shared recordings are not beside this checkout")
    return {entry["file"]: entry for entry in json.loads((FOLDER / "index.json").read_text())}


@pytest.mark.parametrize("file", FILES)
def test_every_recorded_decision_is_reproduced(file: str, expected: dict[str, dict[str, Any]]) -> None:
    facts = expected[file]["facts"]["devices"][0]
    [result] = measure(FOLDER / file, repeats=1)
    assert result["first_difference"] is None
    for what in ("allocs", "segments", "releases", "final_blocks"):
        assert result[f"num_{what}_matched"] == result[f"num_{what}"]
    assert result["num_allocs"] == facts["actions"].get("alloc", 0)
    assert result["num_segments"] == facts["actions"].get("segment_alloc", 0)
    assert result["peak_requested_bytes"] == facts["peak_requested"]
    assert result["peak_reserved_bytes"] == facts["peak_reserved"]
    assert result["free_running_peak_reserved_bytes"] == facts["peak_reserved"]
    assert facts["peak_rounded_without_slack"] <= result["peak_allocated_bytes"] <= facts["peak_reserved"]


def test_the_peak_of_allocated_is_what_the_run_itself_printed(expected: dict[str, dict[str, Any]]) -> None:
    [result] = measure(FOLDER / "linyun_xl_ctx512_train_amp.pickle", repeats=1)
    assert "63.72 GiB" in expected["linyun_xl_ctx512_train_amp.pickle"]["what"]
    assert round(result["peak_allocated_bytes"] / GIB, 2) == 63.72
