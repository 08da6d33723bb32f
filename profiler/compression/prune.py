"""Pruning with torch.nn.utils.prune: weights that become zero. What it holds meanwhile is counted."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils import prune

from profiler.compression.held import held_bytes, unique_storages
from profiler.compression.layers import Matrix
from profiler.compression.subject import Subject


def prune_each(subject: Subject, amount: float) -> None:
    """Make the smallest share of each matrix zero."""
    found = subject.matrices()
    for matrix in found:
        prune.l1_unstructured(matrix.module, matrix.attribute, amount=amount)  # type: ignore[no-untyped-call]
    _finish(subject, found)


def prune_globally(subject: Subject, amount: float) -> None:
    """Make the smallest share of all matrices together zero."""
    found = subject.matrices()
    pairs = [(matrix.module, matrix.attribute) for matrix in found]
    prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=amount)
    _finish(subject, found)


def prune_two_of_four(subject: Subject) -> None:
    """Make two of each four weights in a row zero: the smaller ones."""
    found = [matrix for matrix in subject.matrices() if matrix.weight.shape[1] % 4 == 0]
    for matrix in found:
        prune.custom_from_mask(matrix.module, matrix.attribute, two_of_four(matrix.weight))  # type: ignore[no-untyped-call]
    _finish(subject, found)


def prune_blocks(subject: Subject, amount: float, block: str) -> None:
    """Make the smallest share of each matrix's square blocks zero; matrices that do not divide into blocks stay."""
    size = int(block)
    found = divided(subject, subject.matrices(), size)
    for matrix in found:
        prune.custom_from_mask(matrix.module, matrix.attribute, largest_blocks(matrix.weight, size, amount))  # type: ignore[no-untyped-call]
    _finish(subject, found, f"matrices beside the output layer that divide into blocks of {size} x {size}")


def divided(subject: Subject, matrices: list[Matrix], size: int) -> list[Matrix]:
    """Return those matrices that divide into square blocks, and say how many do not."""
    found = [matrix for matrix in matrices if all(length % size == 0 for length in matrix.weight.shape)]
    if left := len(matrices) - len(found):
        subject.notes.append(f"{left} of {len(matrices)} matrices do not divide into blocks of {size} x {size} and stay as they are.")
    return found


def block_norms(weight: Tensor, size: int) -> Tensor:
    """Return the norm of each square block of a matrix: rows of blocks by columns of blocks."""
    rows, columns = weight.shape
    blocks = weight.detach().float().reshape(rows // size, size, columns // size, size)
    norms: Tensor = torch.linalg.vector_norm(blocks, dim=(1, 3))
    return norms


def largest_blocks(weight: Tensor, size: int, amount: float) -> Tensor:
    """Return a mask of a matrix, 0 in exactly this share of its square blocks, those of the smallest norms; 1 elsewhere."""
    norms = block_norms(weight, size)
    smallest = norms.flatten().topk(round(amount * norms.numel()), largest=False).indices
    mask = torch.ones_like(norms).flatten().index_fill_(0, smallest, 0.0).view_as(norms)
    return mask.repeat_interleave(size, 0).repeat_interleave(size, 1).to(weight.dtype)


def two_of_four(weight: Tensor) -> Tensor:
    """Return a mask of a matrix, 1 where one of the two largest magnitudes of its four is: exactly two of four, ties too."""
    groups = weight.detach().abs().reshape(-1, 4)
    mask = torch.zeros_like(groups).scatter_(1, groups.topk(2, dim=1).indices, 1.0)
    return mask.view_as(weight)


def _finish(subject: Subject, found: list[Matrix], what: str = "matrices beside the output layer") -> None:
    """Count what is held while masks are there, make the zeros permanent, and remember where they are.

    Held are the original and the mask, which the module registers, and their product, which it keeps as a plain attribute.
    """
    registered = unique_storages((*subject.model.named_parameters(), *subject.model.named_buffers()))
    subject.extra["pruning_parameters_and_masks_bytes"] = float(sum(part.untyped_storage().nbytes() for part in registered))
    subject.extra["pruning_held_bytes"] = float(held_bytes(subject.model))
    for matrix in found:
        prune.remove(matrix.module, matrix.attribute)  # type: ignore[no-untyped-call]
        subject.masks[matrix.name] = matrix.weight.detach() == 0
    zeros = sum(int(subject.masks[matrix.name].sum()) for matrix in found)
    subject.extra["zero_share"] = zeros / max(1, sum(matrix.weight.numel() for matrix in found))
    subject.note_changed(len(found), what)
