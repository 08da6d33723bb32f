"""What smaller optimizer states save: torchao's measured Llama-2-7B, and bytes a parameter as Hugging Face counts them."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.published.table import EXACT, PRINTED, Published, Row, Tolerance
from profiler.estimate.optimizer_state import optimizer_state_bytes
from profiler.models.catalogue import entry
from profiler.units import GIB


def rows(published: Published) -> Iterator[Row]:
    """Yield Llama-2-7B from AdamW to 8 and 4 bits, and bytes a parameter."""
    yield from _llama(published)
    table = {"hf-anatomy-0": "adam, float32", "hf-anatomy-2": "sgd, momentum, float32"}
    for identity, optimizer in table.items():
        yield from published.row(identity, optimizer_state_bytes(1, optimizer), EXACT)
    eight_bit = optimizer_state_bytes(10**6, "adam, 8-bit") / 10**6
    yield from published.row("hf-anatomy-1", eight_bit, PRINTED, "with the blocks' scales")


def _llama(published: Published) -> Iterator[Row]:
    num_parameters = entry("llama-2-7b").num_parameters
    for name, optimizer in (("bnb 8-bit", "adam, 8-bit"), ("ao 8-bit", "adam, 8-bit"), ("ao 4-bit", "adam, 4-bit")):
        yield from published.difference(
            "ao-opt-llama2-PyTorch fused AdamW",
            f"ao-opt-llama2-{name}",
            f"Llama-2-7B: bfloat16 AdamW to {name}",
            _saved(num_parameters, "adam, bfloat16", optimizer) / GIB,
            Tolerance(share=0.02),
            "the source's GB are GiB",
        )


def _saved(num_parameters: int, before: str, after: str) -> int:
    return optimizer_state_bytes(num_parameters, before) - optimizer_state_bytes(num_parameters, after)
