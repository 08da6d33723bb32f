"""A model -> one file of coded streams, lossless: the stage of a pipeline that only the disk sees.

The file: the word `MAGIC`, the length of a JSON header (8 bytes, little-endian), the header, then the streams of each tensor one after the
other. A tensor that others share is written once. Everything in the model is in the file: parameters, buffers, scales, sparse indices.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn

from profiler.compression.coders import CODERS, RAW, Coder, Symbols, entropy_bits, zstd
from profiler.compression.files import as_bytes, same_numbers
from profiler.compression.held import tensors_of
from profiler.compression.streams import GAP_BITS, Layout, Streams, bits_for, byte_streams, index_streams
from profiler.compression.subject import Subject

MAGIC = b"headroom-weights-2\n"


def write_fixed(subject: Subject) -> None:
    """Pack the indices of shared weights."""
    if not subject.codebooks:
        subject.notes.append("0 matrices packed: without shared weights (k-means) there are no indices.")
    subject.file = CodedFile("fixed", CODERS["fixed"], subject.codebooks)


def write_huffman(subject: Subject) -> None:
    """Code with Huffman's codes."""
    subject.file = CodedFile("huffman", CODERS["huffman"], subject.codebooks)


def write_ans(subject: Subject) -> None:
    """Code with asymmetric numeral systems."""
    subject.file = CodedFile("ans", CODERS["ans"], subject.codebooks)


def write_zstd(subject: Subject, level: int) -> None:
    """Compress with zstd."""
    subject.file = CodedFile("zstd", zstd(level), subject.codebooks)


@dataclass(frozen=True)
class CodedFile:
    """A file in which each stream went through a coder, or stayed as it was where that is shorter."""

    name: str
    coder: Coder
    codebooks: dict[str, Tensor] = field(default_factory=dict)
    """By a matrix's name, the values that its weights share."""

    def write(self, model: nn.Module, path: Path) -> dict[str, float]:
        """Write the file.

        Returns:
            ``matrices_bytes``, ``fixed_bytes``, ``entropy_bytes`` and ``coded_bytes`` of the tensors with shared weights, or of all where
            none has: as numbers, in indices of fixed length, by Shannon's bound, as coded.
        """
        entries: list[dict[str, Any]] = []
        blobs: list[bytes] = []
        counted = dict.fromkeys(("matrices_bytes", "fixed_bytes", "entropy_bytes", "coded_bytes"), 0.0)
        written: dict[tuple[Any, ...], str] = {}
        for name, tensor in list(tensors_of(model)):  # held together, since a storage that is freed may be another's the next moment
            key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
            if tensor.numel() and key in written:
                entries.append({"name": name, "same_as": written[key]})
                continue
            written[key] = name
            streams = self._streams(name, tensor)
            coded = [self._coded(symbols) for symbols in streams.symbols]
            book = b"" if streams.codebook is None else as_bytes(streams.codebook).numpy().tobytes()
            entries.append(
                {"name": name, **streams.header(), "coders": [coder for coder, _ in coded], "sizes": [len(data) for _, data in coded]}
            )
            blobs += [book, *(data for _, data in coded)]
            if name in self.codebooks or not self.codebooks:
                _count(counted, tensor, streams, sum(len(data) for _, data in coded) + len(book))
        header = json.dumps({"coder": self.name, "tensors": entries}, separators=(",", ":")).encode()
        with path.open("wb") as file:
            file.writelines([MAGIC, len(header).to_bytes(8, "little"), header, *blobs])
        return counted

    def exact(self, model: nn.Module, path: Path) -> bool:
        """Return whether the file gives each tensor back bit by bit."""
        return same_numbers(dict(tensors_of(model)), read_weights(path, self.coder))

    def _streams(self, name: str, tensor: Tensor) -> Streams:
        if name in self.codebooks:
            return index_streams(tensor, self.codebooks[name])
        return byte_streams(tensor, planes=self.name in ("huffman", "ans"))

    def _coded(self, symbols: Symbols) -> tuple[str, bytes]:
        data = self.coder.encode(symbols)
        return (self.name, data) if len(data) < len(symbols) else ("raw", RAW.encode(symbols))


def read_weights(path: Path, coder: Coder) -> dict[str, Tensor]:
    """Return the tensors of a file by name.

    Args:
        path: a file that `CodedFile` wrote.
        coder: of the file; streams that stayed as they were need none.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{path.name} is no file of coded weights.")
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        tensors: dict[str, Tensor] = {}
        for entry in header["tensors"]:
            if "same_as" in entry:
                tensors[entry["name"]] = tensors[entry["same_as"]]
                continue
            book = _read_codebook(file, getattr(torch, entry["dtype"]), entry["num_values"])
            symbols = tuple(
                (RAW if name == "raw" else coder).decode(file.read(size), count)
                for name, size, count in zip(entry["coders"], entry["sizes"], entry["counts"], strict=True)
            )
            tensors[entry["name"]] = Streams.of_header(entry, symbols, book).tensor()
    return tensors


def _read_codebook(file: IO[bytes], dtype: torch.dtype, num_values: int) -> Tensor | None:
    if not num_values:
        return None
    return torch.from_numpy(np.frombuffer(file.read(num_values * dtype.itemsize), np.uint8).copy()).view(dtype)


def _count(counted: dict[str, float], tensor: Tensor, streams: Streams, coded_bytes: int) -> None:
    """Add one tensor to what is counted."""
    book_bytes = 0 if streams.codebook is None else streams.codebook.numel() * streams.codebook.element_size()
    index_bits = 8 if streams.codebook is None else bits_for(len(streams.codebook))
    bits = [GAP_BITS, index_bits] if streams.layout is Layout.GAPS else [index_bits] * len(streams.symbols)
    counted["matrices_bytes"] += tensor.numel() * tensor.element_size()
    counted["fixed_bytes"] += book_bytes + sum(-(-len(symbols) * size // 8) for symbols, size in zip(streams.symbols, bits, strict=True))
    counted["entropy_bytes"] += book_bytes + sum(entropy_bits(symbols) for symbols in streams.symbols) / 8
    counted["coded_bytes"] += coded_bytes
