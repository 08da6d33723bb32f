"""What Python knows of a run, as notes between the allocations: which module runs, what a tensor is for, where a phase ends.

Every engine keeps its own notebook. Measured, a note is written into the profiler's own trace, so that it stands exactly between the
allocations that came before and after it; simulated, it goes into the same list as they. A pointer in it names the block that was alive
at that moment. Aligning two clocks could not promise that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch

from profiler.recording import Role


class Label(NamedTuple):
    """What is known of the block at ``pointer``: role bits, and the tensor that was seen in it."""

    pointer: int
    num_bytes: int
    device: int
    roles: int
    dtype: str
    shape: str
    tensor: str | None


@dataclass(slots=True)
class Note:
    """One note: what kind, and its content; ``labels`` may be filled until an interval's end."""

    kind: str
    """``labels``, ``module``, ``phase``, ``region``, ``root`` or ``gone``."""
    name: str = ""
    labels: list[Label] = field(default_factory=list)
    pointer: int = 0


class Notebook(ABC):
    """Where an engine keeps what Python tells while a workload runs; knows the place of a tensor in that engine's memory."""

    @abstractmethod
    def open(self, note: Note) -> Any:
        """Begin an interval at this moment; the returned object's ``__exit__`` ends it."""

    @abstractmethod
    def place_of(self, tensor: torch.Tensor) -> tuple[torch.UntypedStorage | None, int]:
        """Return a plain tensor's storage and address; no storage where it holds no memory."""

    @abstractmethod
    def device_of(self, tensor: torch.Tensor) -> int:
        """Return the index of the GPU that holds a tensor; -1 for the host."""

    def write(self, note: Note) -> None:
        """Put a note at this moment."""
        self.open(note).__exit__(None, None, None)

    @contextmanager
    def interval(self, kind: str, name: str) -> Iterator[Note]:
        """Note an interval around the block."""
        note = Note(kind, name)
        opened = self.open(note)
        try:
            yield note
        finally:
            opened.__exit__(None, None, None)

    def label(self, tensor: torch.Tensor, roles: Role, name: str | None = None) -> list[Label]:
        """Return one label for each storage that ``tensor`` holds: one, or those inside a wrapper subclass or a sparse tensor."""
        labels = []
        with torch._C.DisableTorchFunction():  # looking is no part of the program; modes that answer its calls need not see it
            for inner in plain_tensors(tensor):
                storage, pointer = self.place_of(inner)
                if storage is not None:
                    dtype, shape = _dtype_name(inner.dtype), _shape_name(inner.shape)
                    labels.append(Label(pointer, storage.nbytes(), self.device_of(inner), int(roles), dtype, shape, name))
        return labels


@cache
def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@lru_cache(maxsize=4096)  # a model's layers are alike
def _shape_name(shape: torch.Size) -> str:
    return "x".join(map(str, shape))


def plain_tensors(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Return the tensors with memory of their own that make up ``tensor``."""
    if tensor.device.type == "meta":
        return []
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        inner = [getattr(tensor, name) for name in names]
        return [plain for part in inner if isinstance(part, torch.Tensor) for plain in plain_tensors(part)]
    layout = tensor.layout
    if layout is torch.strided:
        return [tensor]
    if layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return [tensor]


def tensors_in(value: Any, depth: int = 3) -> Iterator[torch.Tensor]:
    """Yield the tensors in a value made of lists, tuples, dictionaries and objects with fields, ``depth`` levels down."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth and isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item, depth - 1)
    elif depth and isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item, depth - 1)
