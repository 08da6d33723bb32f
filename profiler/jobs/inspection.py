"""A Model -> its exact facts, found by a worker process and kept on disk: the caller needs no torch."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from profiler.errors import JobFailed, SpecError
from profiler.jobs.key import versions
from profiler.jobs.process import WorkerProcess, how_it_ended, last_words
from profiler.jobs.run import Limits
from profiler.optimizations.precision import ITEMSIZES
from profiler.spec import Model, canonical_json
from profiler.storage import RunStore
from profiler.storage.json_file import keep_json
from profiler.units import GIB, MIB, format_bytes, format_duration_us

_COMMAND = (sys.executable, "-m", "profiler.jobs.inspect")
_LIMITS = Limits(memory_bytes=4 * GIB, seconds=120)
_POLL_SECONDS = 0.05
_MAX_ANSWER_BYTES = MIB
_one_at_a_time = threading.Lock()
"""Each inspection loads torch, about 300 MB; a class of students must not do that all at once."""


def inspect_in_worker(
    model: Model, home: Path | str | None = None, *, command: Sequence[str] = _COMMAND, limits: Limits = _LIMITS
) -> dict[str, Any]:
    """Return the facts of ``profiler.models.build.ModelFacts`` as plain data; seconds the first time, a file's reading afterwards.

    Args:
        model: of the catalogue or with a configuration.
        home: where facts are kept; by default ``$HEADROOM_HOME``, else ``.headroom``.
        command: what is started with the paths of the question and of the answer.
        limits: when to end it.

    Raises:
        SpecError: the model cannot be built.
        JobFailed: the worker crashed or hit a limit.
    """
    question = asdict(model)
    digest = hashlib.sha256(canonical_json([question, versions()]).encode()).hexdigest()[:24]
    kept = RunStore(home).home / "models" / f"{digest}.json"
    facts = _read(kept)
    if facts is None:
        with _one_at_a_time:
            facts = _read(kept) or _ask_worker(question, command, limits)
            keep_json(kept, facts)
    return facts


def parameter_bytes(model: Model, number_format: str, home: Path | str | None = None) -> list[int]:
    """Return the size of each parameter of a model that is kept in a number format of `ITEMSIZES`; tied ones count once.

    Raises:
        SpecError, JobFailed: as `inspect_in_worker`.
    """
    return [size * ITEMSIZES[number_format] for size in inspect_in_worker(model, home)["parameter_sizes"]]


def _ask_worker(question: dict[str, Any], command: Sequence[str], limits: Limits) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="headroom-") as name:
        folder = Path(name)
        (folder / "model.json").write_text(json.dumps(question), encoding="utf-8")
        process = WorkerProcess.start([*command, str(folder / "model.json"), str(folder / "answer.json")], folder / "stderr.txt")
        try:
            _wait(process, limits)
        finally:
            process.sweep()
            process.wait(1.0)
        answer = _read(folder / "answer.json")
        if answer is None:
            raise JobFailed(f"The model could not be inspected. {how_it_ended(process.exit_code, last_words(folder / 'stderr.txt'))}")
    if "error" in answer:
        raise SpecError(answer["error"])
    if "bug" in answer:
        raise JobFailed(f"The model could not be inspected. {answer['bug']}")
    facts: dict[str, Any] = answer["facts"]
    return facts


def _wait(process: WorkerProcess, limits: Limits) -> None:
    end = time.monotonic() + limits.seconds
    while process.running():
        if time.monotonic() > end:
            took = format_duration_us(limits.seconds * 1e6)
            raise JobFailed(f"The model could not be inspected within {took}. Try again when the machine is less busy.")
        if limits.memory_bytes and (used := process.rss_bytes()) > limits.memory_bytes:
            raise JobFailed(
                f"Inspecting the model used {format_bytes(used)}, more than the {format_bytes(limits.memory_bytes)} that are allowed."
                " Check the sizes in its configuration."
            )
        time.sleep(_POLL_SECONDS)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= _MAX_ANSWER_BYTES else None
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
