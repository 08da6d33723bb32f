"""The command that runs a model: what it runs, what it writes, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from profiler.cli import running
from profiler.jobs.manager import JobManager
from profiler.models.catalogue import CATALOGUE
from profiler.storage import RunStore, read_metadata
from tests.cli.conftest import SHOWN, Run, is_one_sentence_of_headroom

TINY_CONFIG = {"model_type": "llama", "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `profile` use workers that do what the model's name says; see tests/jobs/fake_worker.py."""
    worker = [sys.executable, "-m", "tests.jobs.fake_worker"]
    monkeypatch.setattr(running, "JobManager", partial(JobManager, worker_command=worker))


def a_model(folder: Path, name: str = "mine", **changes: Any) -> Path:
    """Write a folder that holds a config.json; keys that are None are left out."""
    config = {key: value for key, value in {**TINY_CONFIG, **changes}.items() if value is not None}
    (folder / name).mkdir()
    (folder / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder / name


def test_profile_runs_a_model_and_is_answered_from_the_store_the_second_time(run: Run, here: Path) -> None:
    command = ["profile", "--model", "tiny-lstm", "--workload", "train", "--batch", "2", "--seq", "16", "--steps", "1"]
    first = run(*command, "--dtype", "float32", "--optimizer", "adamw", "--out", here / "x.headroom", "--json")
    assert first.code == 0, first.err
    facts = first.json

    second = run(*command, "--toggle", "float32", "--toggle", "adamw", "--json").json
    words = run(*command).out

    assert facts.keys() >= SHOWN | {"path", "from_store"}
    assert (facts["from_store"], facts["path"]) == (False, str(here / "x.headroom"))
    assert run("show", here / "x.headroom", "--json").json == {key: facts[key] for key in facts if key not in ("path", "from_store")}
    assert facts["categories_at_peak"]["PARAMETER"] == 4 * CATALOGUE["tiny-lstm"].num_parameters
    assert facts["categories_at_peak"]["OPTIMIZER_STATE"] >= 8 * CATALOGUE["tiny-lstm"].num_parameters
    assert (second["from_store"], second["id"]) == (True, facts["id"])
    assert "Answered from the store: this run was recorded " in words


def test_fresh_runs_again(run: Run, fake_engine: None) -> None:
    command = ["profile", "--model", "tiny-gpt2", "--json"]
    paths = [run(*command, *more).json["path"] for more in ([], [], ["--fresh"])]

    assert paths[0] == paths[1] != paths[2]


@pytest.mark.parametrize(
    ("shorthand", "toggles"),
    [
        (["--dtype", "bf16"], ["--toggle", "bfloat16"]),
        (["--optimizer", "sgd:momentum=0.9"], ["--toggle", "sgd:momentum=0.9"]),
        (["--dtype", "float32", "--optimizer", "AdamW"], []),
    ],
)
def test_a_shorthand_is_its_toggle(run: Run, fake_engine: None, shorthand: list[str], toggles: list[str]) -> None:
    command = ["profile", "--model", "tiny-gpt2", "--json"]

    assert run(*command, *shorthand).json["from_store"] is False
    assert run(*command, *toggles).json["from_store"] is True


def test_every_option_reaches_the_job(run: Run, fake_engine: None) -> None:
    numbers = {"batch": 4, "seq": 32, "steps": 3, "warmup_steps": 2, "micro_batches": 2, "new_tokens": 5, "seed": 7}
    flags = [text for name, value in numbers.items() for text in (f"--{name.replace('_', '-')}", str(value))]

    result = run("profile", "--model", "tiny-gpt2", *flags, "--zero-grad", "before_forward", "--no-set-to-none", "--keep-outputs", "--json")

    job = read_metadata(Path(result.json["path"])).job
    assert job
    assert job["workload"] == {
        **numbers,
        "kind": "train",
        "zero_grad": "before_forward",
        "set_to_none": False,
        "keep_outputs": True,
    }
    assert job["toggles"] == ["adamw", "float32"]


def test_a_user_s_own_configuration_is_a_model(run: Run, here: Path, fake_engine: None) -> None:
    folder = a_model(here)

    result = run("profile", "--model", folder, "--json")

    job = read_metadata(Path(result.json["path"])).job
    assert job
    assert job["model"]["name"] == "mine"
    assert json.loads(job["model"]["config"]) == TINY_CONFIG
    assert run("profile", "--model", folder / "config.json", "--json").json["from_store"] is True


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "gpt3"], "Unknown model 'gpt3'. Did you mean 'gpt2'?"),
        (["--model", "gpt2", "--batch", "-1"], "batch=-1 is not possible. Use a whole number from 1"),
        (["--model", "gpt2", "--batch", str(10**30)], "is not possible"),
        (["--model", "gpt2", "--steps", "0"], "steps=0 is not possible"),
        (["--model", "gpt2", "--seq", "1025"], "seq=1,025; gpt2 has 1,024 positions."),
        (["--model", "gpt2", "--batch", "4", "--micro-batches", "3"], "Choose a divisor of 4."),
        (["--model", "bert-base", "--workload", "decode"], "bert-base is an encoder: it cannot decode."),
        (["--model", "gpt2", "--toggle", "adamm"], "Did you mean 'adam'?"),
        (["--model", "gpt2", "--toggle", "sgd:speed=9"], "speed"),
        (["--model", "gpt2", "--toggle", ":"], "Write NAME or NAME:key=value"),
        (
            ["--model", "gpt2", "--dtype", "float8"],
            "float8 is a choice of quantization, not of precision. Choose one of float32, bfloat16, float16, amp, master-weights.",
        ),
        (["--model", "gpt2", "--dtype", "sgd"], "sgd is a choice of optimizer, not of precision. Choose one of float32"),
        (["--model", "gpt2", "--optimizer", "sgd", "--toggle", "adamw"], "Switch one off."),
        (["--model", "gpt2", "--device", "gpu"], "Unknown device 'gpu'."),
        (["--model", "gpt2", "--device", "cpu:1"], "Use cpu, cuda or cuda:0."),
        (["--model", "gpt2", "--memory-limit", "10 parsecs"], "'10 parsecs' is not a size."),
        (["--model", "gpt2", "--memory-limit", "0"], "Use a positive number"),
        (["--model", "gpt2", "--time-limit", "nan"], "nan"),
        (["--model", "missing/config.json"], "cannot be read: No such file or directory."),
        (["--model", ""], "1 to 200"),
    ],
)
def test_an_impossible_run_is_refused_before_it_starts(run: Run, home: Path, arguments: list[str], said: str) -> None:
    result = run("profile", *arguments)

    assert (result.code, result.out) == (2, "")
    assert is_one_sentence_of_headroom(result.err)
    assert said in result.err
    assert not list(home.iterdir())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_attention_heads": 3}, "num_attention_heads=3 does not divide hidden_size=16."),
        ({"hidden_size": None}, "has no hidden_size."),
        ({"model_type": None}, "has no model_type."),
        ({"vocab_size": -5}, "vocab_size=-5"),
    ],
)
def test_an_impossible_configuration_is_refused_with_the_value(run: Run, here: Path, changes: dict[str, Any], said: str) -> None:
    result = run("profile", "--model", a_model(here, **changes))

    assert result.code == 2
    assert is_one_sentence_of_headroom(result.err)
    assert said in result.err


@pytest.mark.parametrize("out", ["a-file/x.headroom", "missing/x.headroom", "a-folder.headroom"])
def test_an_out_that_cannot_be_written_is_refused_before_anything_runs(run: Run, here: Path, home: Path, out: str) -> None:
    (here / "a-file").write_text("in the way")
    (here / "a-folder.headroom").mkdir()

    result = run("profile", "--model", "tiny-gpt2", "--out", out)

    assert (result.code, result.out) == (2, "")
    assert is_one_sentence_of_headroom(result.err)
    assert "Nothing was run; choose another --out." in result.err
    assert not list(home.iterdir())
    assert sorted(path.name for path in here.iterdir()) == ["a-file", "a-folder.headroom"]


def test_a_disk_that_fills_up_leaves_no_half_file_and_keeps_the_run(
    run: Run, here: Path, home: Path, fake_engine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", fill)
    result = run("profile", "--model", "tiny-gpt2", "--out", "x.headroom")

    (kept,) = RunStore(home).list()
    assert result.code == 2
    assert f"No space left on device. The recording is kept as {kept.path}" in result.err
    assert not list(here.iterdir())


def test_out_gets_its_suffix(run: Run, here: Path, fake_engine: None) -> None:
    assert run("profile", "--model", "tiny-gpt2", "--out", "named", "--json").json["path"] == "named.headroom"
    assert [path.name for path in here.iterdir()] == ["named.headroom"]


def test_a_store_that_cannot_be_written_is_said_so(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "file").write_text("in the way")
    monkeypatch.setenv("HEADROOM_HOME", str(here / "file"))

    result = run("profile", "--model", "tiny-gpt2")

    assert (result.code, result.out) == (2, "")
    assert is_one_sentence_of_headroom(result.err)
    assert "HEADROOM_HOME" in result.err


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("die", [], "The worker was killed (SIGKILL)."),
        ("crash", [], "The worker crashed (SIGSEGV)."),
        ("stumble", [], "ZeroDivisionError: the batch was"),
        ("hog", ["--memory-limit", "200MiB"], "more than its limit of 200 MiB, and was ended."),
        ("sleep", ["--time-limit", "0.5"], "longer than its limit"),
        ("partial", [], "What was recorded until then is kept."),
    ],
)
def test_a_run_that_fails_says_why_and_ends_with_3(run: Run, here: Path, fake_engine: None, name: str, more: list[str], said: str) -> None:
    result = run("profile", "--model", a_model(here, name), "--out", "x.headroom", *more)

    assert (result.code, result.out) == (3, "")
    assert is_one_sentence_of_headroom(result.err)
    assert said in result.err
    assert [path.name for path in here.iterdir()] == [name]


@pytest.mark.slow
def test_what_only_the_worker_can_refuse_is_bad_input_too(run: Run, here: Path) -> None:
    config = {"model_type": "gptx", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 1000}
    (here / "config.json").write_text(json.dumps(config | {"intermediate_size": 128, "max_position_embeddings": 256}))

    result = run("profile", "--model", "config.json", "--batch", "1", "--seq", "16")

    assert result.code == 2
    assert "Unknown model_type 'gptx'. Did you mean 'gptj'?" in result.err


@pytest.mark.slow
def test_a_device_that_is_not_here_ends_with_3(run: Run) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    result = run("profile", "--model", "tiny-lstm", "--device", "cuda")

    assert result.code == 3
    assert "No CUDA device is visible" in result.err


@pytest.mark.parametrize(
    ("library", "arguments"),
    [("torch", ["record", "train.py"]), ("torch", ["profile", "--model", "gpt2"]), ("transformers", ["profile", "--model", "gpt2"])],
)
def test_what_is_not_installed_is_said_so(run: Run, without: Callable[[str], None], home: Path, library: str, arguments: list[str]) -> None:
    without(library)

    result = run(*arguments)

    assert (result.code, result.out) == (3, "")
    assert is_one_sentence_of_headroom(result.err)
    assert f"`{arguments[0]}` needs {library}, which is not installed" in result.err
    assert not list(home.iterdir())
