"""The count of activations against what autograd really holds after forward."""

from __future__ import annotations

from random import Random

import pytest
import torch

from profiler.estimate.activations import activation_bytes, loss_bytes
from profiler.models.build import build_model
from profiler.models.catalogue import facts_of
from profiler.models.inputs import make_tokens, training_batch
from profiler.spec import Model

BATCH, SEQ = 4, 64


def held_bytes(name: str, dtype: torch.dtype) -> int:
    """Return the bytes of what forward gives to autograd, without the model's own tensors and the inputs."""
    generator = torch.Generator().manual_seed(0)
    model = build_model(Model(name=name), dtype).train()
    facts = facts_of(Model(name=name))
    inputs = training_batch(facts, make_tokens(facts, BATCH, SEQ, Random(0)), generator, torch.device("cpu"))
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers(), *inputs.values())}
    held: dict[int, torch.Tensor] = {}

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        outputs = model(**inputs)
    held_bytes = sum(tensor.untyped_storage().nbytes() for tensor in held.values())
    outputs.loss.backward()  # lets go of what is held, which would hold itself, unseen by Python, for as long as the process lives
    return held_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-bert", "tiny-roberta", "tiny-llama", "tiny-mistral", "tiny-qwen", "tiny-mixtral"])
def test_activations_are_what_autograd_holds(name: str, dtype: torch.dtype) -> None:
    facts = facts_of(Model(name=name))
    expected = activation_bytes(facts, batch=BATCH, seq=SEQ, itemsize=dtype.itemsize, on_cpu=True)
    loss = loss_bytes(facts, BATCH * SEQ, dtype.itemsize)
    assert held_bytes(name, dtype) - loss == pytest.approx(expected, rel=0.01)


def test_on_a_gpu_attention_keeps_no_scores_and_masks_are_bytes() -> None:
    facts = facts_of(Model(name="gpt2"))
    found = activation_bytes(facts, batch=1, seq=1024, itemsize=2, on_cpu=False)
    a_token = (4 + 4 + 5 * 4) * 768 * 2 + 2 * 768 + 12 * 4
    assert found == 1024 * (12 * a_token + 768 * (2 * 2 + 1))
