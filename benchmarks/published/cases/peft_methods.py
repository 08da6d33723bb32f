"""PEFT's comparison of methods: Llama-3.2-3B on an L40S in bfloat16 with float32 adapters, trained with our toggles on a simulated card.

What is held is what does not depend on the text: trained parameters, and the difference of two ranks in what is allocated after a step
(weights, gradients and optimizer state of the adapters; the logits, which stay alive there, are alike).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from benchmarks.published.table import Published, Row, Tolerance
from profiler import workloads
from profiler.devices import find_gpu
from profiler.optimizations.registry import setup_for, validate
from profiler.recording import Phase, Provenance
from profiler.simulate.session import Simulation
from profiler.spec import Job, Model, Toggle, Workload, ZeroGrad

_GPU = "l40s"
_TOKENS = 210
"""Of a sample on average, as the file says."""
_METHODS = {
    "peft-lora-rank32": "lora:rank=32,targets=query-value",
    "peft-lora-rank64": "lora:rank=64,targets=query-value",
    "peft-adalora-rank32": "adalora:rank=64,targets=query-value",
    "peft-ia3-default": "ia3",
}
"""By the ids of the file; AdaLoRA's rank is that of the end, and it begins with 64."""


def rows(published: Published) -> Iterator[Row]:
    """Yield trained parameters, adapters' files without their headers, and the difference of two ranks."""
    ids = set(published.ids("peft-"))
    found = {name: _trained(toggle) for name, toggle in _METHODS.items() if any(identity.startswith(name) for identity in ids)}
    for name, run in found.items():
        note = "peft 0.21 also makes each layer's rank counter trainable where it converts that to the base's dtype"
        yield from published.row(f"{name}-trainable", run.num_trained, Tolerance(share=1e-5), note, provenance=Provenance.SIMULATED)
        if name == "peft-ia3-default":
            note = "float32 numbers; the file's header of 10 kB is left out"
            yield from published.row(f"{name}-file", 4 * run.num_trained, Tolerance(share=0.01), note, provenance=Provenance.SIMULATED)
    low, high = "peft-lora-rank32", "peft-lora-rank64"
    if low in found and high in found:
        ours, tolerance = found[high].allocated_bytes - found[low].allocated_bytes, Tolerance(share=0.005)
        what = "Llama-3.2-3B: rank 64 less rank 32, allocated, simulated"
        for row in published.difference(f"{high}-alloc", f"{low}-alloc", what, ours, tolerance):
            yield replace(row, provenance=Provenance.SIMULATED)


class _AfterStep:
    """Looks at what is allocated when the optimizer's step is over; the `profiler.workloads.Observer` of these runs."""

    allocated_bytes = 0
    num_trained = 0

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        yield
        if phase is Phase.OPTIMIZER:
            self.allocated_bytes = torch.cuda.memory_allocated()

    @contextmanager
    def step(self, index: int) -> Iterator[None]:
        yield

    def built(self, model: nn.Module, optimizer: Optimizer | None) -> None:
        self.num_trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

    def scalar(self, name: str, value: float) -> None:
        pass


def _trained(toggle: str) -> _AfterStep:
    workload = Workload(batch=4, seq=_TOKENS, steps=1, warmup_steps=1, zero_grad=ZeroGrad.BEFORE_FORWARD, keep_outputs=True)
    toggles = (Toggle.parse("bfloat16"), Toggle.parse(toggle))
    job = validate(Job(model=Model(name="llama-3.2-3b"), workload=workload, device=_GPU, toggles=toggles))
    seen = _AfterStep()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, Simulation(Path(folder) / "published.headroom", find_gpu(_GPU)) as simulation:
        workloads.run(replace(job, device=str(simulation.device)), setup_for(job), seen, read_loss=lambda loss: None)
        simulation.abandon()
    return seen
