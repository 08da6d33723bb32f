"""Which blocks on a GPU are cuBLAS's workspaces: memory that no tensor shows, although torch's allocator gave it.

Torch hands cuBLAS one workspace for each handle and stream, that is for each thread which multiplies matrices on a stream (forward and
backward have one each), at the first product, and keeps it until the process ends (ATen/cuda/CublasHandlePool.cpp, getNewWorkspace). So a
block is a workspace if it

- is as large as the configured size,
- was allocated inside a matrix product, or before the recording,
- is alive at the end of its window, thus not freed within the operator,
- and was never seen to hold a tensor.
"""

from __future__ import annotations

import os
import re

import torch

from profiler.recording import Action
from profiler.units import KIB

_DEFAULT_KIB = 2 * 4096 + 8 * 16
_DEFAULT_KIB_FROM_HOPPER = 8 * 4096
_HOPPER_AND_BLACKWELL = (9, 10, 12)

_MATRIX_PRODUCTS = frozenset(
    "aten::" + name
    for name in (
        "mm",
        "addmm",
        "_addmm_activation",
        "bmm",
        "baddbmm",
        "addbmm",
        "matmul",
        "linear",
        "mv",
        "addmv",
        "dot",
        "vdot",
        "addr",
        "_int_mm",
        "_scaled_mm",
        "_grouped_mm",
        "_scaled_grouped_mm",
    )
)


def is_workspace(action: Action, operator: str | None) -> bool:
    """Return whether a block of a workspace's size, holding no tensor, was born where workspaces are."""
    return action is Action.PREEXISTING or operator in _MATRIX_PRODUCTS


def workspace_sizes() -> frozenset[int]:
    """Return the bytes that a workspace of cuBLAS or cuBLASLt has on this process's GPU; needs CUDA."""
    ask = [getattr(torch._C, name, None) for name in ("_cuda_getCublasWorkspaceSize", "_cuda_getCublasLtWorkspaceSize")]
    sizes = {int(size()) for size in ask if size is not None}
    if not sizes:  # before torch 2.13
        sizes = {configured_size(os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""), torch.cuda.get_device_capability()[0])}
    return frozenset(sizes - {0})


def configured_size(config: str, capability: int) -> int:
    """Return the bytes of a workspace as torch chooses them.

    Args:
        config: the variable CUBLAS_WORKSPACE_CONFIG: pairs ``:KIB:COUNT``, such as ``:4096:8``; anything else counts as not set.
        capability: the GPU's major compute capability; the default is 32 MiB for Hopper and Blackwell, else 8.125 MiB.
    """
    pairs = re.findall(r":(\d+):(\d+)", config)
    default = _DEFAULT_KIB_FROM_HOPPER if capability in _HOPPER_AND_BLACKWELL else _DEFAULT_KIB
    return KIB * (sum(int(size) * int(count) for size, count in pairs) if pairs else default)
