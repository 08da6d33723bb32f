"""What an experiment found, as data, and the folder of the store where results are kept as JSON. Loads no torch."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from profiler.compression.experiment import Experiment
from profiler.errors import FormatError, StorageError
from profiler.storage import RunStore
from profiler.storage.json_file import write_json
from profiler.units import MIB, format_duration_us

MOST_KEPT_BYTES = 320 * MIB
"""A larger file of a compressed model is measured and not kept: room for half of SmolLM2, and not for each result as large as it is."""
_MAX_RESULT_BYTES = MIB


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model's bytes, three ways, since each way alone is blind to something."""

    held_bytes: int
    """Storages that the model holds, each once: through tensor subclasses, indices of sparse tensors and packed weights of torch.ao."""
    resident_bytes: int
    """What the process grew by, from before the model was built until after a forward pass; freed memory given back first."""
    file_bytes: int
    """The file that was written and read back."""


def perplexity(loss: float) -> float:
    """Return the exponential of a loss in nats."""
    return math.exp(min(loss, 700.0))


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How well a model does on the held-out batches."""

    loss: float
    """Mean cross entropy in nats per unit: byte, token, word or document."""
    accuracy: float
    """Share of targets that the largest logit names."""
    bleu: float | None = None
    """0 to 100, of what a model that translates says by itself; None for all others."""

    @property
    def perplexity(self) -> float:
        """The exponential of the loss: per unit."""
        return perplexity(self.loss)


@dataclass(frozen=True, kw_only=True)
class StageFacts:
    """A model after one technique of a pipeline."""

    stage: str
    """The technique as text."""
    held_bytes: int
    file_bytes: int
    loss: float
    conversion_peak_bytes: int
    """The process's growth at its highest while the technique was applied, from before the model was built."""
    conversion_seconds: float
    """Processor seconds that applying it took."""
    extra: dict[str, float] = field(default_factory=dict)
    """What the technique itself counted, such as ``entropy_bytes`` or ``control_loss``; keys say their unit."""


@dataclass(frozen=True, kw_only=True)
class LayerFacts:
    """The model with the first technique applied to one matrix alone."""

    name: str
    num_weights: int
    loss: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """An experiment's facts beside those of the untouched model."""

    experiment: Experiment
    unit: str
    """What the losses are per: ``byte``, ``token``, ``word`` or ``document``."""
    size: Size
    baseline_size: Size
    quality: Quality
    baseline_quality: Quality
    agreement: float
    """Share of held-out places where the largest logit is the baseline's."""
    divergence: float
    """Mean Kullback-Leibler divergence of the outputs from the baseline's, in nats."""
    seconds: float
    """Processor seconds of one forward pass on one thread: the median of several, taken in turns with the baseline's."""
    baseline_seconds: float
    conversion_peak_bytes: int
    conversion_seconds: float
    stages: tuple[StageFacts, ...]
    exact_file: bool
    """The file, read back, gives exactly the model that was measured."""
    notes: tuple[str, ...] = ()
    """Sentences that the techniques said, such as that no layer was changed."""
    model_hash: str = ""
    """A digest of the baseline's weights."""
    histograms: dict[str, Any] = field(default_factory=dict)
    """``before`` and ``after``: counts, between common ``edges``, of the weights of linear and recurrent layers as they multiply."""
    layers: tuple[LayerFacts, ...] = ()
    """In the order of the model, where the experiment asks for them."""
    seconds_spread: tuple[float, float] | None = None
    """The least and the most of the passes whose median is ``seconds``."""
    baseline_seconds_spread: tuple[float, float] | None = None
    num_targets: int | None = None
    """Units that losses are averages over; None in old results."""
    num_text_bytes: int | None = None
    """Of the text that those units are; None where they are no text, and in old results."""
    wall_seconds: float | None = None
    """By the clock, of the same passes, their median: longer where other work shared the processor; None in old results."""
    baseline_wall_seconds: float | None = None
    versions: dict[str, str] = field(default_factory=dict)
    created: float = 0.0
    """Seconds since the epoch."""

    def ratio(self, name: str) -> float:
        """Return ``held_bytes``, ``resident_bytes`` or ``file_bytes`` as a share of the baseline's."""
        return float(getattr(self.size, name) / max(1, getattr(self.baseline_size, name)))

    @property
    def bytes_per_unit(self) -> float | None:
        """Of the held-out text, how many bytes a unit is on average; None where that is not known, or the units are no text."""
        if self.unit == "byte":
            return 1.0
        return self.num_text_bytes / self.num_targets if self.num_targets and self.num_text_bytes else None

    def loss_per_byte(self, quality: Quality) -> float | None:
        """Return nats per byte of held-out text, comparable between models of bytes and of tokens; None where it is not known."""
        return None if self.bytes_per_unit is None else quality.loss / self.bytes_per_unit

    def perplexity_per_byte(self, quality: Quality) -> float | None:
        """Return the exponential of `loss_per_byte`; None where that is not known."""
        loss = self.loss_per_byte(quality)
        return None if loss is None else perplexity(loss)

    @property
    def per_byte_phrase(self) -> str:
        """Of a model of tokens, as ``loss per byte 0.7714 (was 0.7630), perplexity per byte 2.163 (was 2.145)``; else empty."""
        if self.unit != "token":
            return ""
        after, before = self.loss_per_byte(self.quality), self.loss_per_byte(self.baseline_quality)
        if after is None or before is None:
            return "loss per byte not measured"
        perplexities = f"perplexity per byte {perplexity(after):.3f} (was {perplexity(before):.3f})"
        return f"loss per byte {after:.4f} (was {before:.4f}), {perplexities}"

    @property
    def spread_phrase(self) -> str:
        """From where to where the passes went, to follow their median, as ``; 63.6 ms to 75.0 ms``; empty where it was not kept."""
        if self.seconds_spread is None:
            return ""
        low, high = (format_duration_us(seconds * 1e6) for seconds in self.seconds_spread)
        return f"; {low} to {high}"

    @property
    def wall_phrase(self) -> str:
        """What the passes took by the clock, as ``71.2 ms of 66.0 ms by the clock``; empty where it was not kept."""
        if self.wall_seconds is None or self.baseline_wall_seconds is None:
            return ""
        after, before = (format_duration_us(seconds * 1e6) for seconds in (self.wall_seconds, self.baseline_wall_seconds))
        return f"{after} of {before} by the clock"

    def facts(self) -> dict[str, Any]:
        """Return one flat row of plain data, as the command line prints and pages tabulate."""
        row: dict[str, Any] = {"model": self.experiment.model, "technique": self.experiment.technique, "seed": self.experiment.seed}
        for size, prefix in ((self.size, ""), (self.baseline_size, "baseline_")):
            row |= {prefix + name: value for name, value in asdict(size).items()}
        for quality, prefix in ((self.quality, ""), (self.baseline_quality, "baseline_")):
            row |= {prefix + name: getattr(quality, name) for name in ("loss", "perplexity", "accuracy", "bleu")}
            row[f"{prefix}loss_per_byte"] = self.loss_per_byte(quality)
            row[f"{prefix}perplexity_per_byte"] = self.perplexity_per_byte(quality)
        for name in ("unit", "agreement", "divergence", "seconds", "baseline_seconds", "conversion_peak_bytes", "conversion_seconds"):
            row[name] = getattr(self, name)
        for name in ("seconds_spread", "baseline_seconds_spread", "wall_seconds", "baseline_wall_seconds", "num_targets", "num_text_bytes"):
            row[name] = getattr(self, name)
        return row | {"exact_file": self.exact_file, "notes": list(self.notes), "model_hash": self.model_hash}

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "experiment": self.experiment.to_json()}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Return the result that plain data describes.

        Raises:
            FormatError: the data is not a result.
        """
        try:
            known = {item.name: data[item.name] for item in fields(cls) if item.name in data}
            known |= {"experiment": Experiment.from_json(data["experiment"]), "notes": tuple(data["notes"])}
            known |= {name: Size(**data[name]) for name in ("size", "baseline_size")}
            known |= {name: Quality(**data[name]) for name in ("quality", "baseline_quality")}
            known["stages"] = tuple(StageFacts(**stage) for stage in data["stages"])
            known |= {name: _pair(data.get(name)) for name in ("seconds_spread", "baseline_seconds_spread")}
            known["layers"] = tuple(LayerFacts(**layer) for layer in data.get("layers", ()))
            return cls(**known)
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"This is not a result of the compression lab ({error}). Measure it again.") from error


class ResultStore:
    """The results that are kept, each a JSON file under the key of its run.

    Args:
        home: the run store's folder; by default ``$HEADROOM_HOME``, else ``.headroom``.
    """

    def __init__(self, home: Path | str | None = None) -> None:
        self.folder = RunStore(home).home / "compression"

    def find(self, key: str) -> Result | None:
        """Return the result under this key, or None; a damaged file is none."""
        return _read(self.folder / f"{key}.json")

    def weights_path(self, key: str) -> Path:
        """Return where the compressed model's file of the result under this key is, if it was kept."""
        return self.folder / f"{key}.weights"

    def list(self) -> list[Result]:
        """Return all results, newest first; files that cannot be read are left out."""
        found = [result for path in self.folder.glob("*.json") if (result := _read(path))]
        return sorted(found, key=lambda result: result.created, reverse=True)

    def add(self, key: str, result: Result, weights: Path | None = None) -> None:
        """Keep a result.

        Args:
            key: of its run.
            result: what was found.
            weights: the compressed model's file, which is moved where it exists.

        Raises:
            StorageError: the store is read-only or full.
        """
        path = self.folder / f"{key}.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if weights is not None and weights.exists():
                shutil.move(weights, self.weights_path(key))
            write_json(path, result.to_json())
        except OSError as error:
            raise StorageError(
                f"{path} cannot be written: {error.strerror}. Free space there, or choose another folder (HEADROOM_HOME)."
            ) from error


def _pair(data: Any) -> tuple[float, float] | None:
    if data is None:
        return None
    low, high = data
    return float(low), float(high)


def _read(path: Path) -> Result | None:
    try:
        if path.stat().st_size > _MAX_RESULT_BYTES:
            return None
        return Result.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, FormatError):
        return None
