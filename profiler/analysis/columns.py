"""Arrow columns -> numpy columns, with nulls and names made plain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Names:
    """A column of repeated texts: one code a row into ``names``, -1 where unknown."""

    codes: Array
    names: tuple[str, ...]

    def __getitem__(self, rows: Any) -> Names:
        return Names(self.codes[rows], self.names)

    def texts(self) -> Array:
        """Return one text a row; unknown ones are empty."""
        return np.array([*self.names, ""], dtype=object)[self.codes]

    def text(self, row: int) -> str:
        """Return one row's text; empty where unknown."""
        code = int(self.codes[row])
        return self.names[code] if code >= 0 else ""

    def mapped(self, codes: Mapping[str, int], default: int) -> Array:
        """Return ``codes`` of each row's text as int8; ``default`` for texts that are not among them and for unknown rows."""
        table = [codes.get(name, default) for name in self.names]
        return np.array([*table, default], dtype=np.int8)[self.codes]

    def containing(self, term: str) -> Array:
        """Return for each row whether its text contains ``term``, in any case."""
        lower = term.lower()
        return np.array([*(lower in name.lower() for name in self.names), False], dtype=bool)[self.codes]


def read_names(column: pa.ChunkedArray) -> Names:
    """Return a dictionary-encoded column as `Names`."""
    array = column.unify_dictionaries().combine_chunks()
    codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
    return Names(codes, tuple("" if name is None else name for name in array.dictionary.to_pylist()))


def read_numbers(column: pa.ChunkedArray, null: int | float = 0) -> Array:
    """Return a numeric column in its own type, ``null`` standing for nulls."""
    filled = column.fill_null(pa.scalar(null, column.type)) if column.null_count else column
    return np.asarray(filled.to_numpy())
