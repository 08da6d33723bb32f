"""How each optimization is written in plain PyTorch, or why it is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from profiler.optimizations.adapters import ALL_LINEAR, ATTENTION_LAYERS, QUERY_VALUE, QUERY_VALUE_LAYERS
from profiler.optimizations.base import Value
from profiler.spec import Job, WorkloadKind

Options = Mapping[str, Value]


@dataclass
class Draft:
    """A script on its way."""

    job: Job
    imports: set[str] = field(default_factory=lambda: {"import torch"})
    environment: dict[str, str] = field(default_factory=dict)
    """Set before torch is imported."""
    switches: list[str] = field(default_factory=list)
    """Statements before the model is built."""
    dtype: str = "float32"
    attention: str | None = None
    changes: list[str] = field(default_factory=list)
    """Statements that change the built model."""
    optimizer: str = ""
    """An expression in ``trained``, the parameters that are."""
    around_forward: list[str] = field(default_factory=list)
    """Context managers around every forward."""
    around_steps: list[str] = field(default_factory=list)
    cache: str | None = None
    """An expression in ``model``: the KV cache of a prompt."""
    scales_loss: bool = False

    @property
    def device(self) -> str:
        """Where the script runs, as torch calls it."""
        return "cpu" if self.job.device == "cpu" else "cuda"


def _number_format(name: str) -> Callable[[Draft, Options], None]:
    def write(draft: Draft, options: Options) -> None:
        draft.dtype = name

    return write


def _autocast(draft: Draft, options: Options) -> None:
    draft.around_forward.append(f'torch.autocast("{draft.device}", dtype=torch.{options["dtype"]})')
    draft.scales_loss = options["dtype"] == "float16"


def _lora(draft: Draft, options: Options) -> None:
    draft.imports.add("from peft import LoraConfig, get_peft_model")
    rank, alpha = int(options["rank"]), int(options["alpha"])
    targets = _targets(draft, str(options["targets"]))
    draft.changes.append(
        f"model = get_peft_model(model, LoraConfig(r={rank}, lora_alpha={alpha or rank}, lora_dropout=0.0, target_modules={targets}))"
    )


def _ia3(draft: Draft, options: Options) -> None:
    draft.imports.add("from peft import IA3Config, get_peft_model")
    draft.changes.append("model = get_peft_model(model, IA3Config())")


def _freeze(draft: Draft, options: Options) -> None:
    """Write what `profiler.optimizations.freezing` does, name for name."""
    draft.imports.add("from transformers.modeling_layers import GradientCheckpointingLayer")
    draft.changes += [
        "stacks = [item for item in model.named_modules() if isinstance(item[1], torch.nn.ModuleList) and len(item[1])]",
        "path, layers = [item for item in stacks if isinstance(item[1][0], GradientCheckpointingLayer)][-1]",
        "names = [name for name, _ in model.named_parameters()]",
        'last = max(number for number, name in enumerate(names) if name.startswith(f"{path}."))',
        "after = list(model.parameters())[last + 1 :]",
        "model.requires_grad_(False)",
        f"for part in [*list(layers)[max(0, len(layers) - {options['trainable_layers']}) :], model.get_output_embeddings(), *after]:",
        "    part.requires_grad_(True)",
    ]


def _targets(draft: Draft, targets: str) -> str:
    if targets == ALL_LINEAR:
        return f'"{ALL_LINEAR}"'
    wanted = QUERY_VALUE_LAYERS if targets == QUERY_VALUE else ATTENTION_LAYERS
    draft.changes.append(f"attention = {wanted!r}")
    draft.changes.append('names = {name.rpartition(".")[2] for name, _ in model.named_modules()}')
    return "[name for name in attention if name in names]"


def _checkpointing(draft: Draft, options: Options) -> None:
    every = int(options["every"])
    draft.changes.append(f'model.activation_checkpointing_enable({{"use_reentrant": False}}, every_n_layers={every})')


def _torchao_optimizer(class_name: str) -> Callable[[Draft, Options], None]:
    def write(draft: Draft, options: Options) -> None:
        draft.imports.add(f"from torchao.optim import {class_name}")
        draft.optimizer = f"{class_name}(trained, {arguments(options)})"

    return write


def _paged_adamw_8bit(draft: Draft, options: Options) -> None:
    draft.imports.add("from bitsandbytes.optim import PagedAdamW8bit")
    draft.optimizer = "PagedAdamW8bit(trained)"


def _torchao_weights(config: str) -> Callable[[Draft, Options], None]:
    def write(draft: Draft, options: Options) -> None:
        draft.imports.add(f"from torchao.quantization import {config}, quantize_")
        keep = "" if options["output"] else ", lambda module, name: isinstance(module, torch.nn.Linear) and module is not output"
        if keep:
            draft.changes.append("output = model.get_output_embeddings()")
        draft.changes.append(f"quantize_(model, {config}(){keep})")

    return write


def _static_cache(draft: Draft, options: Options) -> None:
    draft.imports.add("from transformers import StaticCache")
    workload = draft.job.workload
    num_tokens = workload.seq + workload.new_tokens * (workload.kind is WorkloadKind.DECODE)
    draft.cache = f"StaticCache(config=model.config, max_cache_len={num_tokens})"


def _tf32(draft: Draft, options: Options) -> None:
    draft.switches.append('torch.backends.cuda.matmul.fp32_precision = "tf32"')


def _cudnn_benchmark(draft: Draft, options: Options) -> None:
    draft.switches.append("torch.backends.cudnn.benchmark = True")


def _allocator(setting: str, option: str | None = None, scale: str = "{}") -> Callable[[Draft, Options], None]:
    def write(draft: Draft, options: Options) -> None:
        value = "True" if option is None else scale.format(options[option])
        before = draft.environment.get("PYTORCH_CUDA_ALLOC_CONF")
        draft.environment["PYTORCH_CUDA_ALLOC_CONF"] = ",".join([*([before] if before else []), f"{setting}:{value}"])

    return write


WRITERS: dict[str, Callable[[Draft, Options], None]] = {
    "float32": _number_format("float32"),
    "bfloat16": _number_format("bfloat16"),
    "float16": _number_format("float16"),
    "amp": _autocast,
    "lora": _lora,
    "ia3": _ia3,
    "checkpointing": _checkpointing,
    "adamw-8bit": _torchao_optimizer("AdamW8bit"),
    "adamw-4bit": _torchao_optimizer("AdamW4bit"),
    "adamw-fp8": _torchao_optimizer("AdamWFp8"),
    "paged-adamw-8bit": _paged_adamw_8bit,
    "freeze": _freeze,
    "int8": _torchao_weights("Int8WeightOnlyConfig"),
    "float8": _torchao_weights("Float8WeightOnlyConfig"),
    "int8-dynamic": _torchao_weights("Int8DynamicActivationInt8WeightConfig"),
    "static-cache": _static_cache,
    "tf32": _tf32,
    "cudnn-benchmark": _cudnn_benchmark,
    "expandable-segments": _allocator("expandable_segments"),
    "max-split-size": _allocator("max_split_size_mb", "mib"),
    "roundup-power2": _allocator("roundup_power2_divisions", "divisions"),
}
"""How each optimization is written, beside torch's own optimizers and the kinds of attention, which are written from their classes."""

_OWN = "it takes more than a few lines. Headroom's own, in profiler/optimizations/{}, can be copied."
_LOADED = "it changes weights as a checkpoint is loaded, and this script makes random ones: {}"
_RANKS = "it needs torchrun and a process a rank, which is for a program of yours: {} is its name there."
MISSING: dict[str, str] = {
    "master-weights": _OWN.format("master_weights.py"),
    "low-rank": _OWN.format("architecture.py"),
    "bottleneck-adapters": _OWN.format("bottleneck.py"),
    "adalora": "peft's AdaLoraConfig wants its schedule of ranks, which only your training knows.",
    "qlora": _LOADED.format("from_pretrained(..., quantization_config=BitsAndBytesConfig(load_in_4bit=True)), then peft's LoraConfig."),
    "nf4": _LOADED.format("from_pretrained(..., quantization_config=BitsAndBytesConfig(load_in_4bit=True))."),
    "selective-checkpointing": _OWN.format("operator_policy.py"),
    "chunked-loss": _OWN.format("hidden_state_loss.py"),
    "fused-loss": _OWN.format("hidden_state_loss.py"),
    "distillation": _OWN.format("distillation.py"),
    "lion": f"the script has AdamW in its place: {_OWN.format('torch_optimizers.py')}",
    "muon": "the script has AdamW in its place. torch.optim.Muon takes the hidden matrices alone and wants an AdamW for all else.",
    "optimizer-in-backward": _OWN.format("torch_optimizers.py"),
    "offload-activations": "torch.autograd.graph.save_on_cpu(pin_memory=True) around forward is nearest; it moves saved weights, too.",
    "offload-optimizer": _OWN.format("offload.py"),
    "offload-parameters": _OWN.format("offload.py"),
    "int4": _OWN.format("int4.py"),
    "int8-static": _OWN.format("activation_quantization.py"),
    "int8-eager": "torch.ao.quantization.quantize_dynamic(model) is its call; what it packs is in no tensor.",
    "ddp": _RANKS.format("torch.nn.parallel.DistributedDataParallel"),
    "zero1": _RANKS.format("torch.distributed.optim.ZeroRedundancyOptimizer"),
    "fsdp2": _RANKS.format("torch.distributed.fsdp.fully_shard"),
    "quantized-cache": _OWN.format("packed_cache.py"),
}
"""Why an optimization is not written, and what to do."""


def arguments(options: Mapping[str, Any]) -> str:
    """Return keyword arguments as code."""
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
