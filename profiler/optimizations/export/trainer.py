"""A `Job` -> a script for Hugging Face's Trainer, its TrainingArguments and, with adapters, peft.

What the arguments cannot say of a job that PyTorch's script can, such as a kernel or the KV cache, is told as missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from profiler.models.catalogue import facts_of
from profiler.models.config import Head
from profiler.optimizations.base import Value
from profiler.optimizations.export.program import ALL, Program, Said, call_lines, commented, not_said, switched_on, zero_grad_not_said
from profiler.optimizations.export.pytorch import model_lines
from profiler.optimizations.registry import validate
from profiler.spec import Job, WorkloadKind, ZeroGrad

_TOOL = "Hugging Face Trainer"
_OPTIMIZERS = {"adamw": "adamw_torch", "sgd": "sgd", "rmsprop": "rmsprop", "adafactor": "adafactor", "adamw-8bit": "adamw_torch_8bit"}
_OPTIMIZERS |= {"adamw-4bit": "adamw_torch_4bit", "paged-adamw-8bit": "paged_adamw_8bit", "lion": "lion_32bit"}
_OTHER_CLASS = {
    "adafactor": "the Trainer's is transformers' own class, whose step makes other temporaries.",
    "lion": "the Trainer's is bitsandbytes' class, in one fused kernel.",
}
_OTHERWISE = (
    "The Trainer lets the logits go before backward, which this job keeps: where the peak is in backward, it needs less by them.",
    "The Trainer updates matrices first and vectors after them: temporaries of the optimizer's step meet in another order.",
    "The Trainer holds labels beside the token ids, eight bytes a token, and a few numbers of its own, four bytes each.",
)
_IN_THE_MODEL = ("float32", "bfloat16", "float16", "sdpa", "eager", "lora", "ia3", "freeze")
"""What the model's own lines say."""


def trainer_program(job: Job) -> Program:
    """Return the script.

    Raises:
        SpecError: the job is not possible.
    """
    job = validate(job)
    name = "train.py"
    head = facts_of(job.model).head
    if job.workload.kind is not WorkloadKind.TRAIN or head is Head.RECURRENT:
        why = "it trains, and this job does not." if head is not Head.RECURRENT else "transformers has no such model."
        return Program(tool=_TOOL, filename=name, language="python", text="", missing=(f"The Trainer cannot say this job: {why}",))
    arguments, missing = training_arguments(job, switched_on(job), dict.fromkeys(_IN_THE_MODEL, ALL), _TOOL)
    lines = [
        *model_lines(job, _IN_THE_MODEL, imports=("from transformers import Trainer, TrainingArguments",)),
        *call_lines("arguments", "TrainingArguments", arguments),
        f"tokens = torch.randint(2, config.vocab_size, (arguments.max_steps * {job.workload.batch}, {job.workload.seq}))  # your data",
        'dataset = [{"input_ids": row, "labels": row} for row in tokens]',
        "Trainer(model=model, args=arguments, train_dataset=dataset).train()",
    ]
    if head is Head.MASKED_LM:
        missing.append("The labels of masked language modelling are made by DataCollatorForLanguageModeling, which needs your tokenizer.")
    return Program(tool=_TOOL, filename=name, language="python", text=commented("\n".join(lines) + "\n", missing), missing=tuple(missing))


def training_arguments(job: Job, toggles: Mapping[str, Mapping[str, Value]], said: Said, tool: str) -> tuple[dict[str, Any], list[str]]:
    """Return the keyword arguments of TrainingArguments, and what they do not say.

    Args:
        job: validated.
        toggles: what it has switched on.
        said: what is said beside the arguments.
        tool: that takes them.
    """
    workload = job.workload
    arguments: dict[str, Any] = {
        "output_dir": "out",
        "per_device_train_batch_size": workload.batch // workload.micro_batches,
        "gradient_accumulation_steps": workload.micro_batches,
        "max_steps": workload.warmup_steps + workload.steps,
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": job.device == "cpu",
        "dataloader_pin_memory": False,
        "seed": workload.seed,
    }
    said = dict(said)
    for name, options in toggles.items():
        found = _said(name, options)
        if found is not None:
            arguments |= found
            said[name] = _options_said(name, options)
    missing = [f"{name}: {_OTHER_CLASS[name]}" for name in toggles if name in _OTHER_CLASS]
    missing += not_said(toggles, said, tool)
    missing += zero_grad_not_said(workload, "the Trainer", ZeroGrad.AFTER_STEP)
    return arguments, [*missing, *_OTHERWISE]


def _said(name: str, options: Mapping[str, Value]) -> dict[str, Any] | None:
    """Return how the arguments say an optimization; None where they cannot."""
    if name == "amp":
        return {"bf16" if options["dtype"] == "bfloat16" else "fp16": True}
    if name == "checkpointing":
        return {"activation_checkpointing": True, "activation_checkpointing_kwargs": _checkpointing(options)}
    if name == "tf32":
        return {"tf32": True}
    if name in _OPTIMIZERS:
        fused = "_fused" if name == "adamw" and options["implementation"] == "fused" else ""
        said: dict[str, Any] = {"optim": _OPTIMIZERS[name] + fused, "weight_decay": options.get("weight_decay", 0.0)}
        said |= {"learning_rate": options["lr"]} if "lr" in options else {}
        further = [f"{key}={options[key]}" for key in ("momentum", "centered") if options.get(key)]
        return said | ({"optim_args": ",".join(further)} if further else {})
    return None


def _options_said(name: str, options: Mapping[str, Value]) -> frozenset[str]:
    """Return the options that `_said` says: all, but how an optimizer is implemented, where that is not AdamW's fused kernel."""
    is_fused = name == "adamw" and options["implementation"] == "fused"
    return frozenset(options) if is_fused else frozenset(options) - {"implementation"}


def _checkpointing(options: Mapping[str, Value]) -> dict[str, Any]:
    every = int(options["every"])
    return {"use_reentrant": False} | ({"every_n_layers": every} if every > 1 else {})
