"""Hugging Face's guide to training on one GPU: BERT-large on 512 tokens, a V100's memory at the end of a run.

Recipe, from docs/source/performance.mdx of transformers 4.16 (January 2022, PyTorch 1.10): sequence classification with dropout in float32,
`Trainer`'s loop with its defaults (gradients clipped to 1 and set to zero, not to None), its own AdamW or Adafactor, or bitsandbytes'
Adam8bit; the card's memory is read from nvidia-smi. Ours is the peak that the allocator's model reserves, plus the 1343 MiB that the guide
gives for the context. A saving is thus a difference of reserved segments: an 8-bit state of 1 MiB shares a segment of 2 MiB, where its
float32 state of 4 MiB shared one of 20 MiB.

What these versions did otherwise than today's: softmax kept its input for backward, until PyTorch 1.11 (``_softmax_backward_data`` took it,
tools/autograd/derivatives.yaml; transformers' own pytorch_utils.py told the two apart); BERT divided the scores and added a float32 mask of
zeros to them in every layer (models/bert/modeling_bert.py, BertSelfAttention), and checkpoints were reentrant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Adafactor, AttentionInterface, BertConfig, BertForSequenceClassification

from benchmarks.published.simulated import Script, peak_reserved_bytes
from benchmarks.published.table import Published, Row, Tolerance
from profiler.optimizations.torch_optimizers import PagedAdamW8bit
from profiler.recording import Provenance
from profiler.units import MIB

_GPU = "v100-16gb"
_CONTEXT = "hf-bert-ctx"
_SEQ = 512
_ATTENTION = "bert_of_transformers_4.16"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One row of the guide."""

    batch: int = 1
    micro_batches: int = 1
    checkpointing: bool = False
    adafactor: bool = False
    eight_bit: bool = False
    half: bool = False


RUNS = {
    "hf-bert-vanilla-b4": Run(batch=4),
    "hf-bert-ga-b1x4": Run(micro_batches=4),
    "hf-bert-ga-gc-b1x4": Run(micro_batches=4, checkpointing=True),
    "hf-bert-adafactor-b4": Run(batch=4, adafactor=True),
    "hf-bert-fp16-b4": Run(batch=4, half=True),
    "hf-bert-ga-gc-fp16-b1x4": Run(micro_batches=4, checkpointing=True, half=True),
    "hf-bert-adam8bit-b4": Run(batch=4, eight_bit=True),
    "hf-bert-adam8bit-all": Run(micro_batches=4, checkpointing=True, half=True, eight_bit=True),
}
"""By the entry's id."""
_SAVINGS = {"hf-bert-adam8bit-b4": "hf-bert-vanilla-b4", "hf-bert-adam8bit-all": "hf-bert-ga-gc-fp16-b1x4"}
"""Runs with 8-bit Adam, and the same without."""


def rows(published: Published) -> Iterator[Row]:
    """Yield the rows of the guide that the file has, and what 8-bit Adam saved there."""
    known = set(published.ids("hf-bert-"))
    for identity, run in RUNS.items():
        if identity in known:
            ours = published.printed(_CONTEXT).value + simulated_bytes(run) / MIB
            tolerance = Tolerance(share=0.05 if run.half else 0.01)
            yield from published.row(identity, ours, tolerance, "with the guide's own 1343 MiB of context", provenance=Provenance.SIMULATED)
    for less, more in _SAVINGS.items():
        if {less, more} <= known:
            saved = (simulated_bytes(RUNS[more]) - simulated_bytes(RUNS[less])) / MIB
            what = "BERT-large: Adam to 8-bit Adam"
            yield from published.difference(more, less, what, saved, Tolerance(share=0.01), provenance=Provenance.SIMULATED)


@cache
def simulated_bytes(run: Run) -> int:
    """Return what the allocator reserves in two steps of a run."""
    return peak_reserved_bytes(_GPU, lambda device: _trainer(run, device))


def _trainer(run: Run, device: torch.device) -> Script:
    """Return one step of the loop of `Trainer`."""
    model = _model(run).to(device).train()
    optimizer = _optimizer(run, model.parameters())
    scaler = torch.amp.GradScaler("cuda", enabled=run.half)
    losses = torch.zeros((), device=device)

    def micro_batch() -> Tensor:
        tokens = torch.randint(100, 30_000, (run.batch, _SEQ)).to(device)
        labels = torch.randint(0, 2, (run.batch,)).to(device)
        with torch.autocast("cuda", torch.float16, enabled=run.half):
            loss: Tensor = model(input_ids=tokens, labels=labels).loss
        if run.micro_batches > 1:
            loss = loss / run.micro_batches
        scaler.scale(loss).backward()
        return loss.detach()

    def step() -> None:
        for _ in range(run.micro_batches):
            losses.add_(micro_batch())
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=False)
        scaler.step(optimizer)
        scaler.update()
        model.zero_grad(set_to_none=False)

    return Script(step)


def _optimizer(run: Run, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    if run.adafactor:
        return Adafactor(parameters, lr=5e-5, scale_parameter=False, relative_step=False)
    if run.eight_bit:
        return PagedAdamW8bit(parameters, block=2048, min_paged_numbers=math.inf)
    return _AdamW(parameters)


def _model(run: Run) -> nn.Module:
    AttentionInterface.register(_ATTENTION, _attend)
    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    config = BertConfig(**sizes, num_labels=2, attn_implementation=_ATTENTION)
    model: nn.Module = BertForSequenceClassification(config)
    if run.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": True})
    return model


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, dropout: float = 0.0, **_: Any
) -> tuple[Tensor, None]:
    """Attend as BERT did in transformers 4.16: the scores are divided and masked in new tensors."""
    scores = query @ key.transpose(-1, -2)
    scores = scores / query.shape[-1] ** 0.5
    scores = scores + torch.zeros(len(query), 1, 1, key.shape[-2], device=query.device)
    weights = nn.functional.dropout(_Softmax.apply(scores), dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), None


class _Softmax(torch.autograd.Function):
    """Softmax until PyTorch 1.10, which kept its input and its result; autocast asks for a float32 result."""

    @staticmethod
    def forward(context: Any, scores: Tensor) -> Tensor:
        in_half = scores.dtype is torch.float16
        result = torch._softmax(scores, -1, in_half)
        context.save_for_backward(scores, result)
        return result

    @staticmethod
    def backward(context: Any, grad: Tensor) -> Tensor:
        scores, result = context.saved_tensors
        return torch._softmax_backward_data(grad, result, -1, scores.dtype)


class _AdamW(torch.optim.Optimizer):
    """AdamW as transformers had it: parameter by parameter, with one temporary of the parameter's size."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 5e-5})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            state, gradient = self.state[parameter], parameter.grad
            if not state:
                state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["mean"].mul_(0.9).add_(gradient, alpha=0.1)
            state["square"].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            spread = state["square"].sqrt().add_(1e-8)
            parameter.addcdiv_(state["mean"], spread, value=-5e-5)
