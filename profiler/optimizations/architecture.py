"""Architecture: the same kind of model with fewer numbers, by what its configuration says or by what its layers are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from profiler.models.catalogue import config_of, facts_of
from profiler.models.config import read_facts
from profiler.optimizations.base import Family, Optimization, Parameter, ParameterKind, Value
from profiler.optimizations.scope import TRANSFORMERS, Conflict, Scope
from profiler.spec import Job, Model

if TYPE_CHECKING:
    from torch import nn

    from profiler.workloads import Setup

ARCHITECTURE = Family(
    name="architecture",
    label="Architecture",
    question="Is the model built with fewer numbers?",
    off_label="As published",
    exclusive=False,
)
_TIE = "tie_word_embeddings"
_KV_HEADS = "num_key_value_heads"


class Architecture(Optimization):
    """Another model of the same kind: it must be trained so from the start, or much longer after the change."""

    family = ARCHITECTURE


class TiedEmbeddings(Architecture):
    """One matrix for the embedding of tokens and for the output layer."""

    name = "tied-embeddings"
    label = "Tied embeddings"
    aliases = ("tie-word-embeddings", "weight-tying")
    applies_to = Scope(part="the embedding and the output layer", heads=TRANSFORMERS)
    formula = "vocabulary x hidden size numbers less: of weights, and in training of gradients and optimizer state"
    source = "Press and Wolf 2017, https://arxiv.org/abs/1608.05859; tie_word_embeddings of transformers' configurations"
    explanation = (
        "Uses one matrix to embed tokens and to score them. A model that had two saves one of them, with its gradient and optimizer state; "
        "the smaller the model and the larger its vocabulary, the more that is of the whole. Logits and activations stay. In backward the "
        "two gradients of the one matrix exist for a moment before they are added. Many small models are tied already: nothing changes."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Say that there is nothing to do: what could be tied is another model by now."""
        setup.notes.append(f"0 parameters shared: {job.model.name} ties its embeddings already.")

    def rewrite(self, job: Job, options: Mapping[str, Value]) -> Job | None:
        """Return the job with a model whose configuration ties them; None where it does already."""
        config = config_of(job.model)
        if config.get(_TIE, job.model.config is None):  # what the catalogue's configurations do not say is transformers' default
            return None
        return _with(job, config | {_TIE: True}, "tied embeddings")


class GroupedQuery(Architecture):
    """Several heads of attention share their keys and values."""

    name = "grouped-query"
    label = "Grouped-query attention"
    aliases = ("gqa", "grouped-query-attention")
    applies_to = Scope(part="attention's projections of keys and values", heads=TRANSFORMERS)
    parameters = (
        Parameter(
            name="kv_heads",
            kind=ParameterKind.INTEGER,
            default=1,
            low=1,
            high=65_536,
            help="Heads of keys and values, a divisor of the model's heads; 1 is multi-query attention.",
        ),
    )
    formula = "KV cache = 2 x layers x kv_heads x head size x tokens; weights: 2 x hidden size x head size less a layer for each head less"
    source = "Ainslie et al. 2023, https://arxiv.org/abs/2305.13245; num_key_value_heads of transformers' configurations"
    explanation = (
        "Lets groups of heads share keys and values. The KV cache shrinks in proportion, which decides how long a text and how large a "
        "batch fit in decoding; weights and activations shrink by the projections of keys and values, which is little. A kernel that "
        "cannot share repeats keys and values for every head again, and saves nothing of that."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Say that there is nothing to do: what could be changed is another model by now."""
        setup.notes.append(f"0 layers changed: {job.model.name} has {options['kv_heads']} heads of keys and values already.")

    def rewrite(self, job: Job, options: Mapping[str, Value]) -> Job | None:
        """Return the job with a model whose configuration says so; None where it does already.

        Raises:
            SpecError: the number does not divide the model's heads.
        """
        num_heads, config = int(options["kv_heads"]), config_of(job.model)
        if facts_of(job.model).num_kv_heads == num_heads:
            return None
        return _with(job, config | {_KV_HEADS: num_heads}, f"kv_heads={num_heads}")

    def refusal(self, job: Job) -> str | None:
        """Refuse models whose configuration has no word for it."""
        reason = super().refusal(job)
        if reason is None and _KV_HEADS not in config_of(job.model):
            return f"{job.model.name} has keys and values for every head, and cannot have fewer. Choose a model such as tiny-llama."
        return reason


class LowRank(Architecture):
    """Each linear layer as the product of two narrow ones."""

    name = "low-rank"
    label = "Low-rank layers"
    applies_to = Scope(part="the linear layers", heads=TRANSFORMERS)
    conflicts = (
        Conflict(
            others=(
                *("lora", "qlora", "adalora", "ia3", "bottleneck-adapters"),
                *("nf4", "int8", "int4", "float8", "int8-dynamic", "int8-static", "int8-eager"),
            ),
            why="low-rank replaces the linear layers that the other works on",
        ),
    )
    parameters = (Parameter(name="rank", kind=ParameterKind.INTEGER, default=64, low=1, high=65_536, help="Width between the two layers."),)
    formula = "rank x (inputs + outputs) numbers a linear layer, for inputs x outputs; rank numbers more a token are kept for backward"
    source = "Denil et al. 2013, https://arxiv.org/abs/1306.0543"
    explanation = (
        "Builds each linear layer of the blocks as two narrow ones, one after the other: weights, gradients and optimizer state shrink to "
        "what the rank says. Layers that would not become smaller stay as they are. What lies between the two is one more activation. "
        "Unlike LoRA nothing of the full matrix is left, so the model can say less; embeddings and output layer stay."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Replace the linear layers of the built model."""
        rank = int(options["rank"])
        setup.transforms.append(lambda model: _narrowed(model, rank, setup.notes))


def _with(job: Job, config: dict[str, Any], what: str) -> Job:
    """Return the job with another configuration of its model, which is named after what is other."""
    name = f"{job.model.name}, {what}"
    read_facts(config, name)
    return replace(job, model=Model.from_config(name[:200], config))


def _narrowed(model: nn.Module, rank: int, notes: list[str]) -> nn.Module:
    """Replace each linear layer that becomes smaller so, but for the output, by two with new random weights."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    output = model.get_output_embeddings()  # type: ignore[operator]
    linears = {name: module for name, module in model.named_modules() if type(module) in (nn.Linear, Conv1D) and module is not output}
    num_changed = 0
    for name, module in linears.items():
        weight, bias = module.get_parameter("weight"), module._parameters.get("bias")
        inputs, outputs = weight.shape if isinstance(module, Conv1D) else weight.shape[::-1]
        if rank * (inputs + outputs) >= inputs * outputs:
            continue
        like: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        model.set_submodule(
            name, nn.Sequential(nn.Linear(inputs, rank, bias=False, **like), nn.Linear(rank, outputs, bias=bias is not None, **like))
        )
        num_changed += 1
    if num_changed < len(linears):
        notes.append(f"{num_changed} of {len(linears)} linear layers changed: with rank {rank} the others would not be smaller.")
    return model


OPTIMIZATIONS: tuple[Optimization, ...] = (TiedEmbeddings(), GroupedQuery(), LowRank())
