"""Names of parameters -> the modules that own weights, gradients and optimizer states.

Weights are made before any module runs and optimizer states outside of all, so no module is recorded for them; their names tell the owner:
``h.0.fc.weight`` and ``h.0.fc.weight.exp_avg`` belong to ``h.0.fc`` where ``h.0.fc.weight`` is a parameter of the recording.
"""

from __future__ import annotations

import numpy as np

from profiler.analysis.columns import Array, Names
from profiler.recording import Role

_WEIGHTS = int(Role.PARAMETER | Role.MASTER_PARAMETER | Role.BUFFER)
_OWNED = _WEIGHTS | int(Role.GRADIENT | Role.OPTIMIZER_STATE)
_MAX_SUFFIXES = 4


def with_owners(module: Names, tensor: Names, roles: Array) -> Names:
    """Return ``module`` with the owning module where a block is of a parameter, is its gradient or its optimizer state."""
    weights = {tensor.names[code] for code in np.unique(tensor.codes[(roles & _WEIGHTS) != 0]) if code >= 0}
    codes = {name: code for code, name in enumerate(module.names)}
    owners = [_owner(name, weights) for name in tensor.names]
    owner_codes = np.array([*(codes.setdefault(owner, len(codes)) if owner else -1 for owner in owners), -1], dtype=np.int32)
    found = owner_codes[tensor.codes]
    return Names(np.where(((roles & _OWNED) != 0) & (found >= 0), found, module.codes), tuple(codes))


def _owner(tensor: str, weights: set[str]) -> str:
    """Return the module of the parameter that a tensor's name is or begins with; empty where there is none."""
    path = tensor
    for _ in range(_MAX_SUFFIXES):
        if path in weights:
            return path.rpartition(".")[0]
        path = path.rpartition(".")[0]
    return ""
