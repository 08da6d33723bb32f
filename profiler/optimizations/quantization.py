"""Quantization for inference: in how few bits the weights of the linear layers are kept."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from profiler.optimizations.base import Family, Optimization, Parameter, ParameterKind, Value
from profiler.optimizations.scope import TRANSFORMERS, Scope
from profiler.spec import Job, WorkloadKind

if TYPE_CHECKING:
    import torch
    from torch import nn

    from profiler.workloads import Setup

QUANTIZATION = Family(
    name="quantization",
    label="Quantization",
    question="In how many bits are the weights of the linear layers kept?",
    off_label="As many as the precision says",
    workloads=frozenset((WorkloadKind.PREFILL, WorkloadKind.DECODE)),
)
_TORCHAO = "torchao 0.18 quantize_"


def output_parameter(default: bool) -> Parameter:
    """Return the option of whether the output layer is quantized."""
    return Parameter(
        name="output",
        kind=ParameterKind.BOOLEAN,
        default=default,
        help="Quantize the output layer, too. One that shares its weight with the embedding never is: the shared one would stay.",
    )


class Quantization(Optimization):
    """Linear layers with weights in fewer bits."""

    family = QUANTIZATION
    applies_to: ClassVar[Scope] = Scope(part="linear layers")
    parameters: ClassVar[tuple[Parameter, ...]] = (output_parameter(default=True),)

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Quantize the linear layers one after another as they are brought to the device, which so never holds the whole model."""
        self.prepare()
        setup.load = partial(self._load, setup, options, job)

    def prepare(self) -> None:
        """Import what quantizes, so that what it keeps in globals is no part of a run."""
        from torchao import quantization  # noqa: F401

    @abstractmethod
    def quantize(self, model: nn.Module, names: list[str], device: torch.device, options: Mapping[str, Value], job: Job) -> str | None:
        """Put these of a model's linear layers on the device, quantized; return what there is to know about it, if anything."""

    def _load(self, setup: Setup, options: Mapping[str, Value], job: Job, model: nn.Module, device: torch.device) -> nn.Module:
        names = linear_names(model, with_output=bool(options["output"]))
        note: str | None = f"0 layers changed: {self.name} quantizes linear layers, and {job.model.name} has none that it may."
        if names:
            note = self.quantize(model, names, device, options, job)
        if note is not None:
            setup.notes.append(note)
        return model.to(device)


class TorchaoQuantization(Quantization):
    """What ``torchao.quantization.quantize_`` does with a configuration."""

    config_name: ClassVar[str]
    """In torchao.quantization."""
    source = f"{_TORCHAO}: https://github.com/pytorch/ao/tree/main/torchao/quantization"

    def quantize(self, model: nn.Module, names: list[str], device: torch.device, options: Mapping[str, Value], job: Job) -> str | None:
        """Replace the weights by tensors that hold less."""
        from torchao import quantization

        config: Any = getattr(quantization, self.config_name)(set_inductor_config=False)  # which is for torch.compile
        chosen = frozenset(names)
        quantization.quantize_(model, config, filter_fn=lambda _, name: name in chosen, device=device)
        return None


class Int8(TorchaoQuantization):
    """8-bit integers, products in the model's precision."""

    name = "int8"
    label = "int8 weights"
    aliases = ("int8-weight-only", "int8wo", "w8a16")
    config_name = "Int8WeightOnlyConfig"
    formula = "1 byte a weight and 5 an output (its float32 scale and int8 zero point); for a moment one layer in the model's precision"
    explanation = (
        "Keeps the weights of linear layers as 8-bit integers, with a scale for every output. The weights take half of bfloat16. Without a "
        "compiler a layer's weight is turned back for its product, so one layer exists twice for a moment; activations, the cache and the "
        "embedding stay as they are. Converting needs the whole model once, layer by layer: the peak of building does not fall."
    )


class Float8(TorchaoQuantization):
    """8-bit floating point, products in the model's precision."""

    name = "float8"
    label = "float8 weights"
    aliases = ("fp8", "float8-weight-only", "float8wo")
    config_name = "Float8WeightOnlyConfig"
    formula = "1 byte a weight and 4 an output (its float32 scale); for a moment one layer in the model's precision and in float32"
    explanation = (
        "Keeps the weights of linear layers in 8-bit floating point (4 bits of exponent, 3 of fraction), with a scale for every output. "
        "Half of bfloat16, and better than integers for weights with outliers. Products are computed from weights turned back by way of "
        "float32, so for a moment the largest layer takes several times its former size: with few tokens that can be the peak."
    )


class Int4(Quantization):
    """4-bit integers in groups."""

    name = "int4"
    label = "int4 weights, in groups"
    aliases = ("int4-weight-only", "int4wo", "w4a16")
    parameters = (
        Parameter(
            name="group",
            kind=ParameterKind.CHOICE,
            default="64",
            choices=("32", "64", "128", "256"),
            help="Weights that share a scale and a zero point. Smaller groups are more exact and take more.",
        ),
        output_parameter(default=True),
    )
    formula = "half a byte a weight; for each group a scale and a zero point in the precision of the product: 4.5 bits with groups of 64"
    source = f"{_TORCHAO}, Int4WeightOnlyConfig(tile_packed_to_4d); aten::_weight_int4pack_mm, by the same name on GPUs and _for_cpu"
    explanation = (
        "Keeps two weights in a byte, with a scale and a zero point for every group, and multiplies without unpacking them. A bit more "
        "than a quarter of bfloat16. Rounding to 16 levels is felt, most in small models. Inputs are padded to multiples of 1,024 on GPUs, "
        "so narrow layers gain less; these layers compute in bfloat16 there, whatever the precision."
    )

    def prepare(self) -> None:
        """Import the layer."""
        from profiler.optimizations import int4  # noqa: F401

    def quantize(self, model: nn.Module, names: list[str], device: torch.device, options: Mapping[str, Value], job: Job) -> str | None:
        """Replace the layers."""
        from profiler.optimizations.int4 import Int4Linear

        for name in names:
            linear: Any = model.get_submodule(name).to(device)
            model.set_submodule(name, Int4Linear(linear, int(options["group"]), for_cpu=job.device == "cpu"))
        return None


class Nf4(Optimization):
    """4-bit NormalFloat, as bitsandbytes stores it."""

    name = "nf4"
    family = QUANTIZATION
    label = "NF4 weights"
    aliases = ("bnb-4bit", "load-in-4bit")
    applies_to = Scope(part="linear layers but the output", heads=TRANSFORMERS)
    parameters = (
        Parameter(
            name="double",
            kind=ParameterKind.BOOLEAN,
            default=False,
            help="Quantize the scales, too: 0.516 instead of 0.563 bytes a weight (bnb_4bit_use_double_quant).",
        ),
    )
    formula = "0.5625 bytes a weight (0.5159 with quantized scales) in all linear layers but the output; one layer unpacked for a moment"
    source = "bitsandbytes 0.50 as transformers 5 loads it; Dettmers et al. 2023, https://arxiv.org/abs/2305.14314"
    explanation = (
        "Keeps two weights in a byte, as one of 16 levels that suit normally distributed weights, with a scale for 64 of them. A bit more "
        "than a quarter of bfloat16, with less loss than integers of 4 bits. A product of more than four tokens first unpacks its whole "
        "weight, so one layer exists twice for a moment. The output layer and the embedding stay as they are: small models with large "
        "vocabularies gain little."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Load the model as transformers does with BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")."""
        from profiler.optimizations.nf4_loading import load_in_4_bits

        setup.load = partial(load_in_4_bits, double_quant=bool(options["double"]))


def linear_names(model: nn.Module, *, with_output: bool) -> list[str]:
    """Return the paths of the linear layers that may be quantized.

    Left out are the output layer where it is not wanted or its weight is an embedding's too, and what the model's class keeps whole.
    """
    from torch import nn

    embedded = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    tell: Any = getattr(model, "get_output_embeddings", lambda: None)
    output = tell()
    return [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        and id(module.weight) not in embedded
        and (with_output or module is not output)
        and not is_kept_whole(model, name)
    ]


def is_kept_whole(model: nn.Module, name: str) -> bool:
    """Return whether a model's class wants a layer kept out of quantization, as T5 does those whose weight's dtype it asks for."""
    kept: Any = getattr(model, "_keep_in_fp32_modules", None) or ()
    return not set(kept).isdisjoint(name.split("."))


OPTIMIZATIONS: tuple[Optimization, ...] = (Int8(), Float8(), Int4(), Nf4())
