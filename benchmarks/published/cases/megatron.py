"""Korthikanti's activations of large GPTs, and Megatron's bytes a parameter."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.published.table import EXACT, PRINTED, Published, Row, Tolerance
from profiler.estimate.activations import Recompute, megatron_layer_bytes
from profiler.estimate.others import megatron_bytes_per_parameter

_HIDDEN_AND_HEADS = {"GPT-3 175B": (12_288, 96), "MT-NLG 530B": (20_480, 128)}
_SEQ = 2048


def rows(published: Published) -> Iterator[Row]:
    """Yield the share of the scores in a layer's activations, and what selective recomputation saves of them."""
    for name, (hidden, heads) in _HIDDEN_AND_HEADS.items():
        layer = partial(megatron_layer_bytes, seq=_SEQ, batch=1, hidden=hidden, heads=heads)
        whole, selective = layer(), layer(recompute=Recompute.SELECTIVE)
        yield from published.row(f"kort-5ash-{name}", (whole - selective) / (_SEQ * hidden), EXACT)
        yield from published.row(f"kort-sel-{name}", 100 * (1 - selective / whole), PRINTED)
    layer = partial(megatron_layer_bytes, seq=_SEQ, batch=1, hidden=6144, heads=64, tensor_parallel=8)
    baseline, small = layer(), layer(sequence_parallel=True, recompute=Recompute.SELECTIVE)
    note = "the 22 B model; 'under 20 %' in the text is 20.2 % by its own formula for 530 B and 1 T"
    yield from published.row("kort-under20", 100 * small / baseline, Tolerance(low=0, high=20), note)
    yield from published.row("mega-18", megatron_bytes_per_parameter(), EXACT)
