"""A number of bytes and a model -> the tensors of that model that have this size, such as ``float32 logits, 4 x 2048 x 128,256``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from profiler.models.catalogue import config_of, facts_of
from profiler.models.config import SPELLINGS, ConfigFacts
from profiler.spec import Model, Workload
from profiler.units import MIB

_DTYPES = (("float32", 4), ("bfloat16 or float16", 2))
_LARGE_BYTES = 10 * MIB
_LARGE_STEP = 2 * MIB
_MIDDLE_SEGMENT = 20 * MIB
_SMALL_SEGMENT = 2 * MIB


@dataclass(frozen=True)
class SizedTensor:
    """A tensor that a model makes, and how large it is."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int

    def __str__(self) -> str:
        return f"{self.dtype} {self.name}, {' x '.join(f'{length:,}' for length in self.shape)}"


def driver_bytes(num_bytes: int) -> int:
    """Return what the allocator asks the driver for, for a tensor of ``num_bytes``: that is what an out-of-memory message says."""
    if num_bytes <= MIB:
        return _SMALL_SEGMENT
    return _MIDDLE_SEGMENT if num_bytes < _LARGE_BYTES else -(-num_bytes // _LARGE_STEP) * _LARGE_STEP


def tensors_of_size(num_bytes: int, model: Model, workload: Workload | None = None, *, within_bytes: int = 0) -> list[SizedTensor]:
    """Return the tensors of a model for which the allocator would ask for ``num_bytes``, likeliest first.

    Args:
        num_bytes: what a message says was requested; from 10 MiB up it tells the tensor, below the allocator asks for fixed sizes.
        model: what ran.
        workload: how long and wide its batch was; without one only weights and logits are found.
        within_bytes: how exact ``num_bytes`` is.

    Raises:
        SpecError: the model is not known.
    """
    if num_bytes < _LARGE_BYTES:
        return []
    facts = facts_of(model)
    found = []
    for name, shape in _shapes(facts, _intermediate(model), workload):
        for dtype, width in _DTYPES:
            tensor = SizedTensor(name, shape, dtype, math.prod(shape) * width)
            if tensor.bytes >= _LARGE_BYTES and abs(driver_bytes(tensor.bytes) - num_bytes) <= within_bytes:
                found.append(tensor)
    return found or ([] if workload else _logits(num_bytes, facts, within_bytes))


def _shapes(facts: ConfigFacts, intermediate: int | None, workload: Workload | None) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, vocab = facts.hidden_size, facts.vocab_size
    if workload is not None:
        batch, seq = workload.batch // workload.micro_batches, workload.seq
        yield "logits", (batch, seq, vocab)
        yield "logits without the last token", (batch, max(seq - 1, 1), vocab)
        if facts.num_heads:
            yield "attention scores", (batch, facts.num_heads, seq, seq)
        if facts.num_kv_heads and facts.head_dim:
            yield "keys or values of one layer", (batch, facts.num_kv_heads, seq, facts.head_dim)
        if intermediate:
            yield "inner activations of an MLP", (batch, seq, intermediate)
            yield "inner activations of a gated MLP, both halves", (batch, seq, 2 * intermediate)
        yield "hidden states", (batch, seq, hidden)
        yield "queries, keys and values together", (batch, seq, 3 * hidden)
    yield "embedding or output layer's weight, its gradient or optimizer state", (vocab, hidden)
    if intermediate:
        yield "weight of an MLP, its gradient or optimizer state", (intermediate, hidden)
    yield "weight of an attention projection, its gradient or optimizer state", (hidden, hidden)


def _logits(num_bytes: int, facts: ConfigFacts, within_bytes: int) -> list[SizedTensor]:
    """Return logits of a round number of tokens that have this size, where the batch is not known."""
    found = []
    for dtype, width in _DTYPES:
        row = facts.vocab_size * width
        tokens = round(num_bytes / row / 256) * 256
        if tokens and abs(driver_bytes(tokens * row) - num_bytes) <= within_bytes + _LARGE_STEP // 2:
            found.append(SizedTensor(f"logits of {tokens:,} tokens", (tokens, facts.vocab_size), dtype, tokens * row))
    return found


def _intermediate(model: Model) -> int | None:
    config = config_of(model)
    for spelling in SPELLINGS["intermediate_size"]:
        if type(value := config.get(spelling)) is int and value > 0:
            return value
    return None
