"""Symbols of a byte <-> fewer bytes, without loss. Every coder writes what its decoder needs, so a stream and its count are enough.

`constriction` does Huffman's codes, a symbol a call, and asymmetric numeral systems, a stream a call; pyarrow, which is here anyway, zstd.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Symbols = NDArray[np.uint8]
_MOST_FREQUENT = 2**16 - 1
_CHUNK = 1 << 16
"""Symbols that are Python's numbers at a time: bounds the memory that coding takes."""


@dataclass(frozen=True)
class Coder:
    """A way to write symbols."""

    encode: Callable[[Symbols], bytes]
    decode: Callable[[bytes, int], Symbols]
    """Of the bytes and the number of symbols."""


def entropy_bits(symbols: Symbols) -> float:
    """Return Shannon's bound: the fewest bits that all symbols together take under any code that knows only how frequent each is."""
    counts = np.bincount(symbols, minlength=1)
    counts = counts[counts > 0]
    return float((counts * np.log2(counts.sum() / counts)).sum())


def pack_bits(symbols: Symbols, bits: int) -> bytes:
    """Return symbols below 2^bits, each in that many bits, the highest first."""
    unpacked = np.unpackbits(symbols[:, None], axis=1)[:, 8 - bits :]
    return np.packbits(unpacked).tobytes()


def unpack_bits(data: bytes, bits: int, count: int) -> Symbols:
    """Return what `pack_bits` packed."""
    flat = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits).reshape(count, bits)
    padded = np.zeros((count, 8), np.uint8)
    padded[:, 8 - bits :] = flat
    return np.packbits(padded, axis=1).reshape(-1)


def _encode_fixed(symbols: Symbols) -> bytes:
    bits = max(1, int(symbols.max(initial=0)).bit_length())
    return bytes([bits]) + pack_bits(symbols, bits)


def _decode_fixed(data: bytes, count: int) -> Symbols:
    return unpack_bits(data[1:], data[0], count)


def _encode_huffman(symbols: Symbols) -> bytes:
    """The table of frequencies, then the codes' words: the library gives the shortest codes to the most frequent symbols that occur."""
    if not len(symbols):
        return b""
    import constriction

    counts = _frequencies(np.bincount(symbols))
    present = np.flatnonzero(counts)
    ranks = np.zeros(len(counts), np.uint8)
    ranks[present] = np.arange(len(present))
    book = constriction.symbol.huffman.EncoderHuffmanTree(counts[present].astype(np.float64))
    coder = constriction.symbol.QueueEncoder()
    encode = coder.encode_symbol
    for start in range(0, len(symbols), _CHUNK):
        for rank in ranks[symbols[start : start + _CHUNK]].tolist():
            encode(rank, book)
    words: NDArray[np.uint32] = coder.get_compressed_and_bitrate()[0]
    return _with_table(counts, words)


def _decode_huffman(data: bytes, count: int) -> Symbols:
    if not count:
        return np.zeros(0, np.uint8)
    import constriction

    counts, words = _counts_and_words(data)
    present = np.flatnonzero(counts)
    book = constriction.symbol.huffman.DecoderHuffmanTree(counts[present].astype(np.float64))
    decode = constriction.symbol.QueueDecoder(words).decode_symbol
    ranks = np.fromiter((decode(book) for _ in range(count)), np.uint8, count)
    return present.astype(np.uint8)[ranks]


def _encode_ans(symbols: Symbols) -> bytes:
    """The table of frequencies, then the coder's words."""
    if not len(symbols):
        return b""
    import constriction

    counts = _frequencies(np.bincount(symbols))
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(symbols.astype(np.int32), _model(counts))
    words: NDArray[np.uint32] = coder.get_compressed()
    return _with_table(counts, words)


def _decode_ans(data: bytes, count: int) -> Symbols:
    if not count:
        return np.zeros(0, np.uint8)
    import constriction

    counts, words = _counts_and_words(data)
    decoded: NDArray[np.int32] = constriction.stream.stack.AnsCoder(words).decode(_model(counts), count)
    return decoded.astype(np.uint8)


def _frequencies(counts: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Return counts brought to 16 bits; what occurs has at least 1."""
    scaled = np.rint(counts * (_MOST_FREQUENT / max(int(counts.max()), 1)))
    return np.where(counts > 0, np.maximum(scaled, 1), 0).astype("<u2")


def _with_table(counts: NDArray[np.uint16], words: NDArray[np.uint32]) -> bytes:
    """Number of symbols in the table - 1, the frequency of each in 2 bytes, then a coder's words."""
    return bytes([len(counts) - 1]) + counts.tobytes() + words.astype("<u4").tobytes()


def _counts_and_words(data: bytes) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """Return what `_with_table` wrote."""
    counts = np.frombuffer(data, "<u2", data[0] + 1, 1)
    return counts, np.frombuffer(data, "<u4", offset=1 + counts.nbytes).astype(np.uint32)


def _model(counts: NDArray[np.uint16]) -> object:
    import constriction

    share = counts.astype(np.float64)
    if len(share) == 1:
        share = np.array([share[0], 0.0])  # a model needs two symbols
    return constriction.stream.model.Categorical((share / share.sum()).astype(np.float32), perfect=False)


def _encode_raw(symbols: Symbols) -> bytes:
    return symbols.tobytes()


def _decode_raw(data: bytes, count: int) -> Symbols:
    return np.frombuffer(data, np.uint8, count)


def zstd(level: int) -> Coder:
    """Return zstd at an effort."""
    codec = pa.Codec("zstd", compression_level=level)

    def encode(symbols: Symbols) -> bytes:
        return bytes(codec.compress(symbols.tobytes(), asbytes=True))

    def decode(data: bytes, count: int) -> Symbols:
        return np.frombuffer(codec.decompress(data, decompressed_size=count, asbytes=True), np.uint8)

    return Coder(encode, decode)


RAW = Coder(_encode_raw, _decode_raw)
CODERS: Mapping[str, Coder] = {
    "raw": RAW,
    "fixed": Coder(_encode_fixed, _decode_fixed),
    "huffman": Coder(_encode_huffman, _decode_huffman),
    "ans": Coder(_encode_ans, _decode_ans),
}
"""By the name that a file writes; `zstd` has an effort and makes its own."""
