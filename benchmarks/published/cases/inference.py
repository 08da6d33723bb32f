"""Prompts and generation on an A100, simulated: octocoder in bfloat16, and what each sequence of a prompt takes in Llama-2-13B.

Recipes: Hugging Face's optimize-llm.md (September 2023): a prompt of about 20 tokens, then tokens one by one; peak of allocated memory.
Optimum's tests/benchmark (2023): one forward of prompts of 512 tokens in float16 with a cache and a mask, eager attention, and the logits
of every token made float32, as transformers did until version 4.45. Its numbers are of the whole device: they lie 1308.4 MB above the peak
of allocated memory at every batch size, which is the context, so their differences are those of allocated memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import nn
from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedConfig

from benchmarks.published.simulated import Program, Script, peak_allocated_bytes
from benchmarks.published.table import Published, Row, Tolerance
from profiler.recording import Provenance
from profiler.units import GIB

_TOLERANCE = Tolerance(share=0.001)
_OCTOCODER = "hf-octocoder-bf16"
_MB = 10**6
_LLAMA_13B = {"hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40, "intermediate_size": 13_824, "vocab_size": 32_000}
_BATCHES = (1, 4, 8, 16)


def rows(published: Published) -> Iterator[Row]:
    """Yield octocoder, then the growth between batch sizes."""
    if _OCTOCODER in published.ids(_OCTOCODER):
        ours = peak_allocated_bytes("a100-40gb", _octocoder, num_steps=1) / GIB
        yield from published.row(_OCTOCODER, ours, _TOLERANCE, "20 tokens, then 3 of 60", provenance=Provenance.SIMULATED)
    batches = [batch for batch in _BATCHES if _prefill_id(batch) in published.ids(_prefill_id(batch))]
    peaks = {batch: peak_allocated_bytes("a100-80gb", _prefill(batch), num_steps=1) for batch in batches}
    for less, more in pairwise(batches):
        what = f"Llama-2-13B, 512 tokens: batch {more} less {less}"
        ours = (peaks[more] - peaks[less]) / _MB
        yield from published.difference(
            _prefill_id(more), _prefill_id(less), what, ours, _TOLERANCE, "the context is in both", provenance=Provenance.SIMULATED
        )


def _prefill_id(batch: int) -> str:
    return f"gptq-prefill-b{batch}-fp16"


def _octocoder(device: torch.device) -> Script:
    sizes = {"n_embd": 6144, "n_layer": 40, "n_head": 48, "n_inner": 24_576, "n_positions": 8192, "vocab_size": 49_152}
    tokens = {"bos_token_id": 0, "eos_token_id": 0}
    config = GPTBigCodeConfig(**sizes, **tokens, activation_function="gelu_pytorch_tanh", attn_implementation="eager")
    model = _built(GPTBigCodeForCausalLM, config, torch.bfloat16, device)

    @torch.no_grad()
    def generate() -> None:
        outputs = model(torch.randint(49_152, (1, 20)).to(device), use_cache=True)
        for _ in range(3):
            outputs = model(torch.randint(49_152, (1, 1)).to(device), past_key_values=outputs.past_key_values, use_cache=True)

    return Script(generate)


def _prefill(batch: int) -> Program:
    def program(device: torch.device) -> Script:
        model = _built(LlamaForCausalLM, LlamaConfig(**_LLAMA_13B, attn_implementation="eager"), torch.float16, device)

        @torch.no_grad()
        def read() -> None:
            tokens = torch.randint(32_000, (batch, 512)).to(device)
            mask = torch.ones(batch, 512, dtype=torch.int64).to(device)
            outputs = model(input_ids=tokens, attention_mask=mask, use_cache=True)
            outputs.logits.float()

        return Script(read)

    return program


def _built(kind: type[nn.Module], config: PreTrainedConfig, dtype: torch.dtype, device: torch.device) -> nn.Module:
    with _default(dtype):
        return kind(config).to(device).eval()


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
