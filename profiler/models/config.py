"""A transformers configuration as plain data -> the facts that decide memory, or a sentence on why it cannot be.

Knows how model families spell the same fact (``n_embd``, ``dim``, ``d_model`` for the width) and never imports transformers, so that pages
and the command line can refuse an impossible model at once. What only the library itself knows is checked by `profiler.models.build`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from profiler.errors import SpecError
from profiler.spec import Workload, WorkloadKind

RECURRENT_TYPES = ("lstm", "gru")
"""Model types that this project builds itself."""

_ENCODER_TYPES = frozenset(
    (
        *("albert", "bert", "big_bird", "camembert", "convbert", "data2vec-text", "deberta", "deberta-v2", "distilbert", "electra"),
        *("ernie", "esm", "eurobert", "flaubert", "fnet", "funnel", "ibert", "longformer", "megatron-bert", "mobilebert", "modernbert"),
        *("mpnet", "mra", "nystromformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "squeezebert", "xlm"),
        *("xlm-roberta", "xlm-roberta-xl", "xmod", "yoso"),
    )
)
_ENCODER_DECODER_TYPES = frozenset(
    (
        *("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "encoder-decoder", "fsmt", "led", "longt5", "m2m_100", "marian"),
        *(
            "mbart",
            "mt5",
            "mvp",
            "nllb-moe",
            "pegasus",
            "pegasus_x",
            "plbart",
            "prophetnet",
            "switch_transformers",
            "t5",
            "t5gemma",
            "umt5",
        ),
    )
)
_PADDING_OFFSET_TYPES = frozenset(
    ("roberta", "camembert", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "data2vec-text", "xmod", "longformer")
)
_RELATIVE_TYPES = frozenset(("t5", "mt5", "umt5", "longt5", "switch_transformers"))
_HEADLESS_TYPES = frozenset((*RECURRENT_TYPES, "mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm"))

SPELLINGS: dict[str, tuple[str, ...]] = {
    "vocab_size": ("vocab_size",),
    "hidden_size": ("hidden_size", "n_embd", "dim", "d_model", "emb_dim"),
    "num_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"),
    "num_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"),
    "num_kv_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim", "d_kv"),
    "embedding_size": ("embedding_size",),
    "max_positions": ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length"),
    "intermediate_size": ("intermediate_size", "n_inner", "hidden_dim", "d_ff", "ffn_dim", "encoder_ffn_dim"),
    "num_decoder_layers": ("num_decoder_layers", "decoder_layers"),
    "num_experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "num_experts_per_token": ("num_experts_per_tok",),
    "sliding_window": ("sliding_window",),
}
"""How configurations spell each fact."""

_LIMITS: dict[str, int] = {
    "vocab_size": 16_777_216,
    "hidden_size": 1_048_576,
    "num_layers": 2_048,
    "num_heads": 65_536,
    "num_kv_heads": 65_536,
    "head_dim": 65_536,
    "embedding_size": 1_048_576,
    "max_positions": 1_073_741_824,
    "intermediate_size": 16_777_216,
    "num_decoder_layers": 2_048,
    "num_experts": 4_096,
    "num_experts_per_token": 4_096,
    "sliding_window": 1_073_741_824,
}

_ATTENTION_DROPOUTS = ("attn_pdrop", "attention_probs_dropout_prob", "attention_dropout", "dropout_rate")

_NOT_STRUCTURE = frozenset(("auto_map", "dtype", "model_type", "torch_dtype", "quantization_config", "transformers_version", "use_cache"))
"""Keys that say how weights are loaded or which code to run. The dtype is the job's, and a cache is made only for those who ask."""


class Head(StrEnum):
    """What sits on the model and so what it is fed and what it can do."""

    CAUSAL_LM = "causal-lm"
    MASKED_LM = "masked-lm"
    SEQ2SEQ = "seq2seq"
    RECURRENT = "recurrent"


@dataclass(frozen=True, kw_only=True)
class ConfigFacts:
    """The sizes of a configuration, under one name each; None where the configuration does not say."""

    model_type: str
    head: Head
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int | None
    num_kv_heads: int | None
    head_dim: int | None
    intermediate_size: int | None
    """Width inside the feed-forward block; of one expert where there are several."""
    num_experts_per_token: int | None
    num_decoder_layers: int | None
    """Layers of the decoder of an encoder-decoder model."""
    sliding_window: int | None
    """Tokens that attention looks back on; None where it sees all."""
    max_positions: int | None
    """Tokens that a sequence may have at most; None where the family sets no limit."""


def read_facts(config: Mapping[str, Any], what: str = "The model's configuration") -> ConfigFacts:
    """Return the facts of a configuration, checked.

    Args:
        config: the content of a ``config.json``.
        what: how errors call it, such as the file's name.

    Raises:
        SpecError: a required key is missing, a size is no positive whole number or too large, or heads do not divide.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise SpecError(f'{what} has no model_type. Add it, such as "model_type": "llama"; every config.json of transformers has one.')
    sizes = {fact: _size(config, fact, what) for fact in SPELLINGS}
    _check_required(config, sizes, f"{what} ({model_type})")
    _check_heads(config, sizes)
    return ConfigFacts(
        model_type=model_type,
        head=head_of(config),
        vocab_size=sizes["vocab_size"] or 0,
        hidden_size=sizes["hidden_size"] or 0,
        num_layers=sizes["num_layers"] or 0,
        num_heads=sizes["num_heads"],
        num_kv_heads=sizes["num_kv_heads"] or (1 if config.get("multi_query") is True else sizes["num_heads"]),
        head_dim=sizes["head_dim"] or _head_dim(sizes),
        intermediate_size=sizes["intermediate_size"],
        num_experts_per_token=sizes["num_experts_per_token"],
        num_decoder_layers=sizes["num_decoder_layers"],
        sliding_window=None if config.get("use_sliding_window") is False else sizes["sliding_window"],
        max_positions=_max_positions(config, model_type, sizes["max_positions"]),
    )


def head_of(config: Mapping[str, Any]) -> Head:
    """Return the head that the workloads put on a model of this configuration."""
    model_type = config.get("model_type")
    architectures = config.get("architectures")
    named = " ".join(map(str, architectures)) if isinstance(architectures, list) else ""
    if model_type in RECURRENT_TYPES:
        return Head.RECURRENT
    if config.get("is_encoder_decoder") is True or model_type in _ENCODER_DECODER_TYPES:
        return Head.SEQ2SEQ
    if "MaskedLM" in named or (model_type in _ENCODER_TYPES and config.get("is_decoder") is not True and "CausalLM" not in named):
        return Head.MASKED_LM
    return Head.CAUSAL_LM


def structure_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without its ``model_type`` and what is not structure.

    That is how weights are loaded or which code to run. Implementations can name code to fetch, so they go, nested ones too.
    """
    return {
        key: structure_of(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in _NOT_STRUCTURE and not key.endswith("_implementation")
    }


def check_workload(facts: ConfigFacts, workload: Workload, name: str) -> None:
    """Refuse a workload that the model called ``name`` cannot run.

    Raises:
        SpecError: a sequence is longer than the model's positions, or the model cannot make tokens one by one.
    """
    decode = workload.kind is WorkloadKind.DECODE
    if decode and facts.head is Head.MASKED_LM:
        raise SpecError(f"{name} is an encoder: it cannot decode. Use prefill or train, or a model such as gpt2.")
    tokens = workload.seq + (workload.new_tokens if decode else 0)
    if facts.max_positions is not None and tokens > facts.max_positions:
        asked = f"seq={workload.seq} and new_tokens={workload.new_tokens} make {tokens:,} tokens" if decode else f"seq={tokens:,}"
        raise SpecError(f"{asked}; {name} has {facts.max_positions:,} positions. Choose a shorter sequence, or a model with more.")


def _spelled(config: Mapping[str, Any], fact: str) -> str | None:
    """Return the key under which the configuration tells a fact."""
    return next((name for name in SPELLINGS[fact] if config.get(name) is not None), None)


def _size(config: Mapping[str, Any], fact: str, what: str) -> int | None:
    name = _spelled(config, fact)
    if name is None:
        return None
    value = config[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LIMITS[fact]:
        raise SpecError(f"{what} has {name}={value!r}. Use a whole number from 1 to {_LIMITS[fact]:,}.")
    return value


def _check_required(config: Mapping[str, Any], sizes: Mapping[str, int | None], what: str) -> None:
    required = ["vocab_size", "hidden_size", "num_layers"]
    if config["model_type"] not in _HEADLESS_TYPES:
        required.append("num_heads")
    missing = [SPELLINGS[fact][0] for fact in required if sizes[fact] is None]
    if missing and isinstance(config.get("text_config"), dict):
        raise SpecError(f"{what} holds more than a language model. Save its text_config as a config.json of its own and use that.")
    if missing:
        raise SpecError(f"{what} has no {', '.join(missing)}. Add what is missing; the config.json beside published weights has it.")


def _check_heads(config: Mapping[str, Any], sizes: Mapping[str, int | None]) -> None:
    hidden_size, num_heads, num_kv_heads = sizes["hidden_size"], sizes["num_heads"], sizes["num_kv_heads"]
    if num_heads and hidden_size and sizes["head_dim"] is None and hidden_size % num_heads:
        names = (_spelled(config, "num_heads"), _spelled(config, "hidden_size"))
        raise _indivisible(names, num_heads, hidden_size)
    if num_kv_heads and num_heads and num_heads % num_kv_heads:
        raise _indivisible((_spelled(config, "num_kv_heads"), _spelled(config, "num_heads")), num_kv_heads, num_heads)


def adds_position_bias(facts: ConfigFacts) -> bool:
    """Tell whether attention adds a learned bias for each distance between two tokens to its scores, as T5's does."""
    return facts.model_type in _RELATIVE_TYPES


def attention_dropout(config: Mapping[str, Any]) -> float:
    """Return the share of attention's weights that training drops; 0 where the configuration does not say."""
    shares = (config[name] for name in _ATTENTION_DROPOUTS if isinstance(config.get(name), int | float))
    return float(next(shares, 0.0))


def _indivisible(names: tuple[str | None, str | None], part: int, whole: int) -> SpecError:
    divisors = [d for d in range(1, whole + 1) if whole % d == 0] if whole <= 1_048_576 else []
    below = max((d for d in divisors if d < part), default=1)
    above = min((d for d in divisors if d > part), default=whole)
    return SpecError(f"{names[0]}={part} does not divide {names[1]}={whole}. Choose a divisor such as {below} or {above}.")


def _head_dim(sizes: Mapping[str, int | None]) -> int | None:
    hidden_size, num_heads = sizes["hidden_size"], sizes["num_heads"]
    return hidden_size // num_heads if hidden_size and num_heads else None


def _max_positions(config: Mapping[str, Any], model_type: str, positions: int | None) -> int | None:
    """Return the longest sequence; RoBERTa's kin number positions from ``pad_token_id + 1``, and T5's are relative, without a limit."""
    if model_type in _RELATIVE_TYPES or model_type in RECURRENT_TYPES or positions is None:
        return None
    if model_type in _PADDING_OFFSET_TYPES:
        padding = config.get("pad_token_id", 1)
        return positions - (padding if isinstance(padding, int) else 1) - 1
    return positions
