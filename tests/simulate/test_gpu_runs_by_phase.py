"""Recorded LoRA and QLoRA steps of a Tesla T4: float16 ones to the byte, 4-bit ones as one of the loads that threads make possible."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from benchmarks.gpu_runs import phases
from benchmarks.gpu_runs.__main__ import ROOT

T4_FILE = ROOT.parent / "shared" / "data" / "gpu_runs_t4.json"
PEAKS = ("peak_forward", "peak_backward", "peak_optimizer", "peak")


def runs(quantization: str) -> list[dict[str, Any]]:
    if not T4_FILE.is_file():
        reason = "the shared data are not beside this checkout"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return [run for run in json.loads(T4_FILE.read_text())["runs"] if run["quantization"] == quantization]


def test_a_lora_step_is_predicted_to_the_byte_in_every_phase_and_reserved() -> None:
    (run,) = (run for run in runs("none") if run["id"] == "t4-14")
    comparison = phases.compare(run)
    assert set(comparison.differences.values()) == {0}
    assert comparison.explanation == ""


@pytest.mark.slow
def test_every_float16_run_is_predicted_to_the_byte() -> None:
    for run in runs("none"):
        comparison = phases.compare(run)
        assert {comparison.differences[name] for name in ("after_load", *PEAKS)} == {0}, run["id"]
        assert "reserved" not in comparison.missed, run["id"]


@pytest.mark.slow
def test_what_was_recorded_of_4_bit_runs_is_among_what_their_threads_make_possible() -> None:
    for run in runs("nf4")[::6]:  # the benchmark goes through all of them
        comparison = phases.compare(run)
        assert comparison.missed == [], run["id"]
        assert not set(PEAKS) & set(comparison.off), run["id"]
        if run["model"] in ("HuggingFaceTB/SmolLM2-1.7B", "HuggingFaceTB/SmolLM2-135M"):  # their blocks leave no slack, in any order
            assert comparison.differences["after_load"] == 0


@pytest.mark.slow
def test_what_a_4_bit_run_reserved_tells_that_its_weights_came_in_threads() -> None:
    (run,) = (run for run in runs("nf4") if run["id"] == "t4-17")
    reserved_bytes = run["measured_bytes"]["peak_reserved_bytes"]
    assert phases.compare(run).spreads["reserved"].num_equal > 0
    for versions in ({"transformers": "5.17.0", "peft": "0.20.0"}, {"transformers": "5.17.0", "peft": "0.19.1"}):
        in_order = phases.compare(run | {"versions": versions | {"bitsandbytes": "0.50.2"}})
        assert in_order.predicted["reserved"] != reserved_bytes
