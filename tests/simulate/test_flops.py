"""What operators cost, against numbers counted by hand; and that a training step's FLOPs are those of its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from profiler import read_recording
from profiler.devices import GPUS
from profiler.estimate.step_time import Assumptions, forward_flops, training_flops
from profiler.models.build import build_model
from profiler.models.catalogue import facts_of
from profiler.recording import Recording
from profiler.simulate.engine import simulate_job
from profiler.simulate.flops import Cost, cost_of
from profiler.spec import Job, Model, Toggle, Workload

aten = torch.ops.aten


def cost(func: Any, *args: Any, **kwargs: Any) -> Cost | None:
    """Return what a call costs that is made for real on the meta device."""
    return cost_of(func, args, kwargs, func(*args, **kwargs))


def taken(func: Any, *args: Any, **kwargs: Any) -> tuple[int, int]:
    found = cost(func, *args, **kwargs)
    assert found is not None
    return found.flops, found.num_bytes


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def test_a_product_multiplies_and_adds_and_reads_both_sides() -> None:
    assert taken(aten.mm.default, meta(3, 5), meta(5, 7)) == (2 * 3 * 5 * 7, 4 * (15 + 35 + 21))
    assert taken(aten.addmm.default, meta(7), meta(3, 5), meta(5, 7)) == (2 * 3 * 5 * 7, 4 * (7 + 15 + 35 + 21))
    assert taken(aten.bmm.default, meta(2, 3, 5), meta(2, 5, 7)) == (2 * 2 * 3 * 5 * 7, 4 * 2 * (15 + 35 + 21))


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (aten.t.default, (meta(3, 5),)),
        (aten.view.default, (meta(3, 5), [15])),
        (aten._unsafe_view.default, (meta(3, 5), [15])),
        (aten.split.Tensor, (meta(4, 5), 2)),
        (aten.detach.default, (meta(3, 5),)),
        (aten.empty_like.default, (meta(3, 5),)),
        (aten.transpose_.default, (meta(3, 5), 0, 1)),
        (torch.ops.prim.device.default, (meta(3, 5),)),
    ],
)
def test_what_moves_nothing_costs_nothing(func: Any, args: tuple[Any, ...]) -> None:
    assert cost(func, *args) is None


def test_an_elementwise_operator_reads_its_arguments_and_writes_its_result() -> None:
    assert taken(aten.add.Tensor, meta(8), meta(8)) == (0, 3 * 32)
    assert taken(aten.add_.Tensor, meta(8), meta(8)) == (0, 3 * 32)
    assert taken(aten.mul.Tensor, meta(8), 2.0) == (0, 2 * 32)
    assert taken(aten._to_copy.default, meta(8), dtype=torch.bfloat16) == (0, 32 + 16)


def test_an_expanded_tensor_is_read_once() -> None:
    assert taken(aten.add.Tensor, meta(1).expand(1000), meta(1000)) == (0, 4 + 2 * 4000)


def test_what_only_writes_does_not_read_what_it_writes_to() -> None:
    assert taken(aten.copy_.default, meta(8), meta(8)) == (0, 2 * 32)
    assert taken(aten.zero_.default, meta(8)) == (0, 32)
    assert taken(aten._foreach_zero_.default, [meta(8), meta(4)]) == (0, 48)


def test_a_lookup_reads_the_rows_that_it_takes() -> None:
    ids = torch.zeros(2, dtype=torch.long, device="meta")
    assert taken(aten.embedding.default, meta(1000, 8), ids) == (0, 2 * 8 * 4 + 16 + 2 * 8 * 4)


def test_lists_are_read_and_written_whole() -> None:
    lists = [meta(8), meta(4)]
    assert taken(aten._foreach_add_.List, lists, lists) == (0, 3 * 48)
    assert taken(aten._foreach_add.List, lists, lists) == (0, 3 * 48)


ATTENTION = (meta(2, 4, 8, 16), meta(2, 4, 8, 16), meta(2, 4, 8, 16))
TWO_PRODUCTS = 2 * 2 * (2 * 4) * 8 * 8 * 16


def test_attention_is_two_products_a_causal_mask_halves_it_and_backward_is_twice_that() -> None:
    forward = aten._scaled_dot_product_flash_attention_for_cpu.default
    backward = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    out, logsumexp = meta(2, 4, 8, 16), meta(2, 4, 8)

    assert taken(forward, *ATTENTION)[0] == TWO_PRODUCTS
    assert taken(forward, *ATTENTION, 0.0, True)[0] == TWO_PRODUCTS // 2
    assert taken(forward, *ATTENTION, is_causal=True)[0] == TWO_PRODUCTS // 2
    assert taken(backward, out, *ATTENTION, out, logsumexp, 0.0, False)[0] == 2 * TWO_PRODUCTS
    assert taken(backward, out, *ATTENTION, out, logsumexp, 0.0, True)[0] == TWO_PRODUCTS


def test_a_causal_mask_over_more_queries_than_keys_hides_only_a_triangle() -> None:
    forward = aten._scaled_dot_product_flash_attention_for_cpu.default
    keys = meta(1, 1, 4, 16)
    # 4 queries see 1 to 4 keys, counted as half of 16; the 6 after them see all 4
    assert taken(forward, meta(1, 1, 10, 16), keys, keys, 0.0, True)[0] == 2 * 2 * (8 + 24) * 16


def test_products_of_groups_count_each_row_once() -> None:
    rows, experts = meta(64, 16, dtype=torch.bfloat16), meta(4, 16, 32, dtype=torch.bfloat16)
    ends = torch.zeros(4, dtype=torch.int32, device="meta")
    assert taken(aten._grouped_mm.default, rows, experts, ends)[0] == 2 * 64 * 16 * 32
    gradient = meta(64, 32, dtype=torch.bfloat16)
    assert taken(aten._grouped_mm.default, rows.t(), gradient, ends)[0] == 2 * 64 * 16 * 32


def test_the_arithmetic_is_in_the_dtype_of_the_first_number() -> None:
    found = cost(aten.embedding.default, meta(10, 8, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.long, device="meta"))
    assert found is not None
    assert found.dtype is torch.bfloat16


def simulated(folder: Path, job: Job) -> Recording:
    simulate_job(job, folder / "run.headroom")
    return read_recording(folder / "run.headroom")


def closed_form(job: Job, formula: Any, **options: Any) -> int:
    facts, workload = facts_of(job.model), job.workload
    assert facts.num_heads
    assert facts.head_dim
    with torch.device("meta"):
        model = build_model(job.model)
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    num_parameters = sum(p.numel() for p in model.parameters() if id(p) not in embeddings or p is model.get_output_embeddings().weight)
    sizes = {"num_layers": facts.num_layers, "width": facts.num_heads * facts.head_dim, "seq": workload.seq}
    return int(formula(num_parameters, workload.batch * workload.seq, **sizes, **options))


@pytest.mark.parametrize(
    ("name", "seq", "device", "toggles"),
    [
        ("tiny-llama", 128, "cpu", ("bfloat16",)),
        ("tiny-qwen", 256, "a100-80gb", ("amp", "sgd")),
        ("gpt2", 1024, "a100-80gb", ("bfloat16", "sgd")),
        ("llama-3.2-1b", 2048, "a100-80gb", ("bfloat16", "sgd")),
    ],
)
def test_a_training_step_has_the_flops_of_its_model(tmp_path: Path, name: str, seq: int, device: str, toggles: tuple[str, ...]) -> None:
    workload = Workload(batch=2, seq=seq, steps=1, warmup_steps=0)
    job = Job(model=Model(name=name), workload=workload, device=device, toggles=tuple(map(Toggle.parse, toggles)))
    recording = simulated(tmp_path, job)

    assert recording.metadata.facts["flops_per_step"] == pytest.approx(closed_form(job, training_flops), rel=0.01)


def test_attention_that_does_not_know_of_its_mask_computes_all_scores(tmp_path: Path) -> None:
    job = Job(model=Model(name="tiny-gpt2"), workload=Workload(seq=128, steps=1, warmup_steps=0), toggles=(Toggle("eager"),))
    expected = closed_form(job, training_flops, is_causal=False)
    assert simulated(tmp_path, job).metadata.facts["flops_per_step"] == pytest.approx(expected, rel=0.01)


def test_prefill_has_the_flops_of_a_forward(tmp_path: Path) -> None:
    job = Job(model=Model(name="tiny-llama"), workload=Workload(kind="prefill", seq=128, steps=1, warmup_steps=0))
    assert simulated(tmp_path, job).metadata.facts["flops_per_step"] == pytest.approx(closed_form(job, forward_flops), rel=0.01)


def test_the_clock_of_a_gpu_moves_by_what_operators_are_estimated_to_take(tmp_path: Path) -> None:
    job = Job(model=Model(name="tiny-llama"), workload=Workload(seq=64, steps=1), device="a100-80gb", toggles=(Toggle("bfloat16"),))
    recording = simulated(tmp_path, job)
    operators = recording.operators.to_pandas().query("step == 1")
    step = next(mark for mark in recording.marks.to_pylist() if mark["kind"] == "step" and mark["step"] == 1)
    product = operators[operators.operator == "aten::mm"].iloc[0]
    shares = Assumptions()
    flops_us = product["flops"] / (GPUS["a100-80gb"].peak_flops_per_s("bfloat16") * shares.compute_efficiency) * 1e6
    bytes_us = product["bytes"] / (GPUS["a100-80gb"].bandwidth_bytes_per_s * shares.bandwidth_efficiency) * 1e6

    assert product["duration_us"] == pytest.approx(max(flops_us, bytes_us, shares.launch_us), abs=1e-3)
    seconds = recording.metadata.facts["estimated_step_seconds"]
    assert seconds == pytest.approx(operators.duration_us.sum() / 1e6)
    # events and notes take a nanosecond each beside it
    assert step["end_us"] - step["start_us"] == pytest.approx(seconds * 1e6, rel=0.02)
    assert recording.metadata.facts["assumptions"]
    assert "estimated" in recording.metadata.warnings[0]


def test_on_the_cpu_time_is_the_order_of_events_and_says_so(tmp_path: Path) -> None:
    recording = simulated(tmp_path, Job(model=Model(name="tiny-llama"), workload=Workload(seq=16, steps=1, warmup_steps=0)))
    assert recording.operators.to_pandas().duration_us.max() == 0
    assert "estimated_step_seconds" not in recording.metadata.facts
    assert "order of events" in recording.metadata.warnings[0]
