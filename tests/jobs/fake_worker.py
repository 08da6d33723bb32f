"""A worker whose engine does what the model's name says instead of running a model: ``python -m tests.jobs.fake_worker FOLDER``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from profiler.errors import SpecError
from profiler.jobs.worker import main
from profiler.recording import EVENTS, Metadata, Provenance, Recording
from profiler.spec import Job
from profiler.storage import RecordingWriter, write_recording
from profiler.tracing.progress import Progress

MIB = 1024**2
STUBBORN_CHILD = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


def metadata(job: Job, key: str | None) -> Metadata:
    return Metadata(
        title=job.title, provenance=Provenance.MEASURED, engine="fake", created="2026-01-01T00:00:00Z", job=job.to_json(), key=key
    )


def engine(job: Job, path: Path, *, key: str | None, progress) -> None:  # type: ignore[no-untyped-def]
    name = job.model.name
    if name in ("partial", "partial and sleep"):
        writer = RecordingWriter(path)
        writer.describe(metadata(job, key))
        writer.add("events", EVENTS.empty_table())
        progress(Progress(1, 3, "forward"))
        if name == "partial":
            os._exit(9)
    if name in _ACTS:
        _ACTS[name]()
    progress(Progress(1, 3, "forward", 5 * MIB, 100 * MIB))
    if name.endswith("sleep"):
        time.sleep(60)
    if name != "forgetful":
        write_recording(Recording(metadata=metadata(job, key), events=EVENTS.empty_table()), path)


def refuse() -> None:
    raise SpecError("heads=5 do not divide hidden=16. Use a divisor of 16.")


def stumble() -> None:
    sys.stderr.write("a line of the library before\n")
    raise ZeroDivisionError("the batch was\nempty")


def die() -> None:
    sys.stderr.write("my last words\n")
    os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    sys.stdout.write("I had enough\n")
    sys.stdout.flush()
    os._exit(7)


def hog() -> None:
    kept = []
    while len(kept) < 40:
        kept.append(b"x" * (25 * MIB))
        time.sleep(0.02)
    time.sleep(60)


def father() -> None:
    """Start a child that does not mind SIGTERM, do not mind it oneself, and leave both numbers beside the run."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", STUBBORN_CHILD], stdout=subprocess.PIPE)
    assert child.stdout
    child.stdout.readline()
    folder = Path(sys.argv[1])
    (folder / "pids.tmp").write_text(f"{os.getpid()} {child.pid}")
    (folder / "pids.tmp").replace(folder / "pids.txt")
    time.sleep(60)


def abandon() -> None:
    """End well and leave a child behind."""
    child = subprocess.Popen([sys.executable, "-c", STUBBORN_CHILD])
    (Path(sys.argv[1]) / "pids.txt").write_text(str(child.pid))


_ACTS = {
    "refuse": refuse,
    "stumble": stumble,
    "die": die,
    "crash": crash,
    "leave": leave,
    "hog": hog,
    "father": father,
    "abandon": abandon,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], engine))
