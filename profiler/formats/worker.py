"""A file of a stranger -> a recording file, in a process of its own that may only take so much memory and time.

``python -m profiler.formats.worker FILE OUT`` reads FILE and writes OUT; on its standard output it tells how far it is, and why it refuses.
Nothing comes back from it but these lines and the recording file, which is read as any other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from profiler.devices import this_machine
from profiler.errors import FormatError, HeadroomError, SpecError, StorageError
from profiler.formats.containers import inspect
from profiler.formats.convert import to_recording
from profiler.formats.progress import part_of
from profiler.formats.rules import read_rules
from profiler.formats.snapshot import read_snapshot
from profiler.platform_calls import limit_address_space, own_group, signal_name
from profiler.recording import Recording
from profiler.storage import read_recording, write_recording
from profiler.units import GIB, MIB, format_bytes

BASE_SECONDS = 20.0
BYTES_PER_SECOND = 4 * MIB
"""A slow machine reads some 20 MiB a second; a file that takes five times as long was made to."""
_LOOK_SECONDS = 0.2
_MOST_WAITING = 10
"""How many times its processor time the worker may take on a machine that has other work."""
_MAX_LINE = 20_000
_PACKAGE_PARENT = Path(__file__).resolve().parent.parent.parent
_ERRORS: dict[str, type[HeadroomError]] = {kind.__name__: kind for kind in (FormatError, SpecError, StorageError)}
_REFUSED, _OUT_OF_MEMORY = 2, 3
_READ, _CONVERTED = 0.6, 0.9
"""The shares of the time after which the file is read, and after which it is known what its blocks are; the rest is writing."""


def address_space_bytes(payload_bytes: int) -> int:
    """Return how much memory a worker may map: 1 GiB and four times the pickle, but above 1 GiB at most 3/4 of what is free.

    Args:
        payload_bytes: the size of the pickle, unpacked.
    """
    return min(GIB + 4 * payload_bytes, max(GIB, this_machine().available_bytes * 3 // 4))


def read_in_worker(
    path: Path | str,
    out: Path | str,
    *,
    progress: Callable[[float], None] | None = None,
    parameter_bytes: Sequence[int] = (),
    rules: Path | str | None = None,
    seconds: float | None = None,
) -> Recording:
    """Return the recording that a worker made of a snapshot; it stays in the file ``out``.

    Args:
        path: a CUDA snapshot: a pickle, the same gzipped, or a memory_viz page.
        out: the ``.headroom`` file to write.
        progress: called now and then with the share that is done, 0 to 1.
        parameter_bytes: see `profiler.formats.convert.to_recording`.
        rules: a file of rules that come before Headroom's own.
        seconds: the processor time that the worker may take; by default what a file of this size may need.

    Raises:
        StorageError: the file cannot be read, or ``out`` not written.
        FormatError: the file is no snapshot, asks for an import, or takes more memory or time than any snapshot of its size.
        SpecError: the rules are none.
    """
    path, out = Path(path), Path(out)
    payload_bytes = inspect(path).payload_bytes
    limit = BASE_SECONDS + payload_bytes / BYTES_PER_SECOND if seconds is None else seconds
    allowed = address_space_bytes(payload_bytes)
    rules_file = str(rules) if rules else None
    order = json.dumps({"parameter_bytes": list(parameter_bytes), "rules": rules_file, "address_space_bytes": allowed})
    command = [sys.executable, "-m", "profiler.formats.worker", str(path), str(out)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=_environment(), text=True, encoding="utf-8", **pipes, **own_group()) as worker:
        late, done = threading.Event(), threading.Event()
        watch = threading.Thread(target=_watch, args=(worker, limit, late, done))
        watch.start()
        try:
            error = _converse(worker, order, progress)
        finally:
            done.set()
            worker.kill()
            watch.join()
    if late.is_set():
        raise FormatError(
            f"{path.name} was not read within {limit:.0f} s of processor time, enough for any snapshot of its size. It is not opened."
        )
    if error is not None:
        raise error
    if worker.returncode:
        raise _ended_badly(path, worker.returncode, payload_bytes, allowed)
    return read_recording(out)


def main(arguments: Sequence[str], order: IO[str], answers: IO[str]) -> int:
    """Read the file named first, write the recording file named second, and return the exit code."""
    path, out = (Path(argument) for argument in arguments)
    wanted = json.loads(order.read())

    def tell(share: float) -> None:
        _say(answers, progress=share)

    try:
        limit_address_space(wanted["address_space_bytes"])
        snapshot = read_snapshot(path, part_of(tell, 0.0, _READ))
        rules = read_rules(wanted["rules"])
        converting = part_of(tell, _READ, _CONVERTED)
        recording = to_recording(snapshot, parameter_bytes=wanted["parameter_bytes"], rules=rules, progress=converting)
        tell(_CONVERTED)
        write_recording(recording, out)
    except HeadroomError as error:
        if isinstance(error.__cause__, MemoryError):
            return _OUT_OF_MEMORY  # whose limit that was, the process that set it can say
        _say(answers, error=type(error).__name__, message=str(error))
        return _REFUSED
    except MemoryError:
        return _OUT_OF_MEMORY
    tell(1.0)
    return 0


def _converse(worker: subprocess.Popen[str], order: str, progress: Callable[[float], None] | None) -> HeadroomError | None:
    """Give the worker its order and follow what it says until it ends; return why it refused."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        worker.stdin.write(order)
        worker.stdin.close()
    except OSError:
        pass  # it ended before it was asked: its exit code tells
    error = None
    while line := worker.stdout.readline(_MAX_LINE):
        said = json.loads(line)
        if "error" in said:
            error = _ERRORS.get(said["error"], FormatError)(said["message"])
        elif progress is not None:
            progress(said["progress"])
    worker.wait()
    return error


def _watch(worker: subprocess.Popen[str], seconds: float, late: threading.Event, done: threading.Event) -> None:
    """End the worker, and set ``late``, once it took its time: of the processor, since a machine that is busy takes longer for any file."""
    began = time.monotonic()
    while not done.wait(_LOOK_SECONDS):
        try:
            used = sum(psutil.Process(worker.pid).cpu_times()[:2])
        except psutil.Error:
            return  # it ended
        if used > seconds or time.monotonic() - began > _MOST_WAITING * seconds:
            late.set()
            worker.kill()
            return


def _ended_badly(path: Path, code: int, payload_bytes: int, allowed_bytes: int) -> FormatError:
    allowed = format_bytes(allowed_bytes)
    if code == _OUT_OF_MEMORY and allowed_bytes < GIB + 4 * payload_bytes:
        return FormatError(
            f"{path.name} holds {format_bytes(payload_bytes)} and needs more than the {allowed} of memory that this machine can spare now. "
            "Close other programs, or open it on a larger machine."
        )
    if code == _OUT_OF_MEMORY:
        return FormatError(f"{path.name} needs more than {allowed} of memory, which no snapshot of its size does. It is not opened.")
    how = f"crashed ({signal_name(-code)})" if code < 0 else f"ended with exit code {code}"
    return FormatError(f"The process that read {path.name} {how}; it was allowed {allowed} of memory. The file is damaged, and not opened.")


def _environment() -> dict[str, str]:
    """Return the worker's environment: few threads and no memory mapped in advance, so that its limit counts what the file takes."""
    paths = [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH", "")]
    quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system", "PYTHONIOENCODING": "utf-8"}
    return {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _say(answers: IO[str], **said: Any) -> None:
    answers.write(json.dumps(said) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdin, sys.stdout))
