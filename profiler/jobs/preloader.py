"""Waits with the libraries loaded, and becomes a worker whenever one is asked for: ``python -m profiler.jobs.preloader``.

Importing torch and transformers takes seconds; a fork of a process that did so takes milliseconds. Each line of standard input asks for a
worker: a JSON list of the run's folder and the file for what it prints. Standard output answers with JSON lists: ``["ready"]`` once,
``["started", folder, pid]`` for each worker in the order of the requests, and ``["ended", pid, exit code]`` when it ended, negative for a
signal. The process ends when standard input does, which is when whoever asks has ended, and when nobody asked for some minutes and no
worker runs. Its workers outlive it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NoReturn

from profiler.jobs import worker
from profiler.spec import Job, Model, Toggle, Workload
from profiler.storage import SUFFIX

MODULES = (
    "torch",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "peft",
    "torchao.optim",
    "torchao.quantization",
    "pandas",  # pyarrow loads it with the first table
    "profiler.simulate.engine",
)
_READ_BYTES = 65_536
_IDLE_SECONDS = 15 * 60.0


def main() -> int:
    """Answer requests; return when no more are to be expected."""
    for name in MODULES:
        importlib.import_module(name)
    # A worker prints into its own file; what anything else prints must not get between the answers.
    answers = os.dup(1)
    os.dup2(2, 1)
    rehearse()
    gc.collect()
    gc.freeze()  # what is loaded stays: workers need neither look through it nor copy it
    deaths, waking = os.pipe()
    os.set_blocking(waking, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    _tell(answers, ["ready"])
    rest, running = b"", set[int]()
    while True:
        ready, _, _ = select.select([0, deaths], [], [], _IDLE_SECONDS)
        if not ready and not running:
            return 0
        if deaths in ready:
            os.read(deaths, _READ_BYTES)
            _bury(answers, running)
        if 0 in ready:
            data = os.read(0, _READ_BYTES)
            if not data:
                return 0
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                folder, printed = json.loads(line)
                running.add(pid := _fork(folder, printed, (answers, deaths, waking)))
                _tell(answers, ["started", folder, pid])


def rehearse() -> None:
    """Simulate something small: at their first use libraries load more of themselves and look up much, which each worker would do again."""
    job = Job(
        model=Model(name="tiny-llama"),
        workload=Workload(batch=1, seq=32, steps=1),
        device="rtx-4090",
        toggles=tuple(map(Toggle, ("bfloat16", "checkpointing", "adamw-8bit", "lora"))),
    )
    engine = importlib.import_module("profiler.simulate.engine")
    try:
        with tempfile.TemporaryDirectory() as folder:
            engine.simulate_job(job, Path(folder) / f"rehearsal{SUFFIX}")
    except Exception:  # noqa: BLE001  # a worker that has not rehearsed is slower, and no more
        traceback.print_exc()


def _fork(folder: str, printed: str, own: tuple[int, ...]) -> int:
    pid = os.fork()
    if pid == 0:
        _become_worker(folder, printed, own)
    return pid


def _become_worker(folder: str, printed: str, own: tuple[int, ...]) -> NoReturn:
    """Run the job of a folder as `profiler.jobs.worker` does, in a session of its own; what the parent plans for its end is left to it."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in own:
            os.close(descriptor)
        for descriptor, path, flags in ((0, os.devnull, os.O_RDONLY), (1, printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
            opened = os.open(path, flags, 0o644)
            os.dup2(opened, descriptor)
            os.close(opened)
        os.dup2(1, 2)
        sys.argv = [worker.__file__, folder]
        code = worker.main([folder])
    except BaseException:  # noqa: BLE001  # nothing of a worker may reach the parent's loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _bury(answers: int, running: set[int]) -> None:
    """Tell how the workers ended that have."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        running.discard(pid)
        _tell(answers, ["ended", pid, os.waitstatus_to_exitcode(status)])


def _tell(answers: int, message: list[Any]) -> None:
    os.write(answers, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
