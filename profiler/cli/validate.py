"""``validate``: jobs measured on this machine and simulated for it, and the difference in bytes."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from profiler.analysis.equality import Equality, Pair, compare_recordings
from profiler.analysis.measured_only import difference_sentence
from profiler.cli.command import DIFFERS, DONE, Commands, add_command, output_path, print_json, require
from profiler.errors import SpecError, StorageError
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind
from profiler.units import KIB, exact_bytes, format_bytes, parse_bytes

_ALLOWED_BYTES = 64 * KIB
_MAX_JOBS_BYTES = KIB * KIB
_DEFAULT_JOBS = (
    ("tiny-gpt2", WorkloadKind.TRAIN, ()),
    ("tiny-llama", WorkloadKind.TRAIN, ("bfloat16",)),
    ("tiny-llama", WorkloadKind.TRAIN, ("checkpointing",)),
    ("tiny-bert", WorkloadKind.TRAIN, ()),
    ("tiny-lstm", WorkloadKind.TRAIN, ()),
    ("tiny-llama", WorkloadKind.PREFILL, ()),
    ("tiny-gpt2", WorkloadKind.DECODE, ()),
)


def add(commands: Commands) -> None:
    """Declare the command."""
    command = add_command(commands, "validate", _run, "measure jobs on this machine, simulate them, and say how the bytes differ")
    command.add_argument("jobs", nargs="?", type=Path, help="a JSON list of jobs; without it, small models of every kind")
    command.add_argument("--device", default="cpu", help="cpu, or cuda where this machine has a GPU of the catalogue (default cpu)")
    command.add_argument("--tolerance", default=str(_ALLOWED_BYTES), metavar="SIZE", help="exit 4 above this difference (default 64 KiB)")
    command.add_argument("--record", type=Path, metavar="FILE", help="also write what was measured, as truth for others to predict")


def _run(options: argparse.Namespace) -> int:
    allowed = parse_bytes(options.tolerance)
    record = output_path(options.record, ".json") if options.record else None
    jobs = _read_jobs(options.jobs) if options.jobs else [_default_job(*parts) for parts in _DEFAULT_JOBS]
    require("torch", "validate")
    require("transformers", "validate")
    results = [_validated(job, options.device) for job in jobs]
    if record is not None:
        _write(record, [run for _, _, run in results])
    if options.json:
        print_json([{"title": job.title, "job": job.to_json(), **equality.to_json()} for job, equality, _ in results])
    else:
        for job, equality, _ in results:
            _print(job, equality)
    return DONE if all(equality.largest_difference <= allowed for _, equality, _ in results) else DIFFERS


def _default_job(model: str, kind: WorkloadKind, toggles: tuple[str, ...]) -> Job:
    workload = Workload(kind=kind, batch=2, seq=64, steps=1, new_tokens=4)
    return Job(model=Model(name=model), workload=workload, toggles=tuple(Toggle.parse(text) for text in toggles))


def _read_jobs(path: Path) -> list[Job]:
    try:
        if path.stat().st_size > _MAX_JOBS_BYTES:
            raise SpecError(f"{path} has {path.stat().st_size:,} bytes. A list of jobs has at most {_MAX_JOBS_BYTES:,}.")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(data, list) or not data:
        raise SpecError(f"{path} holds no list of jobs. Write [job, ...], each as `profile --json` names it.")
    return [Job.from_json(item) for item in data]


def _validated(job: Job, device: str) -> tuple[Job, Equality, dict[str, Any]]:
    """Measure and simulate a job and return it, the comparison, and the run in the schema of recorded GPU runs."""
    from profiler.planner.validation import measure_and_simulate, recorded_run

    with tempfile.TemporaryDirectory() as folder:
        measured, simulated = measure_and_simulate(job, device, Path(folder))
    return job, compare_recordings(measured, simulated), recorded_run(job, measured)


def _write(path: Path, runs: list[dict[str, Any]]) -> None:
    data = {"source": "python -m profiler validate --record", "what": "Bytes measured on the device that each run names.", "runs": runs}
    try:
        path.write_text(json.dumps(data, indent=1), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}. Choose another --record.") from error


def _print(job: Job, equality: Equality) -> None:
    print(job.title)
    print(f"  peak {format_bytes(equality.peak.measured)} ({exact_bytes(equality.peak.measured)}), simulated {_signed(equality.peak)}")
    sentence = difference_sentence(equality.peak.measured, equality.peak.simulated, equality.measured_only)
    if sentence:
        print(f"    {sentence}")
    for category, pair in equality.categories.items():
        if pair.difference:
            print(f"    {category.label:<20} {_signed(pair)}")
    for phase in equality.phases:
        if phase.end.difference or phase.peak.difference:
            print(f"    step {phase.step}, {phase.phase:<10} end {_signed(phase.end)}, peak {_signed(phase.peak)}")


def _signed(pair: Pair) -> str:
    return f"{pair.difference:+,} B" if pair.difference else "equal"
