"""How each of the lab's own models is trained, and what came out: the files that are shipped beside its weights. Loads no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("data")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides a model's weights, beside its code and the corpus."""

    name: str
    steps: int
    lr: float
    """The highest rate; it decays to zero along a cosine."""
    seed: int = 0
    """Of the first weights and of the batches' order."""

    @property
    def weights(self) -> Path:
        """The file of the trained weights."""
        return FOLDER / f"{self.name}.safetensors"

    @property
    def report(self) -> Path:
        """The file that says what training gave."""
        return FOLDER / f"{self.name}.json"

    @cached_property
    def outcome(self) -> dict[str, Any]:
        """What the report says: ``loss``, ``accuracy``, ``first_losses``, ``num_parameters``, ``corpus_sha256``, ``versions``."""
        outcome: dict[str, Any] = json.loads(self.report.read_text(encoding="utf-8"))
        return outcome

    def fingerprint(self) -> str:
        """Return a digest of the shipped weights."""
        return sha256(self.weights.read_bytes()).hexdigest()[:16]


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="lab", steps=800, lr=2e-3),
        Recipe(name="lab-lstm", steps=800, lr=8e-3),
        Recipe(name="lab-classifier", steps=200, lr=2e-3),
    )
}
