"""A loss without logits is the same loss, with the same gradients, and its chunks are as large as said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from profiler.errors import SpecError
from profiler.models.build import build_model
from profiler.optimizations.hidden_state_loss import chunked, fused, with_loss
from profiler.optimizations.registry import setup_for, validate
from profiler.recording import Recording
from profiler.simulate.engine import simulate_job
from profiler.spec import Job, Model, Toggle, Workload
from profiler.storage import read_recording

TOKENS, HIDDEN, VOCABULARY = 37, 8, 50


def job(*toggles: str, model: str = "tiny-llama", device: str = "cpu", **workload: Any) -> Job:
    return Job(
        model=Model(name=model), workload=Workload(**({"steps": 1} | workload)), device=device, toggles=tuple(map(Toggle.parse, toggles))
    )


def loss_and_gradients(model: nn.Module, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return loss.detach(), gradients


def simulated(folder: Path, wanted: Job) -> Recording:
    simulate_job(wanted, folder / "simulated.headroom")
    return read_recording(folder / "simulated.headroom")


def sizes(recording: Recording) -> set[int]:
    """Return what was asked for."""
    return set(recording.events["requested_bytes"].to_pylist())


@pytest.mark.parametrize("model_name", ["tiny-llama", "tiny-gpt2"])
@pytest.mark.parametrize("toggle", ["chunked-loss:chunks=3", "chunked-loss", "fused-loss", "fused-loss:tokens=5"])
def test_the_loss_and_every_gradient_are_those_of_the_plain_loss(toggle: str, model_name: str) -> None:
    torch.manual_seed(0)
    plain = build_model(Model(name=model_name)).eval()
    torch.manual_seed(0)
    other = build_model(Model(name=model_name)).eval()
    for transform in setup_for(job(toggle, model=model_name)).transforms:
        other = transform(other)
    tokens = torch.randint(2, 4096, (2, 9))

    expected, found = loss_and_gradients(plain, tokens), loss_and_gradients(other, tokens)

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert other(input_ids=tokens, labels=tokens).logits.numel() == 0


@pytest.mark.parametrize("loss", [lambda *parts: chunked(*parts, num_chunks=4), lambda *parts: fused(*parts, num_tokens=0)])
def test_tokens_that_do_not_count_count_in_no_chunk(loss: object) -> None:
    assert callable(loss)
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(TOKENS, HIDDEN), torch.randn(VOCABULARY, HIDDEN), torch.randn(VOCABULARY)
    labels = torch.randint(VOCABULARY, (TOKENS,))
    labels[5:23] = -100  # the whole of the second chunk of four, and more

    torch.testing.assert_close(loss(hidden, labels, weight, bias), functional.cross_entropy(hidden @ weight.T + bias, labels))


def test_a_model_that_changes_its_logits_keeps_its_loss() -> None:
    model = build_model(Model(name="tiny-llama"))
    model.config.final_logit_softcapping = 30.0  # type: ignore[union-attr]

    with pytest.raises(SpecError, match="changes its logits .final_logit_softcapping."):
        with_loss(model, lambda *_: torch.zeros(()))


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-t5", "tiny-lstm"])
def test_only_models_that_predict_the_next_token_have_such_a_loss(model: str) -> None:
    with pytest.raises(SpecError, match=f"chunked-loss applies to the output layer and the loss of causal-lm models, and {model} is"):
        validate(job("chunked-loss", model=model))


def test_no_block_is_as_large_as_the_logits(tmp_path: Path) -> None:
    """1,024 tokens of a vocabulary of 4,096 are 16 MiB of float32 logits; in 8 chunks 2 MiB, the size of no other block."""
    whole = simulated(tmp_path, job("sgd", device="rtx-4090", batch=1, seq=1024))
    parts = simulated(tmp_path, job("sgd", "chunked-loss", device="rtx-4090", batch=1, seq=1024))

    assert 1024 * 4096 * 4 in sizes(whole)
    assert 1024 * 4096 * 4 not in sizes(parts)
    assert 128 * 4096 * 4 in sizes(parts) - sizes(whole)


def test_fused_chunks_on_a_gpu_are_what_torch_chooses_there(tmp_path: Path) -> None:
    """Chunks: next power of two of 2,048 tokens / (4,096 / 256), halved: 64. Float32 logits, a bfloat16 copy, no copy of the weight."""
    found = simulated(tmp_path, job("sgd", "bf16", "fused-loss", device="rtx-4090", batch=2, seq=1024))

    assert 64 * 4096 * 4 in sizes(found)
    assert 64 * 4096 * 2 in sizes(found)
    assert 4096 * 256 * 4 not in sizes(found)


def test_fused_chunks_on_a_cpu_are_computed_in_float32(tmp_path: Path) -> None:
    """There a chunk is twice as large, and the weight has a float32 copy."""
    found = simulated(tmp_path, job("sgd", "bf16", "fused-loss", batch=2, seq=1024))

    assert 128 * 4096 * 4 in sizes(found)
    assert 4096 * 256 * 4 in sizes(found)
