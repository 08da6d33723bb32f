"""Rows and the trial's bytes -> the page `docs/compression-results.md`: tables, and sentences that they support."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from benchmarks.compression.rows import Row, Spread
from benchmarks.compression.trial import TOLERANCE, Figure, counted
from profiler.compression.lab import MODELS
from profiler.figures.comparison import NOT_MEASURED
from profiler.units import format_bytes

COMMAND = "python -m benchmarks.compression"
_SMALL_LOSS = 0.01
_NEAR = 0.005
"""Shares of bytes that are told apart."""


def page(
    rows: Sequence[Row],
    real: Sequence[Row],
    figures: Sequence[Figure],
    surroundings: Mapping[str, str],
    others: Mapping[str, Sequence[Row]] = MappingProxyType({}),
) -> str:
    """Return the whole page.

    Args:
        rows: what was measured on the lab's Llama.
        real: what was measured on SmolLM2, if anything.
        figures: the trial's.
        surroundings: what it was measured with: processor, versions, by name.
        others: what was measured on other models of the lab, by their names.
    """
    parts = [
        "# What compression gives: the lab, measured",
        f"Made by `{COMMAND} --publish`; never written by hand. [How to read it and measure your own](how-to/compress-a-model.md).",
        "Measured on " + ", ".join(f"{name} {value}" for name, value in surroundings.items()) + ".",
        _ABOUT.format(num=max(row.num_seeds for row in rows)),
        "## What the tables say",
        "\n".join(f"- {sentence}" for sentence in conclusions(rows, real)),
        "## Every technique",
        _results(_HEADS, rows),
        *([_REAL, _results(_REAL_HEADS, real)] if real else []),
        *(text for name, of_model in others.items() for text in _section(name, of_model)),
        "## Bytes beside an earlier trial",
        trial_summary(figures),
        table(("technique", "bytes", "trial", "here", "difference"), map(_figure_cells, figures)),
    ]
    return "\n\n".join(parts) + "\n"


_ABOUT = """The model is the lab's Llama of bytes: 918,656 parameters, 3.50 MiB held, loss in nats per byte on 16 KiB of held-out text.
Shares are of the untouched model's. Where training batches decide there are up to {num} seeds, with their mean and, in brackets, the
lowest and the highest; without them every seed gives the same model. Control: the untouched model trained in the same way, or for
distillation the student without a teacher. Times are processor seconds of a forward pass on one thread, in turns with the untouched
model's; two experiments ran at a time on a machine that others used, so trust them to some 15 %. Resident sets are exact to some 4 MiB,
which is more than this model has: they show packed copies, no savings. Models this small forgive: what is free here may ruin a real one."""

_REAL = """## On a real model

SmolLM2-135M, whose weights a package carries in four bits each: expanded to float32 they were rounded once, which is why a coder makes so
much of them. Loss in nats per token on 2,048 tokens of the same text, and per byte of that text, as the losses above are. The output layer
shares the embedding's weight, and what quantizes it parts the two."""

_HEADS = ("technique", "seeds", "held", "file", "resident", "loss gained", "control", "time", "agreement", "conversion peak")
_REAL_HEADS = (
    "technique",
    "held",
    "file",
    "loss gained",
    "per byte",
    "perplexity",
    "perplexity per byte",
    "time",
    "agreement",
    "conversion peak",
)
"""Columns, by their names in `_CELLS`."""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; all columns but the first are numbers."""
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def conclusions(rows: Sequence[Row], real: Sequence[Row] = ()) -> list[str]:
    """Return what the rows support, a sentence each."""
    return [*_best(rows), *_disk_only(rows), *_hidden(rows, real), *_trained(rows), *_repaired(rows), *_distilled(rows)]


def trial_summary(figures: Sequence[Figure]) -> str:
    """Return how many of the trial's figures come out again, and how near."""
    near = sum(figure.agrees for figure in figures)
    farthest = max(figures, key=lambda figure: abs(figure.deviation()))
    return (
        "A trial before this project counted the same on a model of this shape that it had trained itself; its losses, of one seed, are not"
        f" repeated. Of its {len(figures)} figures {near} come out within {TOLERANCE:.0%}; the farthest is {farthest.deviation():+.1%} off."
        " It left embeddings and norms as float32 and wrote gaps for each matrix; the lab's own file codes all, and takes the shorter of"
        " gaps and full indices, so the tables above have smaller files."
    )


def _best(rows: Sequence[Row]) -> Iterator[str]:
    cheap = [row for row in rows if row.loss_gain.high < _SMALL_LOSS]
    for what, share in (("in memory", "held"), ("on disk", "file")) if cheap else ():
        row = min(cheap, key=lambda row: getattr(row, share))
        yield (
            f"Smallest {what} of those that cost less than {_SMALL_LOSS} nats: `{row.technique}`, {getattr(row, share):.3f} of the bytes,"
            f" loss {row.loss_gain.mean:+.4f}."
        )


def _disk_only(rows: Sequence[Row]) -> Iterator[str]:
    idle = [row for row in rows if row.held > 1 - _NEAR]
    larger = [row for row in idle if row.held > 1 + _NEAR]
    small = [row for row in idle if row.file < 1 - _NEAR]
    yield (
        f"{len(idle)} of {len(rows)} hold no byte less in memory, {len(small)} of them save on disk all the same; larger than before are"
        f" {_listed(larger)}."
    )


def _trained(rows: Sequence[Row]) -> Iterator[str]:
    tuned = [row for row in rows if row.control_gain and row.num_seeds > 1 and " + fine-tune" in row.technique]
    if not tuned:
        return
    apart = [row for row in tuned if row.control_gain and row.loss_gain.apart_from(row.control_gain)]
    within = [row for row in tuned if row not in apart]
    widest = max(tuned, key=lambda row: row.loss_gain.width)
    control = max(tuned, key=lambda row: row.num_seeds).control_gain
    assert control is not None
    yield (
        f"Fine-tuning alone gives {_spread(control)}. Of {len(tuned)} techniques that are fine-tuned, {len(apart)} differ from that by more"
        f" than the seeds do{f'; not so {_listed(within)}' if within else ''}. Seeds are farthest apart in `{widest.technique}`, by"
        f" {widest.loss_gain.width:.4f} nats."
    )


def _repaired(rows: Sequence[Row]) -> Iterator[str]:
    by_name = {row.technique: row for row in rows}
    pairs = [(before, row) for row in rows if (before := by_name.get(row.technique.removesuffix(" + fine-tune"))) not in (None, row)]
    told = [f"`{before.technique}` from {before.loss_gain.mean:+.4f} to {_spread(row.loss_gain)}" for before, row in pairs if before]
    if told:
        yield f"Fine-tuning takes {'; '.join(told)}."


def _hidden(rows: Sequence[Row], real: Sequence[Row]) -> Iterator[str]:
    """Say what small models hide: the same technique on both."""
    by_name = {row.technique: row for row in rows}
    told = [
        f"`{row.technique}` {by_name[row.technique].loss_gain.mean:+.4f} nats a byte here and {_there(row)} there"
        for row in real
        if row.technique in by_name and abs(row.loss_gain.mean) > _SMALL_LOSS
    ]
    if told:
        yield f"A small model hides the damage that SmolLM2 shows: {'; '.join(told)}."


def _distilled(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row.technique.startswith("distill") and row.control_gain and row.num_seeds > 1:
            verdict = (
                "differ by more than the seeds do" if row.loss_gain.apart_from(row.control_gain) else "are not told apart by the seeds"
            )
            yield f"`{row.technique}`: with a teacher {_spread(row.loss_gain)}, without {_spread(row.control_gain)}: the two {verdict}."


def _section(name: str, rows: Sequence[Row]) -> Iterator[str]:
    """Yield what one of the lab's other models is, what its table says, and the table."""
    model = MODELS[name]
    yield f"## {model.label}"
    about = f"`{name}`, {model.shape.num_parameters:,} parameters. {model.explanation}"
    yield f"{about} Columns are as above; loss is in nats per {rows[0].unit}."
    yield "\n".join(f"- {sentence}" for sentence in conclusions(rows))
    yield _results((*_HEADS[:-1], rows[0].judge, _HEADS[-1]), rows)


def _results(heads: Sequence[str], rows: Iterable[Row]) -> str:
    """Return a table with a line a row."""
    return table(heads, ([_CELLS[head](row) for head in heads] for row in rows))


_CELLS: Mapping[str, Callable[[Row], str]] = {
    "technique": lambda row: f"`{row.technique}`",
    "seeds": lambda row: str(row.num_seeds),
    "held": lambda row: f"{row.held:.3f}",
    "file": lambda row: f"{row.file:.3f}" + ("" if row.exact_file else " (not exact)"),
    "resident": lambda row: f"{format_bytes(row.resident_bytes)} of {format_bytes(row.baseline_resident_bytes)}",
    "loss gained": lambda row: _spread(row.loss_gain),
    "per byte": lambda row: NOT_MEASURED if row.loss_gain_per_byte is None else f"{row.loss_gain_per_byte:+.4f}",
    "perplexity": lambda row: _perplexities(row, ".2f"),
    "perplexity per byte": lambda row: NOT_MEASURED if row.bytes_per_unit is None else _perplexities(row, ".3f", row.bytes_per_unit),
    "control": lambda row: _spread(row.control_gain) if row.control_gain else "",
    "time": lambda row: f"{row.time.mean:.2f}",
    "agreement": lambda row: f"{row.agreement.mean:.1%}",
    "accuracy": lambda row: f"{row.judged.mean:.1%} of {row.baseline_judged:.1%}",
    "BLEU": lambda row: f"{row.judged.mean:.1f} of {row.baseline_judged:.1f}",
    "conversion peak": lambda row: f"{row.conversion_peak:.1f}",
}
"""What a row says under the name of a column."""


def _perplexities(row: Row, form: str, unit_bytes: float = 1) -> str:
    """Return the perplexity and the untouched model's: of a unit, or of a byte where a unit's bytes are given."""
    after = row.perplexity ** (1 / unit_bytes)
    return f"{after:{form}} of {after / math.exp(row.loss_gain.mean / unit_bytes):{form}}"


def _there(row: Row) -> str:
    """Say what a real model lost, by the byte where its text's bytes were counted."""
    gain = row.loss_gain_per_byte
    return f"{row.loss_gain.mean:+.4f} a token" if gain is None else f"{gain:+.4f} ({row.loss_gain.mean:+.4f} a token)"


def _figure_cells(figure: Figure) -> list[str]:
    here = counted(figure.stages)[figure.quantity]
    return [f"`{' + '.join(figure.stages)}`", figure.quantity, f"{figure.share:.3f}", f"{here:.3f}", f"{figure.deviation():+.1%}"]


def _spread(spread: Spread) -> str:
    ends = f" ({spread.low:+.4f} to {spread.high:+.4f})" if spread.width else ""
    return f"{spread.mean:+.4f}{ends}"


def _listed(rows: Sequence[Row]) -> str:
    return ", ".join(f"`{row.technique}`" for row in rows) or "none"
