"""Distillation: a small model learns what a larger one predicts, and the larger one is there all the time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from profiler.errors import SpecError
from profiler.models.catalogue import CATALOGUE, facts_of
from profiler.models.config import Head, check_workload
from profiler.optimizations.base import Family, Optimization, Parameter, ParameterKind, Value
from profiler.optimizations.scope import Scope
from profiler.spec import Job, Model, WorkloadKind

if TYPE_CHECKING:
    from torch import nn

    from profiler.workloads import Setup

DISTILLATION = Family(
    name="distillation",
    label="Teacher",
    question="Does a larger model teach this one?",
    off_label="None",
    workloads=frozenset((WorkloadKind.TRAIN,)),
)
ITSELF = "itself"


class Distillation(Optimization):
    """Training on the predictions of a frozen teacher beside the labels."""

    name = "distillation"
    family = DISTILLATION
    label = "Distillation"
    aliases = ("knowledge-distillation",)
    applies_to = Scope(part="the loss", heads=frozenset(Head) - {Head.SEQ2SEQ})
    parameters = (
        Parameter(
            name="teacher",
            kind=ParameterKind.CHOICE,
            default=ITSELF,
            choices=(ITSELF, *CATALOGUE),
            help="The model that teaches, of the same vocabulary; itself for another of the same sizes.",
        ),
        Parameter(
            name="temperature",
            kind=ParameterKind.NUMBER,
            default=2.0,
            low=0.01,
            high=100,
            help="Divides the logits that are compared. Memory does not depend on it.",
        ),
        Parameter(
            name="share",
            kind=ParameterKind.NUMBER,
            default=0.5,
            low=0,
            high=1,
            help="Of the teacher's part in the loss. Memory does not depend on it.",
        ),
    )
    formula = "teacher's weights, and three times tokens x vocabulary: its predictions and both sides' log-probabilities"
    source = "Hinton et al. 2015, https://arxiv.org/abs/1503.02531"
    explanation = (
        "Trains the model on what a frozen teacher predicts, beside the labels. It saves nothing by itself: the teacher's weights are on "
        "the device too, its forward makes temporaries, and its predictions over the whole vocabulary are kept beside the student's until "
        "backward. What it saves comes later, where the student replaces the teacher: compare with training the teacher."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Put the teacher beside the built model."""
        teacher = _teacher(job, options)
        temperature, share = float(options["temperature"]), float(options["share"])

        def transform(student: nn.Module) -> nn.Module:
            from profiler.models.build import build_model
            from profiler.optimizations.distilled_model import DistilledModel

            device = next(student.parameters()).device
            return DistilledModel(student, build_model(teacher, setup.dtype, device, attention=setup.attention), temperature, share)

        setup.transforms.append(transform)

    def rewrite(self, job: Job, options: Mapping[str, Value]) -> Job | None:
        """Refuse teachers that cannot teach this model; there is nothing that a job could say instead.

        Raises:
            SpecError: the teacher's vocabulary or kind is another, or its positions do not suffice.
        """
        student, teacher = facts_of(job.model), facts_of(_teacher(job, options))
        name = str(options["teacher"])
        if (student.head, student.vocab_size) != (teacher.head, teacher.vocab_size):
            raise SpecError(
                f"{name} cannot teach {job.model.name}: they are {teacher.head} over {teacher.vocab_size:,} tokens and {student.head} over "
                f"{student.vocab_size:,}. Choose {', '.join(_teachers(job.model)[-5:])}."
            )
        check_workload(teacher, job.workload, name)
        return None


def _teacher(job: Job, options: Mapping[str, Value]) -> Model:
    return job.model if options["teacher"] == ITSELF else Model(name=str(options["teacher"]))


def _teachers(model: Model) -> list[str]:
    """Return who can teach a model, the largest last."""
    facts = facts_of(model)
    entries = sorted(CATALOGUE.values(), key=lambda entry: entry.num_parameters)
    return [ITSELF, *(entry.name for entry in entries if (entry.facts.head, entry.facts.vocab_size) == (facts.head, facts.vocab_size))]


OPTIMIZATIONS: tuple[Optimization, ...] = (Distillation(),)
