"""Adapters: the model is frozen, and small matrices or vectors beside its layers are trained instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from profiler.errors import SpecError
from profiler.optimizations.base import Family, Optimization, Parameter, ParameterKind, Value
from profiler.optimizations.scope import TRANSFORMERS, Conflict, Scope
from profiler.spec import Job, WorkloadKind

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from profiler.workloads import Setup

ADAPTERS = Family(
    name="adapters",
    label="Fine-tuning method",
    question="Are all parameters trained, a few of them, or added ones?",
    off_label="All parameters",
    workloads=frozenset((WorkloadKind.TRAIN,)),
)
ATTENTION_LAYERS = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "qkv_proj", "query_key_value"),  # Llama and most that came after it
    *("c_attn", "query", "key", "value", "q_lin", "k_lin", "v_lin", "out_lin", "q", "k", "v", "o"),  # GPT-2, BERT, DistilBERT, T5
)
"""How model families call attention's projections."""

ALL_LINEAR = "all-linear"
"""Every linear layer but the output, in peft's word."""

QUERY_VALUE = "query-value"
"""Attention's projections of queries and values, which the paper adapts; where one layer makes keys too, that one."""
QUERY_VALUE_LAYERS = ("q_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn", "query", "value", "q_lin", "v_lin", "q", "v")

RANK = Parameter(name="rank", kind=ParameterKind.INTEGER, default=16, low=1, high=4096, help="Columns of the two small matrices.")
ALPHA = Parameter(
    name="alpha",
    kind=ParameterKind.INTEGER,
    default=0,
    low=0,
    high=65536,
    help="Scale of what the adapters add, divided by the rank; 0 for the rank itself. Memory does not depend on it.",
)
TARGETS = Parameter(
    name="targets",
    kind=ParameterKind.CHOICE,
    default="attention",
    choices=("attention", QUERY_VALUE, ALL_LINEAR),
    help="Which layers get an adapter: attention's projections, those of queries and values, or every linear layer but the output.",
)


class FineTuning(Optimization):
    """One way to train less than the whole model."""

    family = ADAPTERS
    applies_to = Scope(part="what is trained of the layers", heads=TRANSFORMERS)
    weight_format: ClassVar[str | None] = None
    """In which the linear layers of the frozen model are kept, by its name in `profiler.estimate.quantization`; None leaves them alone."""


class Lora(FineTuning):
    """Low-rank adaptation, by peft."""

    name = "lora"
    label = "LoRA"
    parameters = (RANK, ALPHA, TARGETS)
    formula = "trained parameters = rank x (inputs + outputs) a target layer, float32: 16 bytes each with gradient and Adam's state"
    source = "Hu et al. 2021, https://arxiv.org/abs/2106.09685; peft LoraConfig, dropout 0"
    explanation = (
        "Freezes the model and trains two small matrices beside each target layer. Gradients and optimizer state shrink to those of the "
        "adapters; the weights stay, and most activations do too, since backward still runs through every layer."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Put adapters beside the target layers of the built model."""
        import peft  # noqa: F401  # what it keeps in globals exists before the run, and is no part of it

        setup.transforms.append(lambda model: adapted(model, lora_config(model, options)))


class AdaLora(FineTuning):
    """LoRA as a singular value decomposition whose ranks are cut where they matter least, by peft."""

    name = "adalora"
    label = "AdaLoRA"
    parameters = (
        Parameter(
            name="rank",
            kind=ParameterKind.INTEGER,
            default=12,
            low=2,
            high=4096,
            help="Rank with which training begins; two thirds of it are left in the end.",
        ),
        TARGETS,
    )
    conflicts = (
        Conflict(
            others=("optimizer-in-backward",),
            why="adalora scores all gradients after the step, and optimizer-in-backward frees each at once",
        ),
        Conflict(
            others=("offload-optimizer",),
            why="adalora scores all gradients after the step, and offload-optimizer has moved each by then",
            unless=("offload-optimizer:gradients=false",),
        ),
    )
    formula = "trained parameters = rank x (inputs + outputs + 1) a target layer, float32: 28 bytes each with gradient, moments and scores"
    source = "Zhang et al. 2023, https://arxiv.org/abs/2303.10512; peft AdaLoraConfig, dropout 0"
    explanation = (
        "LoRA with a diagonal matrix between the two, whose entries become zero where they matter least, so that each layer ends with the "
        "rank that it needs. It begins with a higher rank and keeps three scores of every trained number beside Adam's two moments; peft "
        "masks ranks and never frees them. So it needs more memory than LoRA, from the first step to the last."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Put adapters beside the target layers, and keep their scores after every step."""
        import peft

        rank, num_steps = int(options["rank"]), job.workload.warmup_steps + job.workload.steps

        def transform(model: nn.Module) -> nn.Module:
            config = peft.AdaLoraConfig(
                init_r=rank,
                target_r=rank * 2 // 3,
                lora_alpha=rank,
                lora_dropout=0.0,
                target_modules=_targets(model, options),
                fan_in_fan_out=_is_transposed(model),
                tinit=num_steps,  # the job's steps are training's first, before ranks are cut
                total_step=num_steps + 2,
            )
            return adapted(model, config)

        setup.transforms.append(transform)
        setup.once_built.append(_keep_scores)


class Ia3(FineTuning):
    """Learned vectors that scale keys, values and what enters the feed-forward's last layer, by peft."""

    name = "ia3"
    label = "IA3"
    formula = "trained parameters = one an output of keys and values and one an input of the feed-forward's last layer, float32"
    source = "Liu et al. 2022, https://arxiv.org/abs/2205.05638; peft IA3Config with peft's choice of layers"
    explanation = (
        "Freezes the model and trains vectors that scale keys, values and the inner activations of the feed-forward: gradients and "
        "optimizer state all but vanish. The weights stay, and what is scaled is kept for backward, which still runs through every layer: "
        "where activations make the peak, it saves no more than LoRA."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Put vectors beside the layers that peft chooses for the model's type."""
        import peft

        setup.transforms.append(lambda model: adapted(model, peft.IA3Config(fan_in_fan_out=_is_transposed(model))))


def lora_options(job: Job) -> tuple[int, str] | None:
    """Return the rank and the targets of a job's adapters; None where it has none."""
    toggle = next((toggle for toggle in job.toggles if toggle.name == Lora.name), None)
    if toggle is None:
        return None
    options = Lora().read_options(dict(toggle.options))
    return int(options["rank"]), str(options["targets"])


def lora_config(model: nn.Module, options: Mapping[str, Value]) -> Any:
    """Return peft's configuration of the toggle's rank, alpha and targets."""
    from peft import LoraConfig

    rank, alpha = int(options["rank"]), int(options["alpha"])
    return LoraConfig(r=rank, lora_alpha=alpha or rank, lora_dropout=0.0, target_modules=_targets(model, options))


def adapted(model: nn.Module, config: Any) -> nn.Module:
    """Return a model with the adapters of a peft configuration, and everything else frozen.

    Raises:
        SpecError: peft finds no layers to adapt.
    """
    from peft import get_peft_model
    from transformers.pytorch_utils import Conv1D

    if hasattr(config, "fan_in_fan_out"):
        config.fan_in_fan_out = any(isinstance(module, Conv1D) for module in model.modules())  # how GPT-2 lays its weights out
    try:
        changed: nn.Module = get_peft_model(model, config)
    except ValueError as error:
        raise SpecError(f"peft cannot adapt {type(model).__name__}: {error} Choose other targets, or another method.") from error
    return changed


def _targets(model: nn.Module, options: Mapping[str, Value]) -> str | list[str]:
    """Return what the option means in this model: peft's word, or those names of attention's projections that the model has."""
    if options["targets"] == ALL_LINEAR:
        return ALL_LINEAR
    found = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    wanted = QUERY_VALUE_LAYERS if options["targets"] == QUERY_VALUE else ATTENTION_LAYERS
    return [name for name in wanted if name in found]


def _is_transposed(model: nn.Module) -> bool:
    """Return whether the model's layers keep their weights with inputs first, as GPT-2 does."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in model.modules())


_SCORES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What AdaLoRA's allocator keeps of every adapter's parameter, by its own names."""


def _keep_scores(model: nn.Module, optimizer: Optimizer) -> None:
    """Let AdaLoRA score its parameters after every step, as training loops must; the scores lie with the optimizer's state of them.

    There they are found by who asks what a parameter's training holds. The allocator replaces them all the time, so what the state refers
    to is dropped before.
    """
    from peft import AdaLoraModel

    tuner: Any = next(module for module in model.modules() if isinstance(module, AdaLoraModel))
    allocator, num_steps = tuner.rankallocator, 0

    def scored(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        nonlocal num_steps
        num_steps += 1
        named = dict(tuner.model.named_parameters())
        for name in allocator.ipt:
            for key in _SCORES:
                optimizer.state[named[name]].pop(key, None)
        tuner.update_and_allocate(num_steps)
        for name in allocator.ipt:
            optimizer.state[named[name]] |= {key: getattr(allocator, key)[name] for key in _SCORES}

    optimizer.register_step_post_hook(scored)


OPTIMIZATIONS: tuple[Optimization, ...] = (Lora(), AdaLora(), Ia3())
