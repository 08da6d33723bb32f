"""NVIDIA's management library -> readings of every GPU, or the reason there are none.

The only module that imports pynvml (package nvidia-ml-py). A reading that fails is None and its reason is kept once; nothing is raised.
GPUs are numbered as CUDA numbers them under ``CUDA_VISIBLE_DEVICES``, so that a reading and torch's events of one GPU share an index;
GPUs that CUDA does not see come after those.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

try:
    import pynvml
except ImportError:
    pynvml = None

_T = TypeVar("_T")
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""Linux gives its first process namespace this fixed number; any other means a container with process numbers of its own."""
_CARRIES_ON = "Host memory is sampled all the same."


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at one instant. None where the driver gives no value; `Nvml.reasons` says why."""

    index: int
    name: str
    used_bytes: int | None
    """In use by all processes, contexts included."""
    free_bytes: int | None
    total_bytes: int | None
    process_used_bytes: int | None
    """In use by this process, its CUDA context included."""
    utilization_percent: int | None
    """Share of the driver's last sample period in which a kernel ran."""
    power_watts: float | None
    temperature_celsius: int | None


@dataclass(frozen=True)
class NvmlUnavailable:
    """No GPU can be read."""

    reason: str
    """What is missing, in one or two sentences."""


@dataclass(frozen=True, slots=True)
class _Gpu:
    index: int
    name: str
    board: Any
    """Handle of the whole GPU: power, temperature, utilization."""
    part: Any
    """Handle whose memory is read: the GPU, or its only visible MIG instance."""


class Nvml:
    """An open connection to the driver; make it with `open`.

    Attributes:
        reasons: one sentence for each value that could not be read.
    """

    def __init__(self, gpus: Sequence[_Gpu], notes: Sequence[str]) -> None:
        self._gpus = list(gpus)
        self._pid = os.getpid()
        self._foreign_pids = in_container()
        self._reasons: dict[tuple[str, int], str] = {("", number): note for number, note in enumerate(notes)}

    @classmethod
    def open(cls) -> Nvml | NvmlUnavailable:
        """Connect to the driver; where that is not possible, return why."""
        if pynvml is None:
            return NvmlUnavailable(f"NVML: the Python package nvidia-ml-py is not installed. Run pip install nvidia-ml-py. {_CARRIES_ON}")
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            return NvmlUnavailable(f"NVML: {_why_closed(error)} {_CARRIES_ON}")
        notes: list[str] = []
        try:
            gpus = _open_gpus(notes)
        except pynvml.NVMLError as error:
            gpus, notes = [], [f"NVML: the GPUs cannot be listed: {_why(error)}."]
        if gpus:
            return cls(gpus, notes)
        _shut_down()
        return NvmlUnavailable(f"{' '.join(notes) or 'NVML: the driver is loaded and sees no GPU.'} {_CARRIES_ON}")

    @property
    def reasons(self) -> list[str]:
        """One sentence for each value that could not be read so far."""
        return list(self._reasons.values())

    @property
    def driver_version(self) -> str | None:
        """Version of the driver, such as ``550.54.15``; None where it does not tell."""
        try:
            return str(pynvml.nvmlSystemGetDriverVersion())
        except pynvml.NVMLError:
            return None

    def read(self) -> list[GpuReading]:
        """Return a reading of every GPU. Never raises."""
        return [self._read_gpu(gpu) for gpu in self._gpus]

    def close(self) -> None:
        """Let go of the driver; reading afterwards gives only None."""
        _shut_down()

    def _read_gpu(self, gpu: _Gpu) -> GpuReading:
        memory = self._value(gpu, "memory", lambda: pynvml.nvmlDeviceGetMemoryInfo(gpu.part))
        power = self._value(gpu, "power", lambda: pynvml.nvmlDeviceGetPowerUsage(gpu.board) / 1000)
        return GpuReading(
            index=gpu.index,
            name=gpu.name,
            used_bytes=None if memory is None else memory.used,
            free_bytes=None if memory is None else memory.free,
            total_bytes=None if memory is None else memory.total,
            process_used_bytes=self._value(gpu, "memory of this process", lambda: self._process_used_bytes(gpu)),
            utilization_percent=self._value(gpu, "utilization", lambda: pynvml.nvmlDeviceGetUtilizationRates(gpu.board).gpu),
            power_watts=power,
            temperature_celsius=self._value(
                gpu, "temperature", lambda: pynvml.nvmlDeviceGetTemperature(gpu.board, pynvml.NVML_TEMPERATURE_GPU)
            ),
        )

    def _process_used_bytes(self, gpu: _Gpu) -> int | None:
        mine = [process.usedGpuMemory for process in _compute_processes(gpu.part) if process.pid == self._pid]
        if not mine and self._foreign_pids:
            self._keep_reason(gpu, "memory of this process", "the driver lists processes by numbers from outside this container")
            return None
        if None in mine:
            self._keep_reason(gpu, "memory of this process", "the driver says it is not available")
            return None
        return sum(int(used) for used in mine)

    def _value(self, gpu: _Gpu, what: str, read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except pynvml.NVMLError as error:
            self._keep_reason(gpu, what, _why(error))
        except (OSError, ValueError, AttributeError) as error:
            self._keep_reason(gpu, what, f"the driver's answer is not understood ({error})")
        return None

    def _keep_reason(self, gpu: _Gpu, what: str, why: str) -> None:
        self._reasons.setdefault((what, gpu.index), f"NVML: the {what} of GPU {gpu.index} ({gpu.name}) cannot be read: {why}.")


def in_container() -> bool:
    """Return whether this process has process numbers that differ from the machine's, as in a container. False off Linux."""
    try:
        return str(Path("/proc/self/ns/pid").readlink()) != _INITIAL_PID_NAMESPACE
    except OSError:
        return False


def cuda_order(uuids: Sequence[str], visible: str | None) -> list[int]:
    """Return positions in ``uuids`` as CUDA numbers the GPUs, those it does not see last.

    Args:
        uuids: of each GPU in the driver's order.
        visible: value of ``CUDA_VISIBLE_DEVICES``: indices or beginnings of uuids; an unknown entry ends the list, as in CUDA.
    """
    order: list[int] = []
    for entry in (visible or "").split(","):
        text = entry.strip()
        found = [int(text)] if text.isdecimal() else [i for i, uuid in enumerate(uuids) if text and uuid.startswith(text)]
        if len(found) != 1 or found[0] >= len(uuids) or found[0] in order:
            break
        order += found
    return order + [i for i in range(len(uuids)) if i not in order]


def _open_gpus(notes: list[str]) -> list[_Gpu]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found: list[tuple[str, Any, Any]] = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            board = pynvml.nvmlDeviceGetHandleByIndex(index)
        except pynvml.NVMLError as error:
            notes.append(f"NVML: GPU {index} cannot be opened: {_why(error)}.")
            continue
        instances = _mig_instances(board)
        chosen = [i for i in instances if _uuid(i) in (visible or "").split(",")] or instances
        if len(chosen) > 1:
            notes.append(f"NVML: GPU {index} is split into {len(instances)} MIG instances; its readings are those of the whole GPU.")
        part = chosen[0] if len(chosen) == 1 else board
        found.append((_uuid(part), board, part))
    order = cuda_order([uuid for uuid, _, _ in found], visible)
    return [_Gpu(index, _name(found[i][2]), found[i][1], found[i][2]) for index, i in enumerate(order)]


def _mig_instances(board: Any) -> list[Any]:
    """Return handles of the MIG instances that this process may see; empty without MIG."""
    try:
        if not pynvml.nvmlDeviceGetMigMode(board)[0]:
            return []
        count = pynvml.nvmlDeviceGetMaxMigDeviceCount(board)
    except pynvml.NVMLError:
        return []
    instances = []
    for index in range(count):
        try:
            instances.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(board, index))
        except pynvml.NVMLError:
            continue
    return instances


def _compute_processes(part: Any) -> list[Any]:
    try:
        return list(pynvml.nvmlDeviceGetComputeRunningProcesses_v3(part))
    except pynvml.NVMLError_FunctionNotFound:
        return list(pynvml.nvmlDeviceGetComputeRunningProcesses_v2(part))


def _name(handle: Any) -> str:
    try:
        return str(pynvml.nvmlDeviceGetName(handle))
    except (pynvml.NVMLError, ValueError):
        return "unnamed GPU"


def _uuid(handle: Any) -> str:
    try:
        return str(pynvml.nvmlDeviceGetUUID(handle))
    except (pynvml.NVMLError, ValueError):
        return ""


def _shut_down() -> None:
    try:
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return


def _why(error: Any) -> str:
    """Return a clause for one value that failed, such as ``no permission``."""
    clauses = {
        pynvml.NVML_ERROR_NO_PERMISSION: "this user has no permission",
        pynvml.NVML_ERROR_NOT_SUPPORTED: "this GPU or MIG instance does not report it",
        pynvml.NVML_ERROR_GPU_IS_LOST: "the GPU fell off the bus",
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: "the driver is too old for it",
        pynvml.NVML_ERROR_UNINITIALIZED: "the connection to the driver is closed",
    }
    return clauses.get(error.value) or f"the driver answers {str(error).rstrip('.')!r}"


def _why_closed(error: Any) -> str:
    """Return sentences for a driver that cannot be opened at all."""
    sentences = {
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no driver library on this machine. GPU readings need NVIDIA's driver.",
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is installed but not loaded. Load it (modprobe nvidia) or restart.",
        pynvml.NVML_ERROR_NO_PERMISSION: "this user has no permission to talk to the NVIDIA driver. Allow it /dev/nvidiactl.",
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
            "the driver library and the loaded driver have different versions, as after an update. Restart the machine."
        ),
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: "the driver library is too old for nvidia-ml-py. Update the NVIDIA driver.",
    }
    return sentences.get(error.value) or f"the NVIDIA driver cannot be opened: {_why(error)}."
