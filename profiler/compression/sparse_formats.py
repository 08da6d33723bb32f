"""Sparse formats: a matrix's shape and nonzeros -> its bytes, and where a format begins to be smaller than dense. Formulas, no torch.

Sources: the layouts of torch.sparse and scipy.sparse; Mishra et al. 2021 (arXiv:2104.08378) for 2:4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

BLOCK_SIZES = (4, 8, 16, 32)
"""Rows and columns of a block, of the block format: matrices of language models divide into them."""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A matrix that has zeros."""

    rows: int
    columns: int
    nonzeros: int
    """Numbers that are stored; of a block format all numbers of the blocks that are stored."""
    itemsize: int = 4
    """Bytes of one number."""

    @property
    def dense_bytes(self) -> int:
        """With the zeros stored."""
        return self.rows * self.columns * self.itemsize


@dataclass(frozen=True, kw_only=True)
class Format:
    """A way to store a matrix."""

    name: str
    label: str
    formula: str
    num_bytes: Callable[[Matrix], int]
    runs: str
    """Whether products work on it as it is."""


def csr_bytes(matrix: Matrix, index_bytes: int = 4, held_indices: int = 1) -> int:
    """Return values, a column each, and where each row starts.

    Args:
        matrix: what is stored.
        index_bytes: 4 or 8.
        held_indices: 2 where the column indices are a view of a buffer twice as long, as ``to_sparse_csr`` leaves them.
    """
    return matrix.nonzeros * (matrix.itemsize + held_indices * index_bytes) + (matrix.rows + 1) * index_bytes


def coo_bytes(matrix: Matrix) -> int:
    """Return values, with a row and a column of 8 bytes each."""
    return matrix.nonzeros * (matrix.itemsize + 16)


def bsr_bytes(matrix: Matrix, block: int, index_bytes: int = 8) -> int:
    """Return the numbers of the stored blocks, a block column each, and where each row of blocks starts."""
    blocks = math.ceil(matrix.nonzeros / block**2)
    return blocks * (block**2 * matrix.itemsize + index_bytes) + (matrix.rows // block + 1) * index_bytes


def bitmask_bytes(matrix: Matrix) -> int:
    """Return values, and a bit for each number of the matrix."""
    return matrix.nonzeros * matrix.itemsize + math.ceil(matrix.rows * matrix.columns / 8)


def two_of_four_bytes(matrix: Matrix) -> int:
    """Return half of the numbers, and two bits for each of them; whatever the nonzeros."""
    kept = matrix.rows * matrix.columns // 2
    return kept * matrix.itemsize + math.ceil(kept * 2 / 8)


def _bsr(block: int) -> Format:
    return Format(
        name=f"bsr-{block}",
        label=f"BSR, {block} x {block}, pruned in blocks",
        formula=f"{4 * block**2 + 8} x blocks + 8 x (rows / {block} + 1)",
        num_bytes=lambda matrix: bsr_bytes(matrix, block),
        runs="yes",
    )


FORMATS: Mapping[str, Format] = {
    item.name: item
    for item in (
        Format(name="coo", label="COO, 64-bit indices", formula="20 x nonzeros", num_bytes=coo_bytes, runs="yes"),
        Format(
            name="csr-as-torch-makes-it",
            label="CSR as to_sparse_csr leaves it",
            formula="20 x nonzeros + 8 x (rows + 1)",
            num_bytes=lambda matrix: csr_bytes(matrix, 8, 2),
            runs="yes",
        ),
        Format(
            name="csr-int64",
            label="CSR, 64-bit indices",
            formula="12 x nonzeros + 8 x (rows + 1)",
            num_bytes=lambda matrix: csr_bytes(matrix, 8),
            runs="yes",
        ),
        Format(name="csr-int32", label="CSR, 32-bit indices", formula="8 x nonzeros + 4 x (rows + 1)", num_bytes=csr_bytes, runs="yes"),
        *map(_bsr, BLOCK_SIZES),
        Format(name="bitmask", label="Bitmask", formula="4 x nonzeros + numbers / 8", num_bytes=bitmask_bytes, runs="after expanding"),
        Format(
            name="2:4", label="2:4", formula="2 x numbers + numbers / 8", num_bytes=two_of_four_bytes, runs="on CUDA; else after expanding"
        ),
    )
}
"""The formats that the break-even chart compares, by name."""


def break_even(format_: Format, rows: int = 768, columns: int = 768, itemsize: int = 4) -> float | None:
    """Return the share of zeros from which a format is smaller than dense, exact to one number; None where it never is."""
    dense = rows * columns * itemsize
    low, high = 0, rows * columns
    if format_.num_bytes(Matrix(rows=rows, columns=columns, nonzeros=0, itemsize=itemsize)) >= dense:
        return None
    while low < high:  # the most nonzeros with which it is smaller
        middle = (low + high + 1) // 2
        smaller = format_.num_bytes(Matrix(rows=rows, columns=columns, nonzeros=middle, itemsize=itemsize)) < dense
        low, high = (middle, high) if smaller else (low, middle - 1)
    return 1 - low / (rows * columns)
