"""A model of the lab -> what its training takes: the state of optimizers, and the time of a step shared out among processes."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from profiler.compression.fine_tune import cross_entropy
from profiler.compression.task import Batch, Task
from profiler.compression.training_facts import OptimizerState, StepTime, TrainingFacts
from profiler.devices import this_machine
from profiler.errors import JobFailed

WORKERS = (1, 2, 4)
_ROUNDS = 7
_MAX_SECONDS = 300.0
_OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.01),
    "sgd:momentum=0.9": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters),
}


def measure_training(task: Task, tell: Callable[[str, float], None]) -> TrainingFacts:
    """Train a step or a few in every way.

    Args:
        task: the model and its batches.
        tell: called with what is measured, and the share that is done.

    Raises:
        JobFailed: a process of several was lost.
    """
    batch = next(task.training(0))
    states = tuple(OptimizerState(name=name, state_bytes=_state_bytes(task, batch, make)) for name, make in _OPTIMIZERS.items())
    times = []
    for place, num_workers in enumerate(WORKERS):
        tell(f"steps in {num_workers} processes", place / len(WORKERS))
        times.append(StepTime(num_workers=num_workers, seconds=_step_seconds(task, batch, num_workers)))
    parameter_bytes = sum(parameter.nbytes for parameter in task.build().parameters())
    return TrainingFacts(parameter_bytes=parameter_bytes, states=states, times=tuple(times), num_cores=this_machine().num_cores)


def _state_bytes(task: Task, batch: Batch, make: Callable[[Any], torch.optim.Optimizer]) -> int:
    model = task.build().train()
    optimizer = make(model.parameters())
    cross_entropy(task.logits(model, batch.inputs), batch).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return sum(value.nbytes for slots in optimizer.state.values() for value in slots.values() if isinstance(value, torch.Tensor))


def _step_seconds(task: Task, batch: Batch, num_workers: int) -> float:
    """Return the seconds of a step in forks of this process, each with its share of the batch and one thread."""
    context = multiprocessing.get_context("fork")  # nothing of torch runs in threads here
    with tempfile.TemporaryDirectory() as folder:
        told = context.SimpleQueue()
        meeting = f"file://{Path(folder) / 'meeting'}"
        shares = zip(batch.inputs.chunk(num_workers), batch.targets.chunk(num_workers), strict=True)
        processes = [
            context.Process(target=_train, args=(task, Batch(*share), rank, num_workers, meeting, told))
            for rank, share in enumerate(shares)
        ]
        for process in processes:
            process.start()
        ends = time.monotonic() + _MAX_SECONDS
        for process in processes:
            process.join(max(0.0, ends - time.monotonic()))
        if any(process.exitcode != 0 for process in processes):  # None: it has not ended
            for process in processes:
                process.kill()
            raise JobFailed(f"A step in {num_workers} processes failed: one of them was lost. Try again.")
        return float(told.get())


def _train(task: Task, batch: Batch, rank: int, num_workers: int, meeting: str, told: Any) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=num_workers)
    model = DistributedDataParallel(task.build().train())
    optimizer = _OPTIMIZERS["sgd:momentum=0.9"](model.parameters())
    seconds = []
    for _ in range(_ROUNDS):
        distributed.barrier()
        began = time.perf_counter()
        cross_entropy(task.logits(model, batch.inputs), batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        distributed.barrier()
        seconds.append(time.perf_counter() - began)
    if rank == 0:
        told.put(statistics.median(seconds[1:]))  # the first makes the optimizer's state
    os._exit(0)  # taken down in order, gloo's threads and the model's reducer were seen to wait for each other
