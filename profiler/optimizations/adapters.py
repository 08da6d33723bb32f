"""Adapters: the model is frozen, and small matrices beside its layers are trained instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from profiler.models.catalogue import facts_of
from profiler.models.config import Head
from profiler.optimizations.base import Family, Optimization, Parameter, ParameterKind, Value
from profiler.spec import Job, WorkloadKind

if TYPE_CHECKING:
    from torch import nn

    from profiler.workloads import Setup

ADAPTERS = Family(
    name="adapters",
    label="Adapters",
    question="Are all parameters trained, or a few added ones?",
    workloads=frozenset((WorkloadKind.TRAIN,)),
)
ATTENTION_LAYERS = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "qkv_proj", "query_key_value"),  # Llama and most that came after it
    *("c_attn", "query", "key", "value", "q_lin", "k_lin", "v_lin", "out_lin", "q", "k", "v", "o"),  # GPT-2, BERT, DistilBERT, T5
)
"""How model families call attention's projections."""


ALL_LINEAR = "all-linear"
"""Every linear layer but the output, in peft's word."""


class Lora(Optimization):
    """Low-rank adaptation, by peft."""

    name = "lora"
    family = ADAPTERS
    label = "LoRA"
    parameters = (
        Parameter(name="rank", kind=ParameterKind.INTEGER, default=16, low=1, high=4096, help="Columns of the two small matrices."),
        Parameter(
            name="alpha",
            kind=ParameterKind.INTEGER,
            default=0,
            low=0,
            high=65536,
            help="Scale of what the adapters add, divided by the rank; 0 for the rank itself. Memory does not depend on it.",
        ),
        Parameter(
            name="targets",
            kind=ParameterKind.CHOICE,
            default="attention",
            choices=("attention", ALL_LINEAR),
            help="Which layers get an adapter: attention's projections, or every linear layer but the output.",
        ),
    )
    formula = "trained parameters = rank x (inputs + outputs) a target layer, float32: 16 bytes each with gradient and Adam's state"
    source = "Hu et al. 2021, https://arxiv.org/abs/2106.09685; peft LoraConfig, dropout 0"
    explanation = (
        "Freezes the model and trains two small matrices beside each target layer. Gradients and optimizer state shrink to those of the "
        "adapters; the weights stay, and most activations do too, since backward still runs through every layer."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Put adapters beside the target layers of the built model."""
        import peft  # noqa: F401  # what it keeps in globals exists before the run, and is no part of it

        rank, alpha, targets = int(options["rank"]), int(options["alpha"]), str(options["targets"])
        setup.transforms.append(lambda model: _adapted(model, rank, alpha or rank, targets))

    def refusal(self, job: Job) -> str | None:
        """Refuse recurrent models, whose layers peft does not know."""
        if facts_of(job.model).head is Head.RECURRENT:
            return f"lora adapts linear layers, and {job.model.name} has recurrent ones. Switch it off."
        return super().refusal(job)


def lora_options(job: Job) -> tuple[int, str] | None:
    """Return the rank and the targets of a job's adapters; None where it has none."""
    toggle = next((toggle for toggle in job.toggles if toggle.name == Lora.name), None)
    if toggle is None:
        return None
    options = Lora().read_options(dict(toggle.options))
    return int(options["rank"]), str(options["targets"])


def _adapted(model: nn.Module, rank: int, alpha: int, targets: str) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    named = targets if targets == ALL_LINEAR else _present(model)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=named)
    adapted: nn.Module = get_peft_model(model, config)
    return adapted


def _present(model: nn.Module) -> list[str]:
    """Return those names of attention's projections that the model has."""
    found = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    return [name for name in ATTENTION_LAYERS if name in found]


OPTIMIZATIONS: tuple[Optimization, ...] = (Lora(),)
