"""A text in numbers, one a byte or a token -> batches of windows, each with what comes next."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from profiler.compression.task import Batch


def byte_values(text: bytes) -> Tensor:
    """Return a text's bytes as int64."""
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).long()


def anywhere(text: Tensor, length: int, batch: int, seed: int) -> Iterator[Batch]:
    """Yield batches of windows that begin at places drawn from the seed, without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield _windows(text, torch.randint(0, len(text) - length, (batch,), generator=generator), length)


def spread(text: Tensor, length: int, num_windows: int, batch: int) -> list[Batch]:
    """Return so many windows, evenly spread over the text, in batches; the same each time."""
    starts = torch.linspace(0, len(text) - length - 1, num_windows).long()
    return [_windows(text, starts[first : first + batch], length) for first in range(0, num_windows, batch)]


def _windows(text: Tensor, starts: Tensor, length: int) -> Batch:
    rows = text[starts[:, None] + torch.arange(length + 1)]
    return Batch(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
