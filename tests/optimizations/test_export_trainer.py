"""The Trainer's script against the run it stands for: each block at the peak is of both, or of a named mechanism with its own bytes."""

from __future__ import annotations

import gc
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from itertools import chain, pairwise
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import transformers.trainer  # noqa: F401  # what it keeps in globals exists before either run, and is no part of them

from profiler.analysis.timeline import Timeline
from profiler.capture.engine import capture_job
from profiler.models.build import build_model
from profiler.models.catalogue import facts_of
from profiler.models.config import Head
from profiler.optimizations.export.trainer import trainer_program
from profiler.recording import Phase
from profiler.spec import Job, Model, Toggle, Workload
from profiler.storage import read_recording
from tests.optimizations.recorded import recorded

BATCH, SEQ, STEPS = 2, 16, 2
INT64, FLOAT32, BFLOAT16 = 8, 4, 2
Mechanisms = dict[str, Sequence[int]]
"""Bytes of blocks, by what holds them."""


@dataclass(frozen=True)
class Case:
    """A job, and the phase of its peak."""

    phase: Phase
    toggles: tuple[str, ...] = ()
    model: str = "tiny-llama"
    parts: int = 1
    """Micro-batches of `BATCH` sequences each."""
    gradient: int = FLOAT32
    """Bytes a number."""
    logit: int = FLOAT32

    @property
    def job(self) -> Job:
        sizes = Workload(batch=BATCH * self.parts, micro_batches=self.parts, seq=SEQ, steps=1, warmup_steps=STEPS - 1)
        return Job(model=Model(name=self.model), workload=sizes, toggles=tuple(map(Toggle.parse, self.toggles)))


CASES = [
    Case(Phase.OPTIMIZER),
    Case(Phase.OPTIMIZER, ("bfloat16", "checkpointing"), gradient=BFLOAT16),
    Case(Phase.BACKWARD, ("amp",), parts=2, logit=BFLOAT16),
    Case(Phase.BACKWARD, ("lora",)),
    Case(Phase.BACKWARD, model="tiny-gpt2", parts=3),
    Case(Phase.BACKWARD, model="tiny-bert"),
]
FURTHER = [
    Case(Phase.OPTIMIZER, ("rmsprop",)),
    Case(Phase.OPTIMIZER, ("adamw-8bit",)),
    Case(Phase.OPTIMIZER, model="tiny-t5"),
    Case(Phase.BACKWARD, ("amp", "lora"), parts=2, logit=BFLOAT16),
    Case(Phase.BACKWARD, ("sgd:momentum=0.9",)),
    Case(Phase.BACKWARD, ("adamw:implementation=fused",)),
]


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in FURTHER)], ids=str)
def test_each_block_at_the_peak_is_of_both_or_of_a_named_mechanism(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where the Trainer makes its folder of outputs
    gc.collect()
    capture_job(case.job, tmp_path / "ours.headroom")
    gc.collect()
    run_script(trainer_program(case.job).text, tmp_path / "theirs.headroom")
    ours, theirs = (blocks_at_peak(tmp_path / name, case.phase) for name in ("ours.headroom", "theirs.headroom"))
    both_and_theirs, both_and_ours = (Counter(chain(*found(case).values())) for found in (only_theirs, only_ours))
    assert theirs + both_and_ours == ours + both_and_theirs


def only_theirs(case: Case) -> Mechanisms:
    found: Mechanisms = {
        "the data set, whole from the start": [STEPS * BATCH * case.parts * SEQ * INT64],
        "token ids and labels of each micro-batch, collated before the first": [BATCH * SEQ * INT64] * 2 * case.parts,
        "the sum of losses, until it is logged": [FLOAT32],
        "how many tokens the losses are divided by": [FLOAT32],
        "the loss of the last micro-batch that is over": [FLOAT32],
        "the norm of the gradients, for the log": [case.gradient],
    }
    if case.phase is Phase.BACKWARD:
        return found | {"the loss, and its share of the micro-batches": [FLOAT32] * 2}
    found |= {"temporaries of the step, in the Trainer's order of parameters": temporaries(case, matrices_first=True)}
    if case.toggles == ("adamw-8bit",):  # torchao keeps a group's learning rate in a tensor
        found |= {"the rate of one more group": [FLOAT32], "both groups' rates, thrice copied by the scheduler": [FLOAT32] * 2 * 3}
    return found


def only_ours(case: Case) -> Mechanisms:
    names = 2 if facts_of(case.job.model).head is Head.MASKED_LM else 1  # else labels are the token ids themselves
    found: Mechanisms = {"the batch, of which micro-batches are views": [BATCH * case.parts * SEQ * INT64] * names}
    if case.phase is Phase.BACKWARD:
        logits = BATCH * SEQ * facts_of(case.job.model).vocab_size * case.logit
        return found | {"the logits, through backward": [logits], "the loss, and its share": [FLOAT32] * min(case.parts, 2)}
    return found | {"temporaries of the step, in the model's order of parameters": temporaries(case, matrices_first=False)}


def temporaries(case: Case, *, matrices_first: bool) -> list[int]:
    """Return what an optimizer in a loop holds when it holds most: numbers for a parameter, and one that is left of the one before."""
    if case.toggles == ("adamw-8bit",):
        return []  # has the same in both: what it unpacks of the largest, and nothing of the one before
    sizes = [parameter.shape for parameter in build_model(case.job.model).parameters()]
    if matrices_first:
        sizes.sort(key=lambda shape: len(shape) < 2)  # stable
    first, *_ = num_bytes = [shape.numel() * case.gradient for shape in sizes]
    copies = 1 if case.toggles == ("rmsprop",) else 2  # AdamW's root of the second moment, and the same corrected for its bias
    return max(([first] * copies, *([size] * copies + [before] for before, size in pairwise(num_bytes))), key=sum)


def blocks_at_peak(path: Path, phase: Phase) -> Counter[int]:
    """Return how many blocks of which size are allocated at the peak of the last step, which is in ``phase``."""
    recording = read_recording(path)
    timeline = Timeline.of(replace(recording, metadata=replace(recording.metadata, warmup_steps=STEPS - 1)))
    blocks, peak = timeline.blocks, timeline.peak_event
    assert timeline.at(peak).phase is phase
    is_alive = (blocks.birth_event[timeline.members] <= peak) & (peak < blocks.death_event[timeline.members])
    return Counter(int(size) for size in blocks.bytes[timeline.members][is_alive])


def run_script(text: str, path: Path) -> None:
    """Run a script under the recorder; on a CPU nothing is compiled, as in Headroom's own runs there."""
    as_written = patch.object(torch, "compile", lambda function, **options: function)
    with warnings.catch_warnings(), redirect_stdout(StringIO()), as_written:
        warnings.simplefilter("ignore")  # those of the Trainer are not ours
        with recorded(path):
            exec(compile(text, "train.py", "exec"), {"__name__": "__main__"})
