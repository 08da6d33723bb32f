"""The command line: the same engines, store and figures as the pages, as text or JSON.

Exit codes: 0 done, 2 bad input, 3 a run that failed or was cancelled.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from profiler import __version__
from profiler.analysis.summary import summarize
from profiler.errors import CaptureUnavailable, HeadroomError, JobFailed, StorageError
from profiler.jobs.manager import JobManager
from profiler.jobs.run import Limits, RunState, RunStatus
from profiler.models.catalogue import CATALOGUE
from profiler.models.user_config import model_from_path
from profiler.optimizations.registry import validate
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind, ZeroGrad
from profiler.storage import SUFFIX, read_recording
from profiler.units import exact_bytes, format_bytes, format_count, parse_bytes

DONE, BAD_INPUT, FAILED_RUN = 0, 2, 3
_POLL_SECONDS = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors are one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (JobFailed, CaptureUnavailable) as error:
        _complain(error)
        return FAILED_RUN
    except HeadroomError as error:
        _complain(error)
        return BAD_INPUT
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return DONE


def _complain(error: HeadroomError) -> None:
    print(f"headroom: {error}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m profiler",
        description="Headroom: see where a language model's memory goes, and what each optimization really gives back.",
        epilog="Exit codes: 0 done, 2 bad input, 3 a run that failed.",
    )
    parser.add_argument("--version", action="version", version=f"headroom {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "models", _models, "list the named models")
    _add_profile(commands)
    _add_record(commands)
    show = _add(commands, "show", _show, "print what a recording holds: its peak and what was there")
    show.add_argument("file", type=Path, help=f"a {SUFFIX} file, or the .partial folder of a recording in progress")
    _add(commands, "doctor", _doctor, "say what this machine can measure, and why not what it cannot")
    return parser


def _add(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run)
    return command


def _add_profile(commands: Any) -> None:
    profile = _add(commands, "profile", _profile, "run a model's steps in a worker process and record their memory")
    default = Workload()
    profile.add_argument("--model", required=True, help="a name that `models` lists, a config.json, or a folder that holds one")
    profile.add_argument("--workload", default=default.kind.value, choices=[kind.value for kind in WorkloadKind])
    for field, text in (
        ("batch", "sequences a step"),
        ("seq", "tokens a sequence; for decode, of the prompt"),
        ("steps", "steps that count"),
        ("warmup-steps", "steps before those; the peak does not cover them"),
        ("micro-batches", "parts of the batch whose gradients accumulate"),
        ("new-tokens", "tokens that decode makes in a step"),
        ("seed", "of weights and batches"),
    ):
        value = getattr(default, field.replace("-", "_"))
        profile.add_argument(f"--{field}", type=int, default=value, metavar="N", help=f"{text} (default {value})")
    profile.add_argument("--zero-grad", default=default.zero_grad.value, choices=[when.value for when in ZeroGrad])
    profile.add_argument("--no-set-to-none", action="store_true", help="zero_grad fills gradients with zeros instead of dropping them")
    profile.add_argument("--keep-outputs", action="store_true", help="keep the outputs until the next step replaces them")
    profile.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default cpu)")
    profile.add_argument("--toggle", action="append", default=[], metavar="NAME[:key=value]", help="switch an optimization on; repeatable")
    profile.add_argument("--dtype", help="shorthand for --toggle float32, bfloat16 or float16")
    profile.add_argument("--optimizer", help="shorthand for --toggle adamw, sgd and so on")
    profile.add_argument("--out", type=Path, help="copy the recording here; it is kept in the run store in any case")
    profile.add_argument("--fresh", action="store_true", help="run even if the store holds an equal run")
    profile.add_argument("--memory-limit", type=str, metavar="SIZE", help="end the run above this resident set, such as 8GiB")
    profile.add_argument("--time-limit", type=float, default=Limits().seconds, metavar="SECONDS")


def _add_record(commands: Any) -> None:
    text = "run a training script of your own and record its memory"
    record = _add(commands, "record", _record, text)
    record.add_argument("--out", type=Path, help="the recording's file; by default the script's name beside where you are")
    record.add_argument("script", type=Path, help="a Python script")
    record.add_argument("arguments", nargs=argparse.REMAINDER, help="the script's own arguments")


def _models(options: argparse.Namespace) -> int:
    if options.json:
        rows = [
            {
                "name": entry.name,
                "family": entry.family,
                "head": entry.head.value,
                "num_parameters": entry.num_parameters,
                "num_parameters_with_head": entry.num_parameters_with_head,
                "max_positions": entry.max_positions,
                "tiny": entry.tiny,
                "source": entry.source,
            }
            for entry in CATALOGUE.values()
        ]
        _print_json(rows)
    else:
        for entry in CATALOGUE.values():
            print(f"{entry.name:<18} {format_count(entry.num_parameters):>9}  {entry.label}")
    return DONE


def _profile(options: argparse.Namespace) -> int:
    job = validate(_job(options))
    memory_bytes = parse_bytes(options.memory_limit) if options.memory_limit else None
    manager = JobManager()
    try:
        limits = Limits(memory_bytes=memory_bytes, seconds=options.time_limit)
        status = manager.submit(job, limits=limits, fresh=options.fresh)
        status = _wait(manager, status)
    finally:
        manager.close()
    if status.state is not RunState.DONE or status.recording_path is None:
        raise JobFailed(status.message or f"The run was {status.state}.")
    path = _copied(status.recording_path, options.out)
    summary = summarize(read_recording(path)) | {"path": str(path), "from_store": status.from_store}
    _print_json(summary) if options.json else _print_summary(summary, status.message)
    return DONE


def _job(options: argparse.Namespace) -> Job:
    workload = Workload(
        kind=WorkloadKind(options.workload),
        batch=options.batch,
        seq=options.seq,
        steps=options.steps,
        warmup_steps=options.warmup_steps,
        micro_batches=options.micro_batches,
        new_tokens=options.new_tokens,
        zero_grad=ZeroGrad(options.zero_grad),
        set_to_none=not options.no_set_to_none,
        keep_outputs=options.keep_outputs,
        seed=options.seed,
    )
    shorthands = [text for text in (options.dtype, options.optimizer) if text]
    toggles = tuple(Toggle.parse(text) for text in [*options.toggle, *shorthands])
    return Job(model=_model(options.model), workload=workload, device=options.device, toggles=toggles)


def _model(name: str) -> Model:
    path = Path(name)
    is_path = path.exists() or path.suffix == ".json" or len(path.parts) > 1
    return model_from_path(path) if is_path and name not in CATALOGUE else Model(name=name)


def _wait(manager: JobManager, status: RunStatus) -> RunStatus:
    """Return the run once it has ended, telling on a terminal how far it is; an interrupt cancels it."""
    shown = ""
    try:
        while not status.state.final:
            line = f"{status.state} · step {status.step} of {status.num_steps} · {status.phase}" if status.num_steps else str(status.state)
            if sys.stderr.isatty() and line != shown:
                print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
                shown = line
            time.sleep(_POLL_SECONDS)
            status = manager.status(status.run_id)
    except KeyboardInterrupt:
        manager.cancel(status.run_id)
        raise
    finally:
        if shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
    return status


def _copied(path: Path, out: Path | None) -> Path:
    if out is None:
        return path
    if out.suffix != SUFFIX:
        out = out.with_name(out.name + SUFFIX)
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        shutil.copyfile(path, temporary)
        temporary.replace(out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise StorageError(f"{out} cannot be written: {reason}. The recording is kept as {path}; choose another --out.") from error
    return out


def _record(options: argparse.Namespace) -> int:
    from profiler.capture.script import record_script

    out = options.out or Path(options.script.stem + SUFFIX)
    path = record_script(options.script, options.arguments, out)
    summary = summarize(read_recording(path)) | {"path": str(path)}
    _print_json(summary) if options.json else _print_summary(summary, "")
    return DONE


def _show(options: argparse.Namespace) -> int:
    summary = summarize(read_recording(options.file))
    _print_json(summary) if options.json else _print_summary(summary, "")
    return DONE


def _doctor(options: argparse.Namespace) -> int:
    from profiler.capture.doctor import examine

    findings = examine()
    if options.json:
        _print_json(findings)
    else:
        for name, finding in findings.items():
            print(f"{name.replace('_', ' '):<12} {finding}")
    return DONE


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=1))


def _print_summary(summary: dict[str, Any], message: str) -> None:
    print(f"{summary['title']}  [{summary['provenance']}]")
    if message:
        print(message)
    peak, at = summary["peak_allocated_bytes"], summary["peak_at"]
    if at is not None:
        print(f"Peak allocated {format_bytes(peak)} ({exact_bytes(peak)}), step {at['step']}, {at['phase']}")
        for name, num_bytes in sorted(summary["categories_at_peak"].items(), key=lambda item: -item[1]):
            share = f"{num_bytes / peak:.1%}" if peak else ""
            print(f"  {name.replace('_', ' ').lower():<20} {format_bytes(num_bytes):>10} {share:>7}")
    for warning in summary["warnings"]:
        print(f"Note: {warning}")
    if "path" in summary:
        print(f"Recording: {summary['path']}")
