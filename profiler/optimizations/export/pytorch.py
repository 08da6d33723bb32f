"""A `Job` -> a training script, or an inference one, in plain PyTorch and transformers, whose memory is that of the job to the byte.

It is written from the same facts as the run: the order of its statements is that of `profiler.workloads`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from profiler.models.catalogue import config_of, facts_of
from profiler.models.config import Head, structure_of
from profiler.optimizations.adapters import ATTENTION_LAYERS
from profiler.optimizations.attention import Attention
from profiler.optimizations.base import Value
from profiler.optimizations.export.program import Program, switched_on
from profiler.optimizations.optimizers import TorchOptimizer
from profiler.optimizations.registry import REGISTRY, validate
from profiler.spec import Job, WorkloadKind, ZeroGrad

_MODEL_CLASSES = {
    Head.CAUSAL_LM: "AutoModelForCausalLM",
    Head.MASKED_LM: "AutoModelForMaskedLM",
    Head.SEQ2SEQ: "AutoModelForSeq2SeqLM",
}
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


def pytorch_program(job: Job) -> Program:
    """Return the script.

    Raises:
        SpecError: the job is not possible.
    """
    job = validate(job)
    head = facts_of(job.model).head
    draft, missing = Draft(job), []
    if head not in _MODEL_CLASSES:
        missing.append(f"{job.model.name} is a model of Headroom's own; transformers has none like it.")
    for name, options in switched_on(job).items():
        if name in MISSING:
            missing.append(f"{name}: {MISSING[name]}")
        else:
            _write(draft, name, options)
    text = "" if head not in _MODEL_CLASSES else "\n".join(_lines(draft)) + "\n"
    return Program(tool="PyTorch", filename="run.py", language="python", text=text, missing=tuple(missing))


def _write(draft: Draft, name: str, options: Options) -> None:
    item = REGISTRY[name]
    if isinstance(item, TorchOptimizer):
        draft.optimizer = f"torch.optim.{item.class_name}(trained, {_arguments(item.arguments(options, draft.job))})"
    elif isinstance(item, Attention):
        draft.attention = item.implementation
        if item.kernels:
            draft.imports.add("from torch.nn.attention import SDPBackend, sdpa_kernel")
            draft.around_steps.append(f"sdpa_kernel([{', '.join(f'SDPBackend.{kernel}' for kernel in item.kernels)}])")
    else:
        WRITERS[name](draft, options)


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
    draft.changes += [
        "model.requires_grad_(False)",
        "model.get_output_embeddings().requires_grad_(True)",
        "parts = dict(model.named_modules())",
        "stack = next(part for part in parts.values() if isinstance(part, torch.nn.ModuleList))",
        f"for part in [*stack[-{options['trainable_layers']}:], *(part for name, part in parts.items() if name.endswith('.norm'))]:",
        "    part.requires_grad_(True)",
    ]


def _targets(draft: Draft, targets: str) -> str:
    if targets == "all-linear":
        return '"all-linear"'
    draft.changes.append(f"attention = {ATTENTION_LAYERS!r}")
    draft.changes.append('names = {name.rpartition(".")[2] for name, _ in model.named_modules()}')
    return "[name for name in attention if name in names]"


def _checkpointing(draft: Draft, options: Options) -> None:
    every = int(options["every"])
    draft.changes.append(f'model.activation_checkpointing_enable({{"use_reentrant": False}}, every_n_layers={every})')


def _torchao_optimizer(class_name: str) -> Callable[[Draft, Options], None]:
    def write(draft: Draft, options: Options) -> None:
        draft.imports.add(f"from torchao.optim import {class_name}")
        draft.optimizer = f"{class_name}(trained, {_arguments(options)})"

    return write


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
    "packing": "it is in how your data is laid out; the batch here is full.",
    "lion": _OWN.format("torch_optimizers.py"),
    "muon": _OWN.format("torch_optimizers.py"),
    "paged-adamw-8bit": "bitsandbytes.optim.PagedAdamW8bit(trained) is its class, which no machine has confirmed to the byte here.",
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


def model_lines(job: Job, names: Collection[str], imports: Iterable[str] = ()) -> list[str]:
    """Return the lines that build a job's model with some of its optimizations, from the imports on.

    Args:
        job: validated; transformers has its model.
        names: of the optimizations that are to be written.
        imports: what else is imported.
    """
    draft = Draft(job)
    draft.imports.update(imports)
    for name, options in switched_on(job).items():
        if name in names:
            _write(draft, name, options)
    return _model(draft)


def _lines(draft: Draft) -> list[str]:
    workload = draft.job.workload
    is_training = workload.kind is WorkloadKind.TRAIN
    return [
        *_model(draft),
        f"model.train({is_training})",
        *(_training(draft) if is_training else _inference(draft)),
        'if device == "cuda":',
        '    print(f"peak allocated {torch.cuda.max_memory_allocated():,} B, reserved {torch.cuda.max_memory_reserved():,} B")',
    ]


def _model(draft: Draft) -> list[str]:
    config = config_of(draft.job.model)
    model_class = _MODEL_CLASSES[facts_of(draft.job.model).head]
    draft.imports.add(f"from transformers import AutoConfig, {model_class}")
    attention = f', attn_implementation="{draft.attention}"' if draft.attention else ""
    return [
        f'"""{_one_line(draft.job.title)}"""',
        "",
        *(["import os", ""] if draft.environment else []),
        *(f'os.environ["{name}"] = "{value}"  # before torch is imported' for name, value in draft.environment.items()),
        *_imports(draft),
        "",
        f'device = "{draft.device}"',
        "structure = {",
        *(f"    {key!r}: {value!r}," for key, value in structure_of(config).items()),
        "}",
        *draft.switches,
        f"config = AutoConfig.for_model({config['model_type']!r}, use_cache=False, **structure)",
        f"torch.manual_seed({draft.job.workload.seed})",
        f"model = {model_class}.from_config(config, dtype=torch.{draft.dtype}{attention}).to(device)  # your weights: from_pretrained",
        *draft.changes,
    ]


def _imports(draft: Draft) -> list[str]:
    plain = sorted(line for line in draft.imports if line.startswith("import"))
    return [*plain, *sorted(draft.imports - set(plain))]


def _training(draft: Draft) -> list[str]:
    workload = draft.job.workload
    parts = workload.micro_batches
    zero = f"optimizer.zero_grad(set_to_none={workload.set_to_none})"
    loss = "outputs.loss" + (f" / {parts}" if parts > 1 else "")
    loop = [
        f"for step in range({workload.warmup_steps + workload.steps}):",
        "    batch = next_batch()",
        *([f"    {zero}"] if workload.zero_grad is ZeroGrad.BEFORE_FORWARD else []),
        f"    parts = {{name: tensor.chunk({parts}) for name, tensor in batch.items()}}",
        f"    losses = [micro_batch({{name: tensors[number] for name, tensors in parts.items()}}, number) for number in range({parts})]",
        *(["    scaler.step(optimizer)", "    scaler.update()"] if draft.scales_loss else ["    optimizer.step()"]),
        *([f"    {zero}"] if workload.zero_grad is ZeroGrad.AFTER_STEP else []),
        '    print(f"step {step}: loss {sum(losses):.4f}")',
    ]
    return [
        "trained = [parameter for parameter in model.parameters() if parameter.requires_grad]",
        f"optimizer = {draft.optimizer}",
        *([f'scaler = torch.amp.GradScaler("{draft.device}")'] if draft.scales_loss else []),
        "",
        "",
        *_data(draft, "next_batch", _batch(draft)),
        "def micro_batch(inputs, number):",
        *_indented(1, _within(draft.around_forward, ["outputs = model(**inputs)"])),
        f"    loss = {loss}",
        *([f"    if number == 0:\n        {zero}"] if workload.zero_grad is ZeroGrad.BEFORE_BACKWARD else []),
        "    scaler.scale(loss).backward()" if draft.scales_loss else "    loss.backward()",
        "    return loss.item()",
        "",
        "",
        *_within(draft.around_steps, loop),
    ]


def _inference(draft: Draft) -> list[str]:
    workload = draft.job.workload
    cache = [f"inputs['past_key_values'] = {draft.cache}"] if draft.cache else []
    loop = [
        f"for step in range({workload.warmup_steps + workload.steps}):",
        *_indented(1, ["inputs = next_prompt()", *cache]),
        *_indented(1, _within(draft.around_forward, ["outputs = model(**inputs)"])),
        *(_indented(1, _new_tokens(draft)) if workload.kind is WorkloadKind.DECODE else []),
        "    del outputs, inputs, token" if workload.kind is WorkloadKind.DECODE else "    del outputs",
    ]
    prompt = _data(draft, "next_prompt", _prompt(draft))
    return ["", "", *prompt, *_within(["torch.inference_mode()", *draft.around_steps], loop)]


def _data(draft: Draft, name: str, lines: list[str]) -> list[str]:
    """Return the function that makes what the model is fed, for the user to replace."""
    workload = draft.job.workload
    tokens = f"tokens = torch.randint(2, config.vocab_size, ({workload.batch}, {workload.seq}))  # your data"
    return [f"def {name}():", *_indented(1, [tokens, *lines]), "", ""]


def _prompt(draft: Draft) -> list[str]:
    head = facts_of(draft.job.model).head
    if head is Head.MASKED_LM:
        return ['return {"input_ids": tokens.to(device)}']
    if head is Head.SEQ2SEQ:
        return [
            "tokens = tokens.to(device)",
            'return {"input_ids": tokens, "use_cache": True, "decoder_input_ids": tokens.new_zeros((tokens.shape[0], 1))}',
        ]
    return ['return {"input_ids": tokens.to(device), "use_cache": True}']


def _new_tokens(draft: Draft) -> list[str]:
    ids = '"input_ids": token'
    if facts_of(draft.job.model).head is Head.SEQ2SEQ:
        ids = '"encoder_outputs": (outputs.encoder_last_hidden_state,), "decoder_input_ids": token'
    return [
        "token = outputs.logits[:, -1:].argmax(-1)",
        f"for _ in range({draft.job.workload.new_tokens}):",
        f'    inputs = {{{ids}, "past_key_values": outputs.past_key_values, "use_cache": True}}',
        "    del outputs",
        *_indented(1, _within(draft.around_forward, ["outputs = model(**inputs)"])),
        "    token = outputs.logits.argmax(-1)",
    ]


def _batch(draft: Draft) -> list[str]:
    if facts_of(draft.job.model).head is Head.MASKED_LM:
        return [
            "masked = torch.rand(tokens.shape) < 0.15",
            "labels = tokens.masked_fill(~masked, -100)",
            'return {"input_ids": tokens.masked_fill(masked, config.vocab_size - 1).to(device), "labels": labels.to(device)}',
        ]
    return ["tokens = tokens.to(device)", 'return {"input_ids": tokens, "labels": tokens}']


def _within(contexts: list[str], lines: list[str]) -> list[str]:
    return lines if not contexts else [f"with {', '.join(contexts)}:", *_indented(1, lines)]


def _indented(levels: int, lines: list[str]) -> list[str]:
    return [f"{'    ' * levels}{part}" for line in lines for part in line.split("\n")]


def _arguments(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


def _one_line(text: str) -> str:
    return text.replace("\\", "").replace('"', "'")
