"""Settings of other tools: what they say is what the job means, and what they cannot say is named."""

from __future__ import annotations

import json
import tomllib

import pytest

from profiler.optimizations.export import export_job
from profiler.optimizations.export.program import Program
from profiler.optimizations.training_arguments import job_from_training_arguments
from profiler.spec import Job, Model, Toggle, Workload


def exported(*toggles: str, **workload: object) -> dict[str, Program]:
    sizes = {"batch": 4, "seq": 32, "micro_batches": 2} | workload
    job = Job(
        model=Model(name="tiny-llama"),
        workload=Workload(**sizes),  # type: ignore[arg-type]
        device="rtx-4090",
        toggles=tuple(map(Toggle.parse, toggles)),
    )
    return {program.tool: program for program in export_job(job)}


def test_deepspeed_is_told_batch_optimizer_and_what_waits_on_the_host() -> None:
    program = exported("adamw:lr=0.001", "offload-optimizer", "checkpointing")["DeepSpeed"]
    assert json.loads(program.text) == {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 2,
        "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu", "pin_memory": True}},
        "optimizer": {"type": "AdamW", "params": {"lr": 0.001, "weight_decay": 0.01}},
    }
    assert [sentence.partition(":")[0] for sentence in program.missing] == ["model", "checkpointing"]


def test_torchtitan_is_told_checkpointing_and_dtype() -> None:
    program = exported("bfloat16", "checkpointing:every=2", "sgd")["torchtitan"]
    said = tomllib.loads(program.text)
    assert said["training"] == {"seq_len": 32, "steps": 3, "local_batch_size": 2, "global_batch_size": 4, "dtype": "bfloat16"}
    assert said["activation_checkpoint"] == {"mode": "selective", "selective_ac_option": "2"}
    assert [sentence.partition(":")[0] for sentence in program.missing] == ["model", "sgd"]


def test_what_the_trainer_is_told_reads_back_as_the_same_job() -> None:
    text = exported("amp", "checkpointing", "sgd:momentum=0.9")["Hugging Face Trainer"].text
    job, _ = job_from_training_arguments(text, model=Model(name="tiny-llama"), device="rtx-4090", seq=32)
    assert {str(toggle) for toggle in job.toggles} >= {"amp:dtype=bfloat16", "checkpointing", "sgd:momentum=0.9"}
    assert (job.workload.batch, job.workload.micro_batches) == (4, 2)


@pytest.mark.parametrize("tool", ["Hugging Face Trainer", "DeepSpeed", "torchtitan"])
def test_tools_that_train_say_that_they_cannot_decode(tool: str) -> None:
    program = exported(kind="decode", micro_batches=1)[tool]
    assert not program.text
    assert "this job does not" in program.missing[0]
