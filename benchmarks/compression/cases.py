"""What is measured: the default lab, and around it those amounts, orders and repairs that make a difference visible."""

from __future__ import annotations

from dataclasses import replace

from profiler.compression.default_lab import default_lab
from profiler.compression.experiment import Experiment
from profiler.compression.sparse_formats import BLOCK_SIZES

SWEEPS: tuple[tuple[str, ...], ...] = (
    ("intx-weight-only:bits=2",),
    ("packed-int:bits=8",),
    ("packed-int:bits=2,group=32",),
    ("packed-int:bits=1,group=32",),
    *((f"prune-global:amount={share}",) for share in (0.3, 0.5, 0.7, 0.8, 0.9)),
    *((f"prune-global:amount={share}", "fine-tune") for share in (0.5, 0.7, 0.8, 0.9)),
    ("prune-2-4", "fine-tune", "store-2-4"),
    ("prune-global:amount=0.7", "store-bsr"),
    *((f"prune-blocks:amount=0.7,block={size}", f"store-bsr:block={size}") for size in BLOCK_SIZES),
    *((f"prune-blocks:amount=0.7,block={size}", "fine-tune", f"store-bsr:block={size}") for size in (4, 16)),
    ("prune-structured:amount=0.5",),
    ("prune-structured:amount=0.5", "fine-tune"),
    *((f"low-rank:rank={rank}",) for rank in (16, 32, 64)),
    ("low-rank:rank=32", "fine-tune"),
    ("layer-drop", "fine-tune"),
    ("bfloat16", "ans"),
    *((f"k-means:bits={bits}", "ans") for bits in (8, 5, 4, 3)),
)


def cases(model: str) -> list[Experiment]:
    """Return the experiments with the first seed, controls before what they are the control of."""
    found = [*default_lab(model), *(Experiment.of(model, stages) for stages in SWEEPS)]
    return list(dict.fromkeys(found))


def seeds_of(experiment: Experiment, num_seeds: int) -> list[Experiment]:
    """Return an experiment with each seed, or alone where the seed changes nothing."""
    differ = any(item.depends_on_seed for item in experiment.techniques)
    return [replace(experiment, seed=seed) for seed in range(num_seeds)] if differ else [experiment]
