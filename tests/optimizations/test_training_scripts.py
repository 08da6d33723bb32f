"""A script that trains -> the job of one step, from what it writes out; it is never run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import SpecError
from profiler.optimizations.registry import validate
from profiler.optimizations.training_arguments import job_from_training_arguments
from profiler.optimizations.training_arguments.script import fields_of_script
from profiler.spec import Model

SCRIPT = """
import torch, trl

choice = trl.ModelConfig("gpt2", dtype=torch.bfloat16, lora_target_modules=("c_attn",), use_peft=True, lora_dropout=0.0)
args = trl.SFTConfig(
    output_dir=f"out-{choice.dtype}",
    per_device_train_batch_size=2,
    gradient_checkpointing_kwargs={"every_n_layers": 2},
    bf16=False,
)
"""


def refusal(text: str) -> str:
    with pytest.raises(SpecError) as refused:
        job_from_training_arguments(text, model=Model(name="tiny-llama"), seq=8)
    return str(refused.value)


def test_what_a_script_writes_out_is_read_and_the_rest_is_as_trl_has_it() -> None:
    job, notes = job_from_training_arguments(SCRIPT)

    assert job.model == Model(name="gpt2")
    assert (job.workload.batch, job.workload.seq) == (2, 1024)
    assert {str(toggle) for toggle in validate(job).toggles} == {
        "bfloat16",
        "checkpointing:every=2",
        "lora:alpha=32",
        "adamw:implementation=fused",
    }
    assert notes[0].startswith("Not in the file and taken as TRL 1.x does: max_length=1024, lora_r=16, gradient_checkpointing=True")


def test_a_script_for_the_trainer_has_the_trainer_s_defaults() -> None:
    job, notes = job_from_training_arguments("TrainingArguments('out', fp16=True)", model=Model(name="gpt2"), seq=16)

    assert (job.workload.batch, job.workload.seq) == (8, 16)
    assert {toggle.name for toggle in job.toggles} == {"amp", "adamw"}
    assert "as the Trainer of transformers 5 does" in notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SFTConfig(bf16=torch.cuda.is_bf16_supported())", "computes bf16: only running it would tell"),
        ("SFTConfig(deepspeed=path)", "computes deepspeed: only running it would tell"),
        ("SFTConfig(**options)", "gives SFTConfig a mapping (**)"),
        ("TrainingArguments('out', 8)", "without their names"),
        ("SFTConfig(*options)", "without their names"),
        ("TrainingArguments(bf16=True)\nTrainingArguments(bf16=False)", "gives bf16 twice"),
        ("SFTConfig(bf16=True, torch_compile=True)", "sets torch_compile, which is not modelled"),
    ],
)
def test_what_only_running_it_would_tell_is_refused(text: str, said: str) -> None:
    assert said in refusal(text)


def test_a_script_is_never_run(tmp_path: Path) -> None:
    there = tmp_path / "made"
    job_from_training_arguments(
        f"open({str(there)!r}, 'w')\nSFTConfig(per_device_train_batch_size=1, run_name=str(open({str(there)!r}, 'w')))",
        model=Model(name="gpt2"),
    )
    assert not there.exists()


@pytest.mark.parametrize("text", ["bf16: true  # SFTConfig(\n", "SFTConfig = 3\n", "# SFTConfig(bf16=True)\nx = 1\n", "max_length: 8\n"])
def test_a_text_that_calls_none_of_them_is_no_script(text: str) -> None:
    assert fields_of_script(text) is None


@pytest.mark.parametrize("value", ["(" * 9000, "-" * 60_000 + "1", "a" + ".b" * 30_000, "1" + "+1" * 30_000, "\0", "[" * 190 + "]" * 190])
def test_a_hostile_script_ends_in_words(value: str) -> None:
    assert refusal(f"SFTConfig(bf16={value})").endswith(".")


@given(st.text(max_size=30))
def test_any_script_is_read_or_refused_in_words(text: str) -> None:
    try:
        fields_of_script(f"SFTConfig({text})")
    except SpecError as error:
        assert str(error).endswith(".")
