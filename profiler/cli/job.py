"""Command-line options, and a training configuration beside them -> a `Job`.

Options are named as the Job's fields; a flag such as ``--dtype`` is shorthand for a toggle.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

from profiler.errors import SpecError, StorageError, unknown_name
from profiler.models.catalogue import is_known
from profiler.models.user_config import model_from_path
from profiler.optimizations.attention import ATTENTION
from profiler.optimizations.base import Family
from profiler.optimizations.optimizers import OPTIMIZER
from profiler.optimizations.precision import PRECISION
from profiler.optimizations.registry import families, optimization, validate
from profiler.optimizations.training_arguments import MAX_BYTES, job_from_training_arguments
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind, ZeroGrad

_NUMBERS = (
    ("batch", "sequences a step"),
    ("seq", "tokens a sequence; for decode, of the prompt"),
    ("steps", "steps that count"),
    ("warmup-steps", "steps before those; the peak does not cover them"),
    ("micro-batches", "parts of the batch whose gradients accumulate"),
    ("new-tokens", "tokens that decode makes in a step"),
    ("seed", "of weights and batches"),
)
_FAMILY_FLAGS = {"dtype": PRECISION, "optimizer": OPTIMIZER, "attention": ATTENTION}


def add_job_options(parser: argparse.ArgumentParser, steps: int | None = Workload().steps) -> None:
    """Declare the options that `read_job` reads.

    Args:
        parser: of a command.
        steps: the default of ``--steps``; None where the command has one for each engine.
    """
    default = Workload() if steps is None else Workload(steps=steps)
    parser.add_argument(
        "--model", help="a name that `models` lists, its name on the Hugging Face hub, a config.json, or a folder that holds one"
    )
    parser.add_argument(
        "--training-args",
        type=Path,
        metavar="FILE",
        help="one step of a Hugging Face TrainingArguments or TRL SFT configuration: JSON, YAML or a script; options given beside it win",
    )
    parser.add_argument("--workload", choices=[kind.value for kind in WorkloadKind], help=f"(default {default.kind})")
    for field, text in _NUMBERS:
        value = getattr(default, _attribute(field))
        parser.add_argument(f"--{field}", type=int, metavar="N", help=f"{text} (default {value})")
    parser.set_defaults(steps=steps)
    parser.add_argument("--zero-grad", choices=[when.value for when in ZeroGrad], help=f"(default {default.zero_grad})")
    parser.add_argument("--no-set-to-none", action="store_true", help="zero_grad fills gradients with zeros instead of dropping them")
    parser.add_argument("--keep-outputs", action="store_true", help="keep the outputs until the next step replaces them")
    parser.add_argument("--toggle", action="append", default=[], metavar="NAME[:key=value]", help="switch an optimization on; repeatable")
    for flag, family in _FAMILY_FLAGS.items():
        parser.add_argument(f"--{flag}", metavar="NAME[:key=value]", help=f"shorthand for --toggle with one of {_names(family)}")
    parser.add_argument("--checkpointing", action="store_true", help="shorthand for --toggle checkpointing: every layer")
    parser.add_argument("--lora-rank", type=int, metavar="N", help="shorthand for --toggle lora:rank=N")


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Declare where a job is measured."""
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default cpu)")


def read_job(options: argparse.Namespace, device: str) -> tuple[Job, tuple[str, ...]]:
    """Return the validated job that the options name, and in sentences what the training configuration says and the job does not.

    Those are told on stderr as well.

    Args:
        options: those of `add_job_options`.
        device: that the options have named already.

    Raises:
        SpecError: a name is not known or a number not possible.
        StorageError: the training configuration cannot be read.
    """
    base, notes = _base(options, device)
    given = {_attribute(field): getattr(options, _attribute(field)) for field, _ in _NUMBERS}
    given |= {"kind": options.workload, "zero_grad": options.zero_grad}
    given |= {"set_to_none": False if options.no_set_to_none else None, "keep_outputs": options.keep_outputs or None}
    workload = replace(base.workload, **{name: value for name, value in given.items() if value is not None})
    toggles = _toggles(options)
    chosen = {optimization(toggle.name).family for toggle in toggles}
    kept = [toggle for toggle in base.toggles if optimization(toggle.name).family not in chosen]
    for note in notes:
        print(f"Note: {note}", file=sys.stderr)
    return validate(replace(base, workload=workload, toggles=(*kept, *toggles))), notes


def named_model(name: str) -> Model:
    """Return the model of the catalogue, or of a config.json or a folder that holds one.

    Raises:
        SpecError: there is none of that name, or its configuration cannot be.
    """
    path = Path(name)
    is_path = name != "" and (path.exists() or path.suffix == ".json" or len(path.parts) > 1)
    return model_from_path(path) if is_path and not is_known(name) else Model(name=name)


def named_device(name: str) -> str:
    """Return a device to measure on.

    Raises:
        SpecError: torch has no such device.
    """
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise unknown_name("device", name, ("cpu", "cuda", "cuda:0"), "Use cpu, cuda or cuda:0.")
    return name


def _base(options: argparse.Namespace, device: str) -> tuple[Job, tuple[str, ...]]:
    """Return the job that the other options change: of the training configuration, or the default one of a model."""
    model = None if options.model is None else named_model(options.model)
    if options.training_args is not None:
        job, notes = job_from_training_arguments(_content(options.training_args), model=model, device=device, seq=options.seq)
        return replace(job, model=model or job.model), notes
    if model is None:
        raise SpecError(
            "No model is named. Give --model a name that `models` lists or a config.json, or --training-args a file that names one."
        )
    return Job(model=model, device=device), ()


def _content(path: Path) -> bytes:
    """Return a file's first bytes: more than are read are refused later."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}. Give --training-args a JSON or YAML file, or a script.") from error


def _toggles(options: argparse.Namespace) -> list[Toggle]:
    toggles = [Toggle.parse(text) for text in options.toggle]
    for flag, family in _FAMILY_FLAGS.items():
        toggles += _shorthand(family, getattr(options, flag))
    if options.checkpointing:
        toggles.append(Toggle("checkpointing"))
    if options.lora_rank is not None:
        toggles.append(Toggle("lora", (("rank", str(options.lora_rank)),)))
    return toggles


def _attribute(field: str) -> str:
    return field.replace("-", "_")


def _shorthand(family: Family, text: str | None) -> list[Toggle]:
    """Return the toggle that a family's own flag names."""
    if text is None:
        return []
    toggle = Toggle.parse(text)
    try:
        found = optimization(toggle.name).family
    except SpecError:
        names = [item.name for item in families()[family]]
        raise unknown_name(family.label.lower(), toggle.name, names, f"Choose one of {_names(family)}.") from None
    if found is not family:
        raise SpecError(f"{text} is a choice of {found.label.lower()}, not of {family.label.lower()}. Choose one of {_names(family)}.")
    return [toggle]


def _names(family: Family) -> str:
    return ", ".join(item.name for item in families()[family])
