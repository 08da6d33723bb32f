"""Command-line options -> a `Job`. Options are named as the Job's fields; a flag such as ``--dtype`` is shorthand for a toggle."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from profiler.errors import SpecError, unknown_name
from profiler.models.catalogue import CATALOGUE
from profiler.models.user_config import model_from_path
from profiler.optimizations.attention import ATTENTION
from profiler.optimizations.base import Family
from profiler.optimizations.optimizers import OPTIMIZER
from profiler.optimizations.precision import PRECISION
from profiler.optimizations.registry import families, optimization, validate
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


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options that `read_job` reads."""
    default = Workload()
    parser.add_argument("--model", required=True, help="a name that `models` lists, a config.json, or a folder that holds one")
    parser.add_argument("--workload", default=default.kind.value, choices=[kind.value for kind in WorkloadKind])
    for field, text in _NUMBERS:
        value = getattr(default, field.replace("-", "_"))
        parser.add_argument(f"--{field}", type=int, default=value, metavar="N", help=f"{text} (default {value})")
    parser.add_argument("--zero-grad", default=default.zero_grad.value, choices=[when.value for when in ZeroGrad])
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


def read_job(options: argparse.Namespace, device: str) -> Job:
    """Return the validated job that the options name, on a device that they have named already.

    Raises:
        SpecError: a name is not known or a number not possible.
    """
    workload = Workload(
        kind=WorkloadKind(options.workload),
        zero_grad=ZeroGrad(options.zero_grad),
        set_to_none=not options.no_set_to_none,
        keep_outputs=options.keep_outputs,
        **{(name := field.replace("-", "_")): getattr(options, name) for field, _ in _NUMBERS},
    )
    toggles = [Toggle.parse(text) for text in options.toggle]
    for flag, family in _FAMILY_FLAGS.items():
        toggles += _shorthand(family, getattr(options, flag))
    if options.checkpointing:
        toggles.append(Toggle("checkpointing"))
    if options.lora_rank is not None:
        toggles.append(Toggle("lora", (("rank", str(options.lora_rank)),)))
    return validate(Job(model=named_model(options.model), workload=workload, device=device, toggles=tuple(toggles)))


def named_model(name: str) -> Model:
    """Return the model of the catalogue, or of a config.json or a folder that holds one.

    Raises:
        SpecError: there is none of that name, or its configuration cannot be.
    """
    path = Path(name)
    is_path = name != "" and (path.exists() or path.suffix == ".json" or len(path.parts) > 1)
    return model_from_path(path) if is_path and name not in CATALOGUE else Model(name=name)


def named_device(name: str) -> str:
    """Return a device to measure on.

    Raises:
        SpecError: torch has no such device.
    """
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise unknown_name("device", name, ("cpu", "cuda", "cuda:0"), "Use cpu, cuda or cuda:0.")
    return name


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
