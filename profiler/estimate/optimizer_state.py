"""Optimizers -> bytes of state for each parameter; shapes -> bytes of Adafactor's state.

What an optimizer of this project's registry keeps is told by the registry; this table has those that papers and other libraries compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from profiler.optimizations.quantized_optimizers import MIN_QUANTIZED_NUMBERS, TorchaoAdamW, blockwise_state_bytes

_ADAM = "https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html"
_SGD = "https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html"
_EIGHT_BIT = "Dettmers et al. 2021, https://arxiv.org/abs/2110.02861; https://github.com/pytorch/ao/tree/main/torchao/optim"
_FOUR_BIT = "Li et al. 2023, https://arxiv.org/abs/2309.01507; https://github.com/pytorch/ao/tree/main/torchao/optim"


@dataclass(frozen=True, kw_only=True)
class StateSize:
    """How much an optimizer keeps between steps."""

    bytes_per_parameter: float
    source: str
    validity: str


_LARGE_TENSORS = "Tensors below 4,096 numbers keep float32 states, which is less than a percent of a language model."

STATE_SIZES: Mapping[str, StateSize] = {
    "sgd": StateSize(bytes_per_parameter=0, source=_SGD, validity="Without momentum."),
    "sgd, momentum, float32": StateSize(bytes_per_parameter=4, source=_SGD, validity="One number in the parameter's dtype."),
    "adam, float32": StateSize(bytes_per_parameter=8, source=_ADAM, validity="Two numbers in the parameter's dtype; 4 more with amsgrad."),
    "adam, bfloat16": StateSize(bytes_per_parameter=4, source=_ADAM, validity="bfloat16 parameters without float32 master weights."),
    "adam, float32, master weights": StateSize(
        bytes_per_parameter=12, source="https://arxiv.org/abs/1910.02054", validity="16-bit parameters with a float32 copy."
    ),
    "adam, 8-bit": StateSize(
        bytes_per_parameter=blockwise_state_bytes(2, 8, 256), source=_EIGHT_BIT, validity=f"Blocks of 256. {_LARGE_TENSORS}"
    ),
    "adam, 4-bit": StateSize(
        bytes_per_parameter=blockwise_state_bytes(2, 4, 128), source=_FOUR_BIT, validity=f"Blocks of 128. {_LARGE_TENSORS}"
    ),
}
"""Bytes of state a parameter by optimizer, without step counters (4 bytes a tensor) and the allocator's rounding."""


def optimizer_state_bytes(num_parameters: int, optimizer: str) -> int:
    """Return the bytes that an optimizer of `STATE_SIZES` keeps for so many parameters."""
    return round(num_parameters * STATE_SIZES[optimizer].bytes_per_parameter)


def adafactor_state_bytes(shapes: Iterable[tuple[int, ...]], itemsize: int = 4) -> int:
    """Return the bytes of torch.optim.Adafactor's state: rows + columns for a matrix, one number a parameter for a vector.

    Source: Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235, section 3. Valid without a first moment, which torch's has not. A
    tensor of more dimensions is a stack of matrices.

    Args:
        shapes: of the trained parameters.
        itemsize: bytes of a number of the state.
    """
    return itemsize * sum(prod(shape[:-2]) * (shape[-2] + shape[-1]) if len(shape) > 1 else prod(shape) for shape in shapes)


def torchao_state_bytes(shapes: Iterable[tuple[int, ...]], optimizer: TorchaoAdamW, itemsize: int = 4) -> int:
    """Return the bytes of the two states of torchao's quantized AdamW.

    Codes, a float32 scale a block, and the map of what codes stand for, which every state holds: 256 float32 with 8 bits, 16 with 4, none
    in FP8. A tensor of fewer than 4,096 numbers, or not of whole blocks, keeps its own dtype. Source: torchao 0.18, torchao/optim/adam.py,
    ``_new_buffer``.

    Args:
        shapes: of the trained parameters.
        optimizer: which of them.
        itemsize: bytes of a number of the parameters.
    """
    total = 0
    for number in map(prod, shapes):
        if number >= MIN_QUANTIZED_NUMBERS and number % optimizer.block == 0:
            total += round(number * blockwise_state_bytes(2, optimizer.bits, optimizer.block)) + 2 * optimizer.map_bytes
        else:
            total += 2 * number * itemsize
    return total
