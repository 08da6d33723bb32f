"""The KV cache of simulated models is the formula's, to the byte, growing or made at once; a decode step keeps what it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from profiler import read_recording
from profiler.analysis.timeline import Timeline
from profiler.estimate.kv_cache import dynamic_cache_bytes, static_cache_bytes
from profiler.models.catalogue import facts_of
from profiler.recording import Category
from profiler.simulate.engine import simulate_job
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind

BATCH, PROMPT, NEW = 2, 60, 4
BFLOAT16_BYTES = 2


@pytest.mark.parametrize(
    "model",
    ["llama-3-8b", "qwen3-8b", pytest.param("llama-3.1-405b", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("is_static", [False, True], ids=["dynamic", "static"])
def test_keys_and_values_take_what_the_formula_says(tmp_path: Path, model: str, is_static: bool) -> None:
    workload = Workload(kind=WorkloadKind.DECODE, batch=BATCH, seq=PROMPT, new_tokens=NEW, steps=1, warmup_steps=0)
    toggles = (Toggle("bfloat16"), *([Toggle("static-cache")] if is_static else []))
    job = Job(model=Model(name=model), workload=workload, device="b200", toggles=toggles)
    simulate_job(job, tmp_path / "run.headroom")
    recording = read_recording(tmp_path / "run.headroom")
    line = Timeline.of(recording)

    (decode,) = [mark for mark in recording.marks.to_pylist() if (mark["kind"], mark["name"]) == ("phase", "decode")]
    last = int(np.searchsorted(line.blocks.event_us, decode["end_us"], side="right")) - 1
    held = line.categories_at(last)[Category.KV_CACHE]
    facts = facts_of(job.model)
    if is_static:
        assert held == static_cache_bytes(facts, BATCH, PROMPT + NEW, BFLOAT16_BYTES)
    else:
        assert held == dynamic_cache_bytes(facts, workload, NEW, BFLOAT16_BYTES)
