"""Ranks that are not there: torch.distributed for one process on fake tensors, which talks to no other.

Every rank of data parallelism runs the same statements, so one of them shows what each holds. The classes are torch's own
(`DistributedDataParallel` with its C++ reducer, `ZeroRedundancyOptimizer`, `fully_shard`); only the group of processes is not, whose
collectives are over as soon as they begin. What such a library does that fake tensors cannot follow is put right here, for as long as
the ranks last.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Self
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C import _distributed_c10d as c10d
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.distributed_c10d import Backend
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from profiler.recording import Role

_BACKEND = "simulated"
_INDICES = (torch.int32, torch.int64)

Tell = Callable[[Sequence[Tensor], Role], None]
"""Learns what tensors are for."""


class Ranks:
    """The ranks of one simulation; there are none until `begin`.

    Args:
        device: where the model's fake tensors live.
        tell: learns which tensors collectives send and receive.
        resized: is told of every storage that was given another size.
    """

    def __init__(self, device: torch.device, tell: Tell, resized: Callable[[torch.UntypedStorage], None]) -> None:
        self._device = device
        self._tell = tell
        self._resized = resized
        self._running = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def begin(self, num_ranks: int, rank: int) -> None:
        """Make this process one of ``num_ranks``."""
        enter = self._running.enter_context
        enter(patch.object(_Group, "tell", staticmethod(self._tell), create=True))
        enter(patch.object(sys, "excepthook", sys.excepthook))  # torch puts the rank before every line of a traceback
        enter(_values_of_indices())
        enter(_sharding_on(self._device, self._resized))
        if not hasattr(Backend, _BACKEND.upper()):
            Backend.register_backend(_BACKEND, _group, devices=["cpu"])
        dist.init_process_group(_BACKEND, store=c10d.HashStore(), rank=rank, world_size=num_ranks)
        self._running.callback(dist.destroy_process_group)


class _Group(dist.ProcessGroup):
    """Processes of which only this one is there: its collectives leave their tensors as they are."""

    tell: ClassVar[Tell]

    def __init__(self, rank: int, size: int) -> None:
        super().__init__(rank, size)  # type: ignore[call-arg]
        self._size = size

    def size(self) -> int:
        return self._size

    def getBackendName(self) -> str:  # noqa: N802  # torch's name
        return _BACKEND

    @property
    def group_name(self) -> str:  # type: ignore[override]
        return str(dist.distributed_c10d._world.pg_names[self])

    def allreduce(self, tensors: list[Tensor], opts: Any = None) -> dist.Work:  # type: ignore[override]
        return self._done(tensors, tensors)

    def broadcast(self, tensors: list[Tensor], opts: Any = None) -> dist.Work:  # type: ignore[override]  # as C++ calls it
        return self._done(tensors, tensors)

    def allgather(self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: Any = None) -> dist.Work:  # type: ignore[override]
        for gathered, own in zip(outputs, inputs, strict=True):
            for tensor in gathered:
                tensor.copy_(own)  # every rank has what this one has: libraries compare
        return self._done(outputs, [*inputs, *(tensor for gathered in outputs for tensor in gathered)])

    def all_gather_single(self, output: Tensor, input: Tensor, opts: Any = None) -> dist.Work:
        return self._done(output, [output, input])

    def reduce_scatter_single(self, output: Tensor, input: Tensor, opts: Any = None) -> dist.Work:
        return self._done(output, [output, input])

    def barrier(self, opts: Any = None) -> dist.Work:
        return self._done([], [])

    def _done(self, result: Any, tensors: list[Tensor]) -> dist.Work:
        type(self).tell([tensor for tensor in tensors if isinstance(tensor, FakeTensor)], Role.COMMUNICATION)
        future: Future[Any] = Future()
        future.set_result(result)
        work: dist.Work = c10d._create_work_from_future(future)  # type: ignore[attr-defined]
        return work


def _group(store: Any, rank: int, size: int, timeout: Any) -> _Group:
    return _Group(rank, size)


class _ValuesOfIndices(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives values to the lists of numbers that C++ writes and reads element by element; they hold a few bytes for a moment."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        is_list = func is torch.ops.aten.empty.memory_format and kwargs.get("dtype") in _INDICES
        if not is_list and (not tensors or any(isinstance(tensor, FakeTensor) for tensor in tensors)):
            return func(*args, **kwargs)
        kwargs.pop("device", None)  # there is no second CPU but for fake tensors
        with _disable_current_modes():
            return func(*args, **kwargs)


@contextmanager
def _values_of_indices() -> Iterator[None]:
    """Let DDP compare the shapes of parameters when it is made, and settle on buckets before its second forward."""

    def watched(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with _ValuesOfIndices():  # type: ignore[no-untyped-call]
                return method(*args, **kwargs)

        return call

    with ExitStack() as stack:
        for name in ("__init__", "_pre_forward"):
            stack.enter_context(patch.object(DistributedDataParallel, name, watched(getattr(DistributedDataParallel, name))))
        yield


@contextmanager
def _sharding_on(device: torch.device, resized: Callable[[torch.UntypedStorage], None]) -> Iterator[None]:
    """Let fully_shard work on the simulated device."""
    from torch.distributed import device_mesh, fsdp  # noqa: F401  # loads what is patched by name
    from torch.distributed.tensor._sharding_prop import ShardingPropagator

    resize = torch.UntypedStorage.resize_

    def resize_(storage: Any, num_bytes: int) -> Any:
        result = resize(storage, num_bytes)
        resized(storage)
        return result

    with ExitStack() as stack:
        enter = stack.enter_context
        # A mesh on the CPU means the first CPU, and the simulated GPU is the second.
        enter(patch("torch.distributed.fsdp._fully_shard._fully_shard._get_device_from_mesh", lambda mesh: device))
        enter(patch.object(torch.UntypedStorage, "resize_", resize_))
        # The ranks of a mesh are computed with, and what an operator makes of sharded tensors is tried on whole ones: neither is memory.
        enter(_without_modes(device_mesh, "init_device_mesh"))
        enter(_without_modes(ShardingPropagator, "_propagate_tensor_meta_non_cached"))
        # For each parameter this looks at all of them, for shares of shares, which a mesh of one dimension does not have.
        enter(patch("torch.distributed.tensor._sharding_prop._propagate_use_strided_shard_flag", _nothing))
        yield


def _nothing(*_: Any) -> None:
    """Stand in for work that changes nothing here."""


@contextmanager
def _without_modes(owner: Any, name: str) -> Iterator[None]:
    method = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return method(*args, **kwargs)

    with patch.object(owner, name, call):
        yield
