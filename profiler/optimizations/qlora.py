"""QLoRA: the frozen model in 4 bits, adapters beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from profiler.optimizations.adapters import ALPHA, RANK, TARGETS, FineTuning, adapted, lora_config
from profiler.optimizations.base import Optimization, Parameter, ParameterKind, Value
from profiler.optimizations.scope import Conflict
from profiler.spec import Job

if TYPE_CHECKING:
    import torch
    from torch import nn

    from profiler.workloads import Setup


class QLora(FineTuning):
    """LoRA over a base of 4-bit NormalFloat weights, stored and multiplied as bitsandbytes does."""

    name = "qlora"
    label = "QLoRA"
    weight_format = "nf4, double quantized"
    conflicts = (
        Conflict(
            others=("amp", "master-weights"),
            why="qlora computes in the number format that the model is built in, and the other in two",
            instead="Use bfloat16 as the precision",
        ),
        Conflict(
            others=("offload-parameters",),
            why="offload-parameters leaves weights on the host as they are, and qlora changes their format on the device",
        ),
        Conflict(
            others=("flash",),
            why="qlora keeps what lies between the layers in float32, and flash takes float16 and bfloat16",
            instead="Use sdpa",
            unless=("fsdp2:compute=bfloat16",),
            on_cpu=False,
        ),
    )
    parameters = (
        RANK,
        ALPHA,
        TARGETS,
        Parameter(
            name="double_quant",
            kind=ParameterKind.BOOLEAN,
            default=True,
            help="Quantize the scales of the weights, too: 0.5159 bytes a weight and not 0.5625.",
        ),
    )
    formula = "0.5159 bytes a weight of the linear layers, 4 a weight of embeddings, norms and output; adapters as with LoRA"
    source = "Dettmers et al. 2023, https://arxiv.org/abs/2305.14314; bitsandbytes 0.50, peft prepare_model_for_kbit_training"
    explanation = (
        "LoRA over a frozen model whose linear layers are kept in 4 bits: a quarter of bfloat16. Embeddings, norms and the output layer "
        "are kept in float32 for training, which with a large vocabulary is much of what is left. Each product unpacks its weight first, "
        "in forward and again in backward: one layer's weight comes on top for a moment, and time. Between the layers activations are "
        "float32, so they take more than those of LoRA on a bfloat16 model."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Bring the model to its device in 4 bits, and put adapters beside its layers."""
        import peft  # noqa: F401  # what it keeps in globals exists before the run, and is no part of it

        def load(model: nn.Module, device: torch.device) -> nn.Module:
            import torch

            from profiler.optimizations.nf4_loading import load_in_4_bits, prepare_for_training

            model = load_in_4_bits(model, device, double_quant=bool(options["double_quant"]))
            prepare_for_training(model)
            if device != torch.device("cpu"):
                torch.cuda.empty_cache()  # as peft does from 0.20 on
            return model

        def transform(model: nn.Module) -> nn.Module:
            from profiler.optimizations.nf4_lora import teach

            return adapted(model, teach(lora_config(model, options)))

        setup.load = load
        setup.transforms.append(transform)


OPTIMIZATIONS: tuple[Optimization, ...] = (QLora(),)
