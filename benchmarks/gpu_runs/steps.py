"""Runs that recorded weights, states and the peak of a step: ``data/gpu_runs.json``, an RTX A6000.

The statements are those that the file's ``how`` tells, in its order. Weights are what is allocated once the model is built, states what a
warm-up step leaves beside them, and the peak is the most of three further steps above both.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu_runs.schema import Comparison, Run, gpu_of, is_before, model_type
from profiler.errors import SpecError
from profiler.models.build import build_model
from profiler.simulate.session import Simulation
from profiler.spec import Model
from profiler.units import KIB

ALLOWED_BYTES = {"weights": 0, "states": 64 * KIB, "peak": 0, "total": 64 * KIB}
_NUM_MEASURED_STEPS = 3
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_OPTIMIZERS: dict[str, Any] = {"AdamW": torch.optim.AdamW, "Adam": torch.optim.Adam, "SGD": torch.optim.SGD}
_OLD_MASKS = "transformers before 5.0 makes the causal mask of every training batch without a cache"
_OLD_ROTARY = "transformers before 5.0 keeps one buffer of rotary frequencies, not two"


def compare(run: Run) -> Comparison:
    """Simulate a run as it was recorded."""
    started = time.perf_counter()
    is_old = is_before(run, "transformers", (5,))
    rules = (_OLD_ROTARY,) * is_old + (_OLD_MASKS,) * (is_old and run["workload"] == "train")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        simulation = stack.enter_context(Simulation(Path(folder) / "run.headroom", gpu_of(run)))
        if _OLD_MASKS in rules:
            stack.enter_context(_mask_made())
        if run["attention"] != "eager":
            stack.enter_context(sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]))
        weights, states, peak = _measured(run, simulation.device, _OLD_ROTARY in rules)
        simulation.abandon()
    predicted = {"weights": weights, "states": states, "peak": peak, "total": weights + states + peak}
    measured = {name: run["measured_bytes"][name] for name in ALLOWED_BYTES}
    return Comparison(run, predicted, measured, ALLOWED_BYTES, time.perf_counter() - started, rules)


def _measured(run: Run, device: torch.device, has_old_rotary: bool) -> tuple[int, int, int]:
    model = _built(run, has_old_rotary).to(device)
    if run["lora_rank"] is not None:
        model = _adapted(model, run["lora_rank"])
    if run["activation_checkpointing"]:
        enable: Any = model.activation_checkpointing_enable
        enable({"use_reentrant": False})
    weights = torch.cuda.memory_allocated()
    input_ids = torch.randint(run["arch"]["vocab_size"], (run["batch"], run["seq_len"]), device=device)
    if run["workload"] == "train":
        return weights, *_trained(run, model, input_ids, weights)
    with torch.inference_mode():
        model.eval()(input_ids, use_cache=True)
    return weights, 0, torch.cuda.max_memory_allocated() - weights


def _built(run: Run, has_old_rotary: bool) -> nn.Module:
    """Return the model on the host."""
    dtype = torch.float32 if _is_mixed(run) else _DTYPES[run["dtype"]]
    attention = "eager" if run["attention"] == "eager" else "sdpa"
    model = build_model(Model(name=run["model"], config=json.dumps(_config(run))), dtype, attention=attention)
    for module in model.modules():
        if has_old_rotary and "original_inv_freq" in module._buffers:
            del module._buffers["original_inv_freq"]  # it was a second name of the first, left behind on the host
    return model


def _adapted(model: nn.Module, rank: int) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=targets))


def _config(run: Run) -> dict[str, object]:
    arch = run["arch"]
    return {
        "model_type": model_type(run["model"]),
        "hidden_size": arch["hidden_size"],
        "num_hidden_layers": arch["num_layers"],
        "num_attention_heads": arch["num_heads"],
        "num_key_value_heads": arch["num_kv_heads"],
        "head_dim": arch["head_dim"],
        "intermediate_size": arch["intermediate_size"],
        "vocab_size": arch["vocab_size"],
        "tie_word_embeddings": arch["tie_word_embeddings"],
        "attention_bias": arch["attention_bias"],
        "max_position_embeddings": 131072,
        "use_sliding_window": False,
    }


def _trained(run: Run, model: nn.Module, input_ids: torch.Tensor, weights: int) -> tuple[int, int]:
    """Return states and peak."""
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = _optimizer(run, trained)

    def step() -> None:
        with torch.autocast("cuda", _DTYPES[run["dtype"]], enabled=_is_mixed(run)):
            outputs = model(input_ids=input_ids, labels=input_ids, use_cache=False)
            loss = outputs.loss
        loss.backward()
        del outputs, loss
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    step()
    resident = torch.cuda.memory_allocated()
    torch.cuda.empty_cache()  # the file does not tell of it, but without it two blocks of 501 MiB would lack 1 MiB of slack in a6000-09
    torch.cuda.reset_peak_memory_stats()
    for _ in range(_NUM_MEASURED_STEPS):
        step()
    return resident - weights, torch.cuda.max_memory_allocated() - resident


def _optimizer(run: Run, trained: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer that a run names, such as ``AdamW foreach``; without an implementation, the one torch takes on a GPU."""
    name, _, implementation = run["optimizer"].partition(" ")
    if name not in _OPTIMIZERS or implementation not in ("", "foreach", "fused", "for-loop"):
        raise SpecError(f"{run['id']} was trained with {run['optimizer']}, which is not modelled. There are {', '.join(_OPTIMIZERS)}.")
    made: torch.optim.Optimizer = _OPTIMIZERS[name](trained, foreach=implementation in ("", "foreach"), fused=implementation == "fused")
    return made


def _is_mixed(run: Run) -> bool:
    precision: str = run["precision"]
    return precision.startswith("amp")


@contextmanager
def _mask_made() -> Iterator[None]:
    """Let transformers find packed sequences in every training batch, as it did before 5.0: then it makes a mask.

    Up to 4.57, find_packed_sequence_indices (transformers/masking_utils.py) returned indices also where there is only one sequence.
    """

    def find_packed_sequence_indices(position_ids: torch.Tensor) -> torch.Tensor:
        steps = torch.diff(position_ids, prepend=position_ids[:, :1] - 1, dim=-1)
        return (steps != 1).cumsum(-1)

    with patch("transformers.masking_utils.find_packed_sequence_indices", find_packed_sequence_indices):
        yield
