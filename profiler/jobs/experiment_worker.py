"""The worker of one experiment of the compression lab: ``python -m profiler.jobs.experiment_worker FOLDER``.

It reads ``experiment.json``, and ``controls.json`` with what is known of its controls, replaces ``progress.json`` as it goes, and ends with
``answer.json``: the result, or why there is none. The compressed model's file is left beside it as ``weights``.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.compression import lab
from profiler.compression.experiment import Experiment
from profiler.errors import HeadroomError

if TYPE_CHECKING:
    from profiler.compression.task import Task

_TOLD_SECONDS = 0.1
_MAX_MESSAGE = 1000


def main(arguments: Sequence[str], load: Callable[[str], Task] | None = None) -> int:
    """Measure the experiment of the folder named by the only argument and return the exit code.

    Args:
        arguments: the folder.
        load: a model's name -> the model; by default those of the lab.
    """
    folder = Path(arguments[0])
    try:
        answer: dict[str, Any] = {"result": _measured(folder, load)}
    except HeadroomError as error:
        answer = {"refused": str(error)}
    except Exception as error:  # noqa: BLE001  # whatever happens is told to the user, with the traceback kept beside it
        traceback.print_exc()
        answer = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:_MAX_MESSAGE]}
    _write(folder / "answer.json", answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # quantization libraries have crashed when Python took them down, after the answer was there


def _measured(folder: Path, load: Callable[[str], Task] | None) -> dict[str, Any]:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.simplefilter("ignore")  # what libraries say about their own future is not about the experiment
    experiment = Experiment.from_json(json.loads((folder / "experiment.json").read_text(encoding="utf-8")))
    controls: dict[str, float] = json.loads((folder / "controls.json").read_text(encoding="utf-8"))
    from profiler.compression.measure import measure

    task = (load or lab.load)(experiment.model)
    return measure(experiment, task, _Teller(folder), folder / "weights", controls).to_json()


class _Teller:
    """Writes how far things are, at most ten times a second."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "progress.json"
        self._due = 0.0

    def __call__(self, phase: str, share: float) -> None:
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _TOLD_SECONDS
            _write(self._path, {"phase": phase, "share": min(max(share, 0.0), 1.0)})


def _write(path: Path, data: Any) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(data), encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
