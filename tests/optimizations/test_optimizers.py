"""What each optimizer keeps, counted in the real optimizer's state after a real step."""

from __future__ import annotations

import pytest
import torch

from profiler.optimizations.optimizers import TorchOptimizer
from profiler.optimizations.registry import chosen, setup_for
from profiler.spec import Job, Model, Toggle

SHAPES = ((30, 20), (20,), (7, 20, 5))
NUM_PARAMETERS = 600 + 20 + 700
TEXTS = [
    *("sgd", "sgd:momentum=0.9", "adam", "adamw", "adamw:implementation=foreach", "adamw:implementation=fused"),
    *("rmsprop", "rmsprop:momentum=0.9", "rmsprop:centered=true", "rmsprop:centered=true,momentum=0.9"),
]


def state_numbers(text: str, dtype: torch.dtype) -> int:
    """Return how many numbers the optimizer keeps after two steps, step counters left out; all have the parameter's dtype."""
    setup = setup_for(Job(model=Model(name="tiny-gpt2"), toggles=(Toggle.parse(text),)))
    assert setup.make_optimizer is not None
    parameters = [torch.nn.Parameter(torch.full(shape, 0.01, dtype=dtype)) for shape in SHAPES]
    optimizer = setup.make_optimizer(parameters)
    for _ in range(2):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 0.1)
        optimizer.step()
    kept = [value for state in optimizer.state.values() for name, value in state.items() if name != "step" and torch.is_tensor(value)]
    assert {value.dtype for value in kept} <= {dtype}
    assert not torch.equal(parameters[0], torch.full_like(parameters[0], 0.01))
    return sum(value.numel() for value in kept)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("text", TEXTS)
def test_the_state_is_as_many_copies_of_the_parameters_as_it_says(text: str, dtype: torch.dtype) -> None:
    item, options = chosen(Job(model=Model(name="tiny-gpt2"), toggles=(Toggle.parse(text),)), TorchOptimizer)
    assert state_numbers(text, dtype) == item.num_state_copies(options) * NUM_PARAMETERS


def test_adafactor_keeps_rows_and_columns_of_matrices_and_vectors_whole() -> None:
    matrix, vector, stack = 30 + 20, 20, 7 * 20 + 7 * 5
    assert state_numbers("adafactor", torch.float32) == matrix + vector + stack
