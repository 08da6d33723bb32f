"""`simulate` and `profile` of a training configuration: what the file says, and what the options beside it say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from profiler.storage import read_metadata
from tests.cli.conftest import Run, is_refused

CONFIG = """\
model_name_or_path: openai-community/gpt2
per_device_train_batch_size: 2
gradient_accumulation_steps: 2
max_length: 2048
dtype: bfloat16
bf16: false
gradient_checkpointing: false
optim: adamw_torch
loss_type: nll
"""


@pytest.fixture
def config(here: Path) -> Path:
    (here / "sft.yaml").write_text(CONFIG, encoding="utf-8")
    return here / "sft.yaml"


def simulated(run: Run, *arguments: str | Path) -> tuple[dict[str, Any], list[str]]:
    """Return the job that was simulated and the notes."""
    result = run("simulate", "--gpu", "rtx-4090", "--json", *arguments)
    assert result.code == 0, result.err
    return dict(read_metadata(Path(result.json["path"])).job or {}), result.json.get("notes", [])


def test_options_beside_the_file_win(run: Run, config: Path) -> None:
    job, notes = simulated(
        run,
        "--training-args",
        config,
        "--model",
        "tiny-llama",
        "--seq",
        "32",
        "--batch",
        "4",
        "--dtype",
        "float32",
        "--zero-grad",
        "before_forward",
    )

    assert job["model"]["name"] == "tiny-llama"
    assert job["toggles"] == ["adamw", "float32"]
    workload = job["workload"]
    assert (workload["batch"], workload["micro_batches"], workload["seq"], workload["steps"]) == (4, 2, 32, 1)
    assert workload["zero_grad"] == "before_forward"
    assert notes == []


def test_what_the_job_leaves_out_is_told_and_in_the_json(run: Run, config: Path) -> None:
    config.write_text(CONFIG.replace("gpt2", "gpt-nothing") + "deepspeed: zero2.json\n", encoding="utf-8")
    command = ["simulate", "--gpu", "cpu", "--training-args", config, "--model", "tiny-gpt2", "--seq", "16", "--json"]

    result = run(*command)

    sentences = [
        "model_name_or_path='openai-community/gpt-nothing' is not in the catalogue: tiny-gpt2 is taken.",
        "deepspeed is set and not modelled: states are divided or offloaded.",
    ]
    assert result.json["notes"] == sentences
    assert result.err.splitlines() == [f"Note: {sentence}" for sentence in sentences]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "No model is named. Give --model"),
        (("--training-args", "nothing.json"), "nothing.json cannot be read: No such file"),
        (("--training-args", "sft.yaml"), "seq=2,048; openai-community/gpt2 has 1,024 positions."),
        (("--training-args", "sft.yaml", "--seq", "64", "--micro-batches", "3"), "batch=4 cannot be cut into micro_batches=3"),
        (("--training-args", "sft.yaml", "--seq", "64", "--workload", "prefill"), "adamw has no effect in prefill"),
    ],
)
def test_what_cannot_be_is_refused(run: Run, config: Path, arguments: tuple[str, ...], said: str) -> None:
    result = run("simulate", "--gpu", "rtx-4090", *arguments)

    assert is_refused(result)
    assert said in result.err


def test_a_model_is_known_by_its_name_on_the_hub(run: Run) -> None:
    job, _ = simulated(run, "--model", "OpenAI-Community/GPT2", "--workload", "prefill", "--seq", "8")

    assert job["model"] == {"name": "gpt2"}
