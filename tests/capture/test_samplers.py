"""The sampling thread: what it reads, how it is drained, and that it bears every fault."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pyarrow.compute as pc
import pytest

from profiler.capture import samplers
from profiler.capture.nvml import GpuReading, Nvml, NvmlUnavailable
from profiler.capture.samplers import GPU_METRICS, HOST_METRICS, Sampler
from profiler.recording import SAMPLES
from tests.capture.nvml_stub import RunWithStub

MIB = 1024**2
NO_GPU = NvmlUnavailable("NVML: none in this test.")


class ScriptedNvml(Nvml):
    """A driver whose reading is a function."""

    def __init__(self, read: Callable[[], list[GpuReading]]) -> None:
        super().__init__([], [])
        self._script = read

    def read(self) -> list[GpuReading]:
        return self._script()


def gpu(used_bytes: int | None) -> GpuReading:
    return GpuReading(0, "Scripted", used_bytes, 10, 100, None, 5, 1.5, 40)


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen within 10 s"
        time.sleep(0.002)


@pytest.fixture
def started() -> Iterator[Callable[..., Sampler]]:
    """Return a function that makes and starts a sampler with a tick every 2 ms, stopped when the test ends."""
    made: list[Sampler] = []

    def start(open_nvml: Callable[[], Nvml | NvmlUnavailable] = lambda: NO_GPU, **settings: object) -> Sampler:
        sampler = Sampler(interval_s=0.002, open_nvml=open_nvml, **settings)  # type: ignore[arg-type]
        made.append(sampler)
        sampler.start(time.time_ns())
        return sampler

    yield start
    for sampler in made:
        sampler.stop()


def num_ticks(sampler: Sampler) -> int:
    return int(sampler.facts()["num_ticks"])


def values(sampler: Sampler, metric: str) -> list[float]:
    table = sampler.drain()
    return table.filter(pc.equal(table["metric"], metric))["value"].to_pylist()


def test_samples_have_the_schema_of_recordings_and_rising_times(started: Callable[..., Sampler]) -> None:
    sampler = started()
    wait_for(lambda: num_ticks(sampler) >= 5)
    table = sampler.drain()
    times = table["time_us"].to_pylist()

    assert table.schema == SAMPLES
    assert times == sorted(times)
    assert 0 <= times[0] < 10e6
    assert set(table["source"].to_pylist()) == {"psutil"}
    assert set(table["metric"].to_pylist()) <= set(HOST_METRICS)


def test_times_are_those_of_the_clock_less_the_origin() -> None:
    instants = iter(range(5_000_000, 10**12, 1_000_000))
    sampler = Sampler(interval_s=0.002, clock=lambda: next(instants), open_nvml=lambda: NO_GPU)
    sampler.start(origin_ns=2_000_000)
    wait_for(lambda: num_ticks(sampler) >= 3)
    sampler.stop()

    assert sorted(set(sampler.drain()["time_us"].to_pylist()))[:3] == [3000.0, 4000.0, 5000.0]


def test_the_resident_set_follows_what_the_process_allocates(started: Callable[..., Sampler]) -> None:
    sampler = started()
    wait_for(lambda: num_ticks(sampler) >= 2)
    before = values(sampler, "rss_bytes")[-1]
    ballast = bytearray(b"x" * (64 * MIB))
    seen = num_ticks(sampler)
    wait_for(lambda: num_ticks(sampler) >= seen + 2)

    assert values(sampler, "rss_bytes")[-1] - before >= 0.9 * len(ballast)


def test_a_drain_gives_only_what_came_since_the_last(started: Callable[..., Sampler]) -> None:
    sampler = started()
    wait_for(lambda: num_ticks(sampler) >= 5)
    first = sampler.drain()
    sampler.stop()
    second = sampler.drain()

    assert second.num_rows == 0 or first["time_us"][-1].as_py() < second["time_us"][0].as_py()
    assert len(set(first["time_us"].to_pylist()) | set(second["time_us"].to_pylist())) == num_ticks(sampler)
    assert sampler.drain().num_rows == 0


def test_costly_readings_come_once_a_second(started: Callable[..., Sampler]) -> None:
    begin = time.monotonic()
    sampler = started()
    wait_for(lambda: num_ticks(sampler) >= 50)
    metrics = sampler.drain()["metric"].to_pylist()

    assert 1 <= metrics.count("uss_bytes") == metrics.count("children_rss_bytes") <= 1 + (time.monotonic() - begin)
    assert metrics.count("rss_bytes") >= 50


def test_the_thread_ends_with_stop_and_never_holds_up_the_program(started: Callable[..., Sampler]) -> None:
    sampler = started()
    thread = next(thread for thread in threading.enumerate() if thread.name == "headroom-sampler")
    assert thread.daemon
    sampler.stop()

    assert not thread.is_alive()


def test_without_nvml_the_reason_is_a_warning(started: Callable[..., Sampler]) -> None:
    sampler = started()

    assert sampler.warnings == [NO_GPU.reason]
    assert sampler.facts()["gpus"] == []


def test_a_fault_of_the_driver_is_told_once_and_sampling_goes_on(started: Callable[..., Sampler]) -> None:
    calls = iter(range(10**9))

    def read() -> list[GpuReading]:
        if next(calls) in (2, 3, 4):
            raise OSError("the bus hiccuped")
        return [gpu(7)]

    sampler = started(lambda: ScriptedNvml(read))
    wait_for(lambda: num_ticks(sampler) >= 5)

    assert sampler.warnings == ["A sample could not be read: the bus hiccuped."]
    assert values(sampler, "device_used_bytes")[:4] == [7, 7, 7, 7]


def test_a_value_that_the_driver_does_not_give_has_no_row(started: Callable[..., Sampler]) -> None:
    sampler = started(lambda: ScriptedNvml(lambda: [gpu(None)]))
    wait_for(lambda: num_ticks(sampler) >= 2)
    found = set(sampler.drain()["metric"].to_pylist())

    assert set(GPU_METRICS) - found == {"device_used_bytes", "process_used_bytes"}


def test_a_step_of_hours_is_thinned_not_kept_whole(started: Callable[..., Sampler], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "MAX_TICKS", 8)
    sampler = started()
    wait_for(lambda: num_ticks(sampler) >= 14)

    assert len(values(sampler, "rss_bytes")) < 8
    assert any("thinned" in warning for warning in sampler.warnings)


def test_its_own_cpu_time_is_measured_and_small(started: Callable[..., Sampler]) -> None:
    sampler = started()
    wait_for(lambda: num_ticks(sampler) >= 20)

    assert 0 < sampler.cpu_seconds < 0.02 * num_ticks(sampler)
    assert sampler.facts()["cpu_seconds"] <= sampler.cpu_seconds


SAMPLE_STUB = """
import time
from profiler.capture.samplers import Sampler
sampler = Sampler(interval_s=0.005)
sampler.start(time.time_ns())
while sampler.facts()["num_ticks"] < {ticks}: time.sleep(0.005)
sampler.stop()
rows = sampler.drain().to_pylist()
result = {{"rows": [r for r in rows if r["source"] == "nvml"], "warnings": sampler.warnings, **sampler.facts()}}
"""


def test_the_drivers_memory_curve_arrives_as_samples_of_every_gpu(run_with_stub: RunWithStub) -> None:
    found = run_with_stub(SAMPLE_STUB.format(ticks=12), STUB_GPUS=2, STUB_USED_MIB="1,100,900,200,50", STUB_PROCESS="self:3")
    used = {
        device: [r["value"] for r in found["rows"] if r["metric"] == "device_used_bytes" and r["device"] == device] for device in (0, 1)
    }

    curve = [100, 900, 200, *[50] * 20]
    assert 3 <= len(used[0]) == len(used[1])
    assert used[0] == [mib * MIB for mib in curve][: len(used[0])]
    assert used[1] == [(mib + 1000) * MIB for mib in curve][: len(used[1])]
    assert {r["metric"] for r in found["rows"]} == set(GPU_METRICS)
    assert found["gpus"] == ["Stub 0", "Stub 1"]


def test_a_slow_driver_is_read_less_often_and_that_is_said(run_with_stub: RunWithStub) -> None:
    found = run_with_stub(SAMPLE_STUB.format(ticks=30), STUB_DELAY_MS=20, STUB_PROCESS="self:3")
    readings = [r for r in found["rows"] if r["metric"] == "device_used_bytes"]

    assert 2 <= len(readings) < 0.6 * found["num_ticks"]
    assert any("instead of 5 ms" in warning for warning in found["warnings"])
