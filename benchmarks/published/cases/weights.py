"""Sizes of weights: quantized layouts of torchao, double quantization in LitGPT, GGUF, accelerate, and published round numbers."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.published.table import EXACT, PRINTED, Published, Row, Tolerance
from profiler.estimate.blocks import block_of
from profiler.estimate.others import accelerate_training_bytes
from profiler.estimate.quantization import FORMATS, quantized_bytes, quantized_linear_bytes
from profiler.models.catalogue import entry
from profiler.models.config import ConfigFacts
from profiler.units import GIB, MIB

_GB = 10**9
_TORCHAO_MODELS = {"Llama-2-7B": "llama-2-7b", "Llama-3-8B": "llama-3-8b", "Llama-3.1-8B (H100)": "llama-3-8b"}
_TORCHAO_FORMATS = {
    "bf16": "bfloat16",
    "int8dq": "int8",
    "int8wo": "int8",
    "float8wo": "float8",
    "fp6": "fp6",
    "int4wo-64": "int4, groups of 64",
    "int4wo-64-sparse-marlin 2:4": "int4, groups of 64, 2:4 sparse",
}
_NEOX_LINEARS = 12
"""Numbers of a block's linear layers in units of the width's square: attention 4, feed-forward 8."""
_LITGPT_TOLERANCES = {
    True: (Tolerance(share=0.02, digits=0.5), "all linear layers"),
    False: (Tolerance(share=0.02, digits=1), "all linear layers; two trainings' peaks, so one digit instead of half of one"),
}
"""By whether the runs are of inference."""
_LLAMA_2_70B = 68_976_648_192
_LLAMA_2_70B_OUTPUT = 32_000 * 8_192


def rows(published: Published) -> Iterator[Row]:
    """Yield the rows of each source."""
    yield from _torchao(published)
    yield from _litgpt(published)
    yield from _gguf(published)
    yield from _accelerate(published)
    yield from _round_numbers(published)


def _torchao(published: Published) -> Iterator[Row]:
    for model, name in _TORCHAO_MODELS.items():
        facts = entry(name).facts
        for technique, weight_format in _TORCHAO_FORMATS.items():
            ours = _linears_bytes(facts, weight_format) / _GB
            yield from published.row(f"ao-inf-size-{model}-{technique}", ours, Tolerance(share=0.005), "all linear layers, output included")


def _linears_bytes(facts: ConfigFacts, weight_format: str) -> int:
    """Return the bytes of the blocks' linear layers and of the output layer."""
    blocks = sum(quantized_linear_bytes(*sizes, weight_format) for sizes in block_of(facts).linears.values())
    return facts.num_layers * blocks + quantized_linear_bytes(facts.hidden_size, facts.vocab_size, weight_format)


def _litgpt(published: Published) -> Iterator[Row]:
    """Yield what quantizing the scales saves, for every run that the file has both ways."""
    saved_bits = FORMATS["nf4"].bits_per_weight - FORMATS["nf4, double quantized"].bits_per_weight
    yield from published.row("litgpt-dq-bits", saved_bits, PRINTED)
    yield from published.row("qlora-dq-before", FORMATS["nf4"].bits_per_weight - 4, EXACT)
    yield from published.row("qlora-dq-after", FORMATS["nf4, double quantized"].bits_per_weight - 4, PRINTED)
    yield from published.row("qlora-dq-saving", saved_bits, PRINTED)
    num_weights = _litgpt_linears()
    for quantized in published.ids("litgpt-"):
        model = published.entry(quantized)["model"]
        if "bnb.nf4-dq" not in quantized or model not in num_weights:
            continue
        kind = quantized.split("-")[1]
        ours = (quantized_bytes(num_weights[model], "nf4") - quantized_bytes(num_weights[model], "nf4, double quantized")) / _GB
        tolerance, note = _LITGPT_TOLERANCES[kind == "inf"]
        plain, what = quantized.replace("bnb.nf4-dq", "bnb.nf4"), f"{model}: NF4 less NF4 double quantized ({kind})"
        yield from published.difference(plain, quantized, what, ours, tolerance, note)


def _litgpt_linears() -> dict[str, int]:
    """Return how many weights of each model are in linear layers, the output layer (its vocabulary padded) included."""
    llama = {f"Llama 2 {size}B": _linears_bytes(entry(f"llama-2-{size}b").facts, "bfloat16") // 2 for size in (7, 13)}
    code_llama = 48 * (2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 22_016) + 32_000 * 8192
    falcon_7b = 32 * (2 * 4544**2 + 2 * 4544 * 64 + 8 * 4544**2) + 65_024 * 4544
    falcon_40b = 60 * (2 * 8192**2 + 2 * 8192 * 512 + 8 * 8192**2) + 65_024 * 8192
    return llama | {
        "StableLM Alpha 3B": 16 * _NEOX_LINEARS * 4096**2 + 50_688 * 4096,
        "phi-1.5": 24 * _NEOX_LINEARS * 2048**2 + 51_200 * 2048,
        "CodeLlama 34B": code_llama,
        "Falcon 7B": falcon_7b,
        "Falcon 40B": falcon_40b,
    }


def _gguf(published: Published) -> Iterator[Row]:
    """Yield files of one type; llama.cpp keeps their output layer in Q6_K."""
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q6_K"):
        ours = quantized_bytes(_LLAMA_2_70B - _LLAMA_2_70B_OUTPUT, name) + quantized_bytes(_LLAMA_2_70B_OUTPUT, "Q6_K")
        yield from published.row(f"gguf70b-{name}", ours / GIB, PRINTED, "output layer in Q6_K")
    yield from published.row("gguf70b-fp16", quantized_bytes(_LLAMA_2_70B, "float16") / GIB, PRINTED)
    for model in ("7B", "70B"):
        yield from published.row(f"gguf-Llama 2 {model}-Q6_K", FORMATS["Q6_K"].bits_per_weight, PRINTED)


def _accelerate(published: Published) -> Iterator[Row]:
    """Yield bert-base-cased, whose two integer buffers accelerate counts with the weights."""
    num_parameters, buffers_bytes, largest = 108_310_272, 2 * 512 * 8, 28_996 * 768
    whole_bytes = 4 * num_parameters + buffers_bytes
    for dtype, divisor in (("float32", 1), ("float16", 2), ("int8", 4), ("int4", 8)):
        yield from published.row(f"acc-bert-bas-{dtype}-total", whole_bytes / divisor / MIB, PRINTED)
        yield from published.row(f"acc-bert-bas-{dtype}-largest", 4 * largest / divisor / MIB, PRINTED)
    yield from published.row("acc-bert-train32", accelerate_training_bytes(whole_bytes) / GIB, PRINTED)


def _round_numbers(published: Published) -> Iterator[Row]:
    models = {"8B": "llama-3-8b", "70B": "llama-3-70b", "405B": "llama-3.1-405b"}
    bits = {"FP16": 16, "FP8": 8, "INT4": 4}
    for model, name in models.items():
        for dtype, width in bits.items():
            ours = entry(name).num_parameters * width / 8 / _GB
            yield from published.row(f"l31-w-{model}-{dtype}", ours, Tolerance(share=0.01, digits=0.5), "without scales")
    yield from published.row("int8-quarter", FORMATS["int8"].bits_per_weight / FORMATS["float32"].bits_per_weight, EXACT)
    yield from published.row("sp24-178", 16 / (16 / 2 + 2 / 2), PRINTED, "half of the numbers, and two bits of index for each")
