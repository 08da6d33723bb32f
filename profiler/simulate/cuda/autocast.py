"""``torch.autocast`` on the simulated GPU: which arguments CUDA's lists cast, to what, and which casts are kept.

Torch casts above autograd, by dispatch key: operators of the lists have a kernel under AutocastCUDA, which casts and calls again without
the key. Those kernels look for CUDA tensors; here they are replaced by ones that look for the GPU's fake tensors, and the key is made to
apply to them. Everything else is torch's own: the state, its nesting, when the cache is dropped.

Sources: aten/src/ATen/autocast_mode.h and .cpp, torch/amp/autocast_mode.py, torch 2.13. That the lists name every operator that torch
registers is tested.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from enum import Enum, auto
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.amp import autocast_mode

from profiler.devices import Gpu

_KEY = torch._C.DispatchKey.AutocastCUDA
_KEYS = torch._C.DispatchKeySet(_KEY)
_AMPERE = (8, 0)
"""The first compute capability with bfloat16 in hardware; before it is emulated (torch/cuda/__init__.py, is_bf16_supported)."""


class Policy(Enum):
    """What happens to the arguments of a listed operator. ``CastPolicy`` in torch, but for the last."""

    LOWER_PRECISION = auto()
    """All are cast to the dtype of the region."""
    FLOAT32 = auto()
    """All are cast to float32."""
    FLOAT32_RESULT = auto()
    """A result in float32 is asked for, where the caller asks for no other; the argument stays as it is."""
    FLOAT32_OVERLOAD = auto()
    """The same, of operators that are asked through another overload."""
    WIDEST = auto()
    """All are cast to the widest dtype among them."""
    REFUSED = auto()
    """The operator is unsafe in half precision."""


_LISTS = {
    Policy.LOWER_PRECISION: """
        _convolution.deprecated _convolution conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d.input conv_transpose3d.input
        convolution cudnn_convolution cudnn_convolution_transpose prelu addmm addmv addr matmul einsum mm mv linalg_vecdot linear addbmm
        baddbmm bmm chain_matmul linalg_multi_dot _thnn_fused_lstm_cell _thnn_fused_gru_cell lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell
        _scaled_dot_product_flash_attention scaled_dot_product_attention""",
    Policy.FLOAT32: """
        acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar
        softplus layer_norm native_layer_norm rms_norm group_norm frobenius_norm.dim nuclear_norm nuclear_norm.dim cosine_similarity
        poisson_nll_loss cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss kl_div l1_loss smooth_l1_loss huber_loss mse_loss
        margin_ranking_loss multilabel_margin_loss soft_margin_loss triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits
        dist pdist cdist renorm logsumexp upsample_nearest1d _upsample_nearest_exact1d upsample_nearest2d _upsample_nearest_exact2d
        upsample_nearest3d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa upsample_trilinear3d
        upsample_bicubic2d _upsample_bicubic2d_aa""",
    Policy.FLOAT32_RESULT: """
        prod prod.dim_int softmax.int log_softmax.int cumprod cumsum linalg_vector_norm linalg_matrix_norm linalg_matrix_norm.str_ord sum
        sum.dim_IntList""",
    Policy.FLOAT32_OVERLOAD: "norm.Scalar norm.ScalarOpt_dim",
    Policy.WIDEST: "addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add",
    Policy.REFUSED: "binary_cross_entropy",
}
_SINCE = {"rms_norm": (2, 12)}
"""The version of torch that listed an operator, where it is newer than the oldest version that is modelled, 2.4."""
_KEEPS_NONE_IN_INFERENCE_SINCE = (2, 11)
"""From this version of torch on, inference mode casts a weight at every use (pytorch/pytorch#165068, December 2025)."""
_OVERLOADS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "norm.Scalar": (torch.ops.aten.norm.ScalarOpt_dtype, (None, 2)),
    "norm.ScalarOpt_dim": (torch.ops.aten.norm.ScalarOpt_dim_dtype, (None, None, None, False)),
}
"""The overload that takes a dtype, and the defaults of the arguments that the other one may leave out."""


def policies(version: str = torch.__version__) -> dict[str, Policy]:
    """Return the policy of every operator that CUDA's autocast knows, as ``name`` or ``name.overload``.

    Args:
        version: of torch, such as ``2.13.0+cpu``.
    """
    every = {name: policy for policy, names in _LISTS.items() for name in names.split()}
    return {name: policy for name, policy in every.items() if _SINCE.get(name, (0, 0)) <= _release(version)}


def keeps_casts_in_inference(version: str = torch.__version__) -> bool:
    """Tell whether casts of weights are kept in inference mode, by the version of torch."""
    return _release(version) < _KEEPS_NONE_IN_INFERENCE_SINCE


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


class CudaAutocast(AbstractContextManager["CudaAutocast"]):
    """Makes ``torch.autocast("cuda")`` act on the simulated GPU's tensors in its ``with`` block.

    A program that asks a tensor for its device's type is told "cpu" here and would be told "cuda" by a GPU: both words name the GPU's state
    in the block. Tensors of the host are never cast.

    Args:
        gpu: the card.
        device: where its fake tensors live.
        version: of torch, whose lists apply.
    """

    def __init__(self, gpu: Gpu, device: torch.device, version: str = torch.__version__) -> None:
        self._gpu = gpu
        self._device = device
        self._policies = policies(version)
        self._keeps_in_inference = keeps_casts_in_inference(version)
        self._functions = {name.partition(".")[0]: policy for name, policy in self._policies.items()}
        self._casts: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}
        """The weights' casts, by identity of the weight."""
        self._running = ExitStack()

    def __enter__(self) -> CudaAutocast:
        for patched in _patches(self._gpu, self._casts.clear):
            self._running.enter_context(patched)
        self._running.enter_context(self._registered())
        self._running.enter_context(torch._C._IncludeDispatchKeyGuard(_KEY))
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def call(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call what stands in for the torch function ``name``, with the arguments that autocast would give it.

        For calls that are answered above the dispatcher, where torch's own casts come too late.
        """
        policy = self._functions.get(name)
        if policy is None or not torch.is_autocast_enabled("cuda"):
            return function(*args, **kwargs)
        return self._run(policy, function, args, kwargs)

    @contextmanager
    def _registered(self) -> Iterator[None]:
        library: Any = torch.library.Library("aten", "IMPL", _KEY.name)  # type: ignore[no-untyped-call]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that its own kernels are replaced, which is the point
            for name, policy in self._policies.items():
                library.impl(name, self._kernel(name, policy), _KEY.name)
        try:
            yield
        finally:
            library._destroy()  # torch's own are there again

    def _kernel(self, name: str, policy: Policy) -> Callable[..., Any]:
        packet, _, overload = name.partition(".")
        operator = getattr(getattr(torch.ops.aten, packet), overload or "default")

        def run(*args: Any, **kwargs: Any) -> Any:
            if policy is Policy.FLOAT32_OVERLOAD:
                return self._run(policy, *_with_dtype(name, args))
            return self._run(policy, operator, args, kwargs)

        return run

    def _run(self, policy: Policy, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_KEYS):
            if policy is Policy.REFUSED:
                raise RuntimeError("CUDA refuses binary_cross_entropy in an autocast region. Use binary_cross_entropy_with_logits.")
            if policy is Policy.FLOAT32_RESULT:
                return function(*args, **self._asking_for_float32(args, kwargs))
            if policy is Policy.FLOAT32_OVERLOAD:
                dtype = torch.float32 if self._is_eligible(args[0]) else args[0].dtype
                return function(*args, **kwargs, dtype=dtype)
            dtype = torch.float32 if policy is Policy.FLOAT32 else torch.get_autocast_dtype("cuda")
            if policy is Policy.WIDEST:
                dtype = self._widest(dtype, [*args, *kwargs.values()])
            return function(*(self._cast(value, dtype) for value in args), **{key: self._cast(kwargs[key], dtype) for key in kwargs})

    def _is_eligible(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.is_floating_point() and value.dtype is not torch.float64 and value.device == self._device

    def _asking_for_float32(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        is_asked = kwargs.get("dtype") is not None or any(isinstance(value, torch.dtype) for value in args)
        return {**kwargs} if is_asked or not self._is_eligible(args[0]) else {**kwargs, "dtype": torch.float32}

    def _widest(self, dtype: torch.dtype, values: list[Any]) -> torch.dtype:
        for value in values:
            for tensor in value if isinstance(value, (list, tuple)) else [value]:
                if not self._is_eligible(tensor):
                    continue
                if torch.float32 in (dtype, tensor.dtype):
                    dtype = torch.float32
                elif tensor.dtype is not dtype:
                    raise RuntimeError(f"CUDA refuses to mix {tensor.dtype} with the {dtype} of the autocast region in this operator.")
        return dtype

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if isinstance(value, (list, tuple)):
            return [self._cast(item, dtype) for item in value]
        if not self._is_eligible(value) or value.dtype is dtype:
            return value
        if not (_is_weight(value) and dtype is torch.get_autocast_dtype("cuda") and self._keeps_casts()):
            return value.to(dtype)
        weight, cast = self._casts.get(id(value), (None, None))
        if weight is None or weight() is not value:
            with torch.enable_grad():  # kept for uses with gradients, too
                cast = value.to(dtype)
            self._casts[id(value)] = weakref.ref(value), cast
        return cast

    def _keeps_casts(self) -> bool:
        return torch.is_autocast_cache_enabled() and (self._keeps_in_inference or not torch.is_inference_mode_enabled())


def _is_weight(tensor: Tensor) -> bool:
    return tensor.dtype is torch.float32 and tensor.requires_grad and tensor.is_leaf and not tensor._is_view()


def _with_dtype(name: str, args: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    function, defaults = _OVERLOADS[name]
    return function, (*args, *defaults[len(args) :]), {}


def _patches(gpu: Gpu, forget: Callable[[], None]) -> Iterator[AbstractContextManager[Any]]:
    """Yield what makes the program's own words for autocast reach the GPU's state.

    Args:
        gpu: the card.
        forget: drops the casts that are kept.
    """
    clear = torch.clear_autocast_cache

    def clear_all() -> None:
        clear()
        forget()

    def supports_bfloat16(including_emulation: bool = True) -> bool:
        return including_emulation or gpu.compute_capability >= _AMPERE

    yield patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    yield patch("torch.cuda.is_bf16_supported", supports_bfloat16)
    yield patch.object(torch, "clear_autocast_cache", clear_all)
    for name in ("is_autocast_enabled", "get_autocast_dtype", "set_autocast_enabled", "set_autocast_dtype"):
        yield patch.object(torch, name, _on_gpu(getattr(torch, name)))
    initialize, cast = autocast_mode.autocast.__init__, autocast_mode._cast
    yield patch.object(
        autocast_mode.autocast, "__init__", lambda self, device_type, *args, **kwargs: initialize(self, _gpus(device_type), *args, **kwargs)
    )
    # custom_fwd's casts compare the word with a tensor's device, which is "cpu" here
    yield patch.object(autocast_mode, "_cast", lambda value, word, dtype: cast(value, "cpu" if word == "cuda" else word, dtype))


def _on_gpu(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        return function(*map(_gpus, args))

    return call


def _gpus(word: Any) -> Any:
    return "cuda" if word == "cpu" else word
