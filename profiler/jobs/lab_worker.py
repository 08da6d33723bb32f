"""The worker of one question of the compression lab: ``python -m profiler.jobs.lab_worker FOLDER``.

It reads ``question.json``, replaces ``progress.json`` as it goes, and ends with ``answer.json``: the result, or why there is none. What an
experiment leaves besides is the compressed model's file, ``weights``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.compression import lab
from profiler.compression.experiment import Experiment
from profiler.errors import HeadroomError
from profiler.storage.json_file import write_json

if TYPE_CHECKING:
    from profiler.compression.task import Task

Load = Callable[[str], "Task"]
"""A model's name -> the model."""
Tell = Callable[[str, float], None]
_TOLD_SECONDS = 0.1
_MAX_MESSAGE = 1000


def main(arguments: Sequence[str], load: Load = lab.load) -> int:
    """Answer the question of the folder named by the only argument and return the exit code.

    Args:
        arguments: the folder.
        load: a model's name -> the model; by default those of the lab.
    """
    folder = Path(arguments[0])
    try:
        answer: dict[str, Any] = {"result": _answered(folder, load)}
    except HeadroomError as error:
        answer = {"refused": str(error)}
    except Exception as error:  # noqa: BLE001  # whatever happens is told to the user, with the traceback kept beside it
        traceback.print_exc()
        answer = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:_MAX_MESSAGE]}
    write_json(folder / "answer.json", answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # quantization libraries have crashed when Python took them down, after the answer was there


def _answered(folder: Path, load: Load) -> Any:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.simplefilter("ignore")  # what libraries say about their own future is not about the experiment
    logging.disable(logging.WARNING)  # nor which of their files are for other machines; it would be taken for a crash's last words
    question = json.loads((folder / "question.json").read_text(encoding="utf-8"))
    return ANSWERS[question["kind"]](question, folder, load, _Teller(folder))


def _experiment(question: Mapping[str, Any], folder: Path, load: Load, tell: Tell) -> Any:
    from profiler.compression.measure import measure

    experiment = Experiment.from_json(question["experiment"])
    return measure(experiment, load(experiment.model), tell, folder / "weights", question["controls"]).to_json()


def _text(question: Mapping[str, Any], folder: Path, load: Load, tell: Tell) -> Any:
    del question, folder, load
    from profiler.compression.measure_text import measure_text

    return asdict(measure_text(tell))


def _products(question: Mapping[str, Any], folder: Path, load: Load, tell: Tell) -> Any:
    del folder, load
    from profiler.compression.measure_products import measure_products
    from profiler.compression.products import Products

    return [asdict(row) for row in measure_products(Products(**question["products"]), tell)]


def _training(question: Mapping[str, Any], folder: Path, load: Load, tell: Tell) -> Any:
    del folder
    from profiler.compression.measure_training import measure_training

    return asdict(measure_training(load(question["model"]), tell))


ANSWERS: Mapping[str, Callable[[Mapping[str, Any], Path, Load, Tell], Any]] = {
    "experiment": _experiment,
    "text": _text,
    "products": _products,
    "training": _training,
}
"""What a question of each kind is answered by: the question, the folder, how models are loaded, and whom to tell."""


class _Teller:
    """Writes how far things are, at most ten times a second."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "progress.json"
        self._due = 0.0

    def __call__(self, phase: str, share: float) -> None:
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _TOLD_SECONDS
            write_json(self._path, {"phase": phase, "share": min(max(share, 0.0), 1.0)})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
