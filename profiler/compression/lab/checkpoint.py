"""A model's float32 weights <-> a small file: the high half of each number, as safetensors.

The high half of a float32 is a bfloat16. What the low half was is noise to everything that reads it, so it is not shipped: it is drawn from
a seed when the file is read. Zeros there would not do: they would make lossless coding look twice as good as it is on weights as trained,
and rounding to bfloat16 look free.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

_LOW_BITS = 16


def write_high_halves(model: nn.Module, path: Path) -> None:
    """Write the upper 16 bits of every parameter; the lower ones are cut off, not rounded."""
    save_file({name: _high(parameter.detach()) for name, parameter in model.named_parameters()}, path)


def read_into(model: nn.Module, path: Path) -> nn.Module:
    """Fill a model with a file's weights; the same numbers each time."""
    halves = load_file(path)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_filled(halves[name], generator))
    return model


def _high(weight: Tensor) -> Tensor:
    bits = weight.contiguous().view(torch.int32) >> _LOW_BITS
    return bits.to(torch.int16).view(torch.bfloat16)


def _filled(half: Tensor, generator: torch.Generator) -> Tensor:
    low = torch.randint(0, 1 << _LOW_BITS, half.shape, generator=generator, dtype=torch.int32)
    return ((half.view(torch.int16).to(torch.int32) << _LOW_BITS) | low).view(torch.float32)
