"""The default lab: every technique and pipeline, once, possible, and the controls first."""

from __future__ import annotations

import pytest

from profiler.compression import default_lab as module
from profiler.compression.default_lab import default_lab
from profiler.compression.registry import PIPELINES, TECHNIQUES


def test_every_technique_and_every_pipeline_is_in_the_default_lab_once() -> None:
    experiments = default_lab("lab")
    stages = [one.stages for one in experiments]

    assert {item.name for one in experiments for item in one.techniques} == set(TECHNIQUES)
    assert len(set(stages)) == len(stages) == len(TECHNIQUES) + len(PIPELINES)


def test_what_is_a_control_of_others_is_measured_before_them() -> None:
    experiments = default_lab("lab")
    controls = {control for one in experiments for control in one.controls.values()}

    assert controls == {experiments[0]}


def test_what_cannot_be_measured_here_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "to_install", lambda needs: "Install it." if "torchao" in needs else None)

    assert not any("torchao" in item.needs for one in default_lab("lab") for item in one.techniques)
    assert default_lab("lab")


def test_formats_that_leave_zeros_out_follow_what_makes_zeros_and_indices_what_is_shared() -> None:
    before = {one.stages[-1].name: str(one.stages[0]) for one in default_lab("lab") if len(one.stages) == 2}

    assert before == {
        "store-csr": "prune-global:amount=0.7",
        "store-coo": "prune-global:amount=0.7",
        "store-bsr": "prune-global:amount=0.7",
        "store-bitmask": "prune-global:amount=0.7",
        "store-2-4": "prune-2-4",
        "fixed": "k-means",
        "huffman": "k-means",
    }
