"""The Trainer's script against the run it stands for. What differs is named and counted by hand."""

from __future__ import annotations

import gc
import warnings
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from profiler import record
from profiler.analysis.footprint import Footprint
from profiler.capture.engine import capture_job
from profiler.models.catalogue import facts_of
from profiler.optimizations.export.trainer import trainer_program
from profiler.recording import Category, Phase
from profiler.spec import Job, Model, Toggle, Workload
from profiler.storage import read_recording

MODEL = Model(name="tiny-llama")
BATCH, SEQ, INT64 = 2, 16, 8
COUNTERS = 1024
"""The Trainer's own numbers, such as the sum of losses, are fewer bytes than this."""
LASTING = (Category.PARAMETER, Category.BUFFER, Category.OPTIMIZER_STATE, Category.GRADIENT)


@pytest.mark.parametrize(("toggles", "itemsize"), [((), 4), (("bfloat16", "checkpointing"), 2), (("amp",), 4)])
def test_the_peak_in_the_optimizers_step_differs_by_the_order_of_parameters(
    toggles: tuple[str, ...], itemsize: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = runs(toggles, tmp_path, monkeypatch)
    assert ours.peak.phase is theirs.peak.phase is Phase.OPTIMIZER
    assert {name: theirs.peak.categories[name] for name in LASTING} == {name: ours.peak.categories[name] for name in LASTING}
    facts = facts_of(MODEL)
    matrix, vector = facts.hidden_size * (facts.intermediate_size or 0), facts.hidden_size
    order = (matrix - vector) * itemsize  # of what is updated before the output layer: the last matrix, and not the last norm
    labels = BATCH * SEQ * INT64  # a tensor of their own; in the job they are the inputs
    rest = theirs.peak_bytes - ours.peak_bytes - order - labels
    assert 0 <= rest <= COUNTERS


def test_the_logits_are_gone_before_backward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = runs(("lora",), tmp_path, monkeypatch)
    assert ours.peak.phase is theirs.peak.phase is Phase.BACKWARD
    logits = BATCH * SEQ * facts_of(MODEL).vocab_size * 4
    rest = theirs.peak_bytes - (ours.peak_bytes - logits) - BATCH * SEQ * INT64
    assert abs(rest) <= COUNTERS


def runs(toggles: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Footprint, Footprint]:
    monkeypatch.chdir(folder)  # where the Trainer makes its folder of outputs
    job = Job(
        model=MODEL, workload=Workload(batch=BATCH, seq=SEQ, steps=1, warmup_steps=1), toggles=tuple(Toggle.parse(text) for text in toggles)
    )
    gc.collect()
    capture_job(job, folder / "ours.headroom")
    gc.collect()
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")  # those of the Trainer are not ours
        with record(folder / "theirs.headroom"):
            exec(compile(trainer_program(job).text, "train.py", "exec"), {"__name__": "__main__"})
    return footprint(folder / "ours.headroom"), footprint(folder / "theirs.headroom")


def footprint(path: Path) -> Footprint:
    """Return the footprint of the last step."""
    recording = read_recording(path)
    last = max(recording.events["step"].to_pylist())
    return Footprint.of(replace(recording, metadata=replace(recording.metadata, warmup_steps=last)))
