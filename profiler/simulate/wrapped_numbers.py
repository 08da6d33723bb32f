"""Python numbers among an operator's operands -> the scalars that the CPU wraps them into, of a few bytes each.

Torch makes them where no mode sees them: its parser of arguments wraps the 2.0 of ``x * 2.0`` into a float64 tensor, as does a kernel that
was given a number. They live until the call is over, or until backward where autograd saved them.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch

from profiler.simulate.memory import Memory, Place
from profiler.simulate.notebook import SimulatedNotebook

NUMBERS = (bool, int, float, complex)
"""Python's, that torch wraps."""


class _Undecided(NamedTuple):
    """A scalar that autograd may have saved: only the node that it attaches to the result tells, and nothing is attached yet."""

    scalar: Place
    result: weakref.ref[torch.Tensor]


class WrappedNumbers:
    """The scalars of a simulated CPU.

    Args:
        memory: the host's.
        notebook: what happens is written there.
    """

    def __init__(self, memory: Memory, notebook: SimulatedNotebook) -> None:
        self._memory = memory
        self._notebook = notebook
        self._undecided: list[_Undecided] = []

    def wrap(self, number: complex) -> Place:
        """Return the place of the scalar that a number becomes."""
        return self._notebook.allocate(scalar_dtype(number).itemsize, self._memory)

    def are_wrapped(self) -> bool:
        """Tell whether backward runs a node that saved its number: it comes as a scalar, and looks like any number here.

        To be asked of a product or quotient with a number only: to look at another node's tensors can unpack them.
        """
        if torch.is_grad_enabled():  # what a checkpoint runs again is no part of the node that asked for it
            return False
        return _saved(torch._C._current_autograd_node()) is not None

    def unwrap(self, scalar: Place, result: Any = None) -> None:
        """Free a scalar at the end of its call, or keep it for as long as autograd does if it saves any for this result."""
        if isinstance(result, torch.Tensor) and torch.is_grad_enabled():
            self._undecided.append(_Undecided(scalar, weakref.ref(result)))
        else:
            self._notebook.free(scalar, self._memory)

    def settle(self) -> None:
        """Look at what autograd saved of calls that are over; the next operator is the first moment at which that is known."""
        if not self._undecided:
            return  # nearly always, and a GPU wraps nothing
        undecided, self._undecided = self._undecided, []
        for scalar, reference in undecided:
            result = reference()
            saved = None if result is None else _saved(result.grad_fn)
            if saved is None:
                self._notebook.free(scalar, self._memory)
            else:
                self._notebook.hold_at(scalar, saved.untyped_storage(), self._memory)


def scalar_dtype(number: complex) -> torch.dtype:
    """Return the dtype that torch wraps a number in (c10/core/Scalar.h)."""
    return next(dtype for kind, dtype in _DTYPES.items() if isinstance(number, kind))


_DTYPES = {bool: torch.bool, int: torch.int64, float: torch.float64, complex: torch.complex128}


def _saved(node: Any) -> torch.Tensor | None:
    """Return the number that a product or a quotient saved in the graph, which torch hides from hooks."""
    saved = getattr(node, "_saved_other", None)
    return saved if isinstance(saved, torch.Tensor) else None
