"""What recording costs: the same GPT-2 step plain, under torch.profiler alone, under torch's MemTracker and under Headroom, in one process.

Run: python -m benchmarks.capture_overhead [--batch 4 --seq 128 --rounds 5] [--json]
Times are process CPU time on one thread; the rounds alternate between the contenders, so that a busy machine hits all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.distributed._tools.mem_tracker import MemTracker
from torch.profiler import ProfilerActivity, profile
from transformers import GPT2Config, GPT2LMHeadModel

from profiler.capture.recorder import Recorder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seconds = measure(options.batch, options.seq, options.rounds)
    plain = statistics.median(seconds["plain"])
    rows = [
        {
            "contender": name,
            "median_cpu_seconds": round(statistics.median(values), 3),
            "min_cpu_seconds": round(min(values), 3),
            "max_cpu_seconds": round(max(values), 3),
            "times_plain": round(statistics.median(values) / plain, 3),
        }
        for name, values in seconds.items()
    ]
    if options.json:
        print(json.dumps({"model": "gpt2", "batch": options.batch, "seq": options.seq, "rounds": options.rounds, "rows": rows}, indent=1))
        return
    print(f"GPT-2 124M, batch {options.batch} x {options.seq}, float32, AdamW, one thread")
    print(f"Median CPU seconds of a step over {options.rounds} rounds")
    for row in rows:
        spread = f"{row['min_cpu_seconds']:.2f} to {row['max_cpu_seconds']:.2f}"
        print(f"{row['contender']:<16} {row['median_cpu_seconds']:>7.3f} s  ({spread})  {row['times_plain']:.2f} x plain")


def measure(batch: int, seq: int, rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each round's step, by contender."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config())
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    tokens = torch.randint(0, 50257, (batch, seq))

    def step() -> None:
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        del loss
        optimizer.step()
        optimizer.zero_grad()

    def torch_profiler() -> None:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True):
            step()

    def mem_tracker() -> None:
        tracker = MemTracker()
        tracker.track_external(model, optimizer)
        with tracker:
            step()

    step()
    with tempfile.TemporaryDirectory() as folder:
        contenders: dict[str, Callable[[], float]] = {
            "plain": lambda: _cpu_seconds(step),
            "torch.profiler": lambda: _cpu_seconds(torch_profiler),
            "MemTracker": lambda: _cpu_seconds(mem_tracker),
            "Headroom": lambda: _headroom(model, optimizer, step, Path(folder)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, run in contenders.items():
                seconds[name].append(run())
    return seconds


def _headroom(model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: Callable[[], None], folder: Path) -> float:
    """Return the CPU seconds of one recorded step in a running recording: hooks, profiler, samples, conversion and writing included."""
    recorder = Recorder(folder / "overhead")
    recorder.start(model, optimizer)
    recorder.step()

    def recorded() -> None:
        step()
        recorder.step()

    seconds = _cpu_seconds(recorded)
    recorder.stop()
    return seconds


def _cpu_seconds(run: Callable[[], None]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


if __name__ == "__main__":
    main()
