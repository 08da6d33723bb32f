"""What to try beside an experiment: one step in one amount, or one technique more, always possible."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.compression.adjust import neighbours
from profiler.compression.experiment import Experiment
from profiler.compression.registry import PIPELINES, TECHNIQUES
from profiler.compression.target import Goal


@pytest.mark.parametrize(
    ("names", "goal", "expected"),
    [
        (("packed-int",), Goal.MEMORY, ["packed-int:bits=2", "packed-int:bits=8"]),
        (("packed-int:bits=1",), Goal.DISK, ["packed-int:bits=2", "packed-int:bits=1 + ans"]),
        (("prune:amount=0.9",), Goal.MEMORY, ["prune:amount=0.8", "prune:amount=0.9 + fine-tune"]),
        (("prune", "fine-tune", "store-csr"), Goal.MEMORY, [f"prune:amount={x} + fine-tune + store-csr" for x in (0.4, 0.6)]),
        (("low-rank", "zstd"), Goal.DISK, ["low-rank:rank=36 + zstd", "low-rank:rank=60 + zstd", "low-rank + fine-tune + zstd"]),
        (("layer-drop",), Goal.MEMORY, ["layer-drop:count=2", "layer-drop + fine-tune"]),
        (("bfloat16",), Goal.MEMORY, []),
        ((), Goal.DISK, ["ans"]),
    ],
)
def test_each_neighbour_is_one_step_away(names: tuple[str, ...], goal: Goal, expected: list[str]) -> None:
    assert [one.technique for one in neighbours(Experiment.of("lab", names), goal)] == expected


@given(name=st.sampled_from([*TECHNIQUES, *PIPELINES]), goal=st.sampled_from(Goal), seed=st.integers(0, 9))
def test_neighbours_are_of_the_same_model_and_seed_and_never_the_experiment_itself(name: str, goal: Goal, seed: int) -> None:
    experiment = Experiment.of("lab", (name,), seed=seed)
    found = neighbours(experiment, goal)

    assert experiment not in found
    assert len(set(found)) == len(found)
    assert {(one.model, one.seed) for one in found} <= {("lab", seed)}
