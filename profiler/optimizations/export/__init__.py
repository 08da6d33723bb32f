"""A `Job` -> programs and configurations of other tools that do the same, each with what it cannot say."""

from __future__ import annotations

from profiler.optimizations.export.program import Program
from profiler.optimizations.export.pytorch import pytorch_program
from profiler.optimizations.export.settings import deepspeed_settings, torchtitan_settings
from profiler.optimizations.export.trainer import trainer_program
from profiler.optimizations.export.trl import trl_program
from profiler.spec import Job

__all__ = ["Program", "export_job"]


def export_job(job: Job) -> tuple[Program, ...]:
    """Return the job in the words of each tool.

    Raises:
        SpecError: the job is not possible.
    """
    return (pytorch_program(job), trainer_program(job), trl_program(job), deepspeed_settings(job), torchtitan_settings(job))
