"""Runs that recorded the peak of each phase and what was reserved: ``data/gpu_runs_t4.json``, LoRA and QLoRA steps on a Tesla T4.

The statements are those that the file's ``how`` tells, in its order: a step that warms up, one whose peak is the run's, and one whose
phases have peaks of their own. The outputs live until a step's function returns. Reserved counts since the process began.

A run is simulated once, the weights loaded one after another. Where a run's libraries load them in threads, what it asked of the allocator
is asked again with the weights in the orders that threads may bring them in: what was recorded is one of many numbers that could have been.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu_runs.loading import NUM_LOADS, SYNCHRONOUS_SINCE, threaded_load
from benchmarks.gpu_runs.requests import Requests
from benchmarks.gpu_runs.schema import Comparison, Run, Spread, gpu_of, is_before, model_type
from profiler.models.build import build_model
from profiler.optimizations.nf4_loading import load_in_4_bits, prepare_for_training
from profiler.simulate.session import Simulation
from profiler.spec import Model

_MEASURED = {
    "after_load": "after_load_allocated_bytes",
    "peak_forward": "peak_forward_bytes",
    "peak_backward": "peak_backward_bytes",
    "peak_optimizer": "peak_optimizer_bytes",
    "peak": "peak_allocated_bytes",
    "reserved": "peak_reserved_bytes",
}
"""The file's names of what was measured, by ours."""
_PRODUCT_ROTARY = "transformers before 5.18 computes rotary angles by a product of matrices, which makes the first cuBLAS workspace"
_KEEPS_CACHE = "peft before 0.20 leaves the allocator's cache as it is after turning what is not quantized into float32"
_THREADED_LOAD = "transformers before 5.4 brings weights to the GPU in threads while it quantizes, so that no two loads are the same"
_UNKNOWN_LIBRARIES = (
    "The versions recorded for this run name no bitsandbytes, without which nothing is loaded in 4 bits: they are of another environment. "
    "Modelled is the one that the other 4-bit runs name, transformers 5.0 and peft 0.19"
)
_UNORDERED_LOAD = (
    "Predicted is the median of what is possible. Which holes the quantized weights fall into, and so the slack of their blocks and what "
    "is reserved beside them, depends on which threads happened to be faster; a recorded run is one of these loads."
)


def is_recorded_by_phase(run: Run) -> bool:
    """Return whether a run has this schema."""
    return "peak_backward_bytes" in run["measured_bytes"]


def compare(run: Run) -> Comparison:
    """Simulate a run as it was recorded."""
    started = time.perf_counter()
    rules = _rules(run)
    requests = _requests(run, rules)
    measured = {name: run["measured_bytes"][key] for name, key in _MEASURED.items()}
    allowed = _allowed(measured, is_quantized=_is_quantized(run))
    if _THREADED_LOAD not in rules:
        return Comparison(run, requests.play(), measured, allowed, time.perf_counter() - started, rules)
    predicted, spreads = possible(requests, measured)
    return Comparison(run, predicted, measured, allowed, time.perf_counter() - started, rules, _UNORDERED_LOAD, spreads)


def possible(requests: Requests, measured: dict[str, int]) -> tuple[dict[str, int], dict[str, Spread]]:
    """Return the median of what a program with a load in threads may need, and how far apart it lies, by quantity."""
    loads = [requests.play(threaded_load(requests.weight_bytes, Random(seed))) for seed in range(NUM_LOADS)]
    found = {name: sorted(load[name] for load in loads) for name in measured}
    spreads = {name: Spread(values[0], values[-1], values.count(measured[name]), NUM_LOADS) for name, values in found.items()}
    return {name: values[NUM_LOADS // 2] for name, values in found.items()}, spreads


def _rules(run: Run) -> tuple[str, ...]:
    rules = (_PRODUCT_ROTARY,) * is_before(run, "transformers", (5, 18))
    if not _is_quantized(run):
        return rules
    if run["versions"].get("bitsandbytes") is None:
        return (*rules, _THREADED_LOAD, _KEEPS_CACHE, _UNKNOWN_LIBRARIES)
    threads = (_THREADED_LOAD,) * is_before(run, "transformers", SYNCHRONOUS_SINCE)
    return rules + threads + (_KEEPS_CACHE,) * is_before(run, "peft", (0, 20))


def _is_quantized(run: Run) -> bool:
    return bool(run["quantization"] == "nf4")


def _allowed(measured: dict[str, int], *, is_quantized: bool) -> dict[str, int]:
    shares = dict.fromkeys(measured, 0.005 if is_quantized else 0.001) | {"after_load": 0.0, "reserved": 0.01}
    return {name: int(shares[name] * num_bytes) for name, num_bytes in measured.items()}


def _requests(run: Run, rules: tuple[str, ...]) -> Requests:
    """Return what a run asks of its GPU's allocator, the weights one after another."""
    requests = Requests()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        simulation = stack.enter_context(Simulation(Path(folder) / "run.headroom", gpu_of(run)))
        if _PRODUCT_ROTARY in rules:
            stack.enter_context(_rotary_by_product(run))
        with requests.listening():
            if _is_quantized(run):
                model = _loaded_in_4_bits(run, simulation, requests, keeps_cache=_KEEPS_CACHE in rules)
            else:
                model = _built(run).to(simulation.device)
            _train(simulation.device, _adapted(model, run), run, requests)
        simulation.abandon()
    return requests


def _train(device: torch.device, model: nn.Module, run: Run, requests: Requests) -> None:
    requests.read("after_load", "allocated_bytes")
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-4, foreach=True)
    batch = torch.randint(run["model_config"]["vocab_size"], (run["batch"], run["seq_len"]), device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        outputs = model(input_ids=batch, labels=batch)
        outputs.loss.backward()
        optimizer.step()

    with _efficient_attention():
        step()
        requests.start_peaks()
        step()
        requests.read("peak", "peak_allocated_bytes")
        requests.read("reserved", "peak_reserved_bytes")
        _train_by_phase(model, optimizer, batch, requests)


def _train_by_phase(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Tensor, requests: Requests) -> None:
    optimizer.zero_grad(set_to_none=True)
    requests.start_peaks()
    outputs = model(input_ids=batch, labels=batch)
    requests.read("peak_forward", "peak_allocated_bytes")
    requests.start_peaks()
    outputs.loss.backward()
    requests.read("peak_backward", "peak_allocated_bytes")
    requests.start_peaks()
    optimizer.step()
    requests.read("peak_optimizer", "peak_allocated_bytes")


def _built(run: Run) -> Any:
    """Return the model in float16 on the host."""
    config = run["model_config"]
    values = {
        "model_type": model_type(run["model"]),
        "hidden_size": config["hidden_size"],
        "num_hidden_layers": config["num_layers"],
        "num_attention_heads": config["num_attention_heads"],
        "num_key_value_heads": config["num_kv_heads"],
        "intermediate_size": config["intermediate_size"],
        "vocab_size": config["vocab_size"],
        "tie_word_embeddings": config["tie_word_embeddings"],
        "max_position_embeddings": 8192,
    }
    attention = "eager" if run["attention"] == "eager" else "sdpa"
    return build_model(Model(name=config["name"], config=json.dumps(values)), torch.float16, attention=attention)


def _loaded_in_4_bits(run: Run, simulation: Simulation, requests: Requests, *, keeps_cache: bool) -> Any:
    """Return the model as from_pretrained leaves it on the GPU, prepared for training."""
    model: Any = load_in_4_bits(_built(run), simulation.device, before_weight=lambda weight: requests.begin_weight(weight.nbytes))
    requests.end_load()
    prepare_for_training(model)
    if not keeps_cache:
        torch.cuda.empty_cache()
    return model


def _adapted(model: Any, run: Run) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    from profiler.optimizations.nf4_lora import teach

    config = LoraConfig(
        r=run["lora_rank"], lora_alpha=run["lora_alpha"], lora_dropout=0.0, task_type="CAUSAL_LM", target_modules=run["lora_targets"]
    )
    adapted: Any = get_peft_model(model, teach(config))
    adapted.activation_checkpointing_enable({"use_reentrant": False})
    adapted.enable_input_require_grads()
    return adapted.train()


@contextmanager
def _efficient_attention() -> Iterator[None]:
    """Repeat keys and values for all heads before the efficient kernel, which the runs were pinned to."""
    attend = functional.scaled_dot_product_attention

    def repeated(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        groups = query.shape[-3] // key.shape[-3]
        if groups > 1:
            key, value = key.repeat_interleave(groups, dim=-3), value.repeat_interleave(groups, dim=-3)
            kwargs.pop("enable_gqa", None)
        return attend(query, key, value, *args, **kwargs)

    with patch.object(functional, "scaled_dot_product_attention", repeated), sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        yield


@contextmanager
def _rotary_by_product(run: Run) -> Iterator[None]:
    """Compute the rotary angles as transformers up to 5.17 did."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

    @torch.no_grad()
    def forward(rotary: Any, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        frequencies = rotary.inv_freq[None, :, None].float().expand(position_ids.shape[0], -1, 1)
        angles = (frequencies @ position_ids[:, None, :].float()).transpose(1, 2)
        both = torch.cat((angles, angles), dim=-1)
        cos, sin = both.cos() * rotary.attention_scaling, both.sin() * rotary.attention_scaling
        return cos.to(x.dtype), sin.to(x.dtype)

    with patch.object(LlamaRotaryEmbedding, "forward", forward), patch.object(Qwen2RotaryEmbedding, "forward", forward):
        yield
