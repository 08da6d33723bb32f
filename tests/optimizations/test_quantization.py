"""Quantization for inference: what the layers compute, what they take, and what is left as it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import nn

from profiler import read_recording
from profiler.analysis.summary import summarize
from profiler.capture.engine import capture_job
from profiler.devices import find_gpu
from profiler.errors import SimulationUnsupported, SpecError
from profiler.estimate.blocks import block_of
from profiler.estimate.quantization import FORMATS, quantized_linear_bytes
from profiler.models.build import build_model
from profiler.models.catalogue import entry, facts_of
from profiler.models.inputs import make_tokens
from profiler.optimizations.activation_quantization import Int8Dynamic
from profiler.optimizations.int4 import Int4Linear
from profiler.optimizations.quantization import QUANTIZATION, linear_names
from profiler.optimizations.registry import REGISTRY, setup_for, validate
from profiler.recording import Recording
from profiler.simulate.engine import simulate_job
from profiler.simulate.session import Simulation
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind
from profiler.tracing.notes import plain_tensors
from profiler.units import MIB
from tests.conftest import ROOT

CPU = torch.device("cpu")


def job(*toggles: str, model: str = "tiny-llama", kind: str = "decode", device: str = "cpu") -> Job:
    workload = Workload(kind=WorkloadKind(kind), batch=1, seq=24, new_tokens=2, steps=1, warmup_steps=0)
    return Job(model=Model(name=model), workload=workload, device=device, toggles=tuple(map(Toggle.parse, toggles)))


def simulated(wanted: Job, folder: Path) -> Recording:
    simulate_job(wanted, folder / "run.headroom")
    return read_recording(folder / "run.headroom")


def quantized(name: str, options: str = "", model: str = "tiny-llama") -> nn.Module:
    """Return a model with one of the toggles, the same random weights every time."""
    setup = setup_for(job(f"{name}{options}", model=model))
    assert setup.load is not None
    torch.manual_seed(0)
    return setup.load(build_model(Model(name=model)), CPU).eval()


@pytest.fixture
def gpu(tmp_path: Path) -> Iterator[Simulation]:
    with Simulation(tmp_path / "run.headroom", find_gpu("rtx-4090")) as simulation:
        yield simulation
        simulation.abandon()


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("int8", 0.03), ("float8", 0.1), ("int4", 0.3), ("nf4", 0.3), ("int8-dynamic", 0.04), ("int8-static", 0.06), ("int8-eager", 0.08)],
)
def test_a_quantized_model_answers_nearly_as_the_whole_one(name: str, allowed: float) -> None:
    torch.manual_seed(0)
    model, tokens = build_model(Model(name="tiny-llama")).eval(), torch.arange(2, 50).view(2, 24)
    with torch.inference_mode():
        whole, answer = model(tokens).logits, quantized(name)(tokens).logits
    error = float((answer - whole).norm() / whole.norm())
    assert 0 < error < allowed


@pytest.mark.parametrize(("group", "inputs", "outputs"), [(32, 96, 48), (64, 100, 20), (128, 256, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_four_bits_are_multiplied_as_they_would_be_unpacked(group: int, inputs: int, outputs: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(inputs, outputs, dtype=dtype)
    layer = Int4Linear(linear, group, for_cpu=True)
    with torch.inference_mode():
        unit = layer(torch.eye(inputs, dtype=dtype)) - linear.bias  # the weight as the kernel sees it, transposed
        given = torch.randn(2, 3, inputs, dtype=dtype)
        out = layer(given)
    steps = linear.weight.abs().max() * 2 / 15
    assert (unit.T - linear.weight).abs().max() <= steps * (0.51 if dtype is torch.float32 else 0.6)
    torch.testing.assert_close(out, nn.functional.linear(given, unit.T, linear.bias), rtol=0.02, atol=0.02)


def test_two_weights_lie_in_a_byte() -> None:
    layer = Int4Linear(nn.Linear(256, 32, bias=False), 64, for_cpu=True)
    assert layer.packed.nbytes == 256 * 32 // 2
    assert layer.scales_and_zeros.nbytes == 256 // 64 * 32 * 2 * 4


@pytest.mark.parametrize(("inputs", "outputs"), [(1024, 512), (100, 20), (1025, 8)])
def test_on_a_gpu_four_bits_are_padded_to_the_kernels_tiles(gpu: Simulation, inputs: int, outputs: int) -> None:
    linear = nn.Linear(inputs, outputs, bias=False).to(gpu.device)
    layer = Int4Linear(linear, 64, for_cpu=False)
    padded = -(-outputs // 8) * 8
    held = sum(parameter.nbytes for parameter in layer.parameters())
    assert held == quantized_linear_bytes(inputs, padded, "int4, groups of 64")
    assert layer(torch.zeros(3, 5, inputs, device=gpu.device)).shape == (3, 5, outputs)


PUBLISHED_GB = {"bfloat16": 15.01, "int8": 7.52, "float8": 7.51, "int4": 4.22}
"""Of Llama-3-8B without its embedding: torchao's table of December 2024 (quantization/README.md)."""
FORMAT_OF = {"bfloat16": "bfloat16", "int8": "int8", "float8": "float8", "int4": "int4, groups of 64"}


@pytest.mark.parametrize("name", ["bfloat16", "int8", "int4", pytest.param("float8", marks=pytest.mark.slow)])
def test_weights_of_llama_at_rest_are_the_published_ones_and_the_formulas_to_the_byte(gpu: Simulation, name: str) -> None:
    wanted = job("bfloat16", *{name} - {"bfloat16"}, model="llama-3-8b", device="rtx-4090")
    load = setup_for(wanted).load or nn.Module.to
    assert gpu.allocator is not None
    gpu.allocator.stats.start_peaks()
    model = load(build_model(wanted.model, torch.bfloat16), gpu.device)

    held = sum(tensor.nbytes for parameter in model.parameters() for tensor in plain_tensors(parameter))
    facts = entry("llama-3-8b").facts
    embedding, norms = 2 * facts.vocab_size * facts.hidden_size, 2 * (2 * facts.num_layers + 1) * facts.hidden_size
    layers = facts.num_layers * sum(quantized_linear_bytes(*sizes, FORMAT_OF[name]) for sizes in block_of(facts).linears.values())
    layers += quantized_linear_bytes(facts.hidden_size, facts.vocab_size, FORMAT_OF[name])
    assert held == embedding + norms + layers
    assert (held - embedding) / 1e9 == pytest.approx(PUBLISHED_GB[name], rel=0.005)
    largest = 4 * facts.vocab_size * facts.hidden_size
    assert gpu.allocator.stats.peak_allocated_bytes < held + 4.1 * largest, "the numbers of one layer at a time, never the whole model"


@pytest.mark.parametrize(("double", "name"), [("false", "nf4"), ("true", "nf4, double quantized")])
def test_nf4_takes_the_published_bytes_a_weight(double: str, name: str) -> None:
    model, whole = quantized("nf4", f":double={double}"), build_model(Model(name="tiny-llama"))
    names = [path for path in linear_names(whole, with_output=False)]
    held = sum(tensor.nbytes for path in names for tensor in model.get_submodule(path).state_dict().values())
    num_weights = sum(whole.get_submodule(path).get_parameter("weight").numel() for path in names)
    assert held / num_weights == pytest.approx(FORMATS[name].bits_per_weight / 8, rel=0.001)


def test_an_output_that_is_the_embedding_too_is_left_alone_and_what_changes_nothing_says_so(tmp_path: Path) -> None:
    assert "lm_head" in linear_names(build_model(Model(name="tiny-llama")), with_output=True)
    assert "lm_head" not in linear_names(build_model(Model(name="tiny-llama")), with_output=False)
    assert linear_names(build_model(Model(name="tiny-gpt2")), with_output=True) == []  # its other layers are of another kind
    plain = summarize(simulated(job(model="tiny-gpt2"), tmp_path))
    recording = simulated(job("int8", model="tiny-gpt2"), tmp_path)
    assert recording.metadata.facts["notes"] == ["0 layers changed: int8 quantizes linear layers, and tiny-gpt2 has none that it may."]
    assert summarize(recording)["peak_allocated_bytes"] == plain["peak_allocated_bytes"]


def test_layers_that_a_model_wants_whole_stay() -> None:
    names = linear_names(build_model(Model(name="tiny-t5")), with_output=True)
    assert names
    assert not [name for name in names if name.endswith(".wo")]
    loaded: Any = quantized("nf4", model="tiny-t5")
    assert type(loaded.encoder.block[0].layer[1].DenseReluDense.wo) is nn.Linear


def test_static_scales_are_the_largest_activations_of_the_calibrating_batch() -> None:
    model: Any = quantized("int8-static")
    seen: list[float] = []
    layer = model.model.layers[0].self_attn.q_proj
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].abs().max().item()))
    with torch.inference_mode():
        model(make_tokens(facts_of(Model(name="tiny-llama")), 1, 24, Random(0)))
    assert float(layer.weight.act_quant_scale) == pytest.approx(seen[0] / 127, rel=1e-5)
    assert layer.weight.act_quant_scale.shape == (1, 1, 1)


def test_integers_of_few_tokens_are_multiplied_in_float32_on_a_gpu(gpu: Simulation) -> None:
    linear = nn.Linear(2048, 2048, bias=False, dtype=torch.bfloat16)
    model = nn.Sequential(linear)
    Int8Dynamic().quantize(model, ["0"], gpu.device, {}, job("int8-dynamic"))
    transposed, in_float32 = 2048 * 2048, 4 * 2048 * 2048
    assert extra_bytes(gpu, model, num_tokens=4) == pytest.approx(transposed + in_float32, abs=MIB // 4)
    assert extra_bytes(gpu, model, num_tokens=64) == pytest.approx(transposed + 3 * 4 * 64 * 2048, abs=MIB)


def extra_bytes(gpu: Simulation, model: nn.Module, num_tokens: int) -> int:
    """Return what a forward allocates at most."""
    given = torch.zeros(num_tokens, 2048, dtype=torch.bfloat16, device=gpu.device)
    assert gpu.allocator is not None
    stats = gpu.allocator.stats
    with torch.inference_mode():
        model(given)  # the workspaces
        stats.start_peaks()
        start = stats.allocated_bytes
        model(given)
    return stats.peak_allocated_bytes - start


def test_packed_weights_leave_the_allocator_and_stay_in_the_resident_set(tmp_path: Path) -> None:
    with_it, without_it = job("int8-eager"), job()
    for name, wanted in (("with", with_it), ("without", without_it)):
        capture_job(wanted, tmp_path / f"{name}.headroom")
    recording = read_recording(tmp_path / "with.headroom")
    ours, plain = (
        summarize(item)["categories_at_peak"]["PARAMETER"] for item in (recording, read_recording(tmp_path / "without.headroom"))
    )
    model = build_model(Model(name="tiny-llama"))
    num_weights = sum(model.get_submodule(name).get_parameter("weight").numel() for name in linear_names(model, with_output=True))
    assert plain - ours == 4 * num_weights
    assert recording.metadata.facts["notes"][0].startswith(f"{num_weights:,} weights, a byte each, lie outside of torch's allocator")

    printed = subprocess.run([sys.executable, "-c", GROWTH], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert 32 * MIB <= int(printed.splitlines()[-1]) < 96 * MIB, "a byte a weight, of four, and what malloc keeps"


GROWTH = """
import gc, psutil, torch
from torch import nn
from profiler.optimizations.activation_quantization import Int8Eager
from profiler.spec import Job, Model

job = Job(model=Model(name="tiny-llama"))
Int8Eager().quantize(nn.Sequential(nn.Linear(8, 8, bias=False)), ["0"], torch.device("cpu"), {}, job)  # what is loaded once is no weight
before = psutil.Process().memory_info().rss
large = nn.Sequential(nn.Linear(4096, 4096, bias=False), nn.Linear(4096, 4096, bias=False))
Int8Eager().quantize(large, ["0", "1"], torch.device("cpu"), {}, job)
gc.collect()
assert not list(large.parameters())
print(psutil.Process().memory_info().rss - before)
"""


@pytest.mark.parametrize("name", [item.name for item in REGISTRY.values() if item.family is QUANTIZATION])
def test_training_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=f"{name} has no effect in train: quantization is for decode or prefill"):
        validate(job(name, kind="train"))


def test_what_cannot_be_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="int8-eager applies to linear layers on CPUs, and the device is rtx-4090. Choose the device cpu"):
        validate(job("int8-eager", device="rtx-4090"))
    with pytest.raises(SpecError, match="int8-eager quantizes float32, and the other is another precision. Use int8-dynamic"):
        validate(job("int8-eager", "bfloat16"))
    with pytest.raises(SimulationUnsupported, match="int8-eager can only be measured, and this run would be simulated"):
        simulated(job("int8-eager"), tmp_path)
    with pytest.raises(SpecError, match="nf4 applies to linear layers but the output of transformers, and tiny-lstm is recurrent"):
        validate(job("nf4", model="tiny-lstm"))
    with pytest.raises(SpecError, match="int4 and int8 are both switched on"):
        validate(job("int4", "int8"))
