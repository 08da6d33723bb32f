"""LoRA: trainable parameters, checkpoint files, and what training holds beside the frozen model."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.published.table import EXACT, PRINTED, TRUNCATED, Published, Row, Tolerance
from profiler.estimate.lora import ATTENTION_TARGETS, adapter_num_parameters, lora_num_parameters, lora_states_bytes
from profiler.models.catalogue import entry
from profiler.units import MIB

_MILLION = 1e6


def rows(published: Published) -> Iterator[Row]:
    """Yield the paper's counts, then LitGPT's and torchtune's, then PEFT's measured runs."""
    yield from _paper(published)
    seven_b = adapter_num_parameters(entry("llama-2-7b").facts, rank=8)
    thirteen_b = adapter_num_parameters(entry("llama-2-13b").facts, rank=8)
    yield from published.row("litgpt-lora-trainable-Llama 2 7B", seven_b, EXACT)
    yield from published.row("litgpt-lora-trainable-Llama 2 13B", thirteen_b, EXACT)
    yield from published.row("litgpt-lora-trainable-StableLM Alpha 3B", _square(4096, 16, 8), EXACT)
    yield from published.row("litgpt-lora-trainable-phi-1.5", _square(2048, 24, 8), EXACT)
    yield from published.row("tt-lora-train-params", seven_b, EXACT)
    yield from published.row("tt-lora-total-params", seven_b + entry("llama-2-7b").num_parameters, EXACT)
    one_layer = 4 * (512 * 512 + lora_num_parameters([(512, 512)], rank=8))
    yield from published.row("tt-lora-linear-bytes", one_layer, EXACT)
    yield from _peft(published)


def _paper(published: Published) -> Iterator[Row]:
    for identity, rank in (("lora-gpt3-4.7", 1), ("lora-gpt3-37.7", 8)):
        yield from published.row(
            identity, _square(12_288, 96, rank), PRINTED, f"rank {rank} on queries and values", last_digit=_MILLION / 10
        )
    rank_4 = _square(12_288, 96, 4)
    yield from published.row("lora-gpt3-18", rank_4, TRUNCATED, "rank 4 on queries and values; the digits are cut", last_digit=_MILLION)
    yield from published.row("lora-ckpt", 2 * rank_4 / MIB, TRUNCATED, "16 bits; its MB are MiB, 'roughly'")
    yield from published.row("lora-deb", _square(1536, 48, 16), PRINTED, last_digit=_MILLION / 10)
    yield from published.row("lora-gpt2m-file", 4 * _square(1024, 24, 4) / MIB, PRINTED, "float32; its MB are MiB")


def _square(width: int, num_layers: int, rank: int) -> int:
    """Return the parameters on queries and values of blocks that are as wide inside as outside."""
    return lora_num_parameters([(width, width)] * len(ATTENTION_TARGETS) * num_layers, rank)


def _peft(published: Published) -> Iterator[Row]:
    """Yield Llama-3.2-3B with float32 adapters on queries and values, measured on an L40S."""
    model = entry("llama-3.2-3b")
    by_rank = {rank: adapter_num_parameters(model.facts, rank) for rank in (32, 64)}
    yield from published.difference(
        "peft-lora-rank64-alloc",
        "peft-lora-rank32-alloc",
        "Llama-3.2-3B: rank 64 less rank 32, allocated",
        lora_states_bytes(by_rank[64] - by_rank[32]),
        Tolerance(share=0.005),
        "weights, gradients and two moments in float32",
    )
    for rank, num_parameters in by_rank.items():
        note = "float32 numbers; the file's header of 15 kB is left out"
        yield from published.row(f"peft-lora-rank{rank}-file", 4 * num_parameters, Tolerance(share=0.005), note)
    full = "peft-full-finetuning-lr_0.00001"
    yield from published.row(
        f"{full}-alloc", 8 * model.num_parameters, Tolerance(share=0.02), "bfloat16 weights, gradients and two moments"
    )
    yield from published.row(f"{full}-file", 2 * model.num_parameters, Tolerance(share=0.0001))
    norms = (2 * model.facts.num_layers + 1) * model.facts.hidden_size
    yield from published.row("peft-ln_tuning-default-trainable", norms, EXACT, "all norms' weights")
