"""Recipes -> the lab's own models: ``python -m profiler.compression.lab.train [NAME ...]``; one thread, some minutes of processor time."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from profiler.capture.surroundings import library_versions
from profiler.compression import lab
from profiler.compression.fine_tune import cross_entropy, train
from profiler.compression.lab import corpus
from profiler.compression.lab.checkpoint import write_high_halves
from profiler.compression.lab.recipes import RECIPES, Recipe
from profiler.compression.quality import judge, scorers
from profiler.compression.task import Batch, Task

NUM_FIRST_LOSSES = 8
"""So many losses of the first steps are kept, by which a quick test tells whether training is what it was."""
NUM_LOSSES = 40
"""So many losses of the whole training are kept, evenly spread, by which one sees where another training leaves it."""
_TOLD_STEPS = 20


class TrainedHere(Task, Protocol):
    """A task whose model this module trains."""

    def untrained(self, seed: int) -> nn.Module:
        """Return the model with random weights."""


class _Enough(Exception):
    pass


def main(arguments: Sequence[str]) -> None:
    """Train the models named, or all, and replace their files."""
    parser = argparse.ArgumentParser(prog="python -m profiler.compression.lab.train", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(RECIPES), help=f"of {', '.join(RECIPES)}; by default all")
    parser.add_argument("--corpus", action="store_true", help="first replace the text by that of this Python")
    options = parser.parse_args(arguments)
    if options.corpus:
        corpus.ship()
    for name in options.names:
        recipe = RECIPES[name]
        shipped = f", {recipe.outcome['loss']:.4f} before" if recipe.report.is_file() else ""
        outcome = make(recipe)
        recipe.report.write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")
        bleu = f", BLEU {outcome['bleu']:.1f}" if "bleu" in outcome else ""
        seconds = f"{outcome['cpu_seconds']:.0f} s of processor time"
        _say(f"\r{name}: loss {outcome['loss']:.4f}{shipped}, accuracy {outcome['accuracy']:.1%}{bleu}, {seconds}\n")


def make(recipe: Recipe) -> dict[str, Any]:
    """Train a model, write its weights, and return what its report says; quality is that of the weights as they will be read."""
    began = time.process_time()
    model, losses = train_model(recipe)
    seconds = time.process_time() - began
    write_high_halves(model, recipe.weights)
    task = lab.load(recipe.name)
    quality = judge(task, partial(task.logits, task.build()))
    return {
        "model": recipe.name,
        "recipe": {"steps": recipe.steps, "lr": recipe.lr, "seed": recipe.seed},
        "loss": round(quality.loss, 6),
        "accuracy": round(quality.accuracy, 6),
        **({} if quality.bleu is None else {"bleu": round(quality.bleu, 4)}),
        "unit": task.unit,
        "first_losses": [round(loss, 6) for loss in losses[:NUM_FIRST_LOSSES]],
        "losses": loss_curve(losses),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "cpu_seconds": round(seconds),
        "weights_sha256": recipe.digest(),
        "corpus_sha256": corpus.digest(),
        "versions": library_versions() | scorers(quality),
    }


def loss_curve(losses: Sequence[float]) -> dict[str, float]:
    """Return `NUM_LOSSES` losses of a training by their steps, counted from 1, in nats."""
    every = max(1, len(losses) // NUM_LOSSES)
    return {str(step): round(losses[step - 1], 6) for step in range(every, len(losses) + 1, every)}


def train_model(recipe: Recipe, stop_after: int | None = None) -> tuple[nn.Module, list[float]]:
    """Return the trained model and the loss of every step.

    Args:
        recipe: what to train.
        stop_after: so many steps of the same training; None for all.
    """
    torch.set_num_threads(1)
    task = cast(TrainedHere, lab.load(recipe.name))
    model, losses = task.untrained(recipe.seed), list[float]()

    def noted(logits: Tensor, batch: Batch) -> Tensor:
        loss = cross_entropy(logits, batch)
        losses.append(loss.item())
        return loss

    def tell(phase: str, share: float) -> None:
        if len(losses) == stop_after:
            raise _Enough
        if len(losses) % _TOLD_STEPS == 0:
            _say(f"\r{recipe.name}: {phase}, {share:.0%}, loss {losses[-1]:.3f} ")

    try:
        train(task, model, steps=recipe.steps, lr=recipe.lr, seed=recipe.seed, loss=noted, tell=tell)
    except _Enough:
        model.eval()
    return model, losses


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
