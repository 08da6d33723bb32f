"""How fast steps are simulated, and what torch's own tracker takes for the same: ``python -m benchmarks.simulate_speed [--json]``.

Each row runs in a fork of this process with the libraries loaded, as simulations do from the dashboard: model built, warm-up steps and one
step run, recording written. Seconds of the processor and resident memory are of the whole run; *step* is from the first statement of the
step that counts to the finished recording. The last row is a step on the CPU target, also seen by torch's MemTracker
(torch.distributed._tools.mem_tracker) in fake mode: the same statements under the same patches. Linux only.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from profiler.analysis.summary import summarize
from profiler.jobs.preloader import MODULES
from profiler.spec import Job, Model, Toggle, Workload
from profiler.storage import read_recording
from profiler.tracing.progress import Progress
from profiler.units import KIB


@dataclass(frozen=True)
class Case:
    """A row."""

    model: str
    device: str
    toggles: tuple[str, ...]
    seq: int = 2048
    warmup_steps: int = 1

    @property
    def job(self) -> Job:
        """What is run."""
        workload = Workload(batch=1, seq=self.seq, steps=1, warmup_steps=self.warmup_steps)
        return Job(model=Model(name=self.model), workload=workload, device=self.device, toggles=tuple(map(Toggle.parse, self.toggles)))


CASES = (
    Case("tiny-llama", "rtx-4090", ("adamw",), seq=128),
    Case("llama-3.2-1b", "rtx-4090", ("bfloat16", "adamw")),
    Case("llama-3-8b", "a100-80gb", ("bfloat16", "adamw")),
    Case("llama-3-8b", "a100-80gb", ("bfloat16", "adamw"), warmup_steps=0),
    Case("llama-3.1-405b", "b200", ("bfloat16", "adamw", "checkpointing"), warmup_steps=0),
)
COMPARED = Case("llama-3-8b", "cpu", ("bfloat16", "adamw"), warmup_steps=0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for name in MODULES:
        importlib.import_module(name)
    rows = [asdict(case) | _in_a_fork(simulated, case) for case in CASES]
    ours, theirs = _in_a_fork(simulated, COMPARED), _in_a_fork(tracked_by_torch, COMPARED)
    rows.append(asdict(COMPARED) | ours | {f"mem_tracker_{name}": value for name, value in theirs.items()})
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'model':<15} {'device':<10} {'warm-up':>7} {'CPU s':>6} {'wall s':>6} {'step s':>6} {'RSS MB':>6} {'ops':>7}  toggles")
    for row in rows:
        print(
            f"{row['model']:<15} {row['device']:<10} {row['warmup_steps']:>7} {row['cpu_seconds']:>6.2f} {row['wall_seconds']:>6.2f}"
            f" {row['step_cpu_seconds']:>6.2f} {row['rss_bytes'] / 1e6:>6.0f} {row['num_operators']:>7,}  {' '.join(row['toggles'])}"
        )
    ratio = theirs["step_cpu_seconds"] / ours["step_cpu_seconds"]
    difference = ours["peak_bytes"] - theirs["peak_bytes"]
    print(
        f"MemTracker, the last row: step {theirs['step_cpu_seconds']:.2f} s, {ratio:.1f} times ours; our peak - its peak: {difference:,} B"
    )


def simulated(case: Case) -> dict[str, Any]:
    """Simulate a case as `headroom simulate` does, and return the figures."""
    from profiler.simulate.engine import simulate_job

    marks: list[tuple[str, float]] = []

    def progress(told: Progress) -> None:
        marks.append((told.phase, time.process_time()))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.headroom"
        simulate_job(case.job, path, progress=progress)
        end = time.process_time()
        recording = read_recording(path)
    began = [seconds for phase, seconds in marks if phase == "data"][-1]
    return {
        "step_cpu_seconds": end - began,
        "num_operators": len(recording.operators),
        "peak_bytes": summarize(recording)["peak_allocated_bytes"],
    }


def tracked_by_torch(case: Case) -> dict[str, Any]:
    """Run the same workload on fake tensors under MemTracker, and return the figures of its step."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from profiler import workloads
    from profiler.optimizations.registry import setup_for, validate
    from profiler.simulate import patches

    torch.set_num_threads(1)
    job = validate(case.job)
    observer = _Tracked()
    with patches.in_place(), FakeTensorMode(), _values_known():
        workloads.run(job, setup_for(job), observer, read_loss=lambda loss: None)
    return {"step_cpu_seconds": observer.end - observer.start, "peak_bytes": observer.peak_bytes}


class _Tracked:
    """An observer of workloads that lets MemTracker see the steps."""

    def __init__(self) -> None:
        from torch.distributed._tools.mem_tracker import MemTracker

        self.tracker = MemTracker()
        self.start = self.end = 0.0
        self.peak_bytes = 0

    def phase(self, phase: Any) -> AbstractContextManager[None]:
        return nullcontext()

    def built(self, model: Any, optimizer: Any) -> None:
        self.tracker.track_external(*[part for part in (model, optimizer) if part is not None])

    def scalar(self, name: str, value: float) -> None:
        del name, value

    @contextmanager
    def step(self, index: int) -> Iterator[None]:
        del index
        self.start = time.process_time()
        with self.tracker:
            yield
            self.end = time.process_time()
            (peak,) = self.tracker.get_tracker_snapshot("peak").values()
            self.peak_bytes = peak["Total"]


def _values_known() -> AbstractContextManager[Any]:
    """Answer what a program reads from fake tensors, below MemTracker, which would stop there."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Values(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten._local_scalar_dense.default:
                return True if args[0].dtype is torch.bool else 1
            return func(*args, **(kwargs or {}))

    return Values()


def _in_a_fork(measure: Callable[[Case], dict[str, Any]], case: Case) -> dict[str, Any]:
    """Return a function's figures beside those of the fork it ran in."""
    reading, writing = os.pipe()
    start = time.perf_counter()
    if (pid := os.fork()) == 0:
        begun = time.process_time()
        found = measure(case)
        usage = {"cpu_seconds": time.process_time() - begun, "wall_seconds": time.perf_counter() - start, "rss_bytes": _peak_rss_bytes()}
        os.write(writing, json.dumps(found | usage).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        told = file.read()
    os.waitpid(pid, 0)
    return dict(json.loads(told))


def _peak_rss_bytes() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * KIB


if __name__ == "__main__":
    main()
