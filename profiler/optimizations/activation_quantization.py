"""Quantization for inference of what enters linear layers, too: products of 8-bit integers."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from profiler.optimizations.base import Optimization, Value
from profiler.optimizations.quantization import Quantization, TorchaoQuantization
from profiler.optimizations.scope import Conflict, Scope
from profiler.recording import Provenance
from profiler.spec import Job

if TYPE_CHECKING:
    import torch
    from torch import nn


class Int8Dynamic(TorchaoQuantization):
    """8-bit integers, weights and activations."""

    name = "int8-dynamic"
    label = "int8 weights and activations, dynamic"
    aliases = ("int8dq", "w8a8")
    config_name = "Int8DynamicActivationInt8WeightConfig"
    formula = "1 byte a weight and 5 an output; products as int32 and float32, 4 bytes a number of the output each"
    explanation = (
        "Weights as with int8; in addition every token's activations are rounded to 8 bits when a layer gets them, and integers are "
        "multiplied. Weights take half of bfloat16. Products come out in 32 bits and are scaled in float32, which makes the temporaries of "
        "wide layers larger than without. A GPU's kernel wants more than 16 tokens: below, torchao multiplies in float32."
    )


class Int8Static(TorchaoQuantization):
    """8-bit integers, with scales of activations that are known beforehand."""

    name = "int8-static"
    label = "int8 weights and activations, static"
    aliases = ("static-int8",)
    config_name = "Int8StaticActivationInt8WeightConfig"
    formula = (
        "1 byte a weight, 5 an output and 4 a layer; products as int32 and float32; building holds the whole model and its calibration"
    )
    explanation = (
        "As int8-dynamic, with one scale for all activations of a layer, read from a batch of prompts when the model is loaded. Nothing is "
        "reduced to find scales while it runs, which is faster and less exact: outliers share the scale of all others. Bytes of a run are "
        "those of int8-dynamic but for those scales. Loading takes more: the whole model and the activations of the calibrating batch are "
        "on the device first."
    )

    def quantize(self, model: nn.Module, names: list[str], device: torch.device, options: Mapping[str, Value], job: Job) -> str | None:
        """Calibrate the model on the device, then replace the weights of those layers that ran."""
        from torchao import quantization

        from profiler.optimizations.calibration import activation_scales

        granularity = [quantization.PerTensor(), quantization.PerRow()]
        for name, scale in activation_scales(model.to(device), names, device, job).items():
            config = quantization.Int8StaticActivationInt8WeightConfig(scale, granularity=granularity, set_inductor_config=False)
            quantization.quantize_(model.get_submodule(name), config)
        return None


class Int8Eager(Quantization):
    """Torch's own dynamic quantization, packed outside of tensors."""

    name = "int8-eager"
    label = "int8 weights and activations, torch's eager mode"
    aliases = ("quantize-dynamic",)
    applies_to = Scope(part="linear layers", on_gpu=False)
    conflicts = (
        Conflict(
            others=("bfloat16", "float16", "amp", "master-weights"),
            why="int8-eager quantizes float32, and the other is another precision",
            instead="Use int8-dynamic",
        ),
    )
    engines = frozenset((Provenance.MEASURED,))
    formula = (
        "1 byte a weight, held outside of torch's allocator: allocated memory falls by the whole layers, resident memory by three quarters"
    )
    source = "torch.ao.quantization.quantize_dynamic: https://docs.pytorch.org/docs/stable/quantization.html; deprecated for torchao"
    explanation = (
        "What torch's documentation called dynamic quantization: weights are packed for the CPU's integer kernels when the model is "
        "loaded, and activations get one scale a tensor, which hurts language models. The packed weights lie outside of tensors and of "
        "torch's allocator: what is drawn here falls by more than is saved, and the resident set tells the truth. It cannot be simulated, "
        "and runs on CPUs in float32 only."
    )

    def prepare(self) -> None:
        """Import what quantizes."""
        from torch.ao import quantization  # noqa: F401

    def quantize(self, model: nn.Module, names: list[str], device: torch.device, options: Mapping[str, Value], job: Job) -> str | None:
        """Pack the layers, and say how much is seen no longer."""
        import torch
        from torch.ao import quantization

        num_weights = sum(model.get_submodule(name).get_parameter("weight").numel() for name in names)
        config = dict.fromkeys(names, quantization.default_dynamic_qconfig)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that all of this is deprecated: its explanation says so
            quantization.quantize_dynamic(model, config, dtype=torch.qint8, inplace=True)  # type: ignore[no-untyped-call]
        gc.collect()  # the layers that were, which refer to themselves
        return f"{num_weights:,} weights, a byte each, lie outside of torch's allocator: the resident set has them, this timeline has not."


OPTIMIZATIONS: tuple[Optimization, ...] = (Int8Dynamic(), Int8Static(), Int8Eager())
