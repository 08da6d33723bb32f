"""A teacher beside the model: its loss by hand, its memory, that it never learns, and who cannot teach."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from profiler.analysis.timeline import Timeline
from profiler.errors import SpecError
from profiler.models.build import build_model
from profiler.optimizations.distilled_model import DistilledModel
from profiler.optimizations.registry import validate
from profiler.planner.validation import measure_and_simulate
from profiler.recording import Category
from profiler.spec import Job, Model, Toggle, Workload

TEACHER_BYTES = 4 * 5_114_112
"""Of tiny-llama."""


def job(*toggles: str, model: str = "tiny-gpt2", **workload: Any) -> Job:
    shape = {"batch": 2, "seq": 16, "steps": 1} | workload
    return Job(model=Model(name=model), workload=Workload(**shape), toggles=tuple(map(Toggle.parse, toggles)))


def test_the_loss_is_cross_entropy_and_divergence_as_shared() -> None:
    torch.manual_seed(0)
    student, teacher = (build_model(Model(name="tiny-gpt2")).eval() for _ in range(2))
    ids = torch.arange(2, 18).view(2, 8)
    said, wanted = student(input_ids=ids, labels=ids), teacher(input_ids=ids).logits
    probabilities = (wanted.double() / 3).softmax(-1)
    divergence = (probabilities * (probabilities.log() - (said.logits.double() / 3).log_softmax(-1))).sum(-1).mean()
    loss = DistilledModel(student, teacher, temperature=3.0, share=0.25)(input_ids=ids, labels=ids).loss
    torch.testing.assert_close(loss.double(), 0.75 * said.loss.double() + 0.25 * 9 * divergence)


def test_only_the_student_learns_and_the_teacher_stays_in_evaluation() -> None:
    model = DistilledModel(build_model(Model(name="tiny-gpt2")), build_model(Model(name="tiny-llama")), 2.0, 0.5).train()
    assert model.student.training
    assert not model.teacher.training
    ids = torch.arange(2, 18).view(2, 8)
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None for parameter in model.student.parameters())
    assert all(parameter.grad is None for parameter in model.teacher.parameters())


def test_the_teacher_is_there_all_the_time_and_nothing_of_it_is_trained(tmp_path: Path) -> None:
    alone, _ = measure_and_simulate(job(), "cpu", tmp_path / "alone")
    taught, simulated = measure_and_simulate(job("distillation:teacher=tiny-llama"), "cpu", tmp_path / "taught")
    at_peak = [line.categories_at(line.peak_event) for line in map(Timeline.of, (alone, taught, simulated))]
    for found in at_peak[1:]:
        assert found[Category.PARAMETER] - at_peak[0][Category.PARAMETER] == TEACHER_BYTES
    assert taught.metadata.facts["num_trained_parameters"] == alone.metadata.facts["num_trained_parameters"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            job("distillation:teacher=gpt2"),
            "gpt2 cannot teach tiny-gpt2: they are causal-lm over 50,257 tokens and causal-lm over 4,096. Choose ",
        ),
        (job("distillation:teacher=tiny-bert"), "they are masked-lm over 4,096 tokens and causal-lm over 4,096."),
        (
            job("distillation:teacher=tiny-gpt2", model="tiny-llama", seq=1500),
            "seq=1,500; tiny-gpt2 has 1,024 positions.",
        ),
        (job("distillation", model="tiny-t5"), "of causal-lm, masked-lm or recurrent models, and tiny-t5 is seq2seq."),
        (job("distillation", "chunked-loss"), "distillation compares logits, and the other never has them. Switch one of them off."),
        (job("distillation", kind="prefill"), "distillation has no effect in prefill: teacher is for train. Switch it off."),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(wanted: Job, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        validate(wanted)
