"""llm.c's own log: GPT-2 124M with vocabulary padded to 50,304, bfloat16, batch 56 x 1024 on an A800."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.published.table import EXACT, Published, Row, Tolerance
from profiler.models.catalogue import entry
from profiler.units import MIB

_BATCH, _SEQ, _PADDED_VOCAB = 56, 1024, 50_304
_BF16, _FP32 = 2, 4


def activation_bytes(batch: int) -> int:
    """Return what llm.c allocates for activations with cuDNN attention and GELU recomputed.

    The tensors of ``fill_in_activation_sizes`` in https://github.com/karpathy/llm.c/blob/master/train_gpt2.cu, one after the other.
    """
    facts = entry("gpt2").facts
    width, tokens = facts.hidden_size, batch * _SEQ
    assert facts.num_heads is not None
    layer_bf16 = {"ln1": 1, "atty": 1, "residual2": 1, "ln2": 1, "fch": 4, "residual3": 1, "qkvr": 3}
    layer_fp32 = {"ln1_mean": 1, "ln1_rstd": 1, "ln2_mean": 1, "ln2_rstd": 1, "att": facts.num_heads}
    once_bf16 = {"encoded": 1, "fch_gelu": 4, "lnf": 1, "scratch_bt4c": 4, "scratch_btc": 1}
    once_fp32 = {"lnf_mean": 1, "lnf_rstd": 1, "losses": 1}
    output = max(3 * width, facts.num_heads * _SEQ, _PADDED_VOCAB)
    per_layer = _BF16 * width * sum(layer_bf16.values()) + _FP32 * sum(layer_fp32.values())
    once = _BF16 * (width * sum(once_bf16.values()) + output) + _FP32 * sum(once_fp32.values())
    return tokens * (facts.num_layers * per_layer + once)


def rows(published: Published) -> Iterator[Row]:
    """Yield every line of the log; its MiB are cut to whole ones."""
    facts = entry("gpt2").facts
    num_parameters = entry("gpt2").num_parameters + (_PADDED_VOCAB - facts.vocab_size) * facts.hidden_size
    yield from published.row("llmc-nparams", num_parameters, EXACT)
    sizes = {"params": 2, "grads": 2, "m": 4, "v": 4, "master": 4}
    for name, itemsize in sizes.items():
        yield from published.row(f"llmc-{name}", num_parameters * itemsize // MIB, EXACT)
    yield from published.row("llmc-acts", activation_bytes(_BATCH) // MIB, EXACT)
    yield from published.row("llmc-perseq", activation_bytes(_BATCH) // _BATCH // MIB, EXACT)
    known = num_parameters * sum(sizes.values()) + activation_bytes(_BATCH)
    note = "what is left is the CUDA context, cuBLASLt and cuDNN, known as a band only"
    yield from published.row("llmc-device", known / MIB, Tolerance(low=0.5e9 / MIB, high=1.2e9 / MIB), note)
