"""Lion and Muon: the numbers they keep, and that they update as their papers say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from profiler.errors import SpecError
from profiler.models.build import build_model
from profiler.optimizations.registry import setup_for, validate
from profiler.optimizations.torch_optimizers import Lion
from profiler.spec import Job, Model, Toggle


def test_lion_moves_by_the_sign_of_a_mix_and_keeps_the_momentum() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
    optimizer = Lion([parameter], lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)

    parameter.grad = torch.tensor([2.0, -3.0, 0.0])
    optimizer.step()
    assert torch.allclose(parameter, torch.tensor([0.95 - 0.1, 0.95 + 0.1, 0.95]))
    assert torch.allclose(optimizer.state[parameter]["exp_avg"], torch.tensor([0.02, -0.03, 0.0]))

    before = parameter.detach().clone()
    parameter.grad = torch.tensor([-0.1, 0.2, 0.0])  # 0.9 x momentum + 0.1 x gradient = 0.008, -0.007, 0
    optimizer.step()
    assert torch.allclose(parameter, before * 0.95 + torch.tensor([-0.1, 0.1, 0.0]))


def test_lion_leaves_what_has_no_gradient_alone() -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = Lion([parameter], lr=0.1)
    optimizer.step()
    assert torch.equal(parameter, torch.ones(3))
    assert not optimizer.state


def stepped(name: str, text: str) -> tuple[nn.Module, dict[str, set[str]]]:
    """Return a model after one step with gradients of ones, and the names of each parameter's states."""
    model: nn.Module = build_model(Model(name=name), torch.float32, "cpu")
    setup = setup_for(Job(model=Model(name=name), toggles=(Toggle.parse(text),)))
    for transform in setup.transforms:
        model = transform(model)
    assert setup.make_optimizer is not None
    optimizer = setup.make_optimizer(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    states = {id(parameter): set(kept) for part in optimizer.optimizers for parameter, kept in part.state.items()}  # type: ignore[attr-defined]
    return model, {path: states[id(parameter)] for path, parameter in model.named_parameters()}


def test_muon_trains_hidden_matrices_and_adamw_all_else() -> None:
    model, states = stepped("tiny-llama", "muon:rounds=1")

    adamw = {path for path, kept in states.items() if "exp_avg_sq" in kept}
    assert adamw == {path for path, parameter in model.named_parameters() if parameter.dim() == 1} | {
        "model.embed_tokens.weight",
        "lm_head.weight",
    }
    assert all(kept == {"momentum_buffer"} for path, kept in states.items() if path not in adamw)
    assert len(states) - len(adamw) == 4 * 7


def test_a_tied_output_layer_is_an_embedding_to_muon() -> None:
    _, states = stepped("tiny-gpt2", "muon:rounds=1")

    assert "exp_avg_sq" in states["transformer.wte.weight"]
    assert "exp_avg_sq" in states["transformer.wpe.weight"]
    assert states["transformer.h.0.attn.c_attn.weight"] == {"momentum_buffer"}


def test_muon_refuses_copies_of_the_parameters() -> None:
    with pytest.raises(SpecError, match="master-weights trains copies of them. Switch one of them off."):
        validate(Job(model=Model(name="tiny-llama"), toggles=(Toggle("muon"), Toggle("master-weights"))))
