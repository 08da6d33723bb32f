"""A simulation in progress: what runs in its block runs on fake tensors, and becomes a recording."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import torch

from profiler.allocator.allocator import CachingAllocator
from profiler.allocator.config import AllocatorConfig
from profiler.devices import Gpu
from profiler.estimate.step_time import Assumptions, Roofline
from profiler.recording import Metadata, Provenance
from profiler.simulate import patches
from profiler.simulate.cpu import cpu_kernels
from profiler.simulate.cuda.autocast import CudaAutocast
from profiler.simulate.cuda.compiled import compiled
from profiler.simulate.cuda.functions import CudaFunctions
from profiler.simulate.cuda.kernels import kernels_for
from profiler.simulate.cuda.queries import answered_by
from profiler.simulate.cuda.workspaces import lt_workspace_bytes, workspace_bytes
from profiler.simulate.fakes import LeanFakeTensorMode
from profiler.simulate.flops import Cost
from profiler.simulate.memory import GPU_DEVICE, HOST_DEVICE, DeviceMemory, HostMemory, Memory
from profiler.simulate.notebook import SimulatedNotebook
from profiler.simulate.pinned import pinned_kernels
from profiler.simulate.ranks import Ranks
from profiler.simulate.refusals import refusal_of
from profiler.simulate.surroundings import describe_simulation
from profiler.simulate.tracker import Tracker
from profiler.simulate.wrapped_numbers import WrappedNumbers
from profiler.storage import SUFFIX
from profiler.tracing.convert import Converter
from profiler.tracing.raw import RawWindow
from profiler.tracing.session import Session

_CPU_TICK_NS = 1000
_GPU_TICK_NS = 1
"""Beside the time that operators are estimated to take, nothing."""
_COLLECT_AFTER = 10_000
"""New objects between two collections of Python's garbage: a simulation makes many more of them than the program that it runs."""


class Simulation(Session):
    """Simulates whatever runs in its ``with`` block.

    Args:
        path: where the recording shall be.
        gpu: the card to simulate; None for the CPU.
        title: one line for lists; by default the file's name.
        allocator_settings: of the card's allocator, as PYTORCH_ALLOC_CONF says them.
        assumptions: what the time of operators is estimated with.
        metadata: fields of `Metadata` to set, such as job, key and warmup_steps.

    Raises:
        SimulationUnsupported: the program needs values, or an operator that has none but real kernels. Nothing is kept then.
        StorageError: the file cannot be written.
    """

    def __init__(
        self,
        path: Path | str,
        gpu: Gpu | None = None,
        *,
        title: str | None = None,
        allocator_settings: str = "",
        assumptions: Assumptions | None = None,
        **metadata: Any,
    ) -> None:
        path = Path(path)
        described = Metadata(
            title=title or path.name.removesuffix(SUFFIX),
            provenance=Provenance.SIMULATED,
            engine="simulation of cuda" if gpu else "simulation of cpu",
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            **{**describe_simulation(gpu), **metadata},
        )
        self._pages = SimulatedNotebook(_GPU_TICK_NS if gpu else _CPU_TICK_NS)
        super().__init__(path, described, self._pages, Converter(0, 0))
        self._host = HostMemory()
        self._device: DeviceMemory | None = None
        fakes = LeanFakeTensorMode()
        self._modes: list[AbstractContextManager[Any]] = [_collected_seldom(), patches.in_place(), fakes]
        self._modes.append(patch.object(torch, "get_rng_state", self._generator_state))
        numbers = WrappedNumbers(self._host, self._pages)
        if gpu is None:
            kernels = cpu_kernels(self._host, self._pages, numbers)
        else:
            config = AllocatorConfig.parse(allocator_settings)
            self._device = DeviceMemory(self._pages.on_segment, config)
            if allocator_settings:
                self.add_facts(allocator_settings=config.to_settings())
            self._converter.begin([], frozenset({workspace_bytes(gpu), lt_workspace_bytes()} - {0}), tells_completion=False)
            autocast = CudaAutocast(gpu, GPU_DEVICE)
            self._modes += [answered_by(self._device.allocator), autocast, CudaFunctions(gpu, GPU_DEVICE, autocast)]
            self._modes.append(patch.object(torch, "compile", compiled))
            kernels = pinned_kernels(self._pages) | kernels_for(gpu, self._device, self._pages)
        self._roofline = None if gpu is None else Roofline(gpu, assumptions)
        self._tracker = Tracker(self._pages, fakes, self._memory_of, kernels, self._duration_ns, numbers.settle)
        self._modes.append(self._tracker)
        self.ranks = Ranks(self.device, self.tell, self._pages.resized)
        """Makes the program one of several processes, where it wants to be."""
        self._modes.append(self.ranks)
        self._running = ExitStack()
        self._is_open = False
        self._is_closed = False
        self._cpu_seconds = 0.0

    @property
    def device(self) -> torch.device:
        """Where the program puts its model and its inputs."""
        return HOST_DEVICE if self._device is None else GPU_DEVICE

    @property
    def allocator(self) -> CachingAllocator | None:
        """The GPU's allocator, as it stands; None on the CPU."""
        return None if self._device is None else self._device.allocator

    def __enter__(self) -> Self:
        self._cpu_seconds -= time.process_time()
        for mode in self._modes:
            self._running.enter_context(mode)
        self._hooks.install(saved_tensors=True)
        self._is_open = True
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self.abandon()
            refusal = refusal_of(error)
            if refusal is not None:
                raise refusal from error
        elif not self._is_closed:
            self.stop()

    def pause(self) -> None:
        """See nothing more; see `Session`. The block still runs on fake tensors."""
        if self._is_open:
            self._is_open = False
            self._hooks.remove()
            self._flush()
            self._tracker.is_watching = False

    def stop(self, error: BaseException | None = None) -> Metadata:
        """End the recording; see `Session`."""
        self.pause()
        self._leave()
        self._is_closed = True
        overhead = {"run_cpu_seconds": self._cpu_seconds}
        return self._writer.close(replace(self._metadata, overhead=overhead))

    def abandon(self) -> None:
        """Keep nothing: a simulation that failed has no numbers to show."""
        if self._is_open:
            self._is_open = False
            self._hooks.remove()
        self._leave()
        self._writer.discard()

    def _leave(self) -> None:
        self._running.close()
        self._cpu_seconds += time.process_time()

    def _turn(self, step: int) -> None:
        self._flush()
        self._step = step

    def _flush(self) -> None:
        raw, segments = self._pages.turn_page()
        if self._step >= 0:
            self._add_costs(raw)
        self._write(raw, {"segments": segments.to_table(0, 0)}, [])

    def _add_costs(self, raw: RawWindow) -> None:
        """Keep what the last step cost; the first ones make the optimizer's state too."""
        facts: dict[str, Any] = {"flops_per_step": sum(call.flops or 0 for call in raw.calls)}
        if self._roofline is not None:
            facts["estimated_step_seconds"] = sum(call.duration_ns for call in raw.calls) / 1e9
            facts["assumptions"] = self._roofline.assumptions.sentences(self._roofline.gpu)
        self.add_facts(**facts)

    def _duration_ns(self, cost: Cost) -> int:
        if self._roofline is None or cost.device != GPU_DEVICE:
            return 0  # on the CPU the clock tells the order of events and nothing else
        return round(self._roofline.duration_us(cost.flops, cost.num_bytes, str(cost.dtype).removeprefix("torch.")) * 1e3)

    def _generator_state(self) -> torch.Tensor:
        """Return the state of the host's generator, which is a tensor with values here too, once it has its place."""
        state = torch.random.get_rng_state()
        self._pages.hold_tensors(state, self._host)
        return state

    def _memory_of(self, device: torch.device) -> Memory | None:
        if device.type == "meta":
            return None
        return self._device if self._device is not None and device == GPU_DEVICE else self._host


@contextmanager
def _collected_seldom() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(_COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
