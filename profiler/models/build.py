"""A `spec.Model` -> a torch module with random weights, or its exact facts.

The only module that imports transformers. Nothing is fetched, no weights are read, and code that comes with a model is never run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

from profiler.errors import SpecError
from profiler.models.catalogue import config_of, facts_of
from profiler.models.config import Head
from profiler.models.recurrent import build_recurrent
from profiler.spec import Model

logging.set_verbosity_error()

_AUTO_MODELS = {
    Head.CAUSAL_LM: AutoModelForCausalLM,
    Head.MASKED_LM: AutoModelForMaskedLM,
    Head.SEQ2SEQ: AutoModelForSeq2SeqLM,
}


def build_model(model: Model, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> nn.Module:
    """Return the model with random weights in ``dtype``, made on the host and then moved, as training scripts do.

    On the meta device the weights are made there, without memory.

    Raises:
        SpecError: the name is not in the catalogue, or the configuration cannot be built.
    """
    device = torch.device(device)
    with torch.device("meta" if device.type == "meta" else "cpu"):
        module = _build(model, dtype)
    return module.to(device)


def _build(model: Model, dtype: torch.dtype) -> nn.Module:
    config, head = config_of(model), facts_of(model).head
    if head is Head.RECURRENT:
        return build_recurrent(config, dtype)
    try:
        module: nn.Module = _AUTO_MODELS[head].from_config(_transformers_config(config), dtype=dtype)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise SpecError(f"{model.name} cannot be built from its configuration: {error}.") from error
    return module


def _transformers_config(config: dict[str, Any]) -> PretrainedConfig:
    """Return the library's configuration; a cache is made only by those who ask for it."""
    values = {key: value for key, value in config.items() if key not in ("model_type", "use_cache")}
    return CONFIG_MAPPING[config["model_type"]](**values, use_cache=False)
