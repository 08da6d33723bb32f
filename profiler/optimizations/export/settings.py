"""A `Job` -> a DeepSpeed configuration, and one of torchtitan: settings of tools that bring their own loop, and what they cannot say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from profiler.optimizations.base import Value
from profiler.optimizations.export.program import ALL, Program, Said, commented, not_said, switched_on, zero_grad_not_said
from profiler.optimizations.registry import validate
from profiler.spec import Job, WorkloadKind, ZeroGrad

Settings = dict[str, dict[str, Any]]
Toggles = Mapping[str, Mapping[str, Value]]
_TITAN = "torchtitan"
_ONLY_TRAINS = "{} trains, and this job does not."
_DEEPSPEED_OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "lion": "Lion", "muon": "Muon"}
_NOT_THE_MODEL = "model: {} names none here. Your program builds {}, and feeds it {} tokens a sequence."
_SELECTIVE = "every-second-matmul"
"""What torchtitan's ``selective_ac_option = "op"`` saves."""
_TITAN_OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW"}


def deepspeed_settings(job: Job) -> Program:
    """Return the file that ``deepspeed --deepspeed_config`` and the Trainer's ``deepspeed`` argument read.

    Raises:
        SpecError: the job is not possible.
    """
    return _program(job, "DeepSpeed", "deepspeed.json", "json", _deepspeed, lambda said: json.dumps(said, indent=2) + "\n")


def torchtitan_settings(job: Job) -> Program:
    """Return the file that torchtitan's ``--job.config_file`` names.

    Raises:
        SpecError: the job is not possible.
    """
    return _program(job, _TITAN, "torchtitan.toml", "toml", _torchtitan, _toml)


def _program(job: Job, tool: str, filename: str, language: str, say: Any, write: Any) -> Program:
    job = validate(job)
    if job.workload.kind is not WorkloadKind.TRAIN:
        return Program(tool=tool, filename=filename, language=language, text="", missing=(_ONLY_TRAINS.format(tool),))
    toggles = switched_on(job)
    settings, said = say(job, toggles)
    places = (ZeroGrad.BEFORE_FORWARD, ZeroGrad.AFTER_STEP) if tool == _TITAN else (ZeroGrad.AFTER_STEP, ZeroGrad.BEFORE_FORWARD)
    missing = [_NOT_THE_MODEL.format(tool, job.model.name, job.workload.seq)]
    missing += [*not_said(toggles, said, tool), *zero_grad_not_said(job.workload, tool, *places)]
    text = write(settings) if language == "json" else commented(write(settings), missing)
    return Program(tool=tool, filename=filename, language=language, text=text, missing=tuple(missing))


def _deepspeed(job: Job, toggles: Toggles) -> tuple[dict[str, Any], Said]:
    workload = job.workload
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": workload.batch // workload.micro_batches,
        "gradient_accumulation_steps": workload.micro_batches,
        "zero_optimization": {"stage": 0},
    }
    said: Said = {"float32": ALL}
    amp = toggles.get("amp")
    if amp is not None:
        settings["torch_autocast"] = {"enabled": True, "dtype": str(amp["dtype"])}
        said["amp"] = ALL
    if "master-weights" in toggles:  # DeepSpeed's bf16 is bfloat16 parameters with float32 ones in the optimizer
        settings["bf16"] = {"enabled": True}
        said["master-weights"] = frozenset()
    for name, kind in _DEEPSPEED_OPTIMIZERS.items():
        if name in toggles:
            options = {key: value for key, value in toggles[name].items() if key in ("lr", "weight_decay")}
            settings["optimizer"] = {"type": kind, "params": options}
            said[name] = frozenset(options)
    _deepspeed_zero(settings["zero_optimization"], toggles, said)
    return settings, said


def _deepspeed_zero(zero: dict[str, Any], toggles: Toggles, said: Said) -> None:
    if "zero1" in toggles:
        zero["stage"] = 1
        said["zero1"] = frozenset()
    if "fsdp2" in toggles:
        zero["stage"] = 3
        said["fsdp2"] = frozenset()
    for name, key, stage in (("offload-optimizer", "offload_optimizer", 2), ("offload-parameters", "offload_param", 3)):
        if name in toggles:
            zero |= {"stage": max(zero["stage"], stage), key: {"device": "cpu", "pin_memory": True}}
            said[name] = frozenset()


def _torchtitan(job: Job, toggles: Toggles) -> tuple[Settings, Said]:
    workload = job.workload
    training: dict[str, Any] = {"seq_len": workload.seq, "steps": workload.warmup_steps + workload.steps}
    training |= {"local_batch_size": workload.batch // workload.micro_batches}
    settings: Settings = {"training": training}
    said: Said = {"float32": ALL, "sdpa": ALL, "flash": ALL}
    if workload.micro_batches > 1:
        ranks = max([int(options.get("ranks", 1)) for options in toggles.values()], default=1)
        training["global_batch_size"] = workload.batch * ranks
    if "bfloat16" in toggles:
        training["dtype"] = "bfloat16"
        said["bfloat16"] = ALL
    for name, kind in _TITAN_OPTIMIZERS.items():
        if name in toggles:
            options = toggles[name]
            settings["optimizer"] = {"name": kind, "lr": options["lr"], "weight_decay": options["weight_decay"]}
            if options["implementation"] != "auto":
                settings["optimizer"]["implementation"] = options["implementation"]
            said[name] = ALL
    _titan_checkpointing(settings, toggles, said)
    for name, key in (("fsdp2", "data_parallel_shard_degree"), ("ddp", "data_parallel_replicate_degree")):
        if name in toggles:
            settings["parallelism"] = {key: int(toggles[name]["ranks"])}
            said[name] = frozenset(("ranks",))
    return settings, said


def _titan_checkpointing(settings: Settings, toggles: Toggles, said: Said) -> None:
    if "checkpointing" in toggles:
        every = int(toggles["checkpointing"]["every"])
        whole: dict[str, Any] = {"mode": "full"}
        settings["activation_checkpoint"] = whole if every == 1 else {"mode": "selective", "selective_ac_option": str(every)}
        said["checkpointing"] = ALL
    elif toggles.get("selective-checkpointing", {}).get("save") == _SELECTIVE:
        settings["activation_checkpoint"] = {"mode": "selective", "selective_ac_option": "op"}
        said["selective-checkpointing"] = ALL


def _toml(settings: Settings) -> str:
    """Return TOML text of tables of plain values, for which JSON's words are TOML's."""
    tables = ([f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in rows.items())] for name, rows in settings.items())
    return "\n\n".join("\n".join(lines) for lines in tables) + "\n"
