"""Linear layers whose weight is stored sparse: torch's own layouts, and packed ones that are expanded for each product."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from profiler.compression.layers import Matrix, replace_module
from profiler.compression.prune import block_norms, divided, two_of_four
from profiler.compression.subject import Subject


class SparseLinear(nn.Module):
    """A linear layer on a weight in one of torch's sparse layouts.

    Args:
        weight: sparse, rows by columns.
        bias: of the rows, or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias: Tensor | None
        self.register_buffer("bias", bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the product and the bias."""
        flat = inputs.reshape(-1, inputs.shape[-1])
        product = (self.weight @ flat.t()).t().reshape(*inputs.shape[:-1], self.weight.shape[0])
        return product if self.bias is None else product + self.bias


class ExpandedLinear(nn.Module):
    """A linear layer whose weight is made from its packed form for each product.

    Args:
        weight: dense, rows by columns; its zeros are left out.
        bias: of the rows, or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.shape = weight.shape
        self.bias: Tensor | None
        self.register_buffer("bias", bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the product and the bias."""
        return nn.functional.linear(inputs, self.expanded(), self.bias)

    @abstractmethod
    def expanded(self) -> Tensor:
        """Return the dense weight."""


class BitmaskLinear(ExpandedLinear):
    """A bit for each number says whether it is there; those that are follow in order."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        there = weight != 0
        self.bits: Tensor
        self.values: Tensor
        self.register_buffer("bits", packed_bits(there.flatten()))
        self.register_buffer("values", weight[there])

    def expanded(self) -> Tensor:
        """Return the dense weight."""
        there = unpacked_bits(self.bits, self.shape.numel()).view(self.shape)
        return self.values.new_zeros(self.shape).masked_scatter_(there, self.values)


class TwoOfFourLinear(ExpandedLinear):
    """Two numbers of each four, and two bits for the place of each."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        groups = weight.reshape(-1, 4)
        places = two_of_four(weight).reshape(-1, 4).topk(2, dim=1).indices.sort(dim=1).values
        self.places: Tensor
        self.values: Tensor
        self.register_buffer("values", groups.gather(1, places))
        self.register_buffer("places", packed_bits(torch.stack([places >> 1, places & 1], dim=-1).flatten().bool()))

    def expanded(self) -> Tensor:
        """Return the dense weight."""
        bits = unpacked_bits(self.places, self.values.numel() * 2).view(-1, 2, 2).long()
        places = bits[..., 0] * 2 + bits[..., 1]
        return self.values.new_zeros(len(self.values), 4).scatter_(1, places, self.values).view(self.shape)


def packed_bits(flags: Tensor) -> Tensor:
    """Return a flat boolean tensor as bytes of eight flags, the first the highest; padded with zeros."""
    padded = torch.zeros(-(-len(flags) // 8) * 8, dtype=torch.uint8)
    padded[: len(flags)] = flags
    return (padded.view(-1, 8) << torch.arange(7, -1, -1, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def unpacked_bits(data: Tensor, count: int) -> Tensor:
    """Return what `packed_bits` packed."""
    return ((data[:, None] >> torch.arange(7, -1, -1, dtype=torch.uint8)) & 1).flatten()[:count].bool()


def store_csr(subject: Subject, index: str, tight: bool) -> None:
    """Store matrices as CSR."""
    _store(subject, lambda weight, bias: SparseLinear(csr(weight, getattr(torch, index), tight=tight), bias))


def store_coo(subject: Subject) -> None:
    """Store matrices as COO."""
    _store(subject, lambda weight, bias: SparseLinear(weight.to_sparse(), bias))


def store_bsr(subject: Subject, block: str) -> None:
    """Store matrices as BSR; those that do not divide into blocks stay."""
    size = int(block)
    found = divided(subject, _linear(subject), size)
    norms = [block_norms(matrix.weight, size) for matrix in found]
    empty = sum(int((some == 0).sum()) for some in norms)
    _store(subject, lambda weight, bias: SparseLinear(bsr(weight, size), bias), found)
    subject.extra["zero_block_share"] = empty / max(1, sum(some.numel() for some in norms))
    if found and not empty and subject.extra["zero_share"]:
        subject.notes.append(f"No block of {size} x {size} is all zeros: the sparse form is larger than the dense one. Prune blocks first.")


def store_bitmask(subject: Subject) -> None:
    """Store matrices as bits and values."""
    _store(subject, BitmaskLinear)


def store_two_of_four(subject: Subject) -> None:
    """Store those matrices of which two of each four are zero."""
    fits = [matrix for matrix in _linear(subject) if matrix.weight.shape[1] % 4 == 0 and is_two_of_four(matrix.weight.detach())]
    _store(subject, TwoOfFourLinear, fits)


def is_two_of_four(weight: Tensor) -> bool:
    """Return whether each four numbers in a row have at least two zeros."""
    return bool(((weight.reshape(-1, 4) != 0).sum(1) <= 2).all())


def csr(weight: Tensor, index: torch.dtype = torch.int64, *, tight: bool = True) -> Tensor:
    """Return a dense matrix as CSR.

    Args:
        weight: with zeros.
        index: the format of rows and columns.
        tight: copy the columns, which torch makes as a view of a buffer twice as long.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that CSR is in beta
        made = weight.to_sparse_csr()
        columns = made.col_indices().clone() if tight else made.col_indices()
        return torch.sparse_csr_tensor(made.crow_indices().to(index), columns.to(index), made.values(), made.shape)


def bsr(weight: Tensor, block: int) -> Tensor:
    """Return a dense matrix as BSR with its columns copied out of torch's longer buffer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = weight.to_sparse_bsr((block, block))
        return torch.sparse_bsr_tensor(made.crow_indices().clone(), made.col_indices().clone(), made.values().clone(), made.shape)


def _linear(subject: Subject) -> list[Matrix]:
    return [matrix for matrix in subject.matrices() if matrix.linear]


def _store(subject: Subject, make: Callable[[Tensor, Tensor | None], nn.Module], found: list[Matrix] | None = None) -> None:
    """Replace linear layers, by default all; say where the sparse form is larger than dense."""
    found = _linear(subject) if found is None else found
    zeros = total = 0
    for matrix in found:
        weight = matrix.weight.detach()
        bias: Tensor | None = matrix.module.bias  # type: ignore[assignment]
        zeros, total = zeros + int((weight == 0).sum()), total + weight.numel()
        replace_module(subject.model, matrix.name.removesuffix(".weight"), make(weight, None if bias is None else bias.detach()))
    subject.extra["zero_share"] = zeros / max(1, total)
    if found and not zeros:
        subject.notes.append("No weight is zero: the sparse form is larger than the dense one. Prune first.")
    subject.note_changed(len(found), "linear layers that this format can store")
