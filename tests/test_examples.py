"""The examples in the documents run as they are written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from profiler.analysis.summary import summarize
from profiler.cli import main
from profiler.spec import Job, Model
from profiler.storage import read_recording
from profiler.workloads import Setup
from tests.conftest import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
TRAINING = """
import sys
import torch

assert sys.argv[1:] in ([], ["--epochs", "1"])
model = torch.nn.Linear(4, 4)
model(torch.ones(2, 4)).sum().backward()
torch.optim.SGD(model.parameters(), lr=0.1).step()
"""


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text(encoding="utf-8"), flags=re.DOTALL)


def name(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


class LanguageModel(torch.nn.Module):
    """What the examples call a model: it takes a batch and returns an output with a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(16, 8)

    def forward(self, input_ids: torch.Tensor) -> Any:
        return SimpleNamespace(loss=self.embedding(input_ids).square().mean())


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(TRAINING, encoding="utf-8")


def simulates(document: Path) -> bool:
    return "profiler.simulate(" in "".join(blocks(document, "python"))


def records(document: Path) -> bool:
    return "profiler.record(" in "".join(blocks(document, "python"))


def test_the_example_of_an_optimization_makes_an_optimizer() -> None:
    (block,) = blocks(ROOT / "docs" / "how-to" / "add-an-optimization.md", "python")
    namespace: dict[str, Any] = {}
    exec(compile(block, "add-an-optimization.md", "exec"), namespace)
    item, setup = namespace["AmsGrad"](), Setup()
    item.apply(setup, item.read_options({}), Job(model=Model(name="tiny-gpt2")))
    parameter = torch.nn.Parameter(torch.ones(3))
    assert setup.make_optimizer is not None
    optimizer = setup.make_optimizer([parameter])
    parameter.sum().backward()
    optimizer.step()
    assert sum(value.numel() for value in optimizer.state[parameter].values() if value.dim()) == item.state_copies * 3


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if simulates(document)], ids=name)
def test_the_python_examples_simulate_a_training(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks(document, "python"):
        exec(compile(block, str(document), "exec"), {"LanguageModel": LanguageModel})

    assert capsys.readouterr().out.startswith("It fits on GeForce RTX 4090: ")
    assert summarize(read_recording("mine.headroom"))["categories_at_peak"]["PARAMETER"] == 4 * 16 * 8


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if records(d)], ids=name)
def test_the_python_examples_record_a_training(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = LanguageModel()
    optimizer = torch.optim.AdamW(model.parameters())
    loader = [{"input_ids": torch.zeros(2, 4, dtype=torch.long)} for _ in range(3)]

    for block in blocks(document, "python"):
        exec(compile(block, str(document), "exec"), {"model": model, "optimizer": optimizer, "loader": loader})

    summary = summarize(read_recording("run.headroom"))
    assert summary["categories_at_peak"]["PARAMETER"] == 4 * 16 * 8
    assert {0, 1, 2} <= set(summary["steps"])
    printed = capsys.readouterr().out
    assert str(summary["peak_allocated_bytes"]) in printed if "print(" in "".join(blocks(document, "python")) else not printed


@pytest.mark.slow
@pytest.mark.parametrize("document", [document for document in DOCUMENTS if blocks(document, "sh")], ids=name)
def test_the_commands_run_one_after_another(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [line for block in blocks(document, "sh") for line in block.splitlines()]
    for block in blocks(document, "yaml"):
        Path(block.split()[1]).write_text(block, encoding="utf-8")

    for command in commands:
        words = shlex.split(command, comments=True)
        assert words[:3] == ["python", "-m", "profiler"], command
        assert main(words[3:]) == 0, (command, capsys.readouterr().err)

    assert Path("train.headroom").exists() == any(" record train.py" in command for command in commands)
