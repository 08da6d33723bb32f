"""The command line: what it prints, what it writes, and with which code it ends."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from profiler import __version__
from profiler.cli import main
from profiler.cli import profile as profile_command
from profiler.jobs.manager import JobManager
from profiler.models.catalogue import CATALOGUE
from profiler.recording import Phase, Provenance
from profiler.storage import RecordingWriter, RunStore, read_metadata, read_recording, write_recording
from tests.builders import metadata, small_training
from tests.conftest import ROOT

SHOWN = {
    "id",
    "title",
    "provenance",
    "num_events",
    "peak_allocated_bytes",
    "peak_at",
    "categories_at_peak",
    "steps",
    "warnings",
}
"""What `show --json` prints at least."""
TINY_CONFIG = {"model_type": "llama", "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""

    def call(*arguments: str | Path) -> Result:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder, so that nothing is written anywhere else."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `profile` use workers that do what the model's name says; see tests/jobs/fake_worker.py."""
    worker = [sys.executable, "-m", "tests.jobs.fake_worker"]
    monkeypatch.setattr(profile_command, "JobManager", partial(JobManager, worker_command=worker))


def a_model(folder: Path, name: str = "mine", **changes: Any) -> Path:
    """Write a folder that holds a config.json; keys that are None are left out."""
    config = {key: value for key, value in {**TINY_CONFIG, **changes}.items() if value is not None}
    (folder / name).mkdir()
    (folder / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder / name


def is_one_sentence_of_headroom(err: str) -> bool:
    return err.startswith("headroom: ") and err.count("\n") == 1 and "Traceback" not in err


# models, doctor, and the command line itself


def test_models_lists_every_model_with_its_size(run: Run) -> None:
    result = run("models")

    assert result.code == 0
    assert [line.split()[0] for line in result.out.splitlines()] == list(CATALOGUE)
    assert "gpt2                   124 M  GPT-2\n" in result.out


def test_models_as_json_gives_exact_counts(run: Run) -> None:
    rows = {row["name"]: row for row in run("models", "--json").json}

    assert list(rows) == list(CATALOGUE)
    assert rows["gpt2"] == {
        "name": "gpt2",
        "family": "gpt2",
        "head": "causal-lm",
        "num_parameters": 124_439_808,
        "num_parameters_with_head": CATALOGUE["gpt2"].num_parameters_with_head,
        "max_positions": 1024,
        "tiny": False,
        "source": CATALOGUE["gpt2"].source,
    }


def test_doctor_says_what_this_machine_has(run: Run, home: Path) -> None:
    findings = run("doctor", "--json").json
    words = run("doctor")

    assert list(findings) == ["python", "libraries", "processor", "memory", "cuda", "nvml", "run_store"]
    assert findings["run_store"] == str(home)
    assert words.code == 0
    assert f"run store    {home}\n" in words.out


def test_doctor_says_that_torch_is_missing_where_it_is(run: Run, without: Callable[[str], None]) -> None:
    without("torch")

    result = run("doctor", "--json")

    assert result.code == 0
    assert "torch is not installed" in result.json["cuda"]


def test_the_version_is_the_package_s(run: Run) -> None:
    assert run("--version") == (0, f"headroom {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "'frobnicate'"),
        ([], "COMMAND"),
        (["profile"], "--model"),
        (["profile", "--model", "gpt2", "--batch", "many"], "'many'"),
        (["profile", "--model", "gpt2", "--workload", "trian"], "'trian'"),
        (["show"], "file"),
    ],
)
def test_what_cannot_be_parsed_is_one_sentence_and_code_2(run: Run, arguments: list[str], said: str) -> None:
    result = run(*arguments)

    assert (result.code, result.out) == (2, "")
    assert is_one_sentence_of_headroom(result.err)
    assert said in result.err
    assert "--help` lists what is allowed." in result.err


@pytest.mark.parametrize("command", ["models", "profile", "record", "show", "doctor"])
def test_every_command_has_help_and_json(run: Run, command: str) -> None:
    result = run(command, "--help")

    assert result.code == 0
    assert "--json" in result.out


def test_a_reader_that_has_enough_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "profiler", "models", "--json"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()

    assert (process.wait(timeout=60), err) == (0, "")


# show


@pytest.fixture
def recording(here: Path) -> Path:
    write_recording(small_training(), here / "small.headroom")
    return here / "small.headroom"


def test_show_as_json_prints_the_facts(run: Run, recording: Path) -> None:
    result = run("show", recording, "--json")
    facts = result.json

    assert (result.code, result.err) == (0, "")
    assert facts.keys() >= SHOWN
    assert facts["id"] == read_metadata(recording).id
    assert Provenance(facts["provenance"]) is Provenance.MEASURED
    assert facts["num_events"] == read_recording(recording).events.num_rows
    assert facts["peak_at"].keys() >= {"step", "phase", "event"}
    assert Phase(facts["peak_at"]["phase"]) is Phase.BACKWARD
    assert sum(facts["categories_at_peak"].values()) == facts["peak_allocated_bytes"] == 2000
    assert facts["steps"] == [0, 1, 2]
    assert facts["warnings"] == []


def test_show_in_words_puts_the_largest_category_first(run: Run, recording: Path) -> None:
    lines = run("show", recording).out.splitlines()

    assert lines[0] == "small training  [measured]"
    assert lines[1] == "Peak allocated 1.95 KiB (2,000 B), step 1, backward"
    assert lines[2].split() == ["optimizer", "state", "800", "B", "40.0%"]


def test_show_reads_a_recording_in_progress(run: Run, here: Path) -> None:
    writer = RecordingWriter(here / "going")
    writer.describe(metadata())
    writer.add("events", small_training().events)

    result = run("show", here / "going.partial", "--json")

    assert result.code == 0
    assert result.json["complete"] is False
    assert "ended before its recording was closed" in result.json["warnings"][0]


def truncated(recording: Path) -> None:
    recording.write_bytes(recording.read_bytes()[: recording.stat().st_size // 2])


def foreign(recording: Path) -> None:
    with zipfile.ZipFile(recording, "w") as archive:
        archive.writestr("data.pkl", b"cos\nsystem\n(S'true'\ntR.")


def of_tomorrow(recording: Path) -> None:
    with zipfile.ZipFile(recording, "w") as archive:
        archive.writestr("manifest.json", '{"headroom": 99, "metadata": {}}')


def emptied(recording: Path) -> None:
    recording.write_bytes(b"")


def replaced_by_a_folder(recording: Path) -> None:
    recording.unlink()
    recording.mkdir()


@pytest.mark.parametrize("damage", [truncated, foreign, of_tomorrow, emptied, replaced_by_a_folder, Path.unlink])
def test_show_refuses_what_is_no_recording(run: Run, recording: Path, damage: Callable[[Path], None]) -> None:
    damage(recording)

    result = run("show", recording)

    assert (result.code, result.out) == (2, "")
    assert is_one_sentence_of_headroom(result.err)
    assert "small.headroom" in result.err


# profile


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
            "Unknown precision 'float8'. Did you mean 'float32'? Choose one of float32, bfloat16, float16.",
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


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a library look as if it were not installed."""
    find_spec = importlib.util.find_spec

    def remove(library: str) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, package=None: None if name == library else find_spec(name, package))

    return remove


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


# record


TRAINING = """
import sys
import torch

model = torch.nn.Linear(8, 8)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(int(sys.argv[1])):
    model(torch.ones(4, 8)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    print("step", step, sys.argv[2:])
"""


@pytest.fixture
def script(here: Path) -> Callable[..., Path]:
    def write(*more: str) -> Path:
        path = here / "scripts" / "train.py"
        path.parent.mkdir()
        path.write_text("\n".join([TRAINING, *more]), encoding="utf-8")
        return path

    return write


def test_record_runs_a_script_with_its_own_arguments(run: Run, here: Path, script: Callable[..., Path]) -> None:
    (here / "neighbour.py").write_text("raise RuntimeError('the script sees its own folder, not this one')")
    path = script("import neighbour", "assert __name__ == '__main__'")
    (path.parent / "neighbour.py").touch()
    before = sys.argv, sys.path[:]

    result = run("record", path, "3", "--json", "--lr=1")

    assert result.code == 0, result.err
    assert "step 2 ['--json', '--lr=1']\n" in result.out
    assert result.out.splitlines()[-1] == "Recording: train.headroom"
    assert (sys.argv, sys.path) == before
    assert run("show", "train.headroom", "--json").json["steps"] == [0, 1, 2]
    assert not list(here.glob("*.partial"))


def test_record_as_json_keeps_the_script_s_own_words_out_of_stdout(run: Run, here: Path, script: Callable[..., Path]) -> None:
    result = run("record", "--json", "--out", "named", script(), "2")

    assert result.json.keys() >= SHOWN | {"path"}
    assert (result.json["path"], result.json["title"]) == ("named.headroom", "train.py")
    assert "step 1 []\n" in result.err


def test_a_script_that_raises_shows_its_traceback_and_leaves_a_recording(run: Run, script: Callable[..., Path]) -> None:
    path = script("def fail():", "    raise ValueError('no more data')", "fail()")

    result = run("record", "--json", path, "2")

    assert result.code == 3
    trace = result.err[result.err.index("Traceback") :].splitlines()
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[1].startswith(f'  File "{path}", line ')
    assert trace[-1] == "ValueError: no more data"
    assert result.json["path"] == "train.headroom"
    assert any("ended with ValueError in step 1" in warning for warning in result.json["warnings"])
    assert read_metadata(Path("train.headroom")).facts["error"] == "ValueError: no more data"


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("sys.exit()", 0, ""),
        ("sys.exit(0)", 0, ""),
        ("sys.exit(2)", 3, ""),
        ("sys.exit('no GPU')", 3, "no GPU\n"),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt\n"),
    ],
)
def test_a_script_may_end_by_itself(run: Run, script: Callable[..., Path], end: str, code: int, said: str) -> None:
    result = run("record", script(end), "2")

    assert result.code == code
    assert result.err.endswith(said)
    assert ("Traceback" in result.err) is (code == 130)
    assert "Recording: train.headroom" in result.out
    assert ("error" in read_metadata(Path("train.headroom")).facts) is (code != 0)


def test_a_script_that_is_no_python_shows_the_line(run: Run, here: Path) -> None:
    (here / "broken.py").write_text("x = = 1\n")

    result = run("record", "broken.py")

    assert result.code == 3
    assert "broken.py" in result.err
    assert "SyntaxError: invalid syntax" in result.err
    assert "runpy" not in result.err


@pytest.mark.parametrize(
    ("name", "said"),
    [("missing.py", "missing.py is not there."), ("notes.txt", "notes.txt is not a Python script."), (".", ". is not there.")],
)
def test_what_is_no_script_is_refused(run: Run, here: Path, name: str, said: str) -> None:
    (here / "notes.txt").touch()

    result = run("record", name)

    assert (result.code, result.out) == (2, "")
    assert is_one_sentence_of_headroom(result.err)
    assert said in result.err
    assert [path.name for path in here.iterdir()] == ["notes.txt"]


def test_a_recording_that_cannot_be_written_is_refused_before_the_script_runs(run: Run, here: Path, script: Callable[..., Path]) -> None:
    (here / "a-file").touch()

    result = run("record", "--out", "a-file/x.headroom", script(), "1")

    assert (result.code, result.out) == (2, "")
    assert is_one_sentence_of_headroom(result.err)
    assert "a-file" in result.err
