"""The NVML path for real: pynvml loads a compiled stub whose answers are scripted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.capture.nvml import cuda_order
from tests.capture.nvml_stub import RunWithStub, run_python

MIB = 1024**2
OPEN = "from dataclasses import asdict\nfrom profiler.capture.nvml import Nvml\nnvml = Nvml.open()\n"
READ = OPEN + "readings = [asdict(gpu) for gpu in nvml.read()]\nresult = {'gpus': readings, 'reasons': nvml.reasons}\n"
REASON = OPEN + "result = nvml.reason"
UNINITIALIZED, NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED = 1, 3, 4, 9
FUNCTION_NOT_FOUND, GPU_IS_LOST, VERSION_MISMATCH, NAMELESS = 13, 15, 18, 4242


def test_two_gpus_are_read_in_full(run_with_stub: RunWithStub) -> None:
    found = run_with_stub(READ, STUB_GPUS=2, STUB_USED_MIB=300, STUB_PROCESS=f"self:{7 * MIB}")

    assert found["reasons"] == []
    assert found["gpus"][1] == {
        "index": 1,
        "name": "Stub 1",
        "used_bytes": 1300 * MIB,
        "free_bytes": (80_000 - 1300) * MIB,
        "total_bytes": 80_000 * MIB,
        "process_used_bytes": 7 * MIB,
        "utilization_percent": 37,
        "power_watts": 123.456,
        "temperature_celsius": 61,
    }
    assert [gpu["used_bytes"] for gpu in found["gpus"]] == [300 * MIB, 1300 * MIB]


def test_readings_follow_the_memory_as_it_changes(run_with_stub: RunWithStub) -> None:
    used = run_with_stub(OPEN + "result = [nvml.read()[0].used_bytes for _ in range(4)]", STUB_USED_MIB="100,900,200")

    assert used == [100 * MIB, 900 * MIB, 200 * MIB, 200 * MIB]


def test_without_a_driver_library_the_reason_says_so() -> None:
    reason = run_python(REASON)

    assert reason.startswith("NVML: no driver library on this machine.")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (DRIVER_NOT_LOADED, "installed but not loaded"),
        (NO_PERMISSION, "no permission to talk to the NVIDIA driver"),
        (VERSION_MISMATCH, "different versions"),
        (FUNCTION_NOT_FOUND, "too old"),
        (NAMELESS, "A fault without a name"),
    ],
)
def test_a_driver_that_cannot_be_opened_says_why(run_with_stub: RunWithStub, code: int, says: str) -> None:
    assert says in run_with_stub(REASON, STUB_nvmlInitWithFlags=code)


def test_a_driver_that_sees_no_gpu_says_so(run_with_stub: RunWithStub) -> None:
    assert "sees no GPU" in run_with_stub(REASON, STUB_GPUS=0)


def test_gpus_that_cannot_be_opened_say_why(run_with_stub: RunWithStub) -> None:
    assert "GPU 0 cannot be opened: the GPU fell off the bus" in run_with_stub(REASON, STUB_nvmlDeviceGetHandleByIndex_v2=GPU_IS_LOST)
    assert "cannot be listed" in run_with_stub(REASON, STUB_nvmlDeviceGetCount_v2=NAMELESS)


@pytest.mark.parametrize(
    ("function", "field", "what"),
    [
        ("nvmlDeviceGetMemoryInfo", "used_bytes", "memory"),
        ("nvmlDeviceGetPowerUsage", "power_watts", "power"),
        ("nvmlDeviceGetTemperature", "temperature_celsius", "temperature"),
        ("nvmlDeviceGetUtilizationRates", "utilization_percent", "utilization"),
        ("nvmlDeviceGetComputeRunningProcesses_v3", "process_used_bytes", "memory of this process"),
    ],
)
def test_a_value_without_permission_is_none_and_the_rest_is_read(
    run_with_stub: RunWithStub,
    function: str,
    field: str,
    what: str,
) -> None:
    settings = {f"STUB_{function}": NO_PERMISSION, "STUB_PROCESS": "self:1"}
    found = run_with_stub("n = 3\n" + OPEN + "for _ in range(n): nvml.read()\n" + READ.removeprefix(OPEN), **settings)

    missing = {"used_bytes", "free_bytes", "total_bytes"} if what == "memory" else {field}
    assert {name for name, value in found["gpus"][0].items() if value is None} == missing
    assert found["reasons"] == [f"NVML: the {what} of GPU 0 (Stub 0) cannot be read: this user has no permission."]


def test_a_process_whose_memory_is_not_available_is_none_with_a_reason(run_with_stub: RunWithStub) -> None:
    found = run_with_stub(READ, STUB_PROCESS="self:NA")

    assert found["gpus"][0]["process_used_bytes"] is None
    assert "not available" in found["reasons"][0]


@pytest.mark.parametrize(("container", "value"), [(False, 0), (True, None)])
def test_a_process_that_is_not_listed_uses_nothing_unless_a_container_hides_it(
    run_with_stub: RunWithStub,
    container: bool,
    value: int | None,
) -> None:
    code = f"import profiler.capture.nvml as module\nmodule.in_container = lambda: {container}\n" + READ
    found = run_with_stub(code, STUB_PROCESS=f"1:{MIB}")

    assert found["gpus"][0]["process_used_bytes"] == value
    assert [("outside this container" in reason) for reason in found["reasons"]] == [True] * container


def test_the_only_mig_instance_is_read_instead_of_its_gpu(run_with_stub: RunWithStub) -> None:
    found = run_with_stub(READ, STUB_MIG=1, STUB_nvmlDeviceGetUtilizationRates=NOT_SUPPORTED, STUB_PROCESS="self:5")

    assert found["gpus"][0]["name"] == "Stub 0 MIG 1g.10gb"
    assert found["gpus"][0]["total_bytes"] == 10_000 * MIB
    assert found["gpus"][0]["utilization_percent"] is None
    assert found["gpus"][0]["power_watts"] == 123.456
    assert "this GPU or MIG instance does not report it" in found["reasons"][0]


def test_several_mig_instances_give_the_whole_gpu_and_say_so(run_with_stub: RunWithStub) -> None:
    found = run_with_stub(READ, STUB_MIG=3, STUB_PROCESS="self:5")

    assert found["gpus"][0]["total_bytes"] == 80_000 * MIB
    assert "split into 3 MIG instances" in found["reasons"][0]


def test_cuda_visible_devices_chooses_the_mig_instance(run_with_stub: RunWithStub) -> None:
    found = run_with_stub(READ, STUB_MIG=3, STUB_PROCESS="self:5", CUDA_VISIBLE_DEVICES="MIG-0-2")

    assert found["gpus"][0]["total_bytes"] == 10_000 * MIB
    assert found["reasons"] == []


def test_gpus_have_the_numbers_that_cuda_gives_them(run_with_stub: RunWithStub) -> None:
    found = run_with_stub(READ, STUB_GPUS=3, CUDA_VISIBLE_DEVICES="2,0", STUB_PROCESS="self:5")

    assert [(gpu["index"], gpu["name"]) for gpu in found["gpus"]] == [(0, "Stub 2"), (1, "Stub 0"), (2, "Stub 1")]


def test_reading_after_close_gives_none_and_does_not_raise(run_with_stub: RunWithStub) -> None:
    failures = {f"STUB_nvmlDeviceGet{name}": UNINITIALIZED for name in ("MemoryInfo", "PowerUsage", "Temperature", "UtilizationRates")}
    found = run_with_stub(OPEN + "nvml.close(); nvml.close()\nresult = [gpu.used_bytes for gpu in nvml.read()]", **failures)

    assert found == [None]


@pytest.mark.parametrize(
    ("visible", "order"),
    [
        (None, [0, 1, 2]),
        ("", [0, 1, 2]),
        ("1", [1, 0, 2]),
        ("GPU-c,0", [2, 0, 1]),
        ("7,1", [0, 1, 2]),
        ("1,1,0", [1, 0, 2]),
        ("GPU", [0, 1, 2]),
    ],
)
def test_cuda_order_by_hand(visible: str | None, order: list[int]) -> None:
    assert cuda_order(["GPU-a", "GPU-b", "GPU-c"], visible) == order


@given(st.text(alphabet="0123456789,GPU- ", max_size=20), st.integers(0, 5))
def test_cuda_order_names_every_gpu_once(visible: str, num_gpus: int) -> None:
    assert sorted(cuda_order([f"GPU-{i}" for i in range(num_gpus)], visible)) == list(range(num_gpus))
