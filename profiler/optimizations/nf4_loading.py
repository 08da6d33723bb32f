"""A model on the host -> the same on a device, its linear layers in 4 bits, as transformers 5 loads it. Needs torch; for workers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from profiler.optimizations.nf4 import Nf4Linear
from profiler.optimizations.quantization import is_kept_whole


def load_in_4_bits(
    model: Any, device: torch.device, *, double_quant: bool = False, before_weight: Callable[[Tensor], None] | None = None
) -> nn.Module:
    """Return the model as ``from_pretrained`` with bitsandbytes leaves it: changed in place, weight by weight in the order of their names.

    So does transformers from 5.4 on; before, threads brought the weights, and what was left on the GPU differed from load to load.

    Each is quantized on the device before the next comes there. A block as large as all of them comes first on a GPU, to reserve it
    (transformers' caching_allocator_warmup). The output layer, embeddings, norms and layers that the model's class wants whole keep the
    number format that the model was built in, in which products are computed, too.

    Args:
        model: of transformers, on the host.
        device: where it shall be.
        double_quant: quantize the scales too.
        before_weight: is told of each weight before it is brought to the device, which is the first that is allocated for it.
    """
    weights = sorted(model.named_parameters(), key=lambda item: _natural(item[0]))
    quantized = {f"{name}.weight": module for name, module in model.named_modules() if _is_quantized(model, name, module)}
    if device != torch.device("cpu"):  # the stand-in of a simulated GPU is a CPU with a number
        num_bytes = sum(weight.numel() // 2 if name in quantized else weight.nbytes for name, weight in weights)
        torch.empty(num_bytes // 2, dtype=torch.float16, device=device)
    for name, weight in weights:
        path, _, kind = name.rpartition(".")
        if before_weight is not None:
            before_weight(weight)
        if name in quantized:
            layer = Nf4Linear(quantized.pop(name), device, weight.dtype, double_quant=double_quant)
            model.set_submodule(path, layer)
        else:
            setattr(model.get_submodule(path), kind, nn.Parameter(weight.detach().to(device)))
    model.tie_weights()
    loaded: nn.Module = model.to(device)  # the buffers
    return loaded


def prepare_for_training(model: nn.Module) -> None:
    """Freeze a quantized model and turn what is left in 16 bits into float32, as peft.prepare_model_for_kbit_training does."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.to(torch.float32)


def _is_quantized(model: Any, name: str, module: nn.Module) -> bool:
    is_linear = type(module) is nn.Linear or isinstance(module, Conv1D)
    return is_linear and module is not model.get_output_embeddings() and not is_kept_whole(model, name)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return the key by which names are sorted part by part, numbers before words."""
    return [(0, int(part), "") if re.fullmatch(r"\d+", part) else (1, 0, part) for part in name.split(".")]
