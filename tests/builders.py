"""Recordings made by hand for tests: a few events with known answers, or a million that look like a training run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from profiler.recording import EVENTS, MARKS, SAMPLES, Action, Metadata, Phase, Provenance, Recording, Role

KIB = 1024
MIB = 1024**2
_US_PER_EVENT = 10.0


def metadata(**fields: Any) -> Metadata:
    """Return the metadata of a made-up measured run."""
    defaults = {"title": "made by hand", "provenance": Provenance.MEASURED, "engine": "builder", "created": "2026-01-01T00:00:00Z"}
    return Metadata(**{**defaults, **fields})


@dataclass
class Tape:
    """Writes events one after another, 10 us apart, and returns them as a `Recording`.

    ``block = tape.alloc(64, roles=Role.SAVED, module="h.0")`` then ``tape.free(block)``; ``with tape.step(0), tape.phase(Phase.FORWARD):``
    sets where they happen and marks the interval.
    """

    device: int = -1
    rank: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    marks: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    _step: int = -1
    _phase: Phase = Phase.OTHER
    _sizes: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def now_us(self) -> float:
        return len(self.rows) * _US_PER_EVENT

    def alloc(self, size: int, **columns: Any) -> int:
        return self._birth(Action.ALLOC, size, columns)

    def preexisting(self, size: int, **columns: Any) -> int:
        return self._birth(Action.PREEXISTING, size, columns)

    def free(self, block: int, action: Action = Action.FREE_COMPLETED) -> int:
        """Free a block and return the row."""
        self.rows.append({**self._sizes[block], **self._place(), "action": action.value, "roles": 0})
        return len(self.rows) - 1

    @contextmanager
    def step(self, index: int) -> Iterator[None]:
        previous, self._step, start = self._step, index, self.now_us
        yield
        self._mark("step", f"step {index}", start)
        self._step = previous

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        previous, self._phase, start = self._phase, phase, self.now_us
        yield
        self._mark("phase", phase.value, start)
        self._phase = previous

    def sample(self, metric: str, value: float, source: str = "psutil", device: int = -1) -> None:
        self.samples.append({"time_us": self.now_us, "source": source, "device": device, "metric": metric, "value": value})

    def recording(self, **fields: Any) -> Recording:
        return Recording(
            metadata=metadata(**fields),
            events=pa.Table.from_pylist(self.rows, schema=EVENTS),
            marks=pa.Table.from_pylist(self.marks, schema=MARKS),
            samples=pa.Table.from_pylist(self.samples, schema=SAMPLES),
        )

    def _birth(self, action: Action, size: int, columns: dict[str, Any]) -> int:
        block = len(self._sizes)
        facts = {"block": block, "requested_bytes": size, "device": self.device, "rank": self.rank}
        facts |= {name: columns[name] for name in ("device", "rank", "block_bytes", "address") if name in columns}
        self._sizes[block] = facts
        roles = int(columns.pop("roles", Role.NONE))
        self.rows.append({**self._place(), **facts, **columns, "action": action.value, "roles": roles})
        return block

    def _place(self) -> dict[str, Any]:
        return {"time_us": self.now_us, "step": self._step, "phase": self._phase.value}

    def _mark(self, kind: str, name: str, start: float) -> None:
        mark = {"kind": kind, "name": name, "start_us": start, "end_us": self.now_us, "step": self._step, "rank": self.rank}
        self.marks.append(mark)


def small_training(num_steps: int = 3, warmup_steps: int = 1) -> Recording:
    """Return a training of one linear layer whose every number is known.

    Weights 400 B, input 40 B, activation 200 B, logits 100 B, gradient 400 B, optimizer state 800 B made in step 0. From step 1 on the
    peak is in backward: 400 + 800 + 40 + 200 + 100 + 400 + 60 = 2,000 B.
    """
    tape = Tape()
    tape.preexisting(400, roles=Role.PARAMETER, module="fc", tensor="fc.weight", dtype="float32", shape="10x10")
    for step in range(num_steps):
        with tape.step(step):
            _small_step(tape, first=step == 0)
    return tape.recording(warmup_steps=warmup_steps, title="small training")


def _small_step(tape: Tape, *, first: bool) -> None:
    with tape.phase(Phase.DATA):
        batch = tape.alloc(40, roles=Role.INPUT, tensor="input_ids")
    with tape.phase(Phase.FORWARD):
        hidden = tape.alloc(200, roles=Role.SAVED, module="fc", operator="aten::addmm")
        scratch = tape.alloc(50, module="fc", operator="aten::mul")
        tape.free(scratch)
        logits = tape.alloc(100, roles=Role.OUTPUT | Role.SAVED, module="head", operator="aten::linear")
    with tape.phase(Phase.BACKWARD):
        flowing = tape.alloc(60, module="fc", operator="aten::mm")
        gradient = tape.alloc(400, roles=Role.GRADIENT, module="fc", tensor="fc.weight.grad")
        for block in (flowing, logits, hidden):
            tape.free(block)
    with tape.phase(Phase.OPTIMIZER):
        if first:
            tape.alloc(800, roles=Role.OPTIMIZER_STATE, tensor="exp_avg")
        update = tape.alloc(30, operator="aten::_foreach_mul")
        tape.free(update)
    with tape.phase(Phase.ZERO_GRAD):
        tape.free(gradient)
    tape.free(batch)


def synthetic_recording(num_events: int = 1_000_000, seed: int = 0) -> Recording:
    """Return a training-like recording of exactly ``num_events`` events: one step is made by hand and repeated with varied times."""
    rng = np.random.default_rng(seed)
    setup, step = Tape(), Tape()
    num_layers = int(np.clip(num_events // 600, 1, 48))
    _setup(setup, num_layers)
    _training_step(step, num_layers, rng)
    num_steps = max(-(-(num_events - len(setup.rows)) // len(step.rows)), 1)
    events = _repeated(setup, step, num_steps, rng)
    times = events["time_us"].to_numpy()
    marks = _repeated_marks(step, num_steps, times, len(setup.rows), len(step.rows))
    kept = events.slice(0, num_events)
    samples = _rss_samples(float(times[-1]))
    return Recording(
        metadata=metadata(title=f"synthetic training, {num_events:,} events", warmup_steps=1), events=kept, marks=marks, samples=samples
    )


def _setup(tape: Tape, num_layers: int) -> None:
    with tape.phase(Phase.BUILD):
        for layer in range(num_layers):
            for name, size in _WEIGHTS.items():
                path = f"transformer.h.{layer}.{name}"
                tape.preexisting(size, roles=Role.PARAMETER, module=path, tensor=f"{path}.weight", dtype="float32", shape="768x768")
        for layer in range(num_layers):
            for name, size in _WEIGHTS.items():
                tape.preexisting(2 * size, roles=Role.OPTIMIZER_STATE, module=f"transformer.h.{layer}.{name}", tensor="exp_avg")


_WEIGHTS = {"attn.c_attn": 7 * MIB, "attn.c_proj": 3 * MIB, "mlp.c_fc": 9 * MIB, "mlp.c_proj": 9 * MIB, "ln_1": 3 * KIB, "ln_2": 3 * KIB}
_OPERATORS = ("aten::addmm", "aten::native_layer_norm", "aten::gelu", "aten::scaled_dot_product_attention", "aten::add")


def _training_step(tape: Tape, num_layers: int, rng: np.random.Generator) -> None:
    saved: list[int] = []
    gradients: list[int] = []
    with tape.phase(Phase.DATA):
        batch = tape.alloc(8 * KIB, roles=Role.INPUT, tensor="input_ids", dtype="int64", shape="4x256")
    with tape.phase(Phase.FORWARD):
        for layer in range(num_layers):
            for name in _WEIGHTS:
                saved += _forward_module(tape, f"transformer.h.{layer}.{name}", rng)
        logits = tape.alloc(200 * MIB, roles=Role.OUTPUT | Role.SAVED, module="lm_head", operator="aten::mm", shape="4x256x50257")
    with tape.phase(Phase.BACKWARD):
        tape.free(logits)
        for layer in reversed(range(num_layers)):
            for name, size in reversed(_WEIGHTS.items()):
                path = f"transformer.h.{layer}.{name}"
                flowing = tape.alloc(3 * MIB, module=path, operator="aten::mm", dtype="float32", shape="4x256x768")
                gradients.append(tape.alloc(size, roles=Role.GRADIENT, module=path, tensor=f"{path}.weight.grad"))
                for _ in range(3):
                    tape.free(saved.pop())
                tape.free(flowing)
    with tape.phase(Phase.OPTIMIZER):
        for _ in gradients:
            tape.free(tape.alloc(int(rng.integers(1, 9)) * MIB, operator="aten::_foreach_addcdiv_"))
    with tape.phase(Phase.ZERO_GRAD):
        for gradient in gradients:
            tape.free(gradient)
    tape.free(batch)


def _forward_module(tape: Tape, path: str, rng: np.random.Generator) -> list[int]:
    blocks = []
    for _ in range(3):
        operator = _OPERATORS[int(rng.integers(len(_OPERATORS)))]
        size = int(rng.integers(256, 12 * 1024)) * 512
        blocks.append(tape.alloc(size, roles=Role.SAVED, module=path, operator=operator, dtype="float32", shape="4x256x768"))
        tape.free(tape.alloc(size // 2, module=path, operator="aten::empty_like"))
    return blocks


def _repeated(setup: Tape, step: Tape, num_steps: int, rng: np.random.Generator) -> pa.Table:
    """Return the set-up's events and ``num_steps`` copies of the step's, with their own blocks, addresses, steps and times."""
    first = pa.Table.from_pylist(setup.rows, schema=EVENTS)
    one = pa.Table.from_pylist(step.rows, schema=EVENTS)
    copies = one.take(pa.array(np.tile(np.arange(len(one)), num_steps)))
    copy = np.repeat(np.arange(num_steps), len(one))
    num_setup, num_per_step = len(setup._sizes), len(step._sizes)
    blocks = np.tile(one["block"].to_numpy(), num_steps) + num_setup + copy * num_per_step
    events = pa.concat_tables([_set(first, "block", first["block"].to_numpy()), _set(_set(copies, "block", blocks), "step", copy)])
    events = events.unify_dictionaries().combine_chunks()
    gaps = rng.exponential(_US_PER_EVENT, len(events))
    starts, sizes = _addresses(setup, step)
    address = np.concatenate([starts[: len(first)], np.tile(starts[len(first) :], num_steps)])
    assert sizes >= address.max()
    return _set(_set(events, "time_us", np.cumsum(gaps)), "address", address)


def _set(table: pa.Table, name: str, values: Any) -> pa.Table:
    index = table.schema.get_field_index(name)
    return table.set_column(index, table.schema.field(name), pa.array(values, table.schema.field(name).type))


def _addresses(setup: Tape, step: Tape) -> tuple[np.ndarray, int]:
    """Return an address for every row, as a bump allocator with exact-size reuse would give it, and the end of the space."""
    free: dict[int, list[int]] = {}
    held: dict[tuple[int, int], int] = {}
    top = 0x7F00_0000_0000
    out = []
    for part, tape in enumerate((setup, step)):
        for row in tape.rows:
            key, size = (part, row["block"]), row["requested_bytes"]
            if row["action"] in (Action.ALLOC.value, Action.PREEXISTING.value):
                if not free.get(size):
                    free.setdefault(size, []).append(top)
                    top += size
                held[key] = free[size].pop()
            else:
                free[size].append(held[key])
            out.append(held[key])
    return np.array(out, np.int64), top


def _repeated_marks(step: Tape, num_steps: int, times: np.ndarray, num_setup: int, num_rows: int) -> pa.Table:
    rows = []
    for index in range(num_steps):
        offset = num_setup + index * num_rows
        ends = [*(int(mark["end_us"] / _US_PER_EVENT) for mark in step.marks)]
        for mark, end in zip(step.marks, ends, strict=True):
            start = int(mark["start_us"] / _US_PER_EVENT)
            span = {"start_us": float(times[offset + start]), "end_us": float(times[offset + end - 1])}
            rows.append({**mark, **span, "step": index})
        span = {"start_us": float(times[offset]), "end_us": float(times[offset + num_rows - 1])}
        rows.append({"kind": "step", "name": f"step {index}", **span, "step": index, "rank": 0})
    return pa.Table.from_pylist(rows, schema=MARKS)


def _rss_samples(end_us: float) -> pa.Table:
    time_us = np.linspace(0, end_us, min(int(end_us / 10_000) + 2, 5_000))
    value = 2e9 + 5e8 * np.sin(time_us / max(end_us, 1) * 20)
    columns = {
        "time_us": time_us,
        "source": ["psutil"] * len(time_us),
        "device": np.full(len(time_us), -1),
        "metric": ["rss_bytes"] * len(time_us),
    }
    return pa.table({**columns, "value": value.round()}, schema=SAMPLES)
