"""Coding: the same numbers in a smaller file. Every coder is lossless and every file is read back."""

from __future__ import annotations

from profiler.compression.base import Kind, Saves, Technique
from profiler.optimizations.base import Parameter, ParameterKind

_CONSTRICTION = "constriction: https://bamler-lab.github.io/constriction/"
_DISK = " Saves on disk and in transfer only: to run, the model is expanded again."

FIXED = Technique(
    name="fixed",
    label="Packed indices",
    kind=Kind.CODING,
    saves=Saves.DISK,
    promise="Clusters of 2^bits need bits a weight.",
    explanation=(
        "Indices of shared weights are packed into as many bits as they need; of a pruned matrix only the others are kept, each with the"
        " distance"
        " from the one before in 8 bits. Without shared weights there is nothing to pack." + _DISK
    ),
    formula="bits x weights / 8, or (8 + bits) x nonzeros / 8 where that is less",
    source="Deep Compression, arXiv:1510.00149",
    code="entropy:write_fixed",
)

HUFFMAN = Technique(
    name="huffman",
    label="Huffman",
    kind=Kind.CODING,
    saves=Saves.DISK,
    promise="A fifth to a third off the file, for nothing.",
    explanation=(
        "Frequent symbols get short codes of whole bits: indices of shared weights and distances, or the bytes of numbers, each byte of a"
        " number"
        " a stream of its own. Near the entropy, except where one symbol is more frequent than half." + _DISK
    ),
    formula="entropy <= bits a symbol < entropy + 1, and 2 bytes for the frequency of each symbol",
    source=f"Huffman 1952; {_CONSTRICTION}",
    code="entropy:write_huffman",
    needs=("constriction",),
)

ANS = Technique(
    name="ans",
    label="Asymmetric numeral systems",
    kind=Kind.CODING,
    saves=Saves.DISK,
    promise="As small as the entropy allows.",
    explanation=(
        "As Huffman, with fractions of a bit a symbol: within a hundredth of the entropy, and coded and decoded several times as fast."
        + _DISK
    ),
    formula="entropy x symbols / 8, and 2 bytes for the frequency of each symbol",
    source=f"Duda 2013, arXiv:1311.2540; {_CONSTRICTION}",
    code="entropy:write_ans",
    needs=("constriction",),
)

ZSTD = Technique(
    name="zstd",
    label="zstd",
    kind=Kind.CODING,
    saves=Saves.DISK,
    promise="Compresses everything, so weights too.",
    explanation="The bytes as they are through a general compressor. Trained float weights look like noise to it: a few percent." + _DISK,
    formula="none; noise does not compress",
    source="https://facebook.github.io/zstd/",
    code="entropy:write_zstd",
    parameters=(Parameter(name="level", kind=ParameterKind.INTEGER, default=9, low=1, high=19, help="effort"),),
)

TECHNIQUES: tuple[Technique, ...] = (FIXED, HUFFMAN, ANS, ZSTD)
