"""A model -> its weight matrices and its blocks, by structure rather than by class, so that one technique serves each model of the lab."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Matrix:
    """A two-dimensional parameter that multiplies: of a linear layer or a recurrent one; no embedding."""

    name: str
    """Dotted, as in the state dictionary."""
    module: nn.Module
    attribute: str

    @property
    def weight(self) -> Tensor:
        """The parameter as it is now."""
        weight: Tensor = getattr(self.module, self.attribute)
        return weight

    @property
    def linear(self) -> bool:
        """Whether it is the weight of a linear layer, which other storage can replace."""
        return isinstance(self.module, nn.Linear)


def matrices(model: nn.Module, head: str | None = None) -> list[Matrix]:
    """Return the matrices of a model.

    Args:
        model: of float parameters.
        head: the dotted name of a layer to leave out, with a weight that another shares.
    """
    excluded = {id(parameter) for parameter in model.get_submodule(head).parameters()} if head else set()
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return [matrix for matrix in _candidates(model) if id(matrix.weight) not in excluded | embedded]


def _candidates(model: nn.Module) -> Iterator[Matrix]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield Matrix(f"{name}.weight", module, "weight")
        elif isinstance(module, nn.RNNBase):
            for attribute, parameter in module.named_parameters(recurse=False):
                if parameter.ndim == 2:
                    yield Matrix(f"{name}.{attribute}", module, attribute)


def blocks(model: nn.Module) -> nn.ModuleList | None:
    """Return the list of a model's blocks: the module list with the most parameters; None where there is none of two or more."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) > 1]
    return max(lists, key=lambda found: sum(p.numel() for p in found.parameters()), default=None)


def replace_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put ``new`` where the module with this dotted name was."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, new)
