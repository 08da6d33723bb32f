"""torchao's benchmark of low-bit optimizers: ViT-H/14 in bfloat16 autocast, 8 images, the peak that the allocator counts.

Recipe, from benchmarks/benchmark_low_bit_adam.py (torch 2.4, `torch.cuda.max_memory_allocated() / 1e9` at the end): timm's
vit_huge_patch14_224 with 45 classes, cross-entropy, backward, the optimizer's step, zero_grad. Then 8-bit and FP8 states had a scale for
2,048 numbers, in torchao (until its pull request 927) as in bitsandbytes (until 0.44); the README has told of 256 since, without a new run.

The difference is more than the states' sizes. What is allocated counts whole blocks, and a block is not split where 1 MiB or less would be
left: a float32 state of a feed-forward matrix is 25 MiB in a segment of 26, four of them in each of 32 layers. States of one byte and
less come from shared segments and are split off exactly. Ours runs the model as it is written, theirs was compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torchao.optim import AdamW4bit, AdamW8bit, AdamWFp8

from benchmarks.published.simulated import Script, peak_allocated_bytes
from benchmarks.published.table import Published, Row, Tolerance
from benchmarks.published.vision import VisionTransformer
from profiler.optimizations.torch_optimizers import PagedAdamW8bit
from profiler.recording import Provenance

_GPU = "rtx-4080"
"""The same chip and memory as the 4070 Ti SUPER of the source."""
_BATCH, _CLASSES, _BLOCK, _GB = 8, 45, 2048, 1e9

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]

_FUSED, _AO8, _AO4 = "ao-opt-vith-PyTorch fused AdamW", "ao-opt-vith-ao 8-bit (block 256)", "ao-opt-vith-ao 4-bit (block 128)"
OPTIMIZERS: dict[str, MakeOptimizer] = {
    _FUSED: lambda parameters: AdamW(parameters, fused=True),
    "ao-opt-vith-bnb 8-bit": lambda parameters: PagedAdamW8bit(parameters, block=_BLOCK, min_paged_numbers=math.inf),
    _AO8: lambda parameters: AdamW8bit(parameters, block_size=_BLOCK),
    "ao-opt-vith-ao FP8 E4M3": lambda parameters: AdamWFp8(parameters, block_size=_BLOCK),
    _AO4: AdamW4bit,
}
"""By the entry's id."""


def rows(published: Published) -> Iterator[Row]:
    """Yield each peak, each saving against fused AdamW, and 8 bits to 4."""
    known = set(published.ids("ao-opt-vith-"))
    ours = {identity: simulated_bytes(make) / _GB for identity, make in OPTIMIZERS.items() if identity in known}
    for identity, peak in ours.items():
        yield from published.row(
            identity, peak, Tolerance(share=0.005), "the source's model is compiled, ours is not", provenance=Provenance.SIMULATED
        )
    for more, less in [(_FUSED, less) for less in ours if less != _FUSED] + [(_AO8, _AO4)]:
        if more in ours and less in ours:
            what = f"ViT-H/14: {_name(more)} to {_name(less)}"
            tolerance, saved = Tolerance(share=0.02), ours[more] - ours[less]
            yield from published.difference(more, less, what, saved, tolerance, provenance=Provenance.SIMULATED)


def simulated_bytes(make_optimizer: MakeOptimizer) -> int:
    """Return the peak of three steps: the states are there from the second on."""
    return peak_allocated_bytes(_GPU, lambda device: _training(make_optimizer, device), of=max)


def vit_huge() -> nn.Module:
    """Return the model: 630,822,445 parameters."""
    return VisionTransformer(width=1280, depth=32, patch=14, num_classes=_CLASSES)


def _training(make_optimizer: MakeOptimizer, device: torch.device) -> Script:
    model = vit_huge().to(device)
    optimizer = make_optimizer(model.parameters())

    def step() -> None:
        images, labels = torch.rand(_BATCH, 3, 224, 224).to(device), torch.randint(0, _CLASSES, (_BATCH,)).to(device)
        with torch.autocast("cuda", torch.bfloat16):
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Script(step)


def _name(identity: str) -> str:
    """Return the optimizer's name, without the block that the README names since."""
    return identity.removeprefix("ao-opt-vith-").partition(" (")[0]
