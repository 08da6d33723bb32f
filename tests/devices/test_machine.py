"""This machine's facts, and the limits of a container."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from profiler import platform_calls
from profiler.devices import cpu_name, this_machine
from profiler.platform_calls import container_memory_bytes, end, own_group, processes_below, signal_name
from tests.conftest import ROOT

GIB = 1024**3


def test_a_machine_is_plain_data_that_agrees_with_the_system() -> None:
    machine = this_machine()

    assert json.loads(json.dumps(machine.to_json())) == machine.to_json()
    assert 0 < machine.available_bytes <= machine.total_bytes <= psutil.virtual_memory().total
    assert 1 <= machine.num_cores <= (os.cpu_count() or 1)
    assert machine.python.startswith("3.")
    assert machine.cpu == cpu_name() != ""


def test_a_container_limits_the_memory_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text(f"{64 * 1024**2}\n")
    (tmp_path / "memory.current").write_text(f"{40 * 1024**2}\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 1048576\n")
    monkeypatch.setattr(platform_calls, "_CGROUP", tmp_path)

    assert this_machine().total_bytes == 64 * 1024**2
    assert this_machine().available_bytes == 25 * 1024**2


@pytest.mark.parametrize("limit", ["max", "", "nonsense"])
def test_a_container_without_a_limit_has_all_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("1")
    monkeypatch.setattr(platform_calls, "_CGROUP", tmp_path)

    assert container_memory_bytes() is None
    assert this_machine().total_bytes == psutil.virtual_memory().total


def test_the_first_version_of_container_limits_is_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text(str(2 * GIB))
    (folder / "memory.usage_in_bytes").write_text(str(GIB))
    (folder / "memory.stat").write_text("cache 0\n")
    monkeypatch.setattr(platform_calls, "_CGROUP", tmp_path)

    assert container_memory_bytes() == (2 * GIB, GIB)


@pytest.mark.skipif(sys.platform == "win32", reason="sessions are a POSIX matter")
def test_a_grandchild_whose_parent_ended_is_still_found_and_ended() -> None:
    script = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, **own_group()) as parent:
        assert parent.stdout
        orphan = int(parent.stdout.readline())
    found = {process.pid: process for process in processes_below(parent.pid)}

    assert set(found) == {orphan}
    end(found[orphan], force=True)
    assert not psutil.wait_procs(list(found.values()), timeout=10)[1]
    assert processes_below(parent.pid) == []


def test_signals_have_names() -> None:
    assert signal_name(signal.SIGTERM) == "SIGTERM"
    assert signal_name(250) == "signal 250"


def test_devices_loads_no_torch() -> None:
    code = "import sys, profiler.devices, profiler.capture.samplers; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
