"""The one data type everything reads: what a run allocated and freed, when, where and as what.

Engines and readers turn a run or a file into a `Recording`; nothing downstream asks where it came from except to say so. Facts are stored
raw, one row an event; categories, timelines and peaks are computed (`profiler.analysis`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import Enum, IntFlag, StrEnum
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 1

HOST = -1
PINNED_HOST = -2


class Provenance(StrEnum):
    """Where a number comes from; shown beside it everywhere."""

    MEASURED = "measured"
    SIMULATED = "simulated"
    ESTIMATED = "estimated"
    IMPORTED = "imported"


class Clock(StrEnum):
    """What the times of a recording tell."""

    MEASURED = "measured"
    ESTIMATED = "estimated"
    """How long operators would take on the GPU at best."""
    ORDER = "order"
    """What came before what, and not how long anything takes: every event is one microsecond after the one before."""


class Action(StrEnum):
    """What happened to a block. CPU and simulated frees are one event, FREE_COMPLETED."""

    PREEXISTING = "preexisting"
    ALLOC = "alloc"
    FREE_REQUESTED = "free_requested"
    FREE_COMPLETED = "free_completed"


class Phase(StrEnum):
    """The part of a step that ran; statements between the named parts are OTHER."""

    BUILD = "build"
    DATA = "data"
    FORWARD = "forward"
    BACKWARD = "backward"
    OPTIMIZER = "optimizer"
    ZERO_GRAD = "zero_grad"
    PREFILL = "prefill"
    DECODE = "decode"
    OTHER = "other"


class Role(IntFlag):
    """What torch said about a block, as bits; several may hold. `classify` turns them into a Category."""

    NONE = 0
    PARAMETER = 1
    MASTER_PARAMETER = 2
    BUFFER = 4
    GRADIENT = 8
    OPTIMIZER_STATE = 16
    SAVED = 32
    """Given to autograd, to be held until its backward."""
    SAVED_BY_HOOK = 64
    """Given to an inner saved-tensor hook (checkpointing, offload), which may or may not hold it."""
    INPUT = 128
    KV_CACHE = 256
    OUTPUT = 512
    """Made in the output layer or after it in the same forward: logits and loss."""
    RECOMPUTED = 1024
    """Made by a module's forward that ran inside backward (activation checkpointing)."""
    OFFLOADED = 2048
    """The copy that an offload hook keeps elsewhere."""
    COMMUNICATION = 4096
    WORKSPACE = 8192
    UPDATE = 16384
    """Made by an optimizer's step that runs within another phase (optimizer in backward)."""


class Category(Enum):
    """What a block is for. The value is the definition shown to users."""

    PARAMETER = "Weights of the model."
    MASTER_PARAMETER = "Higher-precision copies of the weights that the optimizer updates."
    BUFFER = "Tensors of the model that are not trained, such as rotary tables and running means."
    GRADIENT = "The parameters' .grad tensors."
    OPTIMIZER_STATE = "What the optimizer keeps for each parameter, such as Adam's two moments."
    ACTIVATION = "Made in forward and held for backward; recomputed and offloaded ones too."
    LOGITS = "What the output layer and the loss make in forward."
    ACTIVATION_GRADIENT = "Made in backward and not a parameter's .grad: gradients on their way to earlier layers."
    INPUT = "The batch: token ids, labels, masks."
    KV_CACHE = "Keys and values kept for the tokens seen so far."
    COMMUNICATION = "Buffers of collectives: all-gather, reduce-scatter, buckets."
    OPTIMIZER_TEMPORARY = "Made and dropped inside the optimizer's step."
    TEMPORARY = "Made in forward, not held for backward, gone by the end of the phase."
    WORKSPACE = "Scratch memory of cuBLAS and cuDNN."
    UNKNOWN = "Everything else; always shown."

    @property
    def label(self) -> str:
        """The name in sentence case, such as ``Optimizer state``."""
        return "KV cache" if self is Category.KV_CACHE else self.name.replace("_", " ").capitalize()


_NAME = pa.dictionary(pa.int32(), pa.string())

EVENTS = pa.schema(
    [
        ("time_us", pa.float64()),
        ("device", pa.int16()),
        ("rank", pa.int16()),
        ("step", pa.int32()),
        ("phase", _NAME),
        ("action", _NAME),
        ("requested_bytes", pa.int64()),
        ("block_bytes", pa.int64()),
        ("block", pa.int64()),
        ("address", pa.int64()),
        ("pool", _NAME),
        ("segment", pa.int64()),
        ("stream", pa.int64()),
        ("roles", pa.int32()),
        ("module", _NAME),
        ("operator", _NAME),
        ("dtype", _NAME),
        ("shape", _NAME),
        ("tensor", _NAME),
        ("stack", pa.int32()),
    ],
    metadata={
        "time_us": "microseconds since the recording began",
        "device": "GPU index; -1 host, -2 pinned host",
        "step": "-1 before the first step",
        "block": "a block's events share this number: it is born once and freed at most once",
        "roles": "Role bits; the rows that free a block carry 0",
        "block_bytes": "null where no caching allocator was involved",
        "shape": "such as 4x128x768; empty for a scalar, null where unknown",
    },
)
"""One row an event in the order of time. A free repeats the block's bytes; attribution stands on the row of birth only."""

SEGMENTS = pa.schema(
    [
        ("time_us", pa.float64()),
        ("device", pa.int16()),
        ("rank", pa.int16()),
        ("action", _NAME),
        ("address", pa.int64()),
        ("bytes", pa.int64()),
        ("stream", pa.int64()),
        ("stack", pa.int32()),
    ]
)
"""What the caching allocator did with the driver: segment_alloc, segment_free, segment_map, segment_unmap, oom, snapshot; preexisting is
what it had before the recording began. The sum of the bytes so far, freed and unmapped ones negative, is reserved."""

OPERATORS = pa.schema(
    [
        ("time_us", pa.float64()),
        ("duration_us", pa.float64()),
        ("rank", pa.int16()),
        ("step", pa.int32()),
        ("phase", _NAME),
        ("module", _NAME),
        ("operator", _NAME),
        ("flops", pa.int64()),
        ("bytes", pa.int64()),
    ]
)
SAMPLES = pa.schema(
    [
        ("time_us", pa.float64()),
        ("source", _NAME),
        ("device", pa.int16()),
        ("metric", _NAME),
        ("value", pa.float64()),
    ]
)
"""Readings: source nvml, psutil or allocator; metric such as rss_bytes, device_used_bytes, power_watts, utilization_percent."""

SCALARS = pa.schema([("step", pa.int32()), ("name", _NAME), ("value", pa.float64())])
MARKS = pa.schema(
    [
        ("kind", _NAME),
        ("name", _NAME),
        ("start_us", pa.float64()),
        ("end_us", pa.float64()),
        ("step", pa.int32()),
        ("rank", pa.int16()),
    ]
)
"""Named intervals: kind step, phase or region."""

STACKS = pa.schema([("stack", pa.int32()), ("frames", pa.string())])
"""Deduplicated call stacks: one ``file:line:function`` a line, innermost first."""

TABLES: dict[str, pa.Schema] = {
    "events": EVENTS,
    "segments": SEGMENTS,
    "operators": OPERATORS,
    "samples": SAMPLES,
    "scalars": SCALARS,
    "marks": MARKS,
    "stacks": STACKS,
}


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a recording is, beside its tables."""

    title: str
    """One line that a list of recordings shows."""
    provenance: Provenance
    engine: str
    """What produced it, such as ``torch.profiler cpu``."""
    created: str
    """UTC, ISO 8601."""
    id: str = ""
    """Content hash, set when the recording is written."""
    job: dict[str, Any] | None = None
    """The `Job` as JSON, where there was one: enough to run it again."""
    key: str | None = None
    """Under which the run store finds an equal run again."""
    warmup_steps: int = 0
    """Steps that the peak does not cover."""
    complete: bool = True
    """False where the run ended before its recording was closed."""
    versions: dict[str, str] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)
    """The device whose memory the events are about: name, kind (cpu, cuda), total_bytes where known."""
    host: dict[str, Any] = field(default_factory=dict)
    overhead: dict[str, float] = field(default_factory=dict)
    """What recording itself cost: capture_cpu_seconds, conversion_cpu_seconds, run_cpu_seconds."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Sizes that are known beside the events: num_parameters, oom and the like."""
    warnings: list[str] = field(default_factory=list)
    """What this recording cannot show, one sentence each."""

    @property
    def clock(self) -> Clock:
        """What the recording's times tell."""
        if self.provenance is not Provenance.SIMULATED:
            return Clock.MEASURED
        return Clock.ESTIMATED if self.device.get("kind") == "cuda" else Clock.ORDER

    def to_json(self) -> dict[str, Any]:
        """Return plain data for the manifest."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Metadata:
        """Return the metadata of a manifest; unknown keys are ignored, so that newer files of this schema still open.

        Raises:
            KeyError, TypeError, ValueError: the manifest lacks a field or holds a wrong one.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        values = {name: value for name, value in data.items() if name in known}
        metadata = cls(**{**values, "provenance": Provenance(data["provenance"])})
        metadata._check_types()
        return metadata

    def _check_types(self) -> None:
        """Refuse a field of the wrong kind: manifests come from outside."""
        kinds = {str: "title engine created id", dict: "versions device host overhead facts", list: "warnings", int: "warmup_steps"}
        wrong = [name for kind, names in kinds.items() for name in names.split() if not isinstance(getattr(self, name), kind)]
        wrong += [name for name, kind in (("job", dict), ("key", str)) if not isinstance(getattr(self, name), (kind, type(None)))]
        if wrong or not all(isinstance(warning, str) for warning in self.warnings):
            raise ValueError(f"{(wrong or ['warnings'])[0]} is of the wrong kind")


@dataclass(frozen=True, eq=False)
class Recording:
    """One run's memory, immutable: metadata and Arrow tables with the schemas of this module."""

    metadata: Metadata
    events: pa.Table
    segments: pa.Table = field(default_factory=SEGMENTS.empty_table)
    operators: pa.Table = field(default_factory=OPERATORS.empty_table)
    samples: pa.Table = field(default_factory=SAMPLES.empty_table)
    scalars: pa.Table = field(default_factory=SCALARS.empty_table)
    marks: pa.Table = field(default_factory=MARKS.empty_table)
    stacks: pa.Table = field(default_factory=STACKS.empty_table)

    @property
    def id(self) -> str:
        """The content hash under which it is stored and cached."""
        return self.metadata.id
