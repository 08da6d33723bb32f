"""Symbols of a byte <-> fewer bytes, without loss. Every coder writes what its decoder needs, so a stream and its count are enough.

Huffman's code is made and read with numpy; `constriction` does asymmetric numeral systems, and pyarrow, which is here anyway, zstd.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Symbols = NDArray[np.uint8]
MAX_CODE_BITS = 32
_MOST_FREQUENT = 2**16 - 1
_CHUNK = 1 << 16
"""Symbols that are decoded at a time: bounds the memory that decoding takes."""


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


def code_lengths(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the length of each symbol's Huffman code in bits, 0 for symbols that do not occur; a lone symbol has one bit."""
    heap = [(int(count), symbol, [symbol]) for symbol, count in enumerate(counts) if count]
    lengths = np.zeros(len(counts), np.int64)
    if len(heap) == 1:
        lengths[heap[0][1]] = 1
        return lengths
    heapq.heapify(heap)
    while len(heap) > 1:
        (one, first, left), (other, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        lengths[left + right] += 1
        heapq.heappush(heap, (one + other, first, left + right))
    return lengths


def canonical_codes(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the code of each symbol, as a number of `code_lengths` bits: ascending by length, then by symbol."""
    codes = np.zeros(len(lengths), np.int64)
    code = previous = 0
    for symbol in sorted(np.flatnonzero(lengths), key=lambda symbol: (lengths[symbol], symbol)):
        code <<= int(lengths[symbol]) - previous
        codes[symbol], previous = code, int(lengths[symbol])
        code += 1
    return codes


def _encode_huffman(symbols: Symbols) -> bytes:
    """Number of symbols in the table - 1, a byte with the length of each, then chunks of codes, each with its length in bytes."""
    if not len(symbols):
        return b""
    counts = np.bincount(symbols)
    lengths = code_lengths(counts)
    while lengths.max() > MAX_CODE_BITS:  # only absurdly uneven counts make such codes; even them out
        counts = np.where(counts > 0, counts // 2 + 1, 0)
        lengths = code_lengths(counts)
    codes = canonical_codes(lengths)
    parts = [bytes([len(lengths) - 1]), lengths.astype(np.uint8).tobytes()]
    for start in range(0, len(symbols), _CHUNK):
        chunk = symbols[start : start + _CHUNK]
        data = np.packbits(_code_bits(codes[chunk], lengths[chunk])).tobytes()
        parts += [len(data).to_bytes(4, "little"), data]
    return b"".join(parts)


def _code_bits(codes: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the bits of codes of different lengths, one after the other."""
    ends = lengths.cumsum()
    place = np.arange(int(ends[-1])) - np.repeat(ends - lengths, lengths)
    return ((np.repeat(codes, lengths) >> (np.repeat(lengths, lengths) - 1 - place)) & 1).astype(np.uint8)


def _decode_huffman(data: bytes, count: int) -> Symbols:
    if not count:
        return np.zeros(0, np.uint8)
    num_symbols = data[0] + 1
    lengths = np.frombuffer(data, np.uint8, num_symbols, 1).astype(np.int64)
    at, decoded = 1 + num_symbols, []
    for start in range(0, count, _CHUNK):
        size = int.from_bytes(data[at : at + 4], "little")
        decoded.append(_decode_chunk(data[at + 4 : at + 4 + size], lengths, min(_CHUNK, count - start)))
        at += 4 + size
    return np.concatenate(decoded)


def _decode_chunk(data: bytes, lengths: NDArray[np.int64], count: int) -> Symbols:
    """Return the symbols of one chunk: which code would start at each bit is found at once, then the codes are followed."""
    longest = int(lengths.max())
    bits = np.concatenate([np.unpackbits(np.frombuffer(data, np.uint8)).astype(np.int64), np.zeros(longest, np.int64)])
    windows = np.zeros(len(bits) - longest, np.int64)
    for place in range(longest):
        windows = windows << 1 | bits[place : place + len(windows)]
    present = np.flatnonzero(lengths)
    order = present[np.lexsort((present, lengths[present]))]
    first = canonical_codes(lengths)[order] << (longest - lengths[order])
    found = order[np.searchsorted(first, windows, side="right") - 1]
    symbols, steps = found.tolist(), lengths[found].tolist()
    decoded, at = [], 0
    for _ in range(count):
        decoded.append(symbols[at])
        at += steps[at]
    return np.array(decoded, np.uint8)


def _encode_ans(symbols: Symbols) -> bytes:
    """Number of symbols in the table - 1, the frequency of each in 2 bytes, then the coder's words."""
    if not len(symbols):
        return b""
    import constriction

    counts = _frequencies(np.bincount(symbols))
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse(symbols.astype(np.int32), _model(counts))
    words: NDArray[np.uint32] = coder.get_compressed()
    return bytes([len(counts) - 1]) + counts.tobytes() + words.astype("<u4").tobytes()


def _decode_ans(data: bytes, count: int) -> Symbols:
    if not count:
        return np.zeros(0, np.uint8)
    import constriction

    num_symbols = data[0] + 1
    counts = np.frombuffer(data, "<u2", num_symbols, 1)
    words = np.frombuffer(data, "<u4", offset=1 + counts.nbytes).astype(np.uint32)
    decoded: NDArray[np.int32] = constriction.stream.stack.AnsCoder(words).decode(_model(counts), count)
    return decoded.astype(np.uint8)


def _frequencies(counts: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Return counts brought to 16 bits; what occurs has at least 1."""
    scaled = np.rint(counts * (_MOST_FREQUENT / max(int(counts.max()), 1)))
    return np.where(counts > 0, np.maximum(scaled, 1), 0).astype("<u2")


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
