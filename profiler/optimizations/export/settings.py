"""A `Job` -> a DeepSpeed configuration, and one of torchtitan: settings of tools that bring their own loop, and what they cannot say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from profiler.optimizations.base import Value
from profiler.optimizations.export.program import Program, not_said, switched_on
from profiler.optimizations.registry import validate
from profiler.spec import Job, WorkloadKind

Settings = dict[str, dict[str, Any]]
Toggles = Mapping[str, Mapping[str, Value]]
_ONLY_TRAINS = "{} trains, and this job does not."
_DEEPSPEED_OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "lion": "Lion", "muon": "Muon"}
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
    return _program(job, "torchtitan", "torchtitan.toml", "toml", _torchtitan, _toml)


def _program(job: Job, tool: str, filename: str, language: str, say: Any, write: Any) -> Program:
    job = validate(job)
    if job.workload.kind is not WorkloadKind.TRAIN:
        return Program(tool=tool, filename=filename, language=language, text="", missing=(_ONLY_TRAINS.format(tool),))
    toggles = switched_on(job)
    settings, said = say(job, toggles)
    missing = tuple(not_said(name, tool) for name in toggles if name not in said)
    return Program(tool=tool, filename=filename, language=language, text=write(settings), missing=missing)


def _deepspeed(job: Job, toggles: Toggles) -> tuple[dict[str, Any], set[str]]:
    workload = job.workload
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": workload.batch // workload.micro_batches,
        "gradient_accumulation_steps": workload.micro_batches,
        "zero_optimization": {"stage": 0},
    }
    said = {"float32"}
    amp = toggles.get("amp")
    if amp is not None:
        settings["torch_autocast"] = {"enabled": True, "dtype": str(amp["dtype"])}
        said.add("amp")
    if "master-weights" in toggles:  # DeepSpeed's bf16 is bfloat16 parameters with float32 ones in the optimizer
        settings["bf16"] = {"enabled": True}
        said.add("master-weights")
    for name, kind in _DEEPSPEED_OPTIMIZERS.items():
        if name in toggles:
            options = {key: value for key, value in toggles[name].items() if key in ("lr", "weight_decay")}
            settings["optimizer"] = {"type": kind, "params": options}
            said.add(name)
    _deepspeed_zero(settings["zero_optimization"], toggles, said)
    return settings, said


def _deepspeed_zero(zero: dict[str, Any], toggles: Toggles, said: set[str]) -> None:
    if "zero1" in toggles:
        zero["stage"] = 1
        said.add("zero1")
    if "fsdp2" in toggles:
        zero["stage"] = 3
        said.add("fsdp2")
    for name, key, stage in (("offload-optimizer", "offload_optimizer", 2), ("offload-parameters", "offload_param", 3)):
        if name in toggles:
            zero |= {"stage": max(zero["stage"], stage), key: {"device": "cpu", "pin_memory": True}}
            said.add(name)


def _torchtitan(job: Job, toggles: Toggles) -> tuple[Settings, set[str]]:
    workload = job.workload
    training: dict[str, Any] = {"seq_len": workload.seq, "steps": workload.warmup_steps + workload.steps}
    training |= {"local_batch_size": workload.batch // workload.micro_batches}
    settings: Settings = {"training": training}
    said = {"float32", "sdpa", "flash"}
    if workload.micro_batches > 1:
        ranks = max([int(options.get("ranks", 1)) for options in toggles.values()], default=1)
        training["global_batch_size"] = workload.batch * ranks
    if "bfloat16" in toggles:
        training["dtype"] = "bfloat16"
        said.add("bfloat16")
    for name, kind in _TITAN_OPTIMIZERS.items():
        if name in toggles:
            options = toggles[name]
            settings["optimizer"] = {"name": kind, "lr": options["lr"], "weight_decay": options["weight_decay"]}
            if options["implementation"] != "auto":
                settings["optimizer"]["implementation"] = options["implementation"]
            said.add(name)
    _titan_checkpointing(settings, toggles, said)
    for name, key in (("fsdp2", "data_parallel_shard_degree"), ("ddp", "data_parallel_replicate_degree")):
        if name in toggles:
            settings["parallelism"] = {key: int(toggles[name]["ranks"])}
            said.add(name)
    return settings, said


def _titan_checkpointing(settings: Settings, toggles: Toggles, said: set[str]) -> None:
    if "checkpointing" in toggles:
        every = int(toggles["checkpointing"]["every"])
        whole: dict[str, Any] = {"mode": "full"}
        settings["activation_checkpoint"] = whole if every == 1 else {"mode": "selective", "selective_ac_option": str(every)}
        said.add("checkpointing")
    elif "selective-checkpointing" in toggles:
        settings["activation_checkpoint"] = {"mode": "selective", "selective_ac_option": "op"}
        said.add("selective-checkpointing")


def _toml(settings: Settings) -> str:
    """Return TOML text of tables of plain values, for which JSON's words are TOML's."""
    tables = ([f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in rows.items())] for name, rows in settings.items())
    return "\n\n".join("\n".join(lines) for lines in tables) + "\n"
