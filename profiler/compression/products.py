"""Products with a sparse matrix: what to measure of them, and from how many zeros on they are faster than dense. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from profiler.compression.sparse_formats import BLOCK_SIZES
from profiler.errors import SpecError

MULTIPLE = max(BLOCK_SIZES)
"""Of rows and columns: what the largest blocks ask for."""
MOST_NUMBERS = 2**22
"""Of a matrix: a larger one takes minutes, and its dense form more memory than a trial should."""
MOST_INPUTS = 512
SHARES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Of zeros, at which products are timed."""
FORMATS = ("coo", "csr-int64", "csr-int32", *(f"bsr-{size}" for size in BLOCK_SIZES), "bitmask", "2:4")
"""Those of `sparse_formats.FORMATS` that are timed."""
_TIMED_AS = {"csr-as-torch-makes-it": "csr-int64"}
"""What differs in the bytes that it holds alone."""


@dataclass(frozen=True, kw_only=True)
class Products:
    """What is multiplied: a float32 matrix with inputs.

    Raises:
        SpecError: the shape cannot be measured.
    """

    rows: int = 768
    columns: int = 768
    inputs: int = 128
    """Vectors that the matrix is multiplied with at once, such as the tokens of a prompt; 1 when a model writes."""

    def __post_init__(self) -> None:
        shape = f"A matrix of {self.rows:,} x {self.columns:,}"
        if self.rows < MULTIPLE or self.columns < MULTIPLE or self.rows % MULTIPLE or self.columns % MULTIPLE:
            raise SpecError(f"{shape} cannot be timed in every format. Take rows and columns that are multiples of {MULTIPLE}.")
        if self.rows * self.columns > MOST_NUMBERS:
            raise SpecError(f"{shape} is too large to be timed. Take one of at most {MOST_NUMBERS:,} numbers, such as 2,048 x 2,048.")
        if not 1 <= self.inputs <= MOST_INPUTS:
            raise SpecError(f"{self.inputs:,} inputs at once are not possible. Take 1 to {MOST_INPUTS}.")


@dataclass(frozen=True, kw_only=True)
class ProductTime:
    """The time of a product in one format."""

    format: str
    """A name of `sparse_formats.FORMATS`."""
    zeros: float
    """Share of zeros, 0 to 1; of zero blocks for block formats."""
    seconds: float
    ratio: float
    """To the dense product of the same shape."""


def times_of(times: Sequence[ProductTime], name: str) -> list[ProductTime]:
    """Return the times of one of `sparse_formats.FORMATS`, from few zeros to many."""
    return sorted((row for row in times if row.format == _TIMED_AS.get(name, name)), key=lambda row: row.zeros)


def break_even_in_time(times: Sequence[ProductTime], name: str) -> float | None:
    """Return the share of zeros from which a format is faster than dense, between measurements in proportion; None where it is not.

    Args:
        times: measured.
        name: of the format.
    """
    rows = [(row.zeros, row.ratio) for row in times_of(times, name)]
    if not rows or rows[-1][1] > 1:
        return None
    slower = [row for row in rows if row[1] > 1]
    if not slower:
        return rows[0][0]
    (low, above), (high, below) = slower[-1], next(row for row in rows if row[0] > slower[-1][0])
    return low + (high - low) * (above - 1) / (above - below)
