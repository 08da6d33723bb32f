"""A user's model and step, as Python -> a simulated recording."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from profiler.devices import find_gpu
from profiler.recording import Recording
from profiler.simulate.session import Simulation
from profiler.storage import read_recording

_CPU = "cpu"


def simulate(
    factory: Callable[[], nn.Module],
    step: Callable[[nn.Module, torch.optim.Optimizer | None, torch.device], Any],
    *,
    gpu: str = _CPU,
    num_steps: int = 1,
    warmup_steps: int = 1,
    optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
    path: Path | str | None = None,
    title: str | None = None,
) -> Recording:
    """Return what a program's steps would hold in memory on a GPU that need not be here.

    Nothing is computed: tensors have shapes and no values, so a model of any size takes seconds and almost no memory.

    Args:
        factory: builds the model on the host, as training scripts do; it is then moved to the device.
        step: runs one step; called with the model, the optimizer if there is one, and the device for its inputs.
        gpu: a name of the GPU catalogue, such as ``rtx-4090``, or ``cpu``.
        num_steps: steps that count.
        warmup_steps: steps before those, which create the optimizer's state; the peak does not cover them.
        optimizer: makes the optimizer from the parameters; on a GPU torch would choose ``foreach=True``, so say it.
        path: keep the recording's file here.
        title: one line for lists; by default the model's class.

    Raises:
        SpecError: the GPU is not known.
        SimulationUnsupported: the program needs values, or an operator that only has real kernels.
        StorageError: the file cannot be written.
    """
    card = None if gpu == _CPU else find_gpu(gpu)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(path) if path is not None else Path(folder) / "simulation.headroom"
        with Simulation(target, card, title=title, warmup_steps=warmup_steps) as simulation:
            with simulation.phase("build"):
                model = factory().to(simulation.device)
                made = None if optimizer is None else optimizer(model.parameters())
                simulation.add(model, made)
            for _ in range(warmup_steps + num_steps):
                simulation.step()
                step(model, made, simulation.device)
        return read_recording(simulation.path)
