"""A `spec.Model` -> a torch module with random weights, or its exact facts.

The only module that imports transformers. Nothing is fetched, no weights are read, and code that comes with a model is never run.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

from profiler.errors import SpecError, unknown_name
from profiler.models.catalogue import config_of, facts_of
from profiler.models.config import RECURRENT_TYPES, SPELLINGS, ConfigFacts, Head, structure_of
from profiler.models.recurrent import RecurrentLM
from profiler.spec import Model

logging.set_verbosity_error()  # type: ignore[no-untyped-call]

_AUTO_MODELS: dict[Head, Any] = {
    Head.CAUSAL_LM: AutoModelForCausalLM,
    Head.MASKED_LM: AutoModelForMaskedLM,
    Head.SEQ2SEQ: AutoModelForSeq2SeqLM,
}
_SIZES = ("vocab_size", "hidden_size", "num_layers", "num_heads", "intermediate_size")
_BUILD_ERRORS = (
    *(ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError, AssertionError, ImportError, NotImplementedError),
    StrictDataclassError,
)
"""What transformers raises for configurations that it does not like."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known of a model once it is built; bytes are those of its dtype float32 and integer buffers."""

    name: str
    num_parameters: int
    """With the head that the workloads run; tied weights count once."""
    parameter_sizes: tuple[int, ...]
    """Numbers of elements, one a parameter; of tied ones only one."""
    buffers_bytes: int
    config: ConfigFacts


def build_model(
    model: Model, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu", *, attention: str | None = None
) -> nn.Module:
    """Return the model with random weights in ``dtype``, made on the host and then moved, as training scripts do.

    On the meta device the weights are made there, without memory.

    Args:
        model: what to build.
        dtype: of its parameters.
        device: where it ends up.
        attention: transformers' name of the attention implementation; None for the library's choice.

    Raises:
        SpecError: the name is not in the catalogue, or the configuration cannot be built.
    """
    device = torch.device(device)
    if device.type == "meta":
        return _build_on_meta(model, dtype, attention)
    if model.config is not None:
        _build_on_meta(model, dtype, attention)  # what fails there is the configuration's fault, below it is not
    module = _build(model, dtype, attention)
    return module if device == torch.device("cpu") else module.to(device)


def inspect_model(model: Model) -> ModelFacts:
    """Return the facts of a model, counted on the meta device: exact, in well under a second, without its memory.

    Raises:
        SpecError: as `build_model`.
    """
    module = build_model(model, device="meta")
    sizes = tuple(parameter.numel() for parameter in module.parameters())
    return ModelFacts(
        name=model.name,
        num_parameters=sum(sizes),
        parameter_sizes=sizes,
        buffers_bytes=sum(buffer.nbytes for buffer in module.buffers()),
        config=facts_of(model),
    )


def _build_on_meta(model: Model, dtype: torch.dtype, attention: str | None) -> nn.Module:
    try:
        with torch.device("meta"):
            return _build(model, dtype, attention)
    except SpecError:
        raise
    except _BUILD_ERRORS as error:
        raise SpecError(f"{model.name} cannot be built from its configuration: {_one_line(error)} Correct it and try again.") from error


def _build(model: Model, dtype: torch.dtype, attention: str | None) -> nn.Module:
    config, facts = config_of(model), facts_of(model)
    if facts.head is Head.RECURRENT:
        return RecurrentLM(config, dtype)
    chosen = {} if attention is None else {"attn_implementation": attention}
    module: nn.Module = _AUTO_MODELS[facts.head].from_config(_transformers_config(model.name, config), dtype=dtype, **chosen)
    return module


def _transformers_config(name: str, config: dict[str, Any]) -> PretrainedConfig:
    model_type = config["model_type"]
    if model_type not in CONFIG_MAPPING:
        known = (*CONFIG_MAPPING.keys(), *RECURRENT_TYPES)
        raise unknown_name(
            "model_type", model_type, known, "transformers builds the types it knows; code that comes with a model is not run."
        )
    kind = CONFIG_MAPPING[model_type]
    values = structure_of(config)
    _check_named(name, kind, values)
    return kind(**values, use_cache=False)  # type: ignore[call-arg]


def _check_named(name: str, kind: type[PretrainedConfig], values: dict[str, Any]) -> None:
    """Refuse a configuration that leaves a size to the library's default, which is some published model's."""
    sizes = {field.name for field in fields(kind) if isinstance(field.default, int)}
    missing = []
    for fact in _SIZES:
        of_kind = [name for name in SPELLINGS[fact] if name in sizes]
        if of_kind and values.keys().isdisjoint(SPELLINGS[fact]):
            missing.append(of_kind[0])
    if missing:
        raise SpecError(
            f"{name} ({kind.model_type}) has no {', '.join(missing)}. Add what is missing; the config.json beside published weights has it."
        )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return text if text.endswith(".") else f"{text}."
