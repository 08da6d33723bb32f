"""A Hugging Face TrainingArguments or a TRL SFT configuration -> the `Job` of one of its steps, and what the job says otherwise.

The job is what one device does in one optimizer step. Everything that the file decides and the job cannot say is either refused by name or
told in a note, so that no number stands for a run that it is not of.
"""

from __future__ import annotations

from typing import NamedTuple

from profiler.errors import SpecError
from profiler.models.catalogue import is_known
from profiler.optimizations.training_arguments.names import HARMLESS, NOT_MODELLED, READ, REFUSED, TRL_ONLY
from profiler.optimizations.training_arguments.reading import MAX_BYTES, Fields, read_fields, shown
from profiler.optimizations.training_arguments.toggles import Translation, toggles_of
from profiler.spec import Job, Model, Workload, WorkloadKind

__all__ = ["MAX_BYTES", "TrainingJob", "job_from_training_arguments"]

_BATCH = 8
"""Of TrainingArguments' per_device_train_batch_size."""
_TRL_LENGTH = 1024
"""Of SFTConfig's max_length."""
_MAX_NAMED = 8


class TrainingJob(NamedTuple):
    """What a training configuration means."""

    job: Job
    notes: tuple[str, ...]
    """Sentences: what was assumed, and what the job leaves out."""


def job_from_training_arguments(
    text: str | bytes, *, model: Model | None = None, device: str = "cpu", seq: int | None = None
) -> TrainingJob:
    """Return the job of one optimizer step on one device.

    Whether the model can do it is not checked: what is said beside the file may still change it; see `profiler.optimizations.registry`.

    Args:
        text: JSON as ``training_args.to_json_string()`` gives it, YAML as ``trl sft --config`` reads it, or a script that calls
            ``TrainingArguments(...)`` or ``SFTConfig(...)``, which is never run.
        model: what is trained, where the file's ``model_name_or_path`` is absent or not in the catalogue.
        device: of the job.
        seq: tokens a sequence, where the file does not cut sequences to a length; shorter ones need less.

    Raises:
        SpecError: the text is no such configuration, it asks for what is not modelled, or it leaves open what is not given either.
    """
    fields = read_fields(text, READ)
    _refuse(fields)
    said = Translation(fields, is_trl=any(name in fields for name in TRL_ONLY) and "block_size" not in fields)
    job = Job(model=_model(said, model), workload=_workload(said, seq), device=device, toggles=toggles_of(said))
    return TrainingJob(job, (*_assumptions(said), *said.notes, *_left_out(fields)))


def _refuse(fields: Fields) -> None:
    for name, why in REFUSED.items():
        if fields.is_set(name):
            raise SpecError(f"The training configuration sets {name}, which is not modelled: {why}.")


def _workload(said: Translation, seq: int | None) -> Workload:
    batch, parts = said.fields.count("per_device_train_batch_size"), said.fields.count("gradient_accumulation_steps")
    if batch is None:
        batch = said.assume("per_device_train_batch_size", _BATCH)
    parts = 1 if parts is None else parts
    return Workload(kind=WorkloadKind.TRAIN, batch=batch * parts, micro_batches=parts, seq=_length(said, seq))


def _length(said: Translation, given: int | None) -> int:
    length = said.fields.count("max_length", "max_seq_length", "block_size")
    if length is not None:
        return length
    if given is not None:
        return given
    if said.is_trl and "max_length" not in said.fields:
        return said.assume("max_length", _TRL_LENGTH)
    raise SpecError("The training configuration does not say how long sequences are (max_length). Say it beside the file, as seq.")


def _model(said: Translation, given: Model | None) -> Model:
    name = said.fields.text("model_name_or_path")
    if name is not None and is_known(name):
        return Model(name=name)
    if given is None and name is None:
        raise SpecError("The training configuration names no model (model_name_or_path). Name one beside it, or its config.json.")
    if given is None:
        raise SpecError(f"model_name_or_path={shown(name)} is not in the catalogue. Name a model beside the file, or its config.json.")
    if name is not None:
        said.notes.append(f"model_name_or_path={shown(name)} is not in the catalogue: {given.name} is taken.")
    return given


def _assumptions(said: Translation) -> list[str]:
    if not said.assumed:
        return []
    whose = "TRL 1.x" if said.is_trl else "the Trainer of transformers 5"
    return [f"Not in the file and taken as {whose} does: {', '.join(f'{name}={value}' for name, value in said.assumed.items())}."]


def _left_out(fields: Fields) -> list[str]:
    found = [f"{name} is set and not modelled: {how}." for name, how in NOT_MODELLED.items() if fields.is_set(name)]
    unknown = [name for name in fields.names if name not in READ | HARMLESS | NOT_MODELLED.keys() | REFUSED.keys() | TRL_ONLY]
    if unknown:
        named = ", ".join(shown(name) for name in unknown[:_MAX_NAMED])
        rest = f" and {len(unknown) - _MAX_NAMED} more" if len(unknown) > _MAX_NAMED else ""
        found.append(f"Not known, and so ignored: {named}{rest}.")
    return found
