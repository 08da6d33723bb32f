"""Sizes of a block, batch and sequence -> bytes that forward keeps for backward, and bytes of logits and loss."""

from __future__ import annotations

from enum import StrEnum

from profiler.errors import SpecError
from profiler.estimate.blocks import Block, block_of
from profiler.models.config import ConfigFacts, Head

_COMPOSED_GELU_TYPES = frozenset(("gpt2", "gpt_neo", "gptj", "codegen"))
"""Model types whose GELU is written in several operations, each of which keeps a tensor."""

_QUERY_NORM_TYPES = frozenset(("qwen3", "qwen3_moe", "gemma3_text"))
"""Model types that normalize queries and keys."""

FLOAT32_BYTES = 4


class Recompute(StrEnum):
    """What of a layer backward computes again."""

    NONE = "none"
    SELECTIVE = "selective"
    """The scores of attention, as fused attention kernels do."""
    FULL = "full"


def megatron_layer_bytes(
    *,
    seq: int,
    batch: int,
    hidden: int,
    heads: int,
    tensor_parallel: int = 1,
    sequence_parallel: bool = False,
    recompute: Recompute = Recompute.NONE,
) -> float:
    """Return the activation bytes of one layer of a GPT: ``s*b*h * (34 + 5*a*s/h)``.

    With tensor parallelism ``t``: ``s*b*h * (10 + 24/t + 5*a*s/(h*t))``; with sequence parallelism too, everything divided by ``t``;
    selective recomputation drops the term of the scores; full recomputation keeps the layer's input, ``2*s*b*h``. Source: Korthikanti et
    al. 2022, https://arxiv.org/abs/2205.05198, table 2. Valid for 16-bit activations, a feed-forward of ``4*h`` with GELU, one-byte dropout
    masks and attention that keeps its scores; embeddings and the output layer come on top.

    Raises:
        SpecError: there is no rank.
    """
    if tensor_parallel < 1:
        raise SpecError(f"tensor_parallel={tensor_parallel} is not possible. Use a whole number from 1.")
    tokens_hidden = seq * batch * hidden
    if recompute is Recompute.FULL:
        return 2 * tokens_hidden
    scores = 5 * heads * seq / hidden if recompute is Recompute.NONE else 0
    whole = 0 if sequence_parallel else 10
    return tokens_hidden * (whole + (34 - whole + scores) / tensor_parallel)


def activation_bytes(facts: ConfigFacts, *, batch: int, seq: int, itemsize: int, on_cpu: bool) -> int:
    """Return the bytes that the forward of a model keeps for backward, without logits and loss.

    Counted operator by operator, as PyTorch saves tensors for backward; numbers a token of one layer of width ``h``, with query heads
    ``q``, keys ``k`` and feed-forward ``i``:

    - plain blocks (GPT-2, BERT): inputs of two norms and two linears ``4h``, queries, keys, values and attention's result ``2q + 2k``,
      feed-forward ``2i`` (``5i`` where GELU is written in several operations), and two dropout masks of ``h``;
    - gated blocks (Llama, Qwen, Mistral): queries, keys, values and attention's result ``2q + 2k``, feed-forward ``4i``, and two RMSNorms
      of ``2h`` in the dtype and ``h`` in float32; with experts ``2h`` more for each that a token passes, and where queries and keys
      are normalized ``q + k`` in the dtype and in float32. A sliding window needs a mask of ``seq`` numbers a token, with which keys and
      values are repeated for every query head: ``4q`` instead of ``2q + 2k``.

    Around the layers the last norm and the dropout of the embeddings, and ``3h`` of the head that guesses masked words. Attention with
    dropout has no fused kernel on the CPU: there plain blocks keep scores, their mask and their product in float32, ``3*heads*seq``, and
    queries, keys and values in float32; dropout masks are numbers of the dtype there and bytes elsewhere. Fused attention keeps one
    float32 a head. Follows Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198, section 4.1. Valid for stacks of equal blocks in one
    dtype, without recomputation; within 1 % of what autograd holds on a CPU for GPT-2, BERT, RoBERTa, Llama, Mistral, Qwen3 and Mixtral in
    float32 and bfloat16 (``tests/estimate``).

    Args:
        facts: of an encoder or a decoder.
        batch: sequences in one forward.
        seq: tokens of each.
        itemsize: bytes of a number of the model's dtype.
        on_cpu: whether it runs on a CPU.

    Raises:
        SpecError: the model is not a stack of equal blocks.
    """
    block = block_of(facts)
    if block.gated:
        query_norms = block.query + block.key_value if facts.model_type in _QUERY_NORM_TYPES else 0
        masked = 2 * (block.query - block.key_value) + seq if facts.sliding_window is not None else 0
        layer = _gated_layer_bytes(block, itemsize) + query_norms * (FLOAT32_BYTES + itemsize) + masked * itemsize
        around = _rms_norm_bytes(block, itemsize)
    else:
        layer = _plain_layer_bytes(block, facts.model_type in _COMPOSED_GELU_TYPES, seq, itemsize, on_cpu)
        head = 3 if facts.head is Head.MASKED_LM else 0
        around = block.hidden * ((2 + head) * itemsize + _mask_bytes(itemsize, on_cpu))
    return batch * seq * (facts.num_layers * layer + around)


def _gated_layer_bytes(block: Block, itemsize: int) -> int:
    """Return the bytes that a token keeps in a layer with RMSNorm and gated feed-forward."""
    routed = 2 * block.hidden * block.num_experts if block.num_experts > 1 else 0
    numbers = 4 * block.inner + routed
    return numbers * itemsize + 2 * _rms_norm_bytes(block, itemsize) + _fused_attention_bytes(block, itemsize)


def _plain_layer_bytes(block: Block, composed_gelu: bool, seq: int, itemsize: int, on_cpu: bool) -> int:
    """Return the bytes that a token keeps in a layer with LayerNorm, plain feed-forward and dropout."""
    if on_cpu:
        kept_scores = 3 * block.num_heads * seq
        attention = (block.query + 2 * block.key_value + kept_scores) * FLOAT32_BYTES + block.query * itemsize
    else:
        attention = _fused_attention_bytes(block, itemsize)
    numbers = 4 * block.hidden + (5 if composed_gelu else 2) * block.inner
    return attention + numbers * itemsize + 2 * block.hidden * _mask_bytes(itemsize, on_cpu)


def _fused_attention_bytes(block: Block, itemsize: int) -> int:
    return 2 * (block.query + block.key_value) * itemsize + block.num_heads * FLOAT32_BYTES


def _rms_norm_bytes(block: Block, itemsize: int) -> int:
    return (FLOAT32_BYTES + 2 * itemsize) * block.hidden


def _mask_bytes(itemsize: int, on_cpu: bool) -> int:
    return itemsize if on_cpu else 1


def logits_bytes(num_tokens: int, vocab_size: int, itemsize: int) -> int:
    """Return the bytes of the output layer's result: ``tokens * vocabulary * itemsize``."""
    return num_tokens * vocab_size * itemsize


def loss_bytes(facts: ConfigFacts, num_tokens: int, itemsize: int) -> int:
    """Return the bytes of cross entropy's log-probabilities, which forward keeps beside the logits.

    At the start of backward two gradients of the same size join them: of the log-probabilities and of the logits. transformers computes
    the loss of causal models in float32; that of others keeps the dtype.
    """
    float32 = facts.head in (Head.CAUSAL_LM, Head.RECURRENT)
    return logits_bytes(num_tokens, facts.vocab_size, FLOAT32_BYTES if float32 else itemsize)
