"""The library without the dashboard: what `pip install .` brings, and that recording and reading need no more."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from profiler.analysis.summary import summarize
from profiler.storage import read_recording
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

SAMPLE = ROOT / "sample_traces" / "7-adamw.headroom"
DECLARED = {"numpy", "pyarrow", "psutil", "nvidia-ml-py"}
DASHBOARD_ONLY = ("streamlit", "transformers", "plotly", "pandas")
TRAINING = """
import torch
import profiler

model = torch.nn.Linear(8, 8)
optimizer = torch.optim.AdamW(model.parameters())
with profiler.record("run.headroom", model=model, optimizer=optimizer) as r:
    for _ in range(3):
        with r.phase("forward"):
            loss = model(torch.ones(4, 8)).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        r.step()
"""
BLOCKER = f"""
import sys
from importlib.machinery import PathFinder

class Blind(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in {DASHBOARD_ONLY!r} else super().find_spec(name, path, target)

sys.meta_path = [Blind if finder is PathFinder else finder for finder in sys.meta_path]
"""
"""Lets these modules look as if they were not installed."""


def call(command: list[str | Path], folder: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that nothing is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "profiler", source / "profiler", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    call([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "dist", "."], source)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds the wheel and what it declares, and nothing else."""
    folder = tmp_path_factory.mktemp("light") / "venv"
    venv.create(folder, with_pip=True)
    found = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    call([found, "-m", "pip", "install", "--quiet", wheel], folder)
    return found


def test_the_wheel_declares_what_recording_needs_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    required = [text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text]

    assert {re.split(r"[<>=!~ ;]", text)[0] for text in required} == DECLARED


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "profiler").rglob("*") if path.is_file()}

    missing = {name for name in files if "__pycache__" not in name} - packed

    assert not missing


def test_the_light_environment_has_no_torch_and_nothing_of_the_dashboard(python: Path, tmp_path: Path) -> None:
    code = "import importlib.util as u; print([m for m in ('torch', 'streamlit', 'transformers', 'plotly', 'pandas') if u.find_spec(m)])"

    assert call([python, "-c", code], tmp_path) == "[]\n"


def test_a_recording_is_read_and_summarized_without_torch(python: Path, tmp_path: Path) -> None:
    code = f"""
import json, profiler
from profiler.analysis.explain import explain
from profiler.analysis.summary import summarize
from profiler.analysis.timeline import Timeline
recording = profiler.read_recording({str(SAMPLE)!r})
print(json.dumps([summarize(recording), explain(Timeline.of(recording))]))
"""
    summary, sentences = json.loads(call([python, "-c", code], tmp_path))

    assert summary == summarize(read_recording(SAMPLE))
    assert sentences[0].startswith("The peak, ")


@pytest.mark.parametrize("arguments", [["models"], ["doctor"], ["show", str(SAMPLE)], ["show", str(SAMPLE), "--json"]])
def test_commands_that_measure_nothing_work_without_torch(python: Path, tmp_path: Path, arguments: list[str]) -> None:
    assert call([python, "-m", "profiler", *arguments], tmp_path)


@pytest.mark.parametrize("arguments", [["record", "train.py"], ["profile", "--model", "tiny-lstm"]])
def test_commands_that_measure_say_that_torch_is_missing(python: Path, tmp_path: Path, arguments: list[str]) -> None:
    command = [str(python), "-m", "profiler", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 3
    assert "needs torch, which is not installed" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_public_api_records_without_what_only_the_dashboard_needs(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(BLOCKER + TRAINING, encoding="utf-8")

    call([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); exec(open('train.py').read())"], tmp_path)

    check_recorded(tmp_path / "run.headroom")


def test_the_record_command_needs_nothing_of_the_dashboard(tmp_path: Path) -> None:
    plain = TRAINING.replace("import profiler\n", "").replace("        r.step()\n", "")
    plain = plain.replace('with profiler.record("run.headroom", model=model, optimizer=optimizer) as r:', "if True:")
    plain = plain.replace('        with r.phase("forward"):\n            loss', "        loss")
    (tmp_path / "train.py").write_text(plain, encoding="utf-8")
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{BLOCKER}\nfrom profiler.cli import main\n"

    call([sys.executable, "-c", start + "sys.exit(main(['record', '--out', 'run.headroom', 'train.py']))"], tmp_path)

    check_recorded(tmp_path / "run.headroom")


def check_recorded(path: Path) -> None:
    summary = summarize(read_recording(path))
    parameters_bytes = 4 * (8 * 8 + 8)

    assert summary["categories_at_peak"]["PARAMETER"] == parameters_bytes
    assert summary["categories_at_peak"]["OPTIMIZER_STATE"] == 2 * parameters_bytes + 2 * 4  # and two step counts
    assert summary["steps"][:3] == [0, 1, 2]
    assert summary["complete"] is True
