"""What fails on fake tensors because they hold no values -> one sentence that names the operator and the way out."""

from __future__ import annotations

from typing import Any, NoReturn

from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorDeviceMismatchError,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)

from profiler.errors import SimulationUnsupported

_WAY_OUT = "Measure it instead (profile), or change the model so that it does without."
_NO_VALUES = ".numpy() is not supported for tensor subclasses"


def refusal_of(error: BaseException) -> SimulationUnsupported | None:
    """Return the refusal that an error in a simulated program amounts to; None where the error is the program's own."""
    if isinstance(error, UnsupportedOperatorException):
        return SimulationUnsupported(f"{_name(error)} has no kernel for fake tensors, so it cannot be simulated. {_WAY_OUT}")
    if isinstance(error, DynamicOutputShapeException):
        return SimulationUnsupported(
            f"{_name(error)} makes a tensor whose size depends on values, which a simulation does not have. {_WAY_OUT}"
        )
    if isinstance(error, DataDependentOutputException):
        return SimulationUnsupported(f"{_name(error)} reads values, which a simulation does not have. {_WAY_OUT}")
    if isinstance(error, FakeTensorDeviceMismatchError):
        return SimulationUnsupported(
            f"{_name(error)} mixes tensors of the GPU and of the host. Move them to one device (`.to(device)`), as a real GPU needs it too."
        )
    if isinstance(error, UnsupportedFakeTensorException) or (isinstance(error, RuntimeError) and _NO_VALUES in str(error)):
        return SimulationUnsupported(f"The program reads values, which a simulation does not have: {str(error).splitlines()[0]} {_WAY_OUT}")
    return None


def refuse_compile(*_: Any, **__: Any) -> NoReturn:
    """Stand in for ``torch.compile``.

    Raises:
        SimulationUnsupported: always.
    """
    raise SimulationUnsupported(
        "torch.compile is not modelled: it fuses operators and plans memory anew. Simulate the eager model, or measure the compiled one."
    )


def _name(error: Any) -> str:
    func = getattr(error, "func", None)
    schema = getattr(func, "_schema", None)
    if schema is not None:
        return str(schema.name)
    words = str(error).split()
    return words[0] if words else "An operator"
