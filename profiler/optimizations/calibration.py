"""A model and a job -> how large the activations of its layers are: one batch of the job's size is read before anything is quantized.

Needs torch; for workers.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from profiler.models.catalogue import facts_of
from profiler.models.inputs import make_tokens, prompt_inputs
from profiler.spec import Job

_LARGEST_CODE = 127


def activation_scales(model: nn.Module, names: list[str], device: torch.device, job: Job) -> dict[str, Tensor]:
    """Return one scale for all inputs of each layer, float32, by the layer's path; layers that did not run have none.

    A scale is the largest magnitude divided by 127, in as many dimensions as the input has, each of size one.

    Args:
        model: on the device.
        names: paths of the layers.
        device: where the batch goes.
        job: says how large the batch is, and its seed.
    """
    largest: dict[str, Tensor] = {}
    handles = [model.get_submodule(name).register_forward_pre_hook(partial(_note_largest, largest, name)) for name in names]
    facts, workload = facts_of(job.model), job.workload
    tokens = make_tokens(facts, workload.batch, workload.seq, Random(workload.seed))
    inputs = prompt_inputs(facts, tokens.to(device))
    inputs.pop("use_cache", None)
    with torch.no_grad():
        model.eval()(**inputs)
    for handle in handles:
        handle.remove()
    return {name: (value / _LARGEST_CODE).clamp_(min=torch.finfo(torch.float32).eps) for name, value in largest.items()}


def _note_largest(largest: dict[str, Tensor], name: str, layer: nn.Module, args: tuple[Any, ...]) -> None:
    values: Tensor = args[0]
    found = values.abs().amax().float().view([1] * values.dim())
    largest[name] = torch.maximum(largest[name], found) if name in largest else found
