"""A tensor <-> streams of symbols that code well: indices of shared values, distances between what pruning left, or planes of bytes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from profiler.compression.coders import Symbols
from profiler.compression.files import as_bytes
from profiler.compression.kmeans import nearest

GAP_BITS = 8
LONGEST_GAP = 2**GAP_BITS - 1
"""A distance that needs more is cut by zeros that are stored, as Deep Compression does it."""


class Layout(StrEnum):
    """How a tensor was cut into streams."""

    BYTES = "bytes"
    """One stream: the bytes as they are."""
    PLANES = "planes"
    """A stream for each byte of a number: first bytes, second bytes, ..."""
    INDICES = "indices"
    """One stream: for each number the index of its value in the codebook."""
    GAPS = "gaps"
    """Two streams: distances to the next number that is stored, and the index of its value."""


@dataclass(frozen=True)
class Streams:
    """A tensor as symbols."""

    layout: Layout
    dtype: str
    shape: tuple[int, ...]
    symbols: tuple[Symbols, ...]
    codebook: Tensor | None = None
    """Ascending; for `INDICES` and `GAPS`."""

    def tensor(self) -> Tensor:
        """Return the tensor, bit by bit as it was."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        if self.layout in (Layout.BYTES, Layout.PLANES):
            planes = np.stack(self.symbols, axis=-1) if self.symbols else np.zeros(0, np.uint8)
            flat = torch.from_numpy(planes.reshape(-1).copy()).view(dtype)
        else:
            assert self.codebook is not None
            flat = self.codebook[torch.from_numpy(self._indices().astype(np.int64))]
        return flat.reshape(self.shape)

    def _indices(self) -> NDArray[np.uint8]:
        if self.layout is Layout.INDICES:
            return self.symbols[0]
        assert self.codebook is not None
        gaps, values = self.symbols
        indices = np.full(int(np.prod(self.shape)), zero_of(self.codebook), np.uint8)
        indices[gaps.astype(np.int64).cumsum() - 1] = values
        return indices

    def header(self) -> dict[str, Any]:
        """Return what is known beside the symbols, as plain data."""
        return {
            "layout": self.layout.value,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "counts": [len(symbols) for symbols in self.symbols],
            "num_values": 0 if self.codebook is None else len(self.codebook),
        }

    @classmethod
    def of_header(cls, header: dict[str, Any], symbols: tuple[Symbols, ...], codebook: Tensor | None) -> Self:
        """Return the streams that `header` described."""
        return cls(Layout(header["layout"]), header["dtype"], tuple(header["shape"]), symbols, codebook)


def byte_streams(tensor: Tensor, *, planes: bool) -> Streams:
    """Return a tensor's bytes, as they are or in planes."""
    data = as_bytes(tensor).numpy()
    size = tensor.element_size() if planes else 1
    symbols = tuple(np.ascontiguousarray(data.reshape(-1, size)[:, plane]) for plane in range(size))
    return Streams(Layout.PLANES if planes else Layout.BYTES, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), symbols)


def index_streams(tensor: Tensor, codebook: Tensor) -> Streams:
    """Return a tensor of shared values as indices; with distances where zero is a value and both streams need fewer bits so.

    Args:
        tensor: every number of it is in the codebook.
        codebook: ascending, at most 256 values.
    """
    indices = nearest(tensor.detach(), codebook).flatten().numpy().astype(np.uint8)
    shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    bits = bits_for(len(codebook))
    if bool((codebook == 0).any()):
        gaps, values = with_gaps(indices, zero_of(codebook))
        if len(gaps) * (GAP_BITS + bits) < len(indices) * bits:
            return Streams(Layout.GAPS, dtype, shape, (gaps, values), codebook)
    return Streams(Layout.INDICES, dtype, shape, (indices,), codebook)


def with_gaps(indices: Symbols, zero: int) -> tuple[Symbols, Symbols]:
    """Return the distances between the numbers that are stored, from 1 to `LONGEST_GAP`, and their indices.

    Zeros are left out but for those that a long distance needs as steps. The first distance is from just before the start.
    """
    kept = np.flatnonzero(indices != zero)
    gaps = np.diff(kept, prepend=-1)
    num_steps = (gaps - 1) // LONGEST_GAP
    expanded = np.full(int((num_steps + 1).sum()), LONGEST_GAP, np.uint8)
    values = np.full(len(expanded), zero, np.uint8)
    ends = (num_steps + 1).cumsum() - 1
    expanded[ends] = gaps - num_steps * LONGEST_GAP
    values[ends] = indices[kept]
    return expanded, values


def bits_for(num_values: int) -> int:
    """Return the bits that an index of so many values needs."""
    return max(1, (num_values - 1).bit_length())


def zero_of(codebook: Tensor) -> int:
    """Return the index of zero."""
    return int((codebook == 0).nonzero()[0])
