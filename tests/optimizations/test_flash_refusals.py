"""What flash cannot run on a GPU is refused before a run, and nothing else is: held to the simulation, which knows each call's dtype."""

from __future__ import annotations

import re
from pathlib import Path
from unittest.mock import patch

import pytest

from profiler.errors import SimulationUnsupported, SpecError
from profiler.optimizations.attention import Flash
from profiler.optimizations.registry import validate
from profiler.simulate.engine import simulate_job
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind

TRAIN, PREFILL = WorkloadKind.TRAIN, WorkloadKind.PREFILL
IN_FLOAT32 = "flash takes float16 and bfloat16, and attention is in float32 here. Switch on bfloat16 or amp first, or choose sdpa."
TOO_OLD = "flash is a kernel of GPUs from Ampere on, and {} is older. Choose sdpa or math."


def job(*toggles: str, device: str = "rtx-4090", kind: WorkloadKind = TRAIN, model: str = "tiny-llama") -> Job:
    workload = Workload(kind=kind, batch=2, seq=16, steps=1, warmup_steps=0)
    return Job(model=Model(name=model), workload=workload, device=device, toggles=tuple(map(Toggle.parse, ("flash", *toggles))))


REFUSED = {
    IN_FLOAT32: (
        job(),
        job("tf32"),
        job(model="tiny-gpt2"),
        job("lora"),
        job("fsdp2"),
        job("qlora"),
        job(kind=WorkloadKind.DECODE),
        *(job(name, kind=PREFILL) for name in ("int8", "int4", "nf4", "float8", "int8-dynamic")),
    ),
    TOO_OLD.format("T4"): (job("float16", device="t4"), job(device="t4")),
    TOO_OLD.format("V100 32GB SXM2"): (job("amp:dtype=float16", device="v100-32gb"),),
}
ALLOWED = (
    *map(job, ("bfloat16", "float16", "amp", "amp:dtype=float16", "master-weights", "fsdp2:compute=bfloat16")),
    job("bfloat16", "lora"),
    job("bfloat16", "int8", kind=PREFILL),
    job("bfloat16", model="tiny-gpt2", device="a100-80gb"),
    job(device="cpu"),
)


@pytest.mark.parametrize(("message", "wanted"), [(message, wanted) for message, jobs in REFUSED.items() for wanted in jobs])
def test_what_is_refused_would_fail(message: str, wanted: Job, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        validate(wanted)

    with patch.object(Flash, "refusal", lambda *_: None), pytest.raises(SimulationUnsupported, match="No attention kernel"):
        simulate_job(wanted, tmp_path / "run.headroom")


@pytest.mark.parametrize("wanted", ALLOWED)
def test_what_runs_is_not_refused(wanted: Job, tmp_path: Path) -> None:
    simulate_job(validate(wanted), tmp_path / "run.headroom")


def test_a_card_of_this_machine_is_refused_float32_too() -> None:
    with pytest.raises(SpecError, match=re.escape(IN_FLOAT32)):
        validate(job(device="cuda:0"))
