"""Pruning in blocks and storing what is left: which blocks go, what their parts take, and what is said where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from profiler.compression.held import held_bytes
from profiler.compression.prune import largest_blocks
from profiler.compression.sparse_formats import BLOCK_SIZES, FORMATS, Matrix
from profiler.compression.sparse_storage import SparseLinear, bsr
from tests.compression.tasks import ClassifierTask, TinyTask
from tests.compression.test_held_bytes import BASE, NUM_MATRICES, NUMBERS, subject_after


def test_the_blocks_with_the_smallest_norms_become_zero_whatever_their_largest_weight() -> None:
    weight = torch.full((4, 8), 2.0)  # each block of 4 x 4 has a norm of 8
    weight[:, 4:] = 0.0
    weight[3, 7] = 7.0  # the largest weight of all, in the block with the smaller norm

    assert torch.equal(largest_blocks(weight, 4, 0.5), torch.tensor([[1.0] * 4 + [0.0] * 4] * 4))


@pytest.mark.parametrize(("amount", "num_zero"), [(0.0, 0), (0.3, 2), (0.5, 4), (0.99, 8)])
def test_exactly_the_share_of_blocks_goes_also_where_all_are_alike(amount: float, num_zero: int) -> None:
    mask = largest_blocks(torch.ones(8, 16), 4, amount)

    assert int((mask == 0).sum()) == num_zero * 16
    assert len({float(block.sum()) for row in mask.split(4) for block in row.split(4, dim=1)}) <= 2  # a block is there or not


@pytest.mark.parametrize(
    ("block", "values", "columns", "rows"),
    [
        (4, 64 * 16 * 4, 64 * 8, (32 // 4 + 1) * 8),  # 128 blocks of 4 x 4, half of them kept; float32, int64, int64
        (8, 16 * 64 * 4, 16 * 8, (32 // 8 + 1) * 8),
        (16, 4 * 256 * 4, 4 * 8, (32 // 16 + 1) * 8),
        (32, 1 * 1024 * 4, 1 * 8, (32 // 32 + 1) * 8),
    ],
)
def test_values_columns_and_rows_of_blocks_take_what_a_hand_count_says(block: int, values: int, columns: int, rows: int) -> None:
    weight = torch.rand(32, 64) + 1
    stored = bsr(weight * largest_blocks(weight, block, 0.5), block)

    assert [part.nbytes for part in (stored.values(), stored.col_indices(), stored.crow_indices())] == [values, columns, rows]
    assert [part.dtype for part in (stored.values(), stored.col_indices(), stored.crow_indices())] == [
        torch.float32,
        torch.int64,
        torch.int64,
    ]
    assert held_bytes(SparseLinear(stored, None)) == values + columns + rows
    assert FORMATS[f"bsr-{block}"].num_bytes(Matrix(rows=32, columns=64, nonzeros=32 * 64 // 2)) == values + columns + rows


@pytest.mark.parametrize("block", BLOCK_SIZES)
def test_a_product_with_blocks_is_that_with_the_dense_matrix(block: int) -> None:
    weight, inputs, bias = torch.randn(64, 96), torch.randn(2, 5, 96), torch.randn(64)
    pruned = weight * largest_blocks(weight, block, 0.7)

    product = SparseLinear(bsr(pruned, block), bias)(inputs)

    assert torch.allclose(product, torch.nn.functional.linear(inputs, pruned, bias), atol=1e-4)


def test_a_model_pruned_in_blocks_and_stored_in_them_says_the_same_and_holds_less(tmp_path: Path) -> None:
    pruned, stored = (subject_after(f"prune-blocks:amount=0.75{more}", tmp_path) for more in ("", " + store-bsr"))
    inputs = pruned.task.held_out()[0].inputs

    with torch.no_grad():
        assert torch.allclose(pruned.logits(inputs), stored.logits(inputs), atol=1e-4)
    assert pruned.extra["zero_share"] == stored.extra["zero_share"] == stored.extra["zero_block_share"] == 0.75
    assert not any("No block" in note for note in stored.notes)
    assert BASE - held_bytes(stored.model) > 0.7 * 4 * NUMBERS


def test_zeros_anywhere_leave_no_block_empty_and_the_note_says_what_to_do(tmp_path: Path) -> None:
    subject = subject_after("prune:amount=0.7 + store-bsr:block=8", tmp_path)

    assert subject.extra["zero_share"] == pytest.approx(0.7, abs=1e-3)
    assert subject.extra["zero_block_share"] == 0
    assert subject.notes[-1] == "No block of 8 x 8 is all zeros: the sparse form is larger than the dense one. Prune blocks first."
    assert held_bytes(subject.model) > BASE


def test_training_keeps_blocks_at_zero(tmp_path: Path) -> None:
    subject = subject_after("prune-blocks:block=16 + fine-tune:steps=2,lr=0.01 + store-bsr:block=16", tmp_path)

    assert subject.extra["zero_block_share"] == 0.5


def test_matrices_that_do_not_divide_stay_and_are_told(tmp_path: Path) -> None:
    class Narrow(TinyTask):
        """Feed-forward layers of 72 neurons, of which 16 is no divisor."""

        def __init__(self) -> None:
            super().__init__(inner=72)

    subject = subject_after("prune-blocks:block=16 + store-bsr:block=16", tmp_path, Narrow())

    told = "6 of 14 matrices do not divide into blocks of 16 x 16 and stay as they are."
    assert subject.notes == [
        told,
        "8 layers changed: matrices beside the output layer that divide into blocks of 16 x 16.",
        told,
        "8 layers changed: linear layers that this format can store.",
    ]
    assert len(subject.masks) == NUM_MATRICES - 6


def test_a_model_of_which_nothing_divides_is_left_as_it_is_and_says_so(tmp_path: Path) -> None:
    class Odd(TinyTask):
        def __init__(self) -> None:
            super().__init__(hidden=24, inner=40)

    subject = subject_after("prune-blocks:block=32", tmp_path, Odd())

    assert subject.notes[-1] == "0 layers changed: this model has no matrices beside the output layer that divide into blocks of 32 x 32."
    assert held_bytes(subject.model) == held_bytes(Odd().build())
    assert len(subject_after("prune-blocks:block=32", tmp_path, ClassifierTask()).masks) == 13
