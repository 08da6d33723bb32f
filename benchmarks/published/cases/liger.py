"""Liger-Kernel's benchmark of operators: the rows of plain PyTorch and transformers, simulated on the card that they were measured on.

Recipe, from the repository's benchmark/scripts of version 0.2.1 (0.4.2 for the language-model head, 0.7.0 for group norm): build both
implementations where the script does, run ten steps without ever clearing ``.grad``, each with its own peak of
``torch.cuda.max_memory_allocated()``; the table has the median in MiB, which went through a tensor of float32. All sizes and modes of a
script run in one process, so that cuBLAS has its workspaces from the sizes before.

The embedding's rows are compared as differences: its script runs compiled models first, whose leftovers (12,240 MiB with 768 numbers a
token, 13,770 MiB with 4,096) are in every one of its numbers. Left out is what Liger's own kernels hold (the rows ``liger``), which no
simulation of PyTorch's operators can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaMLP, apply_rotary_pos_emb

from benchmarks.published.simulated import Script, peak_allocated_bytes
from benchmarks.published.table import EXACT, Published, Row
from profiler.recording import Provenance
from profiler.units import MIB

Config = Mapping[str, Any]

_GPUS = {"NVIDIA A100-SXM4-80GB": "a100-80gb", "NVIDIA H100 80GB HBM3": "h100-80gb", "NVIDIA B200": "b200"}


def rows(published: Published) -> Iterator[Row]:
    """Yield every row of an operator that `PROGRAMS` has, and the embedding's differences."""
    for identity in published.ids("liger-"):
        kernel, provider = identity.removeprefix("liger-").split("-")[:2]
        if kernel in PROGRAMS and provider == "huggingface":
            ours = as_published(simulated_bytes(kernel, published.entry(identity)["config"]))
            yield from published.row(identity, ours, EXACT, provenance=Provenance.SIMULATED)
    for suffix in ("", "-2"):
        yield from _embeddings(published, suffix)


def as_published(num_bytes: int) -> float:
    """Return MiB, rounded to float32 as the source's are."""
    return torch.tensor(num_bytes / MIB, dtype=torch.float32).item()


def simulated_bytes(kernel: str, config: Config) -> int:
    """Return the peak of a benchmark's step.

    Args:
        kernel: its name, one of `PROGRAMS`, or ``embedding``.
        config: as the entries have it.
    """
    program = _embedding if kernel == "embedding" else PROGRAMS[kernel]
    return peak_allocated_bytes(_GPUS[config["gpu"]], lambda device: program(config, device))


def _embeddings(published: Published, suffix: str) -> Iterator[Row]:
    """Yield what each larger vocabulary of a sweep takes beside the next smaller one."""
    ids = [identity for identity in published.ids("liger-embedding-huggingface-") if identity.endswith("-2") is bool(suffix)]
    peaks = {identity: simulated_bytes("embedding", published.entry(identity)["config"]) for identity in ids}
    for less, more in pairwise(ids):
        what = f"embedding: vocabulary {published.entry(more)['config']['V']} less {published.entry(less)['config']['V']}"
        ours = as_published(peaks[more] - peaks[less])
        yield from published.difference(more, less, what, ours, EXACT, provenance=Provenance.SIMULATED)


def _cross_entropy(config: Config, device: torch.device) -> Script:
    num_tokens, vocabulary = config["B"] * config["T"], config["V"]
    logits = torch.randn(num_tokens, vocabulary, requires_grad=True, device=device)
    target = torch.randint(vocabulary, (num_tokens, 1), device=device).squeeze(1)
    return Script(lambda: nn.functional.cross_entropy(logits, target).backward())


class _Head(nn.Module):
    """The output layer and the loss; the logits live until the loss returns."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.linear = nn.Linear(config["H"], config["V"], bias=False, dtype=_dtype(config))

    def forward(self, hidden: Tensor, target: Tensor) -> Tensor:
        logits = self.linear(hidden)
        return nn.functional.cross_entropy(logits, target)


def _head(config: Config, device: torch.device) -> Script:
    head, ligers = _Head(config).to(device), _Head(config).to(device)
    hidden = torch.randn(config["BT"], config["H"], requires_grad=True, dtype=_dtype(config), device=device)
    target = torch.randint(config["V"], (config["BT"], 1), device=device).squeeze(1)
    return Script(lambda: head(hidden, target).backward(), [ligers])


def _mlp(config: Config, device: torch.device) -> Script:
    """Return the mode's step; "full" ran before the others, and has made the workspace of backward."""
    sizes = LlamaConfig(**{name: config[name] for name in ("hidden_size", "intermediate_size", "hidden_act")})
    shape = (config.get("B") or config["bsz"], config["T"], config["hidden_size"])
    x = torch.randn(*shape, device=device, dtype=_dtype(config), requires_grad=True)
    layer = LlamaMLP(sizes).to(device).to(_dtype(config))
    full = _forward_and_backward(layer, x)
    if config["mode"] == "full":
        return Script(full)
    full()
    layer.zero_grad()
    x.grad = None
    if config["mode"] == "forward":
        return Script(lambda: layer(x))
    gradient, result = torch.randn_like(x), layer(x)
    return Script(lambda: result.backward(gradient, retain_graph=True))


def _forward_and_backward(layer: nn.Module, x: Tensor, gradient: Tensor | None = None) -> Callable[[], None]:
    """Return the step of most scripts: the graph lives until the result is gone, and a gradient that is not given is made after forward."""

    def full() -> None:
        result = layer(x)
        result.backward(torch.randn_like(result) if gradient is None else gradient, retain_graph=True)

    return full


class _LlamaNorm(nn.Module):
    """RMS norm of elementwise operators, with its weight in float32."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config["H"]))
        self.eps = float(config["eps"])

    def forward(self, x: Tensor) -> Tensor:
        dtype = x.dtype
        x = x.to(torch.float32)
        variance = x.pow(2).mean(-1, keepdim=True)
        x = x * torch.rsqrt(variance + self.eps)
        return self.weight * x.to(dtype)


def _rms_norm(config: Config, device: torch.device) -> Script:
    return _norm(config, config["H"], lambda: _LlamaNorm(config), device)


def _layer_norm(config: Config, device: torch.device) -> Script:
    return _norm(config, config["N"], lambda: nn.LayerNorm(config["N"], eps=float(config["eps"])), device)


def _norm(config: Config, size: int, make: Callable[[], nn.Module], device: torch.device) -> Script:
    ligers, layer = make().to(device), make().to(device)
    x = torch.randn(config["M"], size, dtype=_dtype(config), device=device)
    gradient = torch.randn_like(x)
    return Script(_forward_and_backward(layer, x.requires_grad_(), gradient), [ligers])


def _group_norm(config: Config, device: torch.device) -> Script:
    num_channels = config["C"]
    num_groups = num_channels // config["channels_per_group"]
    x = torch.randn(config["M"], num_channels, config["H"], dtype=_dtype(config), device=device, requires_grad=True)
    ligers, layer = (nn.GroupNorm(num_groups, num_channels, float(config["eps"])).to(device) for _ in range(2))
    return Script(_forward_and_backward(layer, x), [ligers])


def _rope(config: Config, device: torch.device) -> Script:
    dtype, hidden, length = _dtype(config), config.get("hidden_size") or config["H"], config.get("seq_len") or config["T"]
    num_heads, num_kv_heads = config["num_q_heads"], config["num_kv_heads"]
    head_dim = hidden // num_heads
    shapes = [(1, length, num, head_dim) for num in (num_heads, num_kv_heads)]
    query, key = (torch.randn(shape, device=device, requires_grad=True, dtype=dtype).transpose(1, 2) for shape in shapes)
    gradients = torch.randn_like(query), torch.randn_like(key)
    positions = torch.arange(length, device=device).unsqueeze(0)
    frequencies = torch.ones(head_dim // 2, device=device)
    cos, sin = _rotations(frequencies, positions, dtype)

    def full() -> None:
        results = apply_rotary_pos_emb(query, key, cos, sin)
        torch.autograd.grad(results, (query, key), gradients, allow_unused=True, retain_graph=True)

    return Script(full, [frequencies, positions])


def _rotations(frequencies: Tensor, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Multiply matrices for the angles, as transformers did until version 5; that brings cuBLAS's workspace."""
    angles = (frequencies[None, :, None].expand(len(positions), -1, 1) @ positions[:, None, :].float()).transpose(1, 2)
    twice = torch.cat((angles, angles), dim=-1)
    return twice.cos().to(dtype), twice.sin().to(dtype)


def _embedding(config: Config, device: torch.device) -> Script:
    layer, ligers = (nn.Embedding(config["V"], config["D"]).to(device) for _ in range(2))
    tokens = torch.randint(0, config["V"], (config["B"], config["T"]), device=device)

    def full() -> None:
        result = layer(tokens)
        result.backward(torch.randn_like(result))

    return Script(full, [ligers])


def _dtype(config: Config) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, config["dtype"].removeprefix("torch."))
    return dtype


PROGRAMS: dict[str, Callable[[Config, torch.device], Script]] = {
    "cross_entropy": _cross_entropy,
    "fused_linear_cross_entropy": _head,
    "geglu": _mlp,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "rope": _rope,
    "swiglu": _mlp,
}
"""By the benchmark's name."""
