"""cuBLAS's workspaces: a block for each thread that multiplies matrices, made at its first product and kept until the process ends.

Read in torch 2.13: getCurrentCUDABlasHandle and setWorkspaceForHandle (ATen/cuda/CublasHandlePool.cpp). Forward and the optimizer run in
one thread, backward in autograd's; cuBLASLt shares the workspace of cuBLAS. The result of a product is allocated before its workspace.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from profiler.devices import Gpu
from profiler.simulate.cuda.kernels import KERNELS, KernelCall
from profiler.tracing.workspaces import configured_size

_aten = torch.ops.aten
_PRODUCTS = (
    *(_aten.mm.default, _aten.mm.out, _aten.mm.dtype, _aten.addmm.default, _aten.addmm.out, _aten._addmm_activation.default),
    *(_aten.bmm.default, _aten.bmm.out, _aten.bmm.dtype, _aten.baddbmm.default, _aten.baddbmm.out, _aten.addbmm.default),
    *(_aten.mv.default, _aten.addmv.default, _aten.dot.default, _aten.vdot.default, _aten._int_mm.default, _aten._scaled_mm.default),
)


def workspace_bytes(gpu: Gpu) -> int:
    """Return the bytes of a workspace on a card, as the environment configures it."""
    return configured_size(os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""), gpu.compute_capability[0])


def _product(call: KernelCall) -> Any:
    result = call.keep(call.run())
    in_backward = torch._C._current_graph_task_id() != -1
    call.hold(f"cublas workspace of {'backward' if in_backward else 'forward'}", workspace_bytes(call.gpu))
    return result


for _overload in _PRODUCTS:
    KERNELS[_overload] = _product
