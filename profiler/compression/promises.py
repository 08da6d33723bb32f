"""Claims found in articles and talks -> a card each: the claim, its formula, the arithmetic put right, and the verdict of a measurement.

A card names what tests it, an experiment or the training of a model, so a verdict comes from a measurement and never from an opinion. Loads
no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from profiler.compression.result import Result
from profiler.compression.target import loss_gain
from profiler.compression.training_facts import TrainingFacts
from profiler.units import format_bytes


class Verdict(StrEnum):
    """What a measurement says of a claim."""

    HOLDS = "holds"
    PARTLY = "holds in part"
    FAILS = "does not hold"
    NOT_MEASURED = "not measured yet"


@dataclass(frozen=True)
class Finding:
    """A verdict and the sentence with its numbers."""

    verdict: Verdict
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was measured on one model."""

    results: Sequence[Result] = ()
    """Of the promise's experiment, one for each seed."""
    beside: Sequence[Result] = ()
    """Of the other experiment that it needs."""
    training: TrainingFacts | None = None


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
    stages: tuple[str, ...] = ()
    """The experiment that tests it, as toggles are written; none where training tests it."""
    beside: tuple[str, ...] = ()
    """Another experiment that the verdict needs."""
    judge: Callable[[Evidence], Finding]

    @property
    def is_of_training(self) -> bool:
        """Whether it is judged by what training takes, and by no experiment."""
        return not self.stages

    def finding(self, evidence: Evidence) -> Finding:
        """Return the verdict; without all of the evidence, that there is none yet."""
        if self.is_of_training:
            return self.judge(evidence) if evidence.training else Finding(Verdict.NOT_MEASURED, "Measure training to see.")
        if not evidence.results:
            return Finding(Verdict.NOT_MEASURED, f"Measure {' + '.join(self.stages)} to see.")
        if self.beside and not evidence.beside:
            return Finding(Verdict.NOT_MEASURED, f"Measure {' + '.join(self.beside)} beside it to see.")
        return self.judge(evidence)


_CLAIMED_INT8, _CLAIMED_COMPUTE, _CLAIMED_STUDENT, _CLAIMED_QUALITY, _CLAIMED_SPEED_UP = 0.165, 0.75, 0.605, 0.965, 3.5
"""What still rounds to the claim: 0.16 of the size, 0.7 of the compute, 40 % smaller, 97 % of the quality, four times as fast."""


def int8_share(num_parameters: int, quantized_share: float, row_length: int) -> float:
    """Return the share of a float32 model that is left when a part of its parameters becomes int8 with a float32 scale a row.

    Args:
        num_parameters: of the whole model.
        quantized_share: how many of them become int8, 0 to 1.
        row_length: weights that share a scale.
    """
    quantized = num_parameters * quantized_share
    return ((num_parameters - quantized) * 4 + quantized * (1 + 4 / row_length)) / (num_parameters * 4)


def _int8(evidence: Evidence) -> Finding:
    result = evidence.results[0]
    ratio, loss = result.ratio("held_bytes"), loss_gain(result)
    return Finding(
        Verdict.HOLDS if ratio <= _CLAIMED_INT8 else Verdict.FAILS,
        f"Held in memory: {ratio:.3f} of float32. What became int8 is a quarter and its scales; what stayed float32, such as embeddings,"
        f" keeps it above. Loss {loss:+.4f}.",
    )


def _fewer_weights(evidence: Evidence) -> Finding:
    result = evidence.results[0]
    held, time = result.ratio("held_bytes"), result.seconds / result.baseline_seconds
    return Finding(
        Verdict.HOLDS if time <= _CLAIMED_COMPUTE else Verdict.FAILS,
        f"60 % of the weights are zero: memory {held:.2f}, time {time:.2f}, loss {loss_gain(result):+.4f}. Zeros take part as before.",
    )


def _sparse(evidence: Evidence) -> Finding:
    result = evidence.results[0]
    held = result.ratio("held_bytes")
    zeros = result.stages[-1].extra.get("zero_share", 0.0)
    verdict = Verdict.HOLDS if held <= 0.65 else Verdict.FAILS if held >= 1 else Verdict.PARTLY
    return Finding(verdict, f"With {zeros:.0%} zeros in the matrices this format holds {held:.2f} of the dense model.")


def _from_break_even_on(evidence: Evidence) -> Finding:
    """Judge by one share of zeros above the break-even and one below."""
    many, few = evidence.results[0], evidence.beside[0]
    held = [result.ratio("held_bytes") for result in (many, few)]
    zeros = [result.stages[-1].extra.get("zero_share", 0.0) for result in (many, few)]
    saving = sum(ratio < 1 for ratio in held)
    return Finding(
        (Verdict.FAILS, Verdict.PARTLY, Verdict.HOLDS)[saving],
        f"With {zeros[0]:.0%} zeros in the matrices this format holds {held[0]:.2f} of the dense model, with {zeros[1]:.0%} it holds"
        f" {held[1]:.2f}.",
    )


def _lossless(evidence: Evidence) -> Finding:
    result = evidence.results[0]
    ratio = result.ratio("file_bytes")
    verdict = Verdict.HOLDS if ratio < 0.6 else Verdict.PARTLY if ratio < 0.9 else Verdict.FAILS
    return Finding(verdict, f"The file is {ratio:.3f} of what it was, every bit the same: {_exact(result)}. In memory nothing changes.")


def _deep_compression(evidence: Evidence) -> Finding:
    result = evidence.results[0]
    file = 1 / result.ratio("file_bytes")
    matrices = result.stages[-1].extra
    coded = matrices["matrices_bytes"] / matrices["coded_bytes"]
    held = result.ratio("held_bytes")
    verdict = Verdict.HOLDS if coded >= 35 else Verdict.PARTLY
    return Finding(
        verdict,
        f"The matrices became {coded:.1f} times smaller, the file {file:.1f} times ({format_bytes(result.size.file_bytes)}), loss"
        f" {loss_gain(result):+.4f}; in memory {held:.2f}.",
    )


def _four_bits(evidence: Evidence) -> Finding:
    result = evidence.results[0]
    held = result.ratio("held_bytes")
    verdict = Verdict.HOLDS if held <= 0.14 else Verdict.PARTLY if held < 0.25 else Verdict.FAILS
    return Finding(verdict, f"Held in memory: {held:.3f} of float32, where 4 of 32 bits would be 0.125. Loss {loss_gain(result):+.4f}.")


def _distillation(evidence: Evidence) -> Finding:
    """Judge size and quality, and tell what of it the teacher gave, over all seeds."""
    first = evidence.results[0]
    held, kept = first.ratio("held_bytes"), min(one.quality.accuracy / one.baseline_quality.accuracy for one in evidence.results)
    gains = [one.stages[0].extra["control_loss"] - one.quality.loss for one in evidence.results]
    low, high = min(gains), max(gains)
    if len(gains) == 1:
        taught = f"its teacher gave {low:+.4f} of loss with one seed, and what other seeds would say is not known"
    elif low > 0 or high < 0:
        taught = f"its teacher gave {low:+.4f} to {high:+.4f} of loss with {len(gains)} seeds"
    else:
        taught = f"its teacher gave {low:+.4f} to {high:+.4f} of loss: {len(gains)} seeds do not tell it from none"
    met = (held <= _CLAIMED_STUDENT) + (kept >= _CLAIMED_QUALITY)
    return Finding(
        (Verdict.FAILS, Verdict.PARTLY, Verdict.HOLDS)[met],
        f"The student holds {held:.2f} of the teacher and is right {kept:.0%} as often; {taught}.",
    )


def _dynamic(evidence: Evidence) -> Finding:
    result = evidence.results[0]
    time = result.seconds / result.baseline_seconds
    verdict = Verdict.HOLDS if time <= 0.5 and loss_gain(result) < 0.02 else Verdict.PARTLY
    return Finding(
        verdict,
        f"Time {time:.2f}, memory {result.ratio('held_bytes'):.2f}, loss {loss_gain(result):+.4f}. Small models hide the damage: one range"
        " for all activations cost a 135M model most of its quality.",
    )


def _parallel(evidence: Evidence) -> Finding:
    training = evidence.training
    assert training is not None
    gains = {time.num_workers: training.speed_up(time.num_workers) for time in training.times if time.num_workers > 1}
    told = ", ".join(f"in {number} processes {gain:.2f} times" for number, gain in gains.items())
    return Finding(
        Verdict.HOLDS if gains[4] >= _CLAIMED_SPEED_UP else Verdict.FAILS,
        f"A step of the same batch is, by the clock, as fast as in one process: {told}. This machine has {training.num_cores} cores.",
    )


def _momentum(evidence: Evidence) -> Finding:
    training = evidence.training
    assert training is not None
    plain, momentum, adam = (training.state_bytes(name) for name in ("sgd", "sgd:momentum=0.9", "adam"))
    return Finding(
        Verdict.HOLDS if momentum < plain else Verdict.FAILS,
        f"After a step plain SGD keeps {format_bytes(plain)}, with momentum {format_bytes(momentum)}, Adam {format_bytes(adam)}; the"
        f" parameters are {format_bytes(training.parameter_bytes)}.",
    )


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
        claim="Keeping 40 % of the weights keeps 70 % of the compute.",
        formula="none that gives 0.7",
        corrected=(
            "0.40 of the multiplications, if the zeros are left out. Dense products multiply them too: 1.00 of memory, time and compute"
            " until the weights are gone or the format is sparse."
        ),
        stages=("prune:amount=0.6",),
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
        beside=("prune:amount=0.4", "store-csr"),
        judge=_from_break_even_on,
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
        judge=_parallel,
    ),
    Promise(
        name="momentum",
        claim="Momentum lowers memory.",
        formula="none",
        corrected="It adds a number of 4 bytes for each parameter: plain SGD keeps 0, momentum 4, Adam 8 bytes a parameter.",
        judge=_momentum,
    ),
)
"""In the order in which pages show them."""
