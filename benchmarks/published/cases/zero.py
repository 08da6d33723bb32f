"""ZeRO's model states (figure 1) and activations: 7.5 B parameters on 64 GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.published.table import EXACT, PRINTED, Published, Row, Tolerance
from profiler.estimate.zero import zero_states_bytes
from profiler.models.catalogue import entry
from profiler.units import GIB

_GB = 10**9
_STAGES = {"zero-baseline": 0, "zero-Pos": 1, "zero-Pos+g": 2, "zero-Pos+g+p": 3}


def rows(published: Published) -> Iterator[Row]:
    """Yield the states of each stage, bytes a parameter, and the activations of GPT-2 XL."""
    for identity, stage in _STAGES.items():
        yield from published.row(identity, zero_states_bytes(7_500_000_000, stage=stage, num_ranks=64) / _GB, PRINTED)
    yield from published.row("zero-16psi", zero_states_bytes(1000, stage=0, num_ranks=1) / 1000, EXACT)
    facts = entry("gpt2-xl").facts
    activations = 2 * 12 * facts.hidden_size * 32 * 1024 * facts.num_layers
    note = "2 x 12 x hidden x batch x tokens x layers bytes, the paper's own rough count"
    yield from published.row("zero-act-gpt2xl", activations / _GB, PRINTED, note)
    yield from _titan(published)


def _titan(published: Published) -> Iterator[Row]:
    """Yield what Llama-3.1-8B's states shrink by from 8 ranks to 128, for every setting that torchtitan ran on both."""
    num_parameters, float32_adam = entry("llama-3-8b").num_parameters, 16
    ours = num_parameters * float32_adam * (1 / 8 - 1 / 128) / GIB
    for on_8 in published.ids("titan-T1-"):
        setting = on_8.removeprefix("titan-T1-")
        on_128 = f"titan-T3-{setting}"
        what = f"Llama-3.1-8B, {setting}: 8 GPUs less 128"
        yield from published.difference(on_8, on_128, what, ours, Tolerance(share=0.1), "16 bytes a parameter, sharded; peaks are reserved")
