"""A run in progress, whatever its engine: hooks, steps and notes -> a recording file, written window by window as it goes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from profiler.errors import SpecError
from profiler.recording import SCALARS, Metadata, Phase, Role
from profiler.storage import RecordingWriter
from profiler.tracing.convert import Converter
from profiler.tracing.hooks import Hooks
from profiler.tracing.notes import Label, Notebook
from profiler.tracing.raw import RawWindow


class Session(ABC):
    """One recording in progress.

    Args:
        path: where the recording shall be.
        metadata: what it is; its facts may grow.
        notebook: the engine's.
        converter: makes parts of the recording of what the engine saw.
        step: the step that the first window belongs to; -1 before the first.

    Raises:
        StorageError: the file cannot be written.
    """

    def __init__(self, path: Path, metadata: Metadata, notebook: Notebook, converter: Converter, *, step: int = -1) -> None:
        self._writer = RecordingWriter(path)
        self._metadata = metadata
        self._writer.describe(metadata)
        self._notebook = notebook
        self._hooks = Hooks(notebook, self._before_forward)
        self._converter = converter
        self._step = step

    @property
    def path(self) -> Path:
        """Where the recording is once it is closed."""
        return self._writer.path

    @property
    def allocated_bytes(self) -> int:
        """Bytes alive at the end of the last window."""
        return self._converter.allocated_bytes

    def add(self, model: torch.nn.Module | None = None, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Tell of a model or an optimizer, so that what they hold is named from now on.

        Raises:
            SpecError: it is neither.
        """
        check_kinds(model, optimizer)
        if model is not None:
            self._hooks.add_model(model)
        if optimizer is not None:
            self._hooks.add_optimizer(optimizer)

    def step(self) -> None:
        """End a step; the next begins."""
        self._turn(self._step + 1)

    @contextmanager
    def phase(self, phase: Phase | str) -> Iterator[None]:
        """Mark the block as a phase of the step, such as ``forward``."""
        with self._notebook.interval("phase", Phase(phase)):
            yield

    @contextmanager
    def region(self, name: str) -> Iterator[None]:
        """Mark the block with a name of your own."""
        with self._notebook.interval("region", name[:200]):
            yield

    def tell(self, tensors: Sequence[torch.Tensor], role: Role) -> None:
        """Note what tensors are for that only who makes them knows."""
        self._hooks.write([found for tensor in tensors for found in self._hooks.label(tensor, role)])

    def scalar(self, name: str, value: float) -> None:
        """Keep a number of this step, such as the loss."""
        row = {"step": [self._step], "name": pa.array([name[:200]]).dictionary_encode(), "value": [float(value)]}
        self._writer.add("scalars", pa.table(row).cast(SCALARS))

    def add_facts(self, **facts: Any) -> None:
        """Keep sizes that are known beside the events, such as num_parameters."""
        self._metadata = replace(self._metadata, facts=self._metadata.facts | facts)

    @abstractmethod
    def pause(self) -> None:
        """See nothing more: what the program does from here on is not part of the recording."""

    @abstractmethod
    def stop(self, error: BaseException | None = None) -> Metadata:
        """End the recording and return its metadata; ``error`` is what the program died of, if it did."""

    @abstractmethod
    def _turn(self, step: int) -> None:
        """Close this window, write what it saw, and open the next, which belongs to ``step``."""

    def _before_forward(self) -> None:  # noqa: B027  # most engines have nothing to do then
        """Do what is due when a model's outermost forward is about to begin."""

    def _write(self, raw: RawWindow, parts: dict[str, pa.Table], preexisting: list[Label]) -> None:
        """Write what a window saw, beside other parts of its time."""
        self.add_facts(layers=self._hooks.layers)
        parts |= self._converter.convert(raw, self._step, preexisting, self._hooks.structure)
        for name, part in parts.items():
            self._writer.add(name, part)


def check_kinds(model: object, optimizer: object) -> None:
    """Refuse what is no model or no optimizer.

    Raises:
        SpecError: it is something else.
    """
    for name, value, kind in (("model", model, torch.nn.Module), ("optimizer", optimizer, torch.optim.Optimizer)):
        if value is not None and not isinstance(value, kind):
            expected = f"{kind.__module__.removesuffix('.modules.module').removesuffix('.optimizer')}.{kind.__name__}"
            raise SpecError(f"{name} is of type {type(value).__name__}, not {expected}. Pass the {name} itself, or leave it out.")
