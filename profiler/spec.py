"""What to run, as data: a model, a workload, a device and the optimizations that are switched on.

Specs are frozen, hashable and JSON both ways; a Job's content hash is its identity. Optimizations are stored as toggles and nowhere else:
there is no dtype or optimizer setting beside them. What a toggle means is known by `profiler.optimizations`, which validates it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self, TypeVar

from profiler.errors import SpecError, unknown_name

MAX_BATCH = 65_536
MAX_SEQ = 4_194_304
MAX_STEPS = 100_000
_MAX_CONFIG_CHARS = 1_000_000

_E = TypeVar("_E", bound=StrEnum)


class WorkloadKind(StrEnum):
    """What is done with the model."""

    TRAIN = "train"
    PREFILL = "prefill"
    DECODE = "decode"


class ZeroGrad(StrEnum):
    """Where in a training step the gradients are dropped; memory depends on it."""

    AFTER_STEP = "after_step"
    BEFORE_FORWARD = "before_forward"
    BEFORE_BACKWARD = "before_backward"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A catalogue name, or a user's own transformers configuration.

    Raises:
        SpecError: the configuration is not a JSON object or too long.
    """

    name: str
    """A name of the catalogue; with ``config``, the name to show."""
    config: str | None = None
    """A transformers ``config.json`` as canonical JSON text, where the model is not of the catalogue."""

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > 200:
            raise SpecError(f"The model's name has {len(self.name)} characters. Use 1 to 200.")
        if self.config is not None:
            if len(self.config) > _MAX_CONFIG_CHARS:
                raise SpecError(f"The model's configuration has {len(self.config):,} characters. At most {_MAX_CONFIG_CHARS:,} are read.")
            if not isinstance(_load_json(self.config, "The model's configuration"), dict):
                raise SpecError("The model's configuration is not a JSON object. Use the config.json of a transformers model.")

    @classmethod
    def from_config(cls, name: str, config: dict[str, Any]) -> Self:
        """Return the model of a transformers configuration given as a dictionary."""
        return cls(name=name, config=canonical_json(config))


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The statements that are run, since their order is memory.

    Raises:
        SpecError: a number is out of its bounds.
    """

    kind: WorkloadKind = WorkloadKind.TRAIN
    batch: int = 1
    """Sequences in one step; with micro-batches, all of them together."""
    seq: int = 128
    """Tokens a sequence; for decode, of the prompt."""
    steps: int = 2
    """Steps that count, after the warm-up."""
    warmup_steps: int = 1
    """Steps before those; they create the optimizer's state. The peak does not cover them."""
    micro_batches: int = 1
    """The batch is cut into so many parts whose gradients accumulate."""
    new_tokens: int = 16
    """Tokens that decode makes in one step."""
    zero_grad: ZeroGrad = ZeroGrad.AFTER_STEP
    set_to_none: bool = True
    keep_outputs: bool = False
    """Keep the model's outputs until the next step's replace them, as loops do that never delete them."""
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", _member(WorkloadKind, self.kind, "workload"))
        object.__setattr__(self, "zero_grad", _member(ZeroGrad, self.zero_grad, "zero_grad"))
        for name, value, low, high in (
            ("batch", self.batch, 1, MAX_BATCH),
            ("seq", self.seq, 1, MAX_SEQ),
            ("steps", self.steps, 1, MAX_STEPS),
            ("warmup_steps", self.warmup_steps, 0, MAX_STEPS),
            ("micro_batches", self.micro_batches, 1, MAX_BATCH),
            ("new_tokens", self.new_tokens, 1, MAX_SEQ),
            ("seed", self.seed, 0, 2**31 - 1),
        ):
            _check_int(name, value, low, high)
        for name in ("set_to_none", "keep_outputs"):
            if not isinstance(getattr(self, name), bool):
                raise SpecError(f"{name}={getattr(self, name)!r} is not true or false.")
        if self.batch % self.micro_batches:
            raise SpecError(
                f"batch={self.batch} cannot be cut into micro_batches={self.micro_batches} equal parts. Choose a divisor of {self.batch}."
            )


@dataclass(frozen=True, order=True)
class Toggle:
    """One optimization that is switched on, with its options: ``NAME`` or ``NAME:key=value,key=value``."""

    name: str
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the toggle that ``text`` such as ``sgd:momentum=0.9`` names.

        Raises:
            SpecError: the text has no name or an option without ``=``.
        """
        name, _, rest = text.strip().partition(":")
        pairs = [part.partition("=") for part in rest.split(",") if part]
        if not name or any(not separator or not key for key, separator, _ in pairs):
            raise SpecError(f"{text!r} is not a toggle. Write NAME or NAME:key=value,key=value, such as sgd:momentum=0.9.")
        return cls(name, tuple(sorted((key.strip(), value.strip()) for key, _, value in pairs)))

    def __str__(self) -> str:
        return self.name + (":" + ",".join(f"{key}={value}" for key, value in self.options) if self.options else "")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: enough to run it again anywhere.

    Raises:
        SpecError: a part is not what it should be.
    """

    model: Model
    workload: Workload = field(default_factory=Workload)
    device: str = "cpu"
    """``cpu``, ``cuda`` or ``cuda:N`` to measure; a GPU's catalogue name to simulate."""
    toggles: tuple[Toggle, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.device, str) or not 0 < len(self.device) <= 100:
            raise SpecError(f"device={self.device!r} is not a device. Use cpu, cuda or cuda:0.")
        object.__setattr__(self, "toggles", tuple(sorted(self.toggles)))

    @property
    def id(self) -> str:
        """The content hash: 16 hexadecimal digits, equal for equal jobs."""
        return hashlib.sha256(canonical_json(self.to_json()).encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """One line, such as ``gpt2 · train · batch 4 x 128 · adamw · on rtx-4090``; what else is no default comes last, as ``seed=3``.

        The CPU is not named.
        """
        shape = f"batch {self.workload.batch} x {self.workload.seq}"
        said, default = {"kind", "batch", "seq"}, asdict(Workload())
        rest = [f"{name}={value}" for name, value in asdict(self.workload).items() if name not in said and value != default[name]]
        device = [] if self.device == "cpu" else [f"on {self.device}"]
        return " · ".join([self.model.name, self.workload.kind.value, shape, *map(str, self.toggles), *device, *rest])

    def to_json(self) -> dict[str, Any]:
        """Return plain data; toggles as their texts."""
        return {
            "model": {name: value for name, value in asdict(self.model).items() if value is not None},
            "workload": asdict(self.workload),
            "device": self.device,
            "toggles": [str(toggle) for toggle in self.toggles],
        }

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Return the job that plain data describes; fields that are absent take their defaults.

        Raises:
            SpecError: the data is not a job.
        """
        if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
            raise SpecError("This is not a job: an object with a model is expected, as `profile --json` prints it.")
        try:
            toggles = tuple(Toggle.parse(text) for text in data.get("toggles", ()))
            return cls(
                model=Model(**data["model"]),
                workload=Workload(**data.get("workload", {})),
                device=data.get("device", "cpu"),
                toggles=toggles,
            )
        except (TypeError, AttributeError) as error:
            raise SpecError(f"This job has a field that is not known or of the wrong kind: {error}.") from error


def canonical_json(data: Any) -> str:
    """Return JSON text that is the same for equal data: sorted keys, no spaces."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _load_json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{what} is not valid JSON: {error}.") from error


def _member(kind: type[_E], value: str, what: str) -> _E:
    try:
        return kind(value)
    except ValueError:
        names = [member.value for member in kind]
        raise unknown_name(what, str(value), names, f"Choose one of {', '.join(names)}.") from None


def _check_int(name: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise SpecError(f"{name}={value!r} is not possible. Use a whole number from {low:,} to {high:,}.")
