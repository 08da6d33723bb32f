"""How each of the lab's own models is trained, and what came out: the files that are shipped beside its weights. Loads no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from profiler.errors import FormatError, StorageError

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

    @property
    def outcome(self) -> dict[str, Any]:
        """What the report says of quality, training and versions; `profiler.compression.lab.train.make` has its keys.

        Raises:
            StorageError: it is missing.
            FormatError: it is damaged.
        """
        text = self._read(self.report)
        try:
            outcome = json.loads(text)
        except ValueError:
            outcome = None
        if not isinstance(outcome, dict):
            raise FormatError(f"{self.report} is damaged: it holds no JSON object. {self._way_out}")
        return outcome

    def digest(self) -> str:
        """Return a digest of the weights that are there.

        Raises:
            StorageError: they are missing.
        """
        return sha256(self._read(self.weights)).hexdigest()[:16]

    def fingerprint(self) -> str:
        """Return a digest of the shipped weights.

        Raises:
            StorageError: they or their report are missing.
            FormatError: they are not the ones that their report tells of.
        """
        digest = self.digest()
        if self.outcome.get("weights_sha256") != digest:
            raise FormatError(f"{self.weights} is damaged: it does not hold the weights that {self.report.name} tells of. {self._way_out}")
        return digest

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise StorageError(f"The lab's model {self.name!r} needs {path}: {error.strerror}. {self._way_out}") from error

    @property
    def _way_out(self) -> str:
        return f"Install Headroom again, or train the model again: python -m profiler.compression.lab.train {self.name}."


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="lab", steps=800, lr=2e-3),
        Recipe(name="lab-lstm", steps=800, lr=8e-3),
        Recipe(name="lab-classifier", steps=200, lr=2e-3),
        Recipe(name="lab-translation", steps=2000, lr=2e-3),
    )
}
