"""An experiment -> its result: run in a process of its own, on one thread, with processor time.

The order keeps the numbers apart. The baseline is built first and its resident set read; the techniques work on that one copy, so that the
highest resident set is theirs; quality is judged; and only when sizes are known is a second baseline built, for agreement and for the
times, which are taken in turns.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn

from profiler.capture.surroundings import library_versions
from profiler.compression.base import Kind
from profiler.compression.experiment import Experiment
from profiler.compression.few_layers import FewLayers
from profiler.compression.files import StateFile, as_bytes
from profiler.compression.held import held_bytes, tensors_of
from profiler.compression.histograms import weight_histogram
from profiler.compression.layers import matrices
from profiler.compression.quality import agreement, evaluate, judge, judged_by, scorers
from profiler.compression.resident import ResidentPeak, resident_bytes
from profiler.compression.result import MOST_KEPT_BYTES, LayerFacts, Quality, Result, Size, StageFacts
from profiler.compression.subject import Subject
from profiler.compression.task import Forward, Task
from profiler.units import MIB, format_bytes

Tell = Callable[[str, float], None]
"""Called with a phase and how much of the whole is done, 0 to 1."""
_Seconds = tuple[list[float], list[float]]
"""Of several passes: the processor's, and the clock's."""
_FINAL = "final"
_TIMED_ROUNDS = 7
_BASELINE_SHARE, _STAGES_SHARE, _LAYERS_FROM = 0.1, 0.6, 0.75
NOISE_BYTES = 4 * MIB
"""A resident set may differ by this much for reasons that have nothing to do with weights."""


@dataclass(frozen=True)
class _Baseline:
    """The untouched model's facts."""

    size: Size
    quality: Quality
    digest: str
    edges: list[float]
    counts: list[int]


def measure(
    experiment: Experiment,
    task: Task,
    tell: Tell = lambda phase, share: None,
    keep: Path | None = None,
    controls: Mapping[str, float] = MappingProxyType({}),
) -> Result:
    """Return what an experiment finds. Meant for a process that does nothing else: the resident set is the process's.

    Args:
        experiment: what is done.
        task: the model of that name.
        tell: called as it goes; what it raises ends the work.
        keep: where the file of the compressed model goes; None: nowhere.
        controls: losses of `Experiment.controls` that are known, by the stage; they are not trained again.
    """
    torch.set_num_threads(1)
    torch.manual_seed(experiment.seed)
    with tempfile.TemporaryDirectory(prefix="headroom-") as name:
        folder = Path(name)
        tell("loading", 0.0)
        _warm_up(experiment, task, folder)
        start = resident_bytes()
        subject = Subject(task=task, model=task.build(), seed=experiment.seed, folder=folder)
        baseline = _baseline(subject, start)
        stages = tuple(_applied(subject, experiment, index, start, tell, controls) for index in range(len(experiment.stages)))
        tell("measuring", _BASELINE_SHARE + _STAGES_SHARE)
        result = _result(experiment, subject, baseline, stages, start)
        if experiment.by_layer:
            result = replace(result, layers=_layer_by_layer(experiment, task, tell))
        if keep is not None and result.size.file_bytes <= MOST_KEPT_BYTES:
            shutil.move(folder / _FINAL, keep)
        return result


def _warm_up(experiment: Experiment, task: Task, folder: Path) -> None:
    """Load every library, go through the baseline once, and apply to a few layers what brings kernels of its own.

    What all that leaves in the process is there before the first measurement, and so is not mistaken for the model's memory.
    """
    for stage, technique in zip(experiment.stages, experiment.techniques, strict=True):
        technique.preload()
        if technique.kind in (Kind.QUANTIZATION, Kind.SPARSE_STORAGE):
            trial = Subject(task=FewLayers(), model=FewLayers().build())
            technique.apply(trial, technique.read_options(dict(stage.options)))
            _forward_once(trial)
    untouched = Subject(task=task, model=task.build(), folder=folder)
    _baseline(untouched, 0)


def _baseline(subject: Subject, start: int) -> _Baseline:
    model, path = subject.model, subject.folder / "baseline"
    _forward_once(subject)
    resident = resident_bytes() - start
    StateFile().write(model, path)
    edges, counts = weight_histogram(model)
    size = Size(held_bytes=held_bytes(model), resident_bytes=resident, file_bytes=path.stat().st_size)
    path.unlink()
    return _Baseline(size, judge(subject.task, subject.logits), model_hash(model), edges, counts)


def model_hash(model: nn.Module) -> str:
    """Return a digest of everything that a model holds, names included."""
    digest = hashlib.sha256()
    for name, tensor in tensors_of(model):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(as_bytes(tensor).numpy().data)
    return digest.hexdigest()[:16]


def _applied(subject: Subject, experiment: Experiment, index: int, start: int, tell: Tell, controls: Mapping[str, float]) -> StageFacts:
    stage, technique = experiment.stages[index], experiment.techniques[index]
    first = _BASELINE_SHARE + _STAGES_SHARE * index / len(experiment.stages)
    subject.tell = lambda phase, share: tell(f"{technique.name}: {phase}", first + _STAGES_SHARE * share / len(experiment.stages))
    subject.tell("starting", 0.0)
    subject.extra, subject.control = {}, None
    resident_bytes()
    began = time.process_time()
    with ResidentPeak() as peak:
        technique.apply(subject, technique.read_options(dict(stage.options)))
    seconds = time.process_time() - began
    if subject.control is not None and (index or technique.kind is not Kind.TRAINING):  # fine-tuning alone is the control
        known = controls.get(str(stage))
        subject.extra["control_loss"] = subject.control() if known is None else known
    path = subject.folder / "stage"
    counted = subject.file.write(subject.model, path)
    last = index == len(experiment.stages) - 1
    return StageFacts(
        stage=str(stage),
        held_bytes=held_bytes(subject.model),
        file_bytes=path.stat().st_size,
        loss=math.nan if last else evaluate(subject.logits, subject.task.held_out()).loss,  # the result's quality is the last one's
        conversion_peak_bytes=max(0, peak.peak_bytes - start),
        conversion_seconds=seconds,
        extra=subject.extra | counted,
    )


def _result(experiment: Experiment, subject: Subject, baseline: _Baseline, stages: tuple[StageFacts, ...], start: int) -> Result:
    path = subject.folder / _FINAL
    _forward_once(subject)
    resident = resident_bytes() - start
    subject.file.write(subject.model, path)
    size = Size(held_bytes=held_bytes(subject.model), resident_bytes=resident, file_bytes=path.stat().st_size)
    exact = subject.file.exact(subject.model, path)
    held_out = subject.task.held_out()
    quality = judge(subject.task, subject.logits)
    stages = (*stages[:-1], *(replace(stage, loss=quality.loss) for stage in stages[-1:]))
    original = partial(subject.task.logits, subject.task.build())
    agreed, divergence = agreement(subject.logits, original, held_out)
    (seconds, wall_seconds), (baseline_seconds, baseline_wall_seconds) = _times(subject.logits, original, held_out[0].inputs)
    edges, counts = weight_histogram(subject.model, baseline.edges)
    num_targets, num_text_bytes = judged_by(subject.task)
    return Result(
        experiment=experiment,
        unit=subject.task.unit,
        num_targets=num_targets,
        num_text_bytes=num_text_bytes,
        size=size,
        baseline_size=baseline.size,
        quality=quality,
        baseline_quality=baseline.quality,
        agreement=agreed,
        divergence=divergence,
        seconds=statistics.median(seconds),
        baseline_seconds=statistics.median(baseline_seconds),
        seconds_spread=(min(seconds), max(seconds)),
        baseline_seconds_spread=(min(baseline_seconds), max(baseline_seconds)),
        wall_seconds=statistics.median(wall_seconds),
        baseline_wall_seconds=statistics.median(baseline_wall_seconds),
        conversion_peak_bytes=max((stage.conversion_peak_bytes for stage in stages), default=0),
        conversion_seconds=sum(stage.conversion_seconds for stage in stages),
        stages=stages,
        exact_file=exact,
        notes=(*subject.notes, *size_notes(size, baseline.size)),
        model_hash=baseline.digest,
        histograms={"edges": edges, "before": baseline.counts, "after": counts},
        versions=library_versions() | scorers(quality),
        created=time.time(),
    )


def _layer_by_layer(experiment: Experiment, task: Task, tell: Tell) -> tuple[LayerFacts, ...]:
    """Return the loss with the first technique on each matrix alone."""
    stage, technique = experiment.stages[0], experiment.techniques[0]
    options = technique.read_options(dict(stage.options))
    shapes = {matrix.name: matrix.weight.numel() for matrix in matrices(task.build(), task.head)}
    found: list[LayerFacts] = []
    for name, num_weights in shapes.items():
        tell(f"{name} alone", _LAYERS_FROM + (1 - _LAYERS_FROM) * len(found) / len(shapes))
        subject = Subject(task=task, model=task.build(), seed=experiment.seed, only=name)
        technique.apply(subject, options)
        found.append(LayerFacts(name=name, num_weights=num_weights, loss=evaluate(subject.logits, task.held_out()).loss))
    return tuple(found)


def size_notes(size: Size, baseline: Size) -> list[str]:
    """Say where one of the three ways to count is blind."""
    notes = []
    if baseline.held_bytes < NOISE_BYTES:
        notes.append(f"Resident sets are exact to some {format_bytes(NOISE_BYTES)}, more than this model has: trust the held bytes.")
    elif size.held_bytes > size.resident_bytes + NOISE_BYTES:
        notes.append("The process grew by less than the model seems to hold: weights are packed where Python does not see them.")
    if size.resident_bytes > 1.5 * size.held_bytes + NOISE_BYTES:
        notes.append("The process grew by much more than the model holds: a library keeps a copy of its own, or memory to work in.")
    if size.held_bytes >= baseline.held_bytes and size.file_bytes < 0.99 * baseline.file_bytes:
        notes.append("Saves on disk and in transfer only: in memory the model is as large as before.")
    return notes


def _forward_once(subject: Subject) -> None:
    """Run the model, so that what is packed at the first call is packed."""
    with torch.no_grad():
        subject.logits(subject.task.held_out()[0].inputs)


def _times(forward: Forward, original: Forward, inputs: torch.Tensor) -> tuple[_Seconds, _Seconds]:
    """Return the processor's and the clock's seconds of several passes of each, taken in turns."""
    taken: tuple[_Seconds, _Seconds] = (([], []), ([], []))
    with torch.no_grad():
        for _ in range(_TIMED_ROUNDS):
            for run, (seconds, wall_seconds) in zip((forward, original), taken, strict=True):
                began, wall_began = time.process_time(), time.perf_counter()
                run(inputs)
                seconds.append(time.process_time() - began)
                wall_seconds.append(time.perf_counter() - wall_began)
    return taken
