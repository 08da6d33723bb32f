"""The weights of a matrix -> a few values that they share: k-means in one dimension, exact and without chance."""

from __future__ import annotations

import torch
from torch import Tensor

from profiler.compression.subject import Subject


def share_weights(subject: Subject, bits: int, rounds: int) -> None:
    """Give each weight its cluster's mean; of a pruned matrix one of the 2^bits values is zero, and stays with what was pruned."""
    found = subject.matrices()
    for done, matrix in enumerate(found):
        weight = matrix.weight.detach()
        codebook = codebook_of(weight, 2**bits, rounds, keep_zero=matrix.name in subject.masks)
        weight.copy_(codebook[nearest(weight, codebook)])
        subject.codebooks[matrix.name] = codebook
        subject.tell("clustering", (done + 1) / len(found))
    subject.note_changed(len(found), "matrices beside the output layer")


def codebook_of(weight: Tensor, num_values: int, rounds: int = 25, *, keep_zero: bool = False) -> Tensor:
    """Return at most ``num_values`` ascending values that are means of the clusters of a tensor's numbers (Lloyd's algorithm).

    In one dimension clusters are ranges of the sorted numbers, so a round is a search for boundaries and differences of running sums.
    Starts evenly between least and greatest, which keeps large weights (Han et al. 2016, section 3.2).

    Args:
        weight: of any shape.
        num_values: how many, zero among them where it is kept.
        rounds: at most; ends sooner where nothing moves.
        keep_zero: zero is a value of its own, whatever the other numbers are.
    """
    numbers = weight.detach().flatten().double()
    numbers = (numbers[numbers != 0] if keep_zero else numbers).sort().values
    wanted = num_values - 1 if keep_zero else num_values
    values = _lloyd(numbers, wanted, rounds) if wanted and len(numbers) else numbers[:0]
    if keep_zero:
        values = torch.cat([values[values < 0], values.new_zeros(1), values[values > 0]])
    book: Tensor = torch.unique(values.to(weight.dtype))
    return book


def nearest(weight: Tensor, codebook: Tensor) -> Tensor:
    """Return for each number the index of the value nearest to it, int64 in the shape of ``weight``."""
    boundaries = (codebook[1:].double() + codebook[:-1].double()) / 2
    return torch.bucketize(weight.double(), boundaries)


def _lloyd(numbers: Tensor, num_values: int, rounds: int) -> Tensor:
    """Return the means of the clusters of sorted float64 numbers."""
    sums = torch.cat([numbers.new_zeros(1), numbers.cumsum(0)])
    values = torch.linspace(float(numbers[0]), float(numbers[-1]), num_values, dtype=torch.float64)
    for _ in range(rounds):
        inner = torch.searchsorted(numbers, (values[1:] + values[:-1]) / 2, right=True)
        ends = torch.cat([inner, torch.tensor([len(numbers)])])
        starts = torch.cat([torch.tensor([0]), inner])
        counts = ends - starts
        means = torch.where(counts > 0, (sums[ends] - sums[starts]) / counts.clamp(min=1), values)
        if torch.equal(means, values):
            break
        values = means
    return values
