"""What smaller optimizer states save: torchao's and Hugging Face's measured runs."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.published.table import EXACT, PRINTED, Published, Row, Tolerance
from profiler.estimate.optimizer_state import optimizer_state_bytes
from profiler.models.catalogue import entry
from profiler.units import GIB, MIB

_GB = 1e9
_VIT_HUGE = 632_045_800
"""Parameters of timm's vit_huge_patch14_224 with 1,000 classes."""
_BERT_LARGE_CLASSIFIER = entry("bert-large").num_parameters + 2 * 1024 + 2


def rows(published: Published) -> Iterator[Row]:
    """Yield Llama-2-7B and ViT-H from AdamW to 8 and 4 bits, BERT-large in float32 to 8 bits, and bytes a parameter."""
    yield from _llama(published)
    yield from _vision(published)
    saved = _saved(_BERT_LARGE_CLASSIFIER, "adam, float32", "adam, 8-bit") / MIB
    note = "of a whole device: reserved memory, not allocated"
    for less in published.ids("hf-bert-"):
        if "8bit" in less:
            together = less.endswith("-all")
            more = less.replace("adam8bit-", "") if together else "hf-bert-vanilla-b4"
            tolerance = Tolerance(share=0.01 if together else 0.03)
            yield from published.difference(more, less, "BERT-large: Adam to 8-bit Adam", saved, tolerance, note)
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


def _vision(published: Published) -> Iterator[Row]:
    """Yield ViT-H/14 in mixed precision: float32 states to 8 bits, and 8 bits to 4."""
    note = "the model is compiled; 0.13 GB of the difference are no states"
    for more, less, before, after, tolerance in (
        ("PyTorch fused AdamW", "ao 8-bit (block 256)", "adam, float32", "adam, 8-bit", Tolerance(share=0.04)),
        ("PyTorch fused AdamW", "ao FP8 E4M3", "adam, float32", "adam, 8-bit", Tolerance(share=0.04)),
        ("ao 8-bit (block 256)", "ao 4-bit (block 128)", "adam, 8-bit", "adam, 4-bit", Tolerance(share=0.02)),
    ):
        yield from published.difference(
            f"ao-opt-vith-{more}",
            f"ao-opt-vith-{less}",
            f"ViT-H/14: {more} to {less}",
            _saved(_VIT_HUGE, before, after) / _GB,
            tolerance,
            note if tolerance.share > 0.02 else "",
        )


def _saved(num_parameters: int, before: str, after: str) -> int:
    return optimizer_state_bytes(num_parameters, before) - optimizer_state_bytes(num_parameters, after)
