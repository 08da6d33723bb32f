"""PyTorch's tutorial on the optimizer's step in backward: ViT-L/16 in float32, one image, Adam, peaks read from a memory snapshot.

Recipe, from intermediate_source/optimizer_step_in_backward_tutorial.py: `torchvision.models.vit_l_16`, three times forward, backward of the
sum, Adam's step and zero_grad; then the same with an Adam of its own for every parameter, foreach=False, in hooks. Our model has the same
layers as torchvision's.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.published.simulated import Script, peak_allocated_bytes
from benchmarks.published.table import Published, Row, Tolerance
from benchmarks.published.vision import VisionTransformer
from profiler.optimizations.torch_optimizers import UpdatesInBackward
from profiler.recording import Provenance

_GPU = "a100-80gb"
_TOLERANCE = Tolerance(share=0.05)
_GB = 1e9


def rows(published: Published) -> Iterator[Row]:
    """Yield both peaks of the tutorial."""
    note = "the tutorial prints about 6 and 4"
    for identity, in_backward in (("pt-optbwd-peak", False), ("pt-optbwd-peak-fused", True)):
        if identity in set(published.ids("pt-optbwd-")):
            ours = simulated_bytes(in_backward) / _GB
            yield from published.row(identity, ours, _TOLERANCE, note, provenance=Provenance.SIMULATED)


def simulated_bytes(in_backward: bool) -> int:
    """Return the peak of three iterations, with the optimizer's step after or within backward."""
    return peak_allocated_bytes(_GPU, lambda device: _tutorial(in_backward, device))


def _tutorial(in_backward: bool, device: torch.device) -> Script:
    model = VisionTransformer().to(device)
    image = torch.rand(1, 3, 224, 224).to(device)
    if in_backward:
        updates = UpdatesInBackward(lambda parameters: torch.optim.Adam(parameters, foreach=False))
        optimizer = updates.make_optimizer(model.parameters())
        hooks = updates.in_place()
        hooks.__enter__()
    else:
        optimizer, hooks = torch.optim.Adam(model.parameters(), foreach=True), None

    def step() -> None:
        model(image).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return Script(step, [hooks])
