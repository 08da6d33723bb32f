"""The notebook of a measured run: notes are written into torch.profiler's own trace.

A note is a profiler event whose name is a number; its content stays in a Python list until the trace is read back.
"""

from __future__ import annotations

import threading
from typing import Any

import torch

from profiler.tracing.notes import Note, Notebook

PREFIX = "headroom:"
_RecordFunction = torch._C._profiler._RecordFunctionFast


class ProfilerNotebook(Notebook):
    """The notes of one profiler window after another."""

    def __init__(self) -> None:
        self._notes: list[Note] = []
        self._lock = threading.Lock()
        """A note's number is its place, also where backward writes from a thread of its own."""

    def turn_page(self) -> list[Note]:
        """Return the notes since the last call and begin anew, at the border of two windows."""
        notes, self._notes = self._notes, []
        return notes

    def open(self, note: Note) -> Any:
        """Begin an interval of the profiler."""
        with self._lock:
            number = len(self._notes)
            self._notes.append(note)
        interval = _RecordFunction(f"{PREFIX}{number}")
        interval.__enter__()
        return interval

    def place_of(self, tensor: torch.Tensor) -> tuple[torch.UntypedStorage | None, int]:
        """Return a tensor's storage and address; no storage for fake, functional and empty tensors."""
        try:
            storage = tensor.untyped_storage()
            if storage.device.type == "meta":
                return None, 0
            pointer = storage.data_ptr()
        except (RuntimeError, NotImplementedError):
            return None, 0
        return (storage, pointer) if pointer else (None, 0)

    def device_of(self, tensor: torch.Tensor) -> int:
        """Return the CUDA device's index; -1 for the host."""
        return tensor.device.index or 0 if tensor.device.type == "cuda" else -1
