"""Two real processes that train together, each recorded: what a simulated rank is held to.

Gloo copies what it reduces or gathers, and its threads let go of tensors when they get to it. NCCL does neither. So collectives are made
of gloo's sums and broadcasts, which work in place, and each waits until its tensors are let go.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C import _distributed_c10d as c10d
from torch.futures import Future

from profiler import workloads
from profiler.capture.recorder import Recorder
from profiler.optimizations.registry import setup_for
from profiler.recording import Role
from profiler.spec import Job
from profiler.tracing.observer import JobObserver

NUM_RANKS = 2
_PATIENCE_S = 10


def record_ranks(jobs: list[Job], folder: Path) -> None:
    """Run jobs one after another on two ranks, and record the first to ``folder/NUMBER.headroom``."""
    context = multiprocessing.get_context("spawn")
    arguments = (str(folder), [job.to_json() for job in jobs])
    processes = [context.Process(target=_run, args=(rank, *arguments)) for rank in range(NUM_RANKS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * NUM_RANKS


def _run(rank: int, folder: str, jobs: list[Any]) -> None:
    torch.set_num_threads(1)
    torch.backends.mkldnn.enabled = False
    dist.Backend.register_backend("launched", _group, devices=["cpu"])
    dist.init_process_group("launched", store=dist.FileStore(f"{folder}/store", NUM_RANKS), rank=rank, world_size=NUM_RANKS)
    for number, data in enumerate(jobs):
        _record(Job.from_json(data), Path(folder) / (f"{number}.headroom" if rank == 0 else f"other-{number}.headroom"))
    dist.destroy_process_group()


def _record(job: Job, path: Path) -> None:
    gc.collect()  # the model of the job before refers to itself
    setup = setup_for(job)
    recorder = Recorder(path, title=job.title, find_steps=False, on_gpu=False, job=job.to_json(), warmup_steps=job.workload.warmup_steps)
    setup.tell = recorder.tell
    _Launched.tell = recorder.tell
    recorder.start()
    workloads.run(job, setup, JobObserver(recorder, job, None))
    recorder.pause()
    recorder.stop()


class _Launched(dist.ProcessGroup):
    """Real processes, whose collectives take no memory of torch's."""

    tell: ClassVar[Callable[[list[Tensor], Role], None]]

    def __init__(self, gloo: Any, rank: int, size: int) -> None:
        super().__init__(rank, size)
        self._gloo, self._rank, self._size = gloo, rank, size

    def size(self) -> int:
        return self._size

    def getBackendName(self) -> str:  # noqa: N802
        return "launched"

    @property
    def group_name(self) -> str:
        return str(dist.distributed_c10d._world.pg_names[self])

    def allreduce(self, tensors: list[Tensor], opts: Any = None) -> Any:
        for tensor in tensors:
            self._sum(tensor)
        return self._done(tensors, tensors)

    def broadcast(self, tensors: list[Tensor], opts: Any = None) -> Any:
        for tensor in tensors:
            self._send(tensor, opts.rootRank)
        return self._done(tensors, tensors)

    def allgather(self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: Any = None) -> Any:
        for gathered, own in zip(outputs, inputs, strict=True):
            gathered[self._rank].copy_(own)
            for rank, tensor in enumerate(gathered):
                self._send(tensor, rank)
        return self._done(outputs, inputs)

    def all_gather_single(self, output: Tensor, input: Tensor, opts: Any = None) -> Any:
        for rank, part in enumerate(output.chunk(self._size)):
            self._send(part, rank)
        return self._done(output, [output, input])

    def reduce_scatter_single(self, output: Tensor, input: Tensor, opts: Any = None) -> Any:
        self._sum(input)
        input.div_(self._size)
        output.copy_(input.chunk(self._size)[self._rank])
        return self._done(output, [output, input])

    def _sum(self, tensor: Tensor) -> None:
        options = c10d.AllreduceOptions()
        options.reduceOp = dist.ReduceOp.SUM
        self._wait(lambda: self._gloo.allreduce([tensor], options), tensor)

    def _send(self, tensor: Tensor, root: int) -> None:
        options = c10d.BroadcastOptions()
        options.rootRank, options.rootTensor = root, 0
        self._wait(lambda: self._gloo.broadcast([tensor], options), tensor)

    def _wait(self, start: Callable[[], Any], tensor: Tensor) -> None:
        uses, limit = tensor._use_count(), time.monotonic() + _PATIENCE_S
        start().wait()
        while tensor._use_count() > uses:
            assert time.monotonic() < limit, "gloo's thread still holds a tensor"
            time.sleep(0.0002)

    def _done(self, result: Any, tensors: list[Tensor]) -> Any:
        type(self).tell([tensor for tensor in tensors if tensor.is_floating_point()], Role.COMMUNICATION)
        future: Future[Any] = Future()
        future.set_result(result)
        return c10d._create_work_from_future(future)


def _group(store: Any, rank: int, size: int, timeout: Any) -> _Launched:
    return _Launched(dist.ProcessGroupGloo(store, rank, size, timeout), rank, size)
