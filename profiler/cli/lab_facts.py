"""What the lab measures of this machine -> JSON or lines of text: forms of documents, and products in sparse formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from profiler.cli.command import print_json
from profiler.compression.products import SHARES, Products, ProductTime, break_even_in_time, times_of
from profiler.compression.sparse_formats import FORMATS, break_even
from profiler.compression.text_forms import TextFacts
from profiler.units import format_bytes


def print_text(facts: TextFacts, as_json: bool) -> None:
    """Print the forms of the lab's documents, and what a step of training word vectors takes."""
    if as_json:
        print_json(asdict(facts))
        return
    print(f"{'Documents':<50} {'Held':>10} {'As dense':>10} {'File':>10} {'Table':>10} {'Zeros':>6} {'Right':>6}  [measured]")
    for form in facts.forms:
        sizes = [format_bytes(size) for size in (form.held_bytes, form.dense_bytes, form.file_bytes, form.table_bytes)]
        print(f"{form.label:<50} {' '.join(f'{size:>10}' for size in sizes)} {form.zero_share:>6.1%} {form.accuracy:>6.1%}")
    print(f"{'One step of training word vectors':<50} {'Gradient':>10} {'State':>10} {'Table':>10}")
    for step in facts.gradients:
        sizes = [format_bytes(size) for size in (step.gradient_bytes, step.state_bytes, step.table_bytes)]
        print(f"{step.label:<50} {' '.join(f'{size:>10}' for size in sizes)}")
    for sentence in facts.missing:
        print(f"Note: {sentence}")


def print_break_even(products: Products, times: Sequence[ProductTime], as_json: bool) -> None:
    """Print the share of zeros from which each format takes fewer bytes, and less time, than dense; and the times by that share."""
    rows = _formats(products, times)
    if as_json:
        print_json({**asdict(products), "formats": rows, "times": [asdict(row) for row in times]})
        return
    print(f"Product of {products.rows:,} x {products.columns:,} float32 with {products.inputs:,} inputs; one thread, as a share of dense")
    shares = "".join(f"{share:>7.0%}" for share in SHARES)
    print(f"{'':<32} {'smaller':>8} {'faster':>8}  {'time with zeros:':<17}{shares}")
    for row in rows:
        ratios = "".join(f"{time.ratio:>7.2f}" for time in times_of(times, row["name"]))
        print(f"{row['label']:<32} {_share(row['bytes_break_even']):>8} {_share(row['time_break_even']):>8}  {'':<17}{ratios}")
    print("Bytes are estimated by formula, times measured. Zeros of BSR are whole blocks.")


def _formats(products: Products, times: Sequence[ProductTime]) -> list[dict[str, Any]]:
    return [
        {
            "name": item.name,
            "label": item.label,
            "formula": item.formula,
            "bytes_break_even": break_even(item, products.rows, products.columns),
            "time_break_even": break_even_in_time(times, item.name),
        }
        for item in FORMATS.values()
    ]


def _share(share: float | None) -> str:
    return "never" if share is None else f"{share:.1%}"
