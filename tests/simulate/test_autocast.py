"""CUDA's autocast on fake tensors: the lists against torch's own registrations, and casts by bytes counted by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from profiler.devices import GPUS
from profiler.simulate.cuda.autocast import _LISTS, Policy, keeps_casts_in_inference, policies
from profiler.simulate.session import Simulation

SIZE = 1024
WEIGHT_BYTES = SIZE * SIZE * 4


@pytest.fixture
def simulation(tmp_path: Path) -> Iterator[Simulation]:
    with Simulation(tmp_path / "run.headroom", GPUS["rtx-a6000"]) as simulation:
        yield simulation


def allocated(simulation: Simulation) -> int:
    assert simulation.allocator is not None
    return simulation.allocator.stats.requested_bytes


def matrix(simulation: Simulation, dtype: torch.dtype = torch.float32, **kwargs: Any) -> Tensor:
    return torch.empty(SIZE, SIZE, dtype=dtype, device=simulation.device, **kwargs)


def test_the_lists_name_every_operator_that_torch_casts_on_cuda() -> None:
    registered = {
        name.removeprefix("aten::")
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("aten::") and torch._C._dispatch_has_kernel_for_dispatch_key(name, "AutocastCUDA")
    }
    assert set(policies(torch.__version__)) == registered


@pytest.mark.parametrize(
    ("macro", "policy"),
    [
        ("LOWER_PRECISION_FP", Policy.LOWER_PRECISION),
        ("FP32", Policy.FLOAT32),
        ("FP32_SET_OPT_DTYPE", Policy.FLOAT32_RESULT),
        ("PROMOTE", Policy.WIDEST),
    ],
)
def test_each_list_is_that_of_the_header_of_the_installed_torch(macro: str, policy: Policy) -> None:
    header = Path(torch.__file__).parent / "include/ATen/autocast_mode.h"
    body = re.search(rf"#define AT_FORALL_{macro}\(_\)(.*?)\n\n", header.read_text(encoding="utf-8"), re.DOTALL)
    assert body
    listed = {".".join(found.split(", ")) for found in re.findall(r"_\((\w+(?:, \w+)?)\)", body[1])}
    assert {*_LISTS[policy].split()} - {"cudnn_convolution", "cudnn_convolution_transpose"} == listed


def test_the_root_mean_square_norm_is_listed_since_torch_2_12() -> None:
    assert "rms_norm" not in policies("2.11.1+cu128")
    assert policies("2.12.0")["rms_norm"] is Policy.FLOAT32


def test_a_product_runs_in_the_regions_dtype_and_a_norm_in_float32(simulation: Simulation) -> None:
    x, weight = matrix(simulation), matrix(simulation)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        product = functional.linear(x, weight)
        assert product.dtype is torch.bfloat16
        assert functional.layer_norm(product, (SIZE,)).dtype is torch.float32
        assert (product + x).dtype is torch.float32  # in no list: torch's own promotion
        assert functional.gelu(product).dtype is torch.bfloat16
        assert torch.softmax(product, -1).dtype is torch.float32
        assert torch.softmax(product, -1, dtype=torch.float16).dtype is torch.float16
        assert product.sum().dtype is torch.float32
        assert torch.atan2(product, x).dtype is torch.float32
        assert torch.einsum("ij,kj->ik", x, x).dtype is torch.bfloat16
        assert functional.linear(x.double(), weight.double()).dtype is torch.float64
    assert functional.linear(x, weight).dtype is torch.float32


def test_operators_inside_of_others_are_cast_as_the_dispatcher_meets_them(simulation: Simulation) -> None:
    logits = matrix(simulation, torch.bfloat16)
    targets = torch.zeros(SIZE, dtype=torch.long, device=simulation.device)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        # cross_entropy is in no list of CUDA: its log_softmax keeps the logits' dtype, its nll_loss runs in float32
        assert functional.cross_entropy(logits, targets).dtype is torch.float32


def test_the_default_dtype_is_cudas(simulation: Simulation) -> None:
    with torch.autocast("cuda"):
        assert functional.linear(matrix(simulation), matrix(simulation)).dtype is torch.float16


def test_a_weight_is_cast_once_and_the_cast_lives_until_the_outermost_region_ends(simulation: Simulation) -> None:
    weight, x = nn.Parameter(matrix(simulation)), matrix(simulation, torch.bfloat16)
    with torch.no_grad():
        functional.linear(x, x)  # what cuBLAS keeps is there
        before = allocated(simulation)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            with torch.autocast("cuda", dtype=torch.bfloat16):
                functional.linear(x, weight)
                assert allocated(simulation) - before == WEIGHT_BYTES // 2
            functional.linear(x, weight)
            assert allocated(simulation) - before == WEIGHT_BYTES // 2
        assert allocated(simulation) == before


@pytest.mark.parametrize("case", ["frozen", "no cache", "a view", "not a leaf"])
def test_what_is_no_trained_leaf_is_cast_anew_and_not_kept(simulation: Simulation, case: str) -> None:
    weight, x = nn.Parameter(matrix(simulation), requires_grad=case != "frozen"), matrix(simulation, torch.bfloat16)
    used = weight[:] if case == "a view" else weight * 1 if case == "not a leaf" else weight
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=case != "no cache"):
        functional.linear(x, x)
        before = allocated(simulation)
        functional.linear(x, used)
        assert allocated(simulation) == before


def test_casts_pass_gradients_in_the_weights_own_dtype(simulation: Simulation) -> None:
    weight, x = nn.Parameter(matrix(simulation)), matrix(simulation)
    for _ in range(2):  # the second time what cuBLAS keeps is there
        weight.grad = None
        before = allocated(simulation)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = functional.linear(x, weight).sum()
        # the input's cast is saved; the weight's only served the product, and the sum asks for nothing
        after_forward = allocated(simulation) - before
        loss.backward()
        after_backward = allocated(simulation) - before
        del loss
    assert after_forward == WEIGHT_BYTES // 2 + 4
    assert weight.grad is not None
    assert weight.grad.dtype is torch.float32
    assert after_backward == WEIGHT_BYTES + 4


def test_regions_are_named_by_the_word_that_a_tensor_says_too(simulation: Simulation) -> None:
    x = matrix(simulation)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert torch.is_autocast_enabled(x.device.type)
        assert torch.get_autocast_dtype(x.device.type) is torch.bfloat16
        with torch.autocast(x.device.type, enabled=False):
            assert not torch.is_autocast_enabled("cuda")
            assert functional.linear(x, x).dtype is torch.float32
        assert functional.linear(x, x).dtype is torch.bfloat16
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        assert functional.linear(x, x).dtype is torch.bfloat16


def test_tensors_of_the_host_are_left_alone(simulation: Simulation) -> None:
    x = torch.empty(4, 4)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert functional.linear(x, x).dtype is torch.float32


def test_attention_casts_queries_keys_values_and_a_mask_of_numbers(simulation: Simulation) -> None:
    q = torch.empty(1, 2, 64, 64, device=simulation.device)
    mask = torch.empty(64, 64, device=simulation.device)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert functional.scaled_dot_product_attention(q, q, q, attn_mask=mask).dtype is torch.bfloat16
        assert functional.scaled_dot_product_attention(q, q, q, is_causal=True).dtype is torch.bfloat16


INFERENCE_MODE = torch.inference_mode  # a simulation puts another there, which a decorator of before does not see


@pytest.mark.parametrize("mode", ["torch.inference_mode", "its decorator"])
def test_inference_mode_casts_too_and_keeps_no_cast(simulation: Simulation, mode: str) -> None:
    weight, x = nn.Parameter(matrix(simulation)), matrix(simulation)
    with torch.inference_mode() if mode == "torch.inference_mode" else INFERENCE_MODE(), torch.autocast("cuda", dtype=torch.bfloat16):
        assert torch.softmax(x.bfloat16(), -1).dtype is torch.float32
        assert functional.linear(x, x).dtype is torch.bfloat16
        before = allocated(simulation)
        functional.linear(x, weight)
        assert allocated(simulation) == before
    assert not keeps_casts_in_inference("2.13.0+cpu")
    assert keeps_casts_in_inference("2.9.1")


def test_a_norm_that_is_asked_for_by_an_overload_answers_in_float32(simulation: Simulation) -> None:
    x = matrix(simulation, torch.bfloat16)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert torch.ops.aten.norm.Scalar(x).dtype is torch.float32
        assert torch.ops.aten.norm.ScalarOpt_dim(x, 2, [0]).shape == (SIZE,)
        assert torch.ops.aten.norm.ScalarOpt_dim(x, 2, [0], True).dtype is torch.float32


def test_what_cuda_refuses_is_refused(simulation: Simulation) -> None:
    x = matrix(simulation, torch.float16)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        with pytest.raises(RuntimeError, match="Use binary_cross_entropy_with_logits"):
            functional.binary_cross_entropy(x, x)
        with pytest.raises(RuntimeError, match="refuses to mix"):
            torch.dot(x[0], x[0].bfloat16())


class Doubled(torch.autograd.Function):
    seen: torch.dtype

    @staticmethod
    @custom_fwd(device_type="cuda", cast_inputs=torch.float32)
    def forward(ctx: Any, x: Tensor) -> Tensor:
        Doubled.seen = x.dtype
        assert not torch.is_autocast_enabled("cuda")
        return 2 * x

    @staticmethod
    @custom_bwd(device_type="cuda")
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


def test_a_function_that_asks_for_float32_gets_it(simulation: Simulation) -> None:
    x = matrix(simulation, torch.bfloat16, requires_grad=True)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        Doubled.apply(x).sum().backward()
    assert Doubled.seen is torch.float32


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_checkpoint_recomputes_in_the_region_of_its_forward(simulation: Simulation, use_reentrant: bool) -> None:
    seen = []
    weight, x = nn.Parameter(matrix(simulation)), matrix(simulation, requires_grad=True)

    def block(value: Tensor) -> Tensor:
        seen.append(functional.linear(value, weight).dtype)
        return functional.linear(value, weight)

    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = checkpoint(block, x, use_reentrant=use_reentrant).sum()
    loss.backward()
    assert seen == [torch.bfloat16, torch.bfloat16]


def test_bfloat16_is_emulated_before_ampere(tmp_path: Path) -> None:
    with Simulation(tmp_path / "run.headroom", GPUS["t4"]):
        assert torch.cuda.is_bf16_supported()
        assert not torch.cuda.is_bf16_supported(including_emulation=False)


def test_after_the_simulation_torch_is_as_before(tmp_path: Path) -> None:
    before = torch.is_autocast_enabled, torch.clear_autocast_cache, torch.autocast.__init__
    with Simulation(tmp_path / "run.headroom", GPUS["rtx-a6000"]):
        assert torch.is_autocast_enabled is not before[0]
    assert (torch.is_autocast_enabled, torch.clear_autocast_cache, torch.autocast.__init__) == before
    assert "autocast_mode.cpp" in torch._C._dispatch_dump("aten::mm").split("AutocastCUDA:")[1].split("\n")[0]
    with pytest.warns(UserWarning, match="CUDA is not available"):
        assert not torch.autocast("cuda")._enabled
