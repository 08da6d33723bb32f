"""cuBLAS's workspaces: a block for each thread that multiplies matrices, made at its first product and kept until the process ends.

Read in torch 2.13: getCurrentCUDABlasHandle and setWorkspaceForHandle (ATen/cuda/CublasHandlePool.cpp). Forward and the optimizer run in
one thread, backward in autograd's. The result of a product is allocated before its workspace.

Products with a bias go through cuBLASLt (addmm_out_cuda_impl, ATen/native/cuda/Blas.cpp), which has a workspace of its own beside that of
cuBLAS: getCUDABlasLtWorkspace shares them only if TORCH_CUBLASLT_UNIFIED_WORKSPACE is set, whatever its size is derived from.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import torch

from profiler.devices import Gpu
from profiler.simulate.cuda.kernels import KERNELS, KernelCall
from profiler.tracing.workspaces import configured_size
from profiler.units import KIB

_aten = torch.ops.aten
_TRUE = ("1", "TRUE", "True", "true", "YES", "Yes", "yes", "ON", "On", "on", "Y", "y")
_DEFAULT_LT_KIB = 1024
_PRODUCTS = (
    *(_aten.mm.default, _aten.mm.out, _aten.mm.dtype, _aten.addmm.default, _aten.addmm.out, _aten._addmm_activation.default),
    *(_aten.bmm.default, _aten.bmm.out, _aten.bmm.dtype, _aten.baddbmm.default, _aten.baddbmm.out, _aten.addbmm.default),
    *(_aten.mv.default, _aten.addmv.default, _aten.dot.default, _aten.vdot.default, _aten._int_mm.default, _aten._scaled_mm.default),
)


def workspace_bytes(gpu: Gpu) -> int:
    """Return the bytes of a workspace on a card, as the environment configures it."""
    return configured_size(os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""), gpu.compute_capability[0])


def lt_workspace_bytes() -> int:
    """Return the bytes of cuBLASLt's own workspace; 0 where it shares that of cuBLAS."""
    if os.environ.get("TORCH_CUBLASLT_UNIFIED_WORKSPACE") in _TRUE:
        return 0
    return int(os.environ.get("CUBLASLT_WORKSPACE_SIZE", _DEFAULT_LT_KIB)) * KIB


def _product(call: KernelCall) -> Any:
    result = call.keep(call.run())
    thread = "backward" if torch._C._current_graph_task_id() != -1 else "forward"
    call.hold(f"cublas workspace of {thread}", partial(workspace_bytes, call.gpu))
    if call.func is _aten.addmm.default and call.args[0].dim() == 1:
        call.hold(f"cublaslt workspace of {thread}", lt_workspace_bytes)
    return result


for _overload in _PRODUCTS:
    KERNELS[_overload] = _product
