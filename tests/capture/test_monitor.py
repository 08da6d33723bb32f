"""The machine now and over the last minutes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from profiler.capture import monitor
from profiler.capture.monitor import MACHINE_METRICS, History, MachineReader, read_machine_now
from profiler.capture.nvml import NvmlUnavailable
from profiler.capture.samplers import GPU_METRICS
from profiler.recording import SAMPLES
from tests.capture.nvml_stub import RunWithStub

MIB = 1024**2


@pytest.fixture
def reader() -> Iterator[MachineReader]:
    made = MachineReader(lambda: NvmlUnavailable("NVML: none in this test."))
    yield made
    made.close()


@pytest.fixture
def hoarder() -> Iterator[int]:
    """A process that holds 50 MiB."""
    code = f"import sys; kept = b'x' * {50 * MIB}; print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_a_reading_agrees_with_the_system(reader: MachineReader) -> None:
    now = reader.read()

    assert 0 < now.available_bytes <= now.total_bytes <= psutil.virtual_memory().total
    assert now.used_bytes == now.total_bytes - now.available_bytes
    assert abs(now.time_ns - time.time_ns()) < 10e9
    assert now.reasons == ("NVML: none in this test.",)
    assert now.gpus == ()


def test_the_largest_processes_come_first_with_their_names(reader: MachineReader, hoarder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(reader.read().largest) <= monitor.NUM_LARGEST
    monkeypatch.setattr(monitor, "NUM_LARGEST", 100_000)
    monkeypatch.setattr(monitor, "MAX_READ", 100_000)
    largest = reader.read().largest
    sizes = [process.rss_bytes for process in largest]

    assert sizes == sorted(sizes, reverse=True)
    found = next(process for process in largest if process.pid == hoarder)
    assert found.rss_bytes >= 50 * MIB
    assert "python" in found.name


def test_where_there_are_many_processes_each_has_its_turn(reader: MachineReader, hoarder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "NUM_LARGEST", 100_000)
    monkeypatch.setattr(monitor, "MAX_READ", 3)
    assert len(reader.read().largest) <= 6
    for _ in range(len(psutil.pids())):
        if hoarder in [process.pid for process in reader.read().largest]:
            return
    pytest.fail("the largest process never had its turn")


def test_a_process_that_ended_is_no_longer_listed(reader: MachineReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "NUM_LARGEST", 100_000)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        while process.pid not in [entry.pid for entry in reader.read().largest]:
            time.sleep(0.01)
    assert process.pid not in [entry.pid for entry in reader.read().largest]


def test_the_load_of_a_moment_is_not_told(reader: MachineReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda: 100.0)
    monkeypatch.setattr(monitor, "MIN_CPU_SECONDS", 3600.0)
    history = History(interval_s=3600, reader=reader)
    first = history.samples()
    history.stop()

    assert history.latest.cpu_percent is None
    assert first["metric"].to_pylist() == ["machine_used_bytes", "machine_available_bytes", "swap_used_bytes"]
    monkeypatch.setattr(monitor, "MIN_CPU_SECONDS", 0.0)
    assert reader.read().cpu_percent == 100.0


def test_history_is_a_table_of_samples_and_reaches_back_so_far_only(reader: MachineReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "MIN_CPU_SECONDS", 0.0)
    history = History(interval_s=0.02, keep_s=0.1, reader=reader)
    oldest = history.latest.time_ns
    while history.latest.time_ns < oldest + 0.5e9:
        time.sleep(0.01)
    history.stop()
    table = history.samples()

    assert table.schema == SAMPLES
    assert table.num_rows == 5 * len(MACHINE_METRICS)
    assert table["time_us"][-1].as_py() == 0
    assert table["time_us"][0].as_py() < 0
    assert history.failure == ""


def test_a_reading_that_fails_is_told_and_the_history_stays(reader: MachineReader, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(interval_s=0.01, keep_s=1, reader=reader)

    def fail() -> None:
        raise OSError("/proc went away")

    monkeypatch.setattr(reader, "read", fail)
    while not history.failure:
        time.sleep(0.01)
    history.stop()

    assert history.failure == "The machine could not be read: /proc went away."
    assert history.latest.total_bytes > 0


def test_one_reading_needs_no_history() -> None:
    now = read_machine_now()

    assert now.cpu_percent is not None
    assert 0 <= now.cpu_percent <= 100
    assert now.num_processes >= 1


def test_gpus_are_in_the_reading_and_in_the_history(run_with_stub: RunWithStub) -> None:
    code = """
from profiler.capture.monitor import History
history = History(interval_s=0.01)
while len(set(history.samples()["time_us"].to_pylist())) < 3: pass
history.stop()
rows = history.samples().to_pylist()
result = {"names": [gpu.name for gpu in history.latest.gpus], "metrics": [r["metric"] for r in rows if r["device"] == 1]}
"""
    found = run_with_stub(code, STUB_GPUS=2, STUB_PROCESS="self:1")

    assert found["names"] == ["Stub 0", "Stub 1"]
    assert set(found["metrics"]) == set(GPU_METRICS)
