"""How a model is written to a file, and read back to see that the file holds exactly the model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from profiler.compression.held import tensors_of


class WeightFile(Protocol):
    """A way to write a model's weights."""

    def write(self, model: nn.Module, path: Path) -> dict[str, float]:
        """Write the file and return what was counted on the way; keys say their unit."""

    def exact(self, model: nn.Module, path: Path) -> bool:
        """Return whether the file, read back, gives the model's numbers bit by bit."""


class StateFile:
    """The state dictionary as torch.save writes it: the plain way, and what others are compared with."""

    def write(self, model: nn.Module, path: Path) -> dict[str, float]:
        """Write it; nothing is counted."""
        torch.save(model.state_dict(), path)
        return {}

    def exact(self, model: nn.Module, path: Path) -> bool:
        """Return whether the file gives the same numbers back."""
        # The file was written by this process a moment ago; packed weights of torch.ao are no plain tensors.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its own way to load packed weights
            state = torch.load(path, weights_only=False)
        return same_numbers(_plain(model.state_dict()), _plain(state))


def _plain(state: dict[str, object]) -> dict[str, Tensor]:
    holder = nn.Module()
    for index, value in enumerate(state.values()):
        if isinstance(value, Tensor | torch.ScriptObject):
            setattr(holder, f"item_{index}", value.data if type(value) is nn.Parameter else value)
    return dict(tensors_of(holder))


def same_numbers(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Return whether two sets of plain tensors are the same bit by bit."""
    return one.keys() == other.keys() and all(same_bits(tensor, other[name]) for name, tensor in one.items())


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same format, shape and bits; a NaN is the same as itself."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return bool(torch.equal(as_bytes(one), as_bytes(other)))


def as_bytes(tensor: Tensor) -> Tensor:
    """Return a tensor's numbers as a flat uint8 tensor, in order, without what a longer storage holds beside them."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
