"""Layers of 4-bit weights: their values on the CPU, their bytes as bitsandbytes allocates them on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from profiler.devices import find_gpu
from profiler.estimate.quantization import FORMATS
from profiler.models.build import build_model
from profiler.optimizations.nf4 import Nf4Linear, dequantize_nf4, quantize_nf4
from profiler.optimizations.nf4_loading import load_in_4_bits, prepare_for_training
from profiler.simulate.session import Simulation
from profiler.spec import Model

CPU = torch.device("cpu")
MIB = 1 << 20


@pytest.fixture
def gpu(tmp_path: Path) -> Iterator[Simulation]:
    with Simulation(tmp_path / "run.headroom", find_gpu("t4")) as simulation:
        yield simulation
        simulation.abandon()


def test_a_level_times_its_scale_survives_exactly() -> None:
    weight = torch.zeros(2, 64)
    weight[0, :4] = torch.tensor([3.0, -3.0, 0.0, 3.0 * 0.33791524])
    weight[1, 0] = -0.5
    scales, packed = quantize_nf4(weight)
    assert scales.tolist() == [3.0, 0.5]
    assert packed[:2, 0].tolist() == [15 * 16 + 0, 7 * 16 + 11]  # two codes a byte, the first in the high half
    torch.testing.assert_close(dequantize_nf4(packed, scales, [2, 64], torch.float32), weight)


@pytest.mark.parametrize("shape", [(96, 200), (5, 7), (1, 64), (70, 4096)])
def test_no_weight_moves_further_than_half_the_widest_gap_between_levels(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape)
    scales, packed = quantize_nf4(weight)
    restored = dequantize_nf4(packed, scales, list(shape), torch.float32)
    allowed = scales.repeat_interleave(64)[: weight.numel()].view(shape) * (1.0 - 0.6961928) / 2
    assert restored.shape == weight.shape
    assert ((restored - weight).abs() <= allowed * 1.0001).all()
    assert (restored - weight).abs().mean() < 0.15 * weight.abs().mean()


@pytest.mark.parametrize("double_quant", [False, True])
def test_the_product_is_that_of_the_unpacked_weight(double_quant: bool) -> None:
    torch.manual_seed(0)
    layer = Nf4Linear(nn.Linear(128, 48), CPU, torch.float32, double_quant=double_quant)
    for tokens in (3, 30):  # one kernel, and unpacked first
        given = torch.randn(tokens, 128, requires_grad=True)
        out = layer(given)
        weight = layer.dequantized(torch.float32)
        torch.testing.assert_close(out, nn.functional.linear(given, weight, layer.bias))
        out.sum().backward()
        assert given.grad is not None
        torch.testing.assert_close(given.grad, weight.sum(0).expand(tokens, -1))


def test_double_quantization_moves_the_weights_little() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(1024, 64)
    plain, double = (Nf4Linear(linear, CPU, torch.float32, double_quant=value).dequantized(torch.float32) for value in (False, True))
    assert 0 < (plain - double).abs().mean() < 0.01 * plain.abs().mean()


@pytest.mark.parametrize(("double_quant", "name"), [(False, "nf4"), (True, "nf4, double quantized")])
def test_bytes_are_those_of_the_formula_plus_the_tables(double_quant: bool, name: str) -> None:
    layer = Nf4Linear(nn.Linear(1024, 1024, bias=False), CPU, torch.float16, double_quant=double_quant)
    tables = 64 + double_quant * (1024 + 4)  # 16 levels; 256 values of the scales, and their mean
    stored = layer.weight.nbytes + sum(buffer.nbytes for buffer in layer.buffers())
    assert stored - tables == 1024 * 1024 * FORMATS[name].bits_per_weight / 8


def test_a_product_holds_the_unpacked_weight_for_a_moment_in_forward_and_in_backward(gpu: Simulation) -> None:
    layer = Nf4Linear(nn.Linear(2048, 2048, bias=False, dtype=torch.float16), gpu.device, torch.float16)
    given = torch.empty(512, 2048, dtype=torch.float16, device=gpu.device, requires_grad=True)
    layer(given).sum().backward()  # the workspaces
    given.grad = None
    assert gpu.allocator is not None
    stats = gpu.allocator.stats
    stats.start_peaks()
    start = stats.allocated_bytes
    out = layer(given)
    assert stats.peak_allocated_bytes - start == 8 * MIB + 2 * MIB  # the weight in float16, and the result
    assert stats.allocated_bytes - start == 2 * MIB
    stats.start_peaks()
    out.backward(torch.empty_like(out))
    assert stats.peak_allocated_bytes - start == 2 * MIB + 2 * MIB + 8 * MIB + 2 * MIB  # result, its gradient, the weight, the input's


def test_a_few_tokens_are_multiplied_without_unpacking(gpu: Simulation) -> None:
    layer = Nf4Linear(nn.Linear(2048, 2048, bias=False, dtype=torch.float16), gpu.device, torch.float16)
    assert gpu.allocator is not None
    gpu.allocator.stats.start_peaks()
    start = gpu.allocator.stats.allocated_bytes
    out = layer(torch.empty(4, 2048, dtype=torch.float16, device=gpu.device))
    assert gpu.allocator.stats.peak_allocated_bytes - start == 2 * out.nbytes


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-gpt2", "tiny-bert"])
def test_a_models_linear_layers_are_loaded_in_4_bits_but_for_its_output(model: str) -> None:
    built = build_model(Model(name=model), torch.float16)
    linears = [name for name, module in built.named_modules() if isinstance(module, (nn.Linear, Conv1D))]
    loaded: Any = load_in_4_bits(built, CPU)
    prepare_for_training(loaded)
    assert len(linears) > 4 * 4
    for name in linears:
        module = loaded.get_submodule(name)
        is_output = module is loaded.get_output_embeddings()
        assert (type(module) is Nf4Linear) != (is_output or name.startswith("cls.predictions.decoder"))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.uint8, torch.float32}
    assert loaded(input_ids=torch.ones(1, 8, dtype=torch.int64)).logits.isfinite().all()


def test_weights_with_inputs_first_are_turned_around() -> None:
    torch.manual_seed(0)
    layer = Conv1D(48, 128)
    quantized = Nf4Linear(layer, CPU, torch.float32)
    given = torch.randn(30, 128)
    assert quantized.shape == [48, 128]
    torch.testing.assert_close(quantized(given), layer(given), atol=0.1, rtol=0.1)


def test_adapters_learn_beside_4_bit_weights() -> None:
    from peft import LoraConfig, get_peft_model

    from profiler.optimizations.nf4_lora import Nf4Lora, teach

    torch.manual_seed(0)
    model = nn.Sequential(Nf4Linear(nn.Linear(64, 64), CPU, torch.float32), nn.ReLU(), nn.Linear(64, 1))
    prepare_for_training(model)
    adapted = get_peft_model(model, teach(LoraConfig(r=4, target_modules=["0"])))
    assert any(isinstance(module, Nf4Lora) for module in adapted.modules())
    optimizer = torch.optim.SGD([parameter for parameter in adapted.parameters() if parameter.requires_grad], lr=0.1)
    given, wanted = torch.randn(32, 64), torch.randn(32, 1)
    losses = []
    for _ in range(20):
        loss = nn.functional.mse_loss(adapted(given), wanted)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
