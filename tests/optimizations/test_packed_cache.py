"""Keys and values in fewer bits: what they are worth again, what they take, and when new tokens are packed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from profiler import read_recording
from profiler.analysis.timeline import Timeline
from profiler.errors import SpecError
from profiler.estimate.kv_cache import dynamic_cache_bytes, packed_cache_bytes
from profiler.models.build import build_model
from profiler.models.catalogue import facts_of
from profiler.optimizations.packed_cache import pack, packed_cache, unpack
from profiler.optimizations.registry import validate
from profiler.recording import Category
from profiler.simulate.engine import simulate_job
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind


@given(bits=st.sampled_from([2, 4, 8]), group=st.sampled_from([16, 64]), num=st.integers(1, 400), seed=st.integers(0, 99))
def test_no_number_moves_further_than_half_a_step_of_its_group(bits: int, group: int, num: int, seed: int) -> None:
    values = torch.randn(num, generator=torch.Generator().manual_seed(seed)).view(1, -1)
    packed = pack(values, bits, group)
    restored = unpack(packed, bits, values.shape)
    steps = packed.scales.repeat_interleave(group, 1).flatten()[:num]
    assert restored.shape == values.shape
    assert ((restored - values).flatten().abs() <= steps * 0.5001).all()


def test_codes_lie_in_a_byte_the_first_lowest() -> None:
    values = torch.arange(16.0)
    packed = pack(values, bits=4, group=16)
    assert packed.codes.tolist() == [[first + 16 * (first + 1) for first in range(0, 16, 2)]]
    assert (packed.scales.item(), packed.least.item()) == (1.0, 0.0)
    assert unpack(packed, 4, values.shape).tolist() == values.tolist()


def test_equal_numbers_survive() -> None:
    values = torch.full((2, 32), -3.0, dtype=torch.bfloat16)
    assert torch.equal(unpack(pack(values, 2, 16), 2, values.shape), values)


def test_a_model_answers_nearly_as_with_a_whole_cache() -> None:
    torch.manual_seed(0)
    model = build_model(Model(name="tiny-llama")).eval()
    tokens = torch.randint(1000, (2, 24))
    with torch.inference_mode():
        cache = packed_cache(model, bits=8, group=64, residual=4)
        for part in tokens.split([16, *[1] * 8], dim=1):  # the fourth and the eighth new token are packed with those before
            logits = model(part, past_key_values=cache, use_cache=True).logits
        whole = model(tokens).logits[:, -1:]
    torch.testing.assert_close(logits, whole, rtol=0, atol=0.02 * whole.std().item())


@pytest.mark.parametrize(("bits", "residual", "new"), [(4, 128, 5), (8, 4, 6), (2, 3, 3)])
@pytest.mark.parametrize("model", ["tiny-llama", "tiny-qwen"])
def test_a_simulated_cache_is_the_formulas_to_the_byte(tmp_path: Path, model: str, bits: int, residual: int, new: int) -> None:
    workload = Workload(kind=WorkloadKind.DECODE, batch=2, seq=37, new_tokens=new, steps=1, warmup_steps=0)
    toggles = (Toggle("bfloat16"), Toggle.parse(f"quantized-cache:format=int{bits},residual={residual}"))
    job = Job(model=Model(name=model), workload=workload, toggles=toggles)
    assert at_decodes_end(job, tmp_path) == packed_cache_bytes(facts_of(job.model), workload, new, 2, bits=bits, residual=residual)


def test_float8_takes_a_byte_a_number_and_two_scales_a_layer(tmp_path: Path) -> None:
    workload = Workload(kind=WorkloadKind.DECODE, batch=2, seq=37, new_tokens=4, steps=1, warmup_steps=0)
    toggles = (Toggle("bfloat16"), Toggle.parse("quantized-cache:format=float8"))
    job = Job(model=Model(name="tiny-llama"), workload=workload, toggles=toggles)
    facts = facts_of(job.model)
    scales = 2 * facts.num_layers * 4
    assert at_decodes_end(job, tmp_path) == dynamic_cache_bytes(facts, workload, 4, 1) + scales


def at_decodes_end(job: Job, folder: Path) -> int:
    """Return the bytes of the cache when the last decode ends."""
    simulate_job(job, folder / "run.headroom")
    line = Timeline.of(read_recording(folder / "run.headroom"))
    end_us = next(phase.end_us for phase in reversed(line.phases) if phase.name == "decode")
    return line.categories_at(int((line.blocks.event_us <= end_us).sum()) - 1)[Category.KV_CACHE]


@pytest.mark.parametrize(
    ("model", "reason"),
    [("tiny-t5", "keys and values of causal-lm models, and tiny-t5 is seq2seq"), ("mistral-7b", "for attention to every token")],
)
def test_other_caches_are_refused(model: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        validate(Job(model=Model(name=model), workload=Workload(kind=WorkloadKind.DECODE), toggles=(Toggle("quantized-cache"),)))


def test_training_keeps_no_cache() -> None:
    with pytest.raises(SpecError, match="quantized-cache has no effect in train"):
        validate(Job(model=Model(name="tiny-llama"), toggles=(Toggle("quantized-cache"),)))
