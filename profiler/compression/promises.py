"""Claims found in articles and talks -> a card each: the claim, its formula, the arithmetic put right, and the verdict of a measurement.

A card names the experiment that tests it, so a verdict comes from a result and never from an opinion. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from profiler.compression.result import Result
from profiler.units import format_bytes


class Verdict(StrEnum):
    """What a measurement says of a claim."""

    HOLDS = "holds"
    PARTLY = "holds in part"
    FAILS = "does not hold"
    NOT_MEASURED = "not measured yet"
    NOT_HERE = "cannot be measured here"


@dataclass(frozen=True)
class Finding:
    """A verdict and the sentence with its numbers."""

    verdict: Verdict
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Promise:
    """One claim."""

    name: str
    claim: str
    """As it is printed, in short."""
    formula: str
    """What is behind it."""
    corrected: str
    """The arithmetic put right."""
    stages: tuple[str, ...]
    """The experiment that tests it, as toggles are written; none where it is about training or cannot be tested here."""
    judge: Callable[[Result], Finding] | None = None
    elsewhere: str = ""
    """Where it is tested, or why it is not, for those without an experiment."""

    def finding(self, result: Result | None) -> Finding:
        """Return the verdict.

        Args:
            result: of the promise's experiment on any model; None where it was not measured.
        """
        if self.judge is None:
            return Finding(Verdict.NOT_HERE, self.elsewhere)
        if result is None:
            return Finding(Verdict.NOT_MEASURED, f"Measure {' + '.join(self.stages)} to see.")
        return self.judge(result)


def int8_share(num_parameters: int, quantized_share: float, row_length: int) -> float:
    """Return the share of a float32 model that is left when a part of its parameters becomes int8 with a float32 scale a row.

    Args:
        num_parameters: of the whole model.
        quantized_share: how many of them become int8, 0 to 1.
        row_length: weights that share a scale.
    """
    quantized = num_parameters * quantized_share
    return ((num_parameters - quantized) * 4 + quantized * (1 + 4 / row_length)) / (num_parameters * 4)


def _int8(result: Result) -> Finding:
    ratio, loss = result.ratio("held_bytes"), _loss_gain(result)
    verdict = Verdict.PARTLY if ratio > 0.27 else Verdict.HOLDS
    return Finding(
        verdict,
        f"Held in memory: {ratio:.3f} of float32. What became int8 is a quarter and its scales; what stayed float32, such as embeddings,"
        f" keeps it above. Loss {loss:+.4f}.",
    )


def _fewer_weights(result: Result) -> Finding:
    held, time = result.ratio("held_bytes"), result.seconds / result.baseline_seconds
    verdict = Verdict.FAILS if held > 0.99 and time > 0.9 else Verdict.PARTLY
    return Finding(
        verdict,
        f"40 % of the weights are zero: memory {held:.2f}, time {time:.2f}, loss {_loss_gain(result):+.4f}. Zeros take part as before.",
    )


def _sparse(result: Result) -> Finding:
    held = result.ratio("held_bytes")
    zeros = result.stages[-1].extra.get("zero_share", 0.0)
    verdict = Verdict.HOLDS if held <= 0.65 else Verdict.FAILS if held >= 1 else Verdict.PARTLY
    return Finding(verdict, f"With {zeros:.0%} zeros in the matrices this format holds {held:.2f} of the dense model.")


def _lossless(result: Result) -> Finding:
    ratio = result.ratio("file_bytes")
    verdict = Verdict.HOLDS if ratio < 0.6 else Verdict.PARTLY if ratio < 0.9 else Verdict.FAILS
    return Finding(verdict, f"The file is {ratio:.3f} of what it was, every bit the same: {_exact(result)}. In memory nothing changes.")


def _deep_compression(result: Result) -> Finding:
    file = 1 / result.ratio("file_bytes")
    matrices = result.stages[-1].extra
    coded = matrices["matrices_bytes"] / matrices["coded_bytes"]
    held = result.ratio("held_bytes")
    verdict = Verdict.HOLDS if coded >= 35 else Verdict.PARTLY
    return Finding(
        verdict,
        f"The matrices became {coded:.1f} times smaller, the file {file:.1f} times ({format_bytes(result.size.file_bytes)}), loss"
        f" {_loss_gain(result):+.4f}; in memory {held:.2f}.",
    )


def _four_bits(result: Result) -> Finding:
    held = result.ratio("held_bytes")
    verdict = Verdict.HOLDS if held <= 0.14 else Verdict.PARTLY if held < 0.25 else Verdict.FAILS
    return Finding(verdict, f"Held in memory: {held:.3f} of float32, where 4 of 32 bits would be 0.125. Loss {_loss_gain(result):+.4f}.")


def _distillation(result: Result) -> Finding:
    control = result.stages[0].extra["control_loss"]
    gained = control - result.quality.loss
    verdict = Verdict.HOLDS if gained > 0.01 else Verdict.FAILS
    return Finding(
        verdict,
        f"The student with a teacher: loss {result.quality.loss:.4f}; the same student without: {control:.4f}. It holds"
        f" {result.ratio('held_bytes'):.2f} of the teacher, whoever teaches it.",
    )


def _dynamic(result: Result) -> Finding:
    time = result.seconds / result.baseline_seconds
    verdict = Verdict.HOLDS if time <= 0.5 and _loss_gain(result) < 0.02 else Verdict.PARTLY
    return Finding(
        verdict,
        f"Time {time:.2f}, memory {result.ratio('held_bytes'):.2f}, loss {_loss_gain(result):+.4f}. Small models hide the damage: one range"
        " for all activations cost a 135M model most of its quality.",
    )


def _loss_gain(result: Result) -> float:
    return result.quality.loss - result.baseline_quality.loss


def _exact(result: Result) -> str:
    return "read back and compared" if result.exact_file else "NOT the same when read back"


PROMISES: tuple[Promise, ...] = (
    Promise(
        name="int8-bert",
        claim="int8 of a 340M-parameter BERT reduces it to 0.16 of its size.",
        formula="(340M x 8 bits) / (340M x 32 bits x 16) = 0.0156, printed as 0.16",
        corrected=(
            "8 / 32 bits is 0.25, and a scale of 4 bytes for each row of 1,024 weights makes it 0.251. BERT-large has 31.8 M of its 335 M"
            f" parameters in embeddings; where those stay float32 it is {int8_share(335_141_888, 1 - 31_782_912 / 335_141_888, 1024):.3f}."
        ),
        stages=("int8-weight-only",),
        judge=_int8,
    ),
    Promise(
        name="prune-compute",
        claim="Pruning 40 % of the weights keeps 70 % of the compute.",
        formula="1 - 0.4 = 0.6 of the weights, with some overhead 0.7 of the compute",
        corrected="Dense products multiply zeros too: 1.00 of memory, time and compute until the weights are gone or the format is sparse.",
        stages=("prune:amount=0.4",),
        judge=_fewer_weights,
    ),
    Promise(
        name="sparse-0.6",
        claim="Sparse storage of a model with 40 % zeros reduces it to 0.6.",
        formula="nonzeros / numbers = 0.6",
        corrected=(
            "Indices take bytes too. With 40 % zeros: bitmask 0.6 + 1/32 = 0.63 of each matrix, CSR with 32-bit indices 1.2, COO 3.0."
            " Smaller than dense: bitmask from 3 % zeros, CSR from 50 %, 67 % or 80 %, by its indices."
        ),
        stages=("prune:amount=0.4", "store-csr"),
        judge=_sparse,
    ),
    Promise(
        name="sparse-parameters",
        claim="Sparse parameters reduce memory.",
        formula="only nonzeros are stored",
        corrected="From the break-even on: with 70 % zeros CSR with 32-bit indices is 8/4 x 0.3 = 0.6 of a matrix, COO still 1.5.",
        stages=("prune-global:amount=0.7", "store-csr"),
        judge=_sparse,
    ),
    Promise(
        name="bitmask",
        claim="There are formats that save at any sparsity.",
        formula="4 x nonzeros + numbers / 8",
        corrected="A bitmask is smaller than dense from 1/32 zeros (float32) or 1/16 (16 bits) on; it has to be expanded for each product.",
        stages=("prune:amount=0.4", "store-bitmask"),
        judge=_sparse,
    ),
    Promise(
        name="four-bits",
        claim="4-bit weights take an eighth of the memory.",
        formula="4 / 32 = 0.125",
        corrected="A scale and a zero point for each group of 64 add 8 bytes to 32: 0.156 of each matrix; embeddings stay.",
        stages=("packed-int:bits=4",),
        judge=_four_bits,
    ),
    Promise(
        name="four-bits-by-name",
        claim="int4 is int4.",
        formula="4 / 32 = 0.125",
        corrected="Some libraries keep each 4-bit value in a byte: the quality of int4 at the size of int8.",
        stages=("intx-weight-only",),
        judge=_four_bits,
    ),
    Promise(
        name="dynamic-int8",
        claim="Dynamic int8 is twice to four times as fast, at the same quality.",
        formula="int8 instructions do four products where float32 does one",
        corrected="Activations are quantized at each call, attention and norms stay float32; quality depends on the ranges of activations.",
        stages=("dynamic-int8",),
        judge=_dynamic,
    ),
    Promise(
        name="zip",
        claim="Compressing the weights file makes it much smaller.",
        formula="as text and pictures do",
        corrected="The fraction bits of trained weights are noise: about 0.92 for float32. Exponents do compress: 0.83, byte by byte.",
        stages=("zstd",),
        judge=_lossless,
    ),
    Promise(
        name="deep-compression",
        claim="Pruning, shared weights and Huffman coding make a network 35 times smaller.",
        formula="AlexNet: 11 % of the weights x (about 5 bits + position) after Huffman = 1/35",
        corrected="On disk, and for networks whose weights are mostly in wide dense layers. In memory the model is expanded: 1.00.",
        stages=("deep-compression",),
        judge=_deep_compression,
    ),
    Promise(
        name="distillation",
        claim="A distilled student is 40 % smaller and keeps 97 % of the quality.",
        formula="DistilBERT: 66 M of 110 M parameters",
        corrected="The size is the student's, taught or not; what the teacher adds is the difference to the same student without one.",
        stages=("distill",),
        judge=_distillation,
    ),
    Promise(
        name="parallelism",
        claim="Training on four workers is four times faster.",
        formula="work / workers",
        corrected="Work that every worker repeats, and communication, remain: speed-up = 1 / (serial + parallel / 4), at most 4.",
        stages=(),
        elsewhere="This lab measures one thread. Two threads on a busy machine of two cores were seen to be 17 times slower than one.",
    ),
    Promise(
        name="momentum",
        claim="Momentum lowers memory.",
        formula="none",
        corrected="It adds a number of 4 bytes for each parameter: plain SGD keeps 0, momentum 4, Adam 8 bytes a parameter.",
        stages=(),
        elsewhere="Compare sgd with sgd:momentum=0.9 on the page Compare: the optimizer's state is measured there.",
    ),
)
"""In the order in which pages show them."""
