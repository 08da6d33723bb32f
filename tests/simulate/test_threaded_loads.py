"""Loads in threads: the orders in which weights may reach a GPU, and what they make of the same requests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gpu_runs import phases
from benchmarks.gpu_runs.loading import threaded_load
from benchmarks.gpu_runs.phases import possible
from benchmarks.gpu_runs.requests import LoadStep, Requests
from benchmarks.gpu_runs.schema import Comparison, Spread
from profiler.allocator.allocator import CachingAllocator
from profiler.allocator.blocks import Block
from profiler.devices import find_gpu
from profiler.models.build import build_model
from profiler.optimizations.nf4_loading import load_in_4_bits, prepare_for_training
from profiler.simulate.session import Simulation
from profiler.spec import Model
from profiler.units import MIB

WEIGHTS = st.lists(st.integers(min_value=1, max_value=1 << 30), min_size=1, max_size=40)


@given(weight_bytes=WEIGHTS, seed=st.integers(0, 1000), num_workers=st.integers(1, 8))
def test_weights_are_brought_and_taken_in_the_order_of_their_names_and_none_is_taken_before_it_was_brought(
    weight_bytes: list[int], seed: int, num_workers: int
) -> None:
    steps = list(threaded_load(weight_bytes, Random(seed), num_workers))
    everyone = list(range(len(weight_bytes)))
    assert [step.weight for step in steps if not step.is_taken] == everyone
    assert [step.weight for step in steps if step.is_taken] == everyone
    assert all(steps.index(LoadStep(weight, is_taken=False)) < steps.index(LoadStep(weight, is_taken=True)) for weight in everyone)


@pytest.mark.parametrize("num_workers", [1, 4])
def test_as_many_weights_as_there_are_threads_are_on_their_way_before_the_first_is_taken(num_workers: int) -> None:
    steps = list(threaded_load([MIB] * 20, Random(1), num_workers))
    ahead = steps.index(LoadStep(0, is_taken=True))
    assert ahead >= num_workers
    assert ahead <= 3 * num_workers  # the slowest takes four times what the fastest takes


def test_weights_wait_on_the_card_while_one_before_them_takes_long() -> None:
    steps = list(threaded_load([100 * MIB] + [MIB] * 100, Random(1)))
    assert steps.index(LoadStep(0, is_taken=True)) > 50


def three_weights() -> Requests:
    """Two of 6 MiB and one of 22 MiB, quantized to a quarter."""
    requests, allocator = Requests(), CachingAllocator()

    def malloc(mib: float) -> Block:
        block = allocator.malloc(int(mib * MIB))
        assert isinstance(block, Block)
        return block

    with requests.listening():
        for mib in (6, 6, 22):
            requests.begin_weight(mib * MIB)
            whole = malloc(mib)
            malloc(mib / 4)
            allocator.free(whole)
        requests.end_load()
        requests.read("allocated", "allocated_bytes")
        requests.read("peak", "peak_allocated_bytes")
        requests.start_peaks()
        allocator.empty_cache()
        requests.read("reserved", "reserved_bytes")
        requests.read("peak later", "peak_allocated_bytes")
    return requests


def test_one_after_another_the_last_weight_fits_the_first_ones_hole_but_for_half_a_mebibyte() -> None:
    played = three_weights().play()
    # a segment of 20 MiB: a hole of 6, then 1.5 and 1.5; a rest of half a MiB is not split off where 5.5 go into 6
    assert played == {"allocated": 9 * MIB, "peak": (1.5 + 1.5 + 22 + 6) * MIB, "reserved": 20 * MIB, "peak later": 9 * MIB}


def test_all_brought_before_one_is_taken_the_holes_are_others() -> None:
    load = [LoadStep(weight, is_taken) for is_taken in (False, True) for weight in range(3)]
    played = three_weights().play(load)
    # 6 and 6 and 8 free: 1.5 go into the 8, which leaves 6.5; 1.5 into the first hole; 5.5 into the 6.5, of which 1 MiB is not split off
    assert played == {"allocated": 9.5 * MIB, "peak": (6 + 6 + 22 + 1.5) * MIB, "reserved": 20 * MIB, "peak later": 9.5 * MIB}


def test_what_is_possible_is_the_median_of_many_loads_and_their_ends() -> None:
    predicted, spreads = possible(three_weights(), {"allocated": 9 * MIB, "reserved": 20 * MIB})
    assert spreads["reserved"] == Spread(20 * MIB, 20 * MIB, 64, 64)
    assert spreads["allocated"].lowest <= predicted["allocated"] <= spreads["allocated"].highest
    assert spreads["allocated"].highest == 9.5 * MIB


def test_asked_again_in_the_same_order_a_4_bit_model_needs_what_it_needed(tmp_path: Path) -> None:
    requests = Requests()
    with Simulation(tmp_path / "run.headroom", find_gpu("t4")) as simulation, requests.listening():
        built: Any = build_model(Model(name="tiny-llama"), torch.float16)
        weight_bytes = sum(weight.nbytes for weight in built.parameters())
        model = load_in_4_bits(built, simulation.device, before_weight=lambda weight: requests.begin_weight(weight.nbytes))
        requests.end_load()
        prepare_for_training(model)
        requests.read("allocated", "allocated_bytes")
        assert simulation.allocator is not None
        stats = simulation.allocator.stats
        needed = {"allocated": stats.allocated_bytes}
        simulation.abandon()
    assert sum(requests.weight_bytes) == weight_bytes
    assert requests.play() == needed


def run_of(transformers: str, peft: str, bitsandbytes: str | None, quantization: str = "nf4") -> dict[str, Any]:
    return {"quantization": quantization, "versions": {"transformers": transformers, "peft": peft, "bitsandbytes": bitsandbytes}}


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (run_of("5.18.0", "0.20.0", "0.50.2"), []),
        (run_of("5.4.0", "0.20.0", "0.50.2"), ["5.18"]),
        (run_of("5.3.0", "0.20.0", "0.50.2"), ["5.18", "5.4"]),
        (run_of("5.0.0", "0.19.1", "0.50.2"), ["5.18", "5.4", "0.20"]),
        (run_of("5.17.0", "0.20.0", None), ["5.18", "5.4", "0.20", "another environment"]),
        (run_of("5.17.0", "0.20.0", None, "none"), ["5.18"]),
    ],
)
def test_rules_follow_the_recorded_versions(run: dict[str, Any], says: list[str]) -> None:
    rules = phases._rules(run)
    assert len(rules) == len(says)
    assert all(word in rule for rule, word in zip(rules, says, strict=True))


@pytest.fixture
def comparison() -> Callable[[int], Comparison]:
    def made(measured: int) -> Comparison:
        spreads = {"peak": Spread(900, 1100, 0, 64)}
        return Comparison({"id": "x"}, {"peak": 1000}, {"peak": measured}, {"peak": 5}, 1.0, spreads=spreads)

    return made


def test_what_is_among_the_possible_is_not_missed_and_still_said_to_be_off(comparison: Callable[[int], Comparison]) -> None:
    assert (comparison(1004).off, comparison(1004).missed) == ([], [])
    assert (comparison(1100).off, comparison(1100).missed) == (["peak"], [])
    assert (comparison(1101).off, comparison(1101).missed) == (["peak"], ["peak"])
    assert comparison(1100).to_json()["spreads"] == {"peak_bytes": {"lowest": 900, "highest": 1100, "num_equal": 0, "num_loads": 64}}
    assert comparison(1100).to_json()["peak_diff_bytes"] == -100
