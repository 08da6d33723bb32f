"""A configuration -> the sizes inside one transformer block: its linear layers, the widths of attention and feed-forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from profiler.errors import SpecError
from profiler.models.config import ConfigFacts, Head

PLAIN_TYPES = frozenset(
    (
        *("albert", "bart", "bert", "bloom", "camembert", "codegen", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "esm"),
        *("falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "mpnet", "mpt", "opt", "phi", "roberta", "starcoder2"),
        *("xlm-roberta", "roformer"),
    )
)
"""Model types whose feed-forward has two matrices and LayerNorm; what came later is gated, with three and RMSNorm."""

_WIDENING = 4
"""Times the width that feed-forward has inside where the configuration does not say."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """The widths of one block, in numbers a token."""

    hidden: int
    query: int
    """All query heads together."""
    key_value: int
    """All key heads together, and as much again for the values."""
    num_heads: int
    inner: int
    """Feed-forward inside; with experts, of all that one token passes."""
    num_experts: int
    """That one token passes; 1 where there are none to choose from."""
    gated: bool

    @property
    def linears(self) -> Mapping[str, tuple[int, int]]:
        """Inputs and outputs of each linear layer, under the names of Llama's layers."""
        attention = {
            "q_proj": (self.hidden, self.query),
            "k_proj": (self.hidden, self.key_value),
            "v_proj": (self.hidden, self.key_value),
            "o_proj": (self.query, self.hidden),
        }
        gate = {"gate_proj": (self.hidden, self.inner)} if self.gated else {}
        return attention | gate | {"up_proj": (self.hidden, self.inner), "down_proj": (self.inner, self.hidden)}


def block_of(facts: ConfigFacts) -> Block:
    """Return the block of a model with one kind of block, an encoder or a decoder.

    Raises:
        SpecError: the model is recurrent, or has an encoder and a decoder.
    """
    if facts.head in (Head.RECURRENT, Head.SEQ2SEQ) or facts.num_heads is None or facts.num_kv_heads is None or facts.head_dim is None:
        raise SpecError(
            f"{facts.model_type} is not a stack of equal transformer blocks, which the formulas are for. Simulate or measure it instead."
        )
    num_experts = facts.num_experts_per_token or 1
    return Block(
        hidden=facts.hidden_size,
        query=facts.num_heads * facts.head_dim,
        key_value=facts.num_kv_heads * facts.head_dim,
        num_heads=facts.num_heads,
        inner=(facts.intermediate_size or _WIDENING * facts.hidden_size) * num_experts,
        num_experts=num_experts,
        gated=facts.model_type not in PLAIN_TYPES,
    )
