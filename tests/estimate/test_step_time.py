"""The roofline against hand computation, and the closed forms of FLOPs against torch's own counter."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from profiler.devices import GPUS
from profiler.estimate.step_time import Assumptions, Bound, OperatorCosts, estimate_step_time, forward_flops, training_flops
from profiler.models.build import build_model
from profiler.models.catalogue import facts_of
from profiler.recording import Provenance
from profiler.spec import Model

A100 = GPUS["a100-80gb"]
IDEAL = Assumptions(compute_efficiency=1.0, bandwidth_efficiency=1.0, launch_us=0.0)


def costs(*rows: tuple[int, int, str]) -> OperatorCosts:
    flops, num_bytes, dtypes = zip(*rows, strict=True)
    return OperatorCosts(flops=np.array(flops, np.int64), bytes=np.array(num_bytes, np.int64), dtypes=dtypes)


def test_an_operator_takes_as_long_as_the_slowest_of_arithmetic_memory_and_launch() -> None:
    rows = [(312_000_000_000, 1000, "bfloat16"), (1000, 2_039_000_000, "bfloat16"), (1, 1, "bfloat16")]
    found = estimate_step_time(costs(*rows), A100, dataclasses.replace(IDEAL, launch_us=5.0))

    assert found.durations_us == pytest.approx([1000, 1000, 5])
    assert found.bound_us == {Bound.COMPUTE: pytest.approx(1000), Bound.MEMORY: pytest.approx(1000), Bound.LAUNCH: pytest.approx(5)}
    assert found.total_us == pytest.approx(2005)
    assert found.flops == 312_000_001_001
    assert found.peak_share == pytest.approx(1000 / 2005)
    assert found.provenance is Provenance.ESTIMATED


def test_the_shares_of_the_peaks_lengthen_what_they_are_about() -> None:
    rows = costs((312_000_000_000, 0, "bfloat16"), (0, 2_039_000_000, "bfloat16"))
    found = estimate_step_time(rows, A100, Assumptions(compute_efficiency=0.5, bandwidth_efficiency=0.25))

    assert found.durations_us == pytest.approx([2000, 4000])


def test_each_dtype_runs_at_its_own_rate() -> None:
    flops = 19_500_000_000
    rows = costs((flops, 0, "float32"), (flops, 0, "bfloat16"), (flops, 0, "float32"))

    assert estimate_step_time(rows, A100, IDEAL).durations_us == pytest.approx([1000, 62.5, 1000])
    allowed = dataclasses.replace(IDEAL, allow_tf32=True)
    assert estimate_step_time(rows, A100, allowed).durations_us == pytest.approx([125, 62.5, 125])


def test_no_operators_take_no_time() -> None:
    empty = OperatorCosts(flops=np.empty(0, np.int64), bytes=np.empty(0, np.int64), dtypes=())
    found = estimate_step_time(empty, A100)

    assert (found.total_us, found.flops, found.peak_share) == (0, 0, 0)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        OperatorCosts(flops=np.zeros(2), bytes=np.zeros(2), dtypes=["float32"])


@given(st.lists(st.tuples(st.integers(0, 10**15), st.integers(0, 10**12), st.sampled_from(["float32", "bfloat16", "int64"])), min_size=1))
def test_no_gpu_is_faster_than_its_peaks_and_a_better_one_is_never_slower(rows: list[tuple[int, int, str]]) -> None:
    found = estimate_step_time(costs(*rows), A100)
    better = estimate_step_time(costs(*rows), GPUS["h200"])

    assert (found.durations_us >= found.assumptions.launch_us).all()
    assert 0 <= found.peak_share <= found.assumptions.compute_efficiency + 1e-9
    assert sum(found.bound_us.values()) == pytest.approx(found.total_us)
    assert (better.durations_us <= found.durations_us).all()


def test_the_assumptions_are_said() -> None:
    text = Assumptions(allow_tf32=True).sentences(A100)

    assert text[0] == "Arithmetic reaches 70% of the peak rate of A100 80GB SXM for its dtype."
    assert "80% of 2.04 TB/s" in text[1]
    assert "at least 4.00 us" in text[2]
    assert text[3] == "Products in float32 run as tf32."


def test_the_closed_forms_by_hand() -> None:
    sizes = {"num_layers": 32, "width": 4096, "seq": 2048}
    dense, attention = 2 * 7_504_924_672 * 4096, 4 * 32 * 4096 * 2048 * 4096

    assert forward_flops(7_504_924_672, 4096) == dense
    assert forward_flops(7_504_924_672, 4096, **sizes, is_causal=False) == dense + attention
    assert forward_flops(7_504_924_672, 4096, **sizes) == dense + attention // 2
    assert training_flops(7_504_924_672, 4096, **sizes, is_causal=False) == 6 * 7_504_924_672 * 4096 + 12 * 32 * 4096 * 2048 * 4096
    assert training_flops(7_504_924_672, 4096, **sizes, recompute=True) * 3 == training_flops(7_504_924_672, 4096, **sizes) * 4


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama"])
def test_the_closed_forms_are_within_one_percent_of_what_torch_counts(name: str) -> None:
    """Torch counts masked scores too, so nothing is halved here."""
    facts = facts_of(Model(name=name))
    assert facts.num_heads
    assert facts.head_dim
    batch, seq = 2, 128
    model = build_model(Model(name=name))
    model.set_attn_implementation("eager")
    ids = torch.randint(0, facts.vocab_size, (batch, seq))
    with FlopCounterMode(display=False) as counted:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    num_parameters = sum(p.numel() for p in model.parameters() if id(p) not in embeddings or p is model.get_output_embeddings().weight)

    expected = training_flops(
        num_parameters, batch * seq, num_layers=facts.num_layers, width=facts.num_heads * facts.head_dim, seq=seq, is_causal=False
    )
    assert counted.get_total_flops() == pytest.approx(expected, rel=0.01)
