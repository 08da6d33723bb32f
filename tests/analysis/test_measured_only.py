"""What only a measured run allocates is told by its mechanism, and what has none is said to have none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from profiler.analysis.footprint import Footprint
from profiler.analysis.measured_only import PACKED, difference_sentence, measured_only, without_packed
from profiler.analysis.timeline import Timeline
from profiler.capture import engine
from profiler.capture.repeated import Repeated
from profiler.optimizations.registry import validate
from profiler.recording import Phase, Provenance, Recording, Role
from profiler.simulate.engine import simulate_job
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind
from profiler.storage import read_recording
from tests.builders import Tape


def recording(provenance: Provenance = Provenance.MEASURED, device: int = -1) -> Recording:
    """Return a step with an input of 100 B and a product whose result has 40 B, with scratch of 500 B while it is made."""
    tape = Tape(device=device)
    tape.preexisting(64, roles=Role.PARAMETER)
    with tape.step(0), tape.phase(Phase.FORWARD):
        batch = tape.alloc(100, roles=Role.INPUT)
        result = tape.alloc(40, operator="aten::mm")
        tape.free(tape.alloc(500, operator="aten::mm"))
        tape.free(tape.alloc(8, operator="aten::add"))
        tape.free(result)
        tape.free(batch)
    made = tape.recording()
    return replace(made, metadata=replace(made.metadata, provenance=provenance))


def test_scratch_of_products_is_told_from_their_results_and_from_what_other_operators_drop() -> None:
    made = recording()
    timeline = Timeline.of(made)

    assert timeline.peak_bytes == 64 + 100 + 40 + 500
    assert measured_only(made, timeline) == {PACKED: 500 - 8}  # without it the addition is the peak
    assert Timeline.of(without_packed(made, timeline.blocks)).peak_bytes == 64 + 100 + 40 + 8
    assert Footprint.of(made).measured_only == measured_only(made, timeline)


@pytest.mark.parametrize(("provenance", "device"), [(Provenance.SIMULATED, -1), (Provenance.MEASURED, 0)])
def test_neither_a_simulation_nor_a_gpu_has_any(provenance: Provenance, device: int) -> None:
    made = recording(provenance, device)
    assert measured_only(made, Timeline.of(made)) == {}


@pytest.mark.parametrize(
    ("measured", "simulated", "named", "said"),
    [
        (900, 900, {}, ""),
        (5_964, 900, {}, "measured is 5,064 B more: 5,064 B more have no named mechanism."),
        (5_964, 900, {"of scratch": 5_000, "of others": 64}, "measured is 5,064 B more: 5,000 B of scratch; 64 B of others."),
        (5_964, 900, {"of scratch": 5_000}, "measured is 5,064 B more: 5,000 B of scratch; 64 B more have no named mechanism."),
        (890, 900, {"of scratch": 6}, "measured is 10 B less: 6 B of scratch; 16 B less have no named mechanism."),
        (900, 900, {"of scratch": 1}, "measured is equal: 1 B of scratch; 1 B less has no named mechanism."),
    ],
)
def test_a_difference_is_said_with_its_names_and_its_rest(measured: int, simulated: int, named: dict[str, int], said: str) -> None:
    assert difference_sentence(measured, simulated, named) == said


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_what_onednn_packs_is_all_that_a_measured_decode_in_bfloat16_has_more(tmp_path: Path) -> None:
    workload = Workload(kind=WorkloadKind.DECODE, batch=2, seq=32, steps=1, new_tokens=3)
    job = validate(Job(model=Model(name="tiny-llama"), workload=workload, toggles=(Toggle("bfloat16"),)))
    with patch.object(engine, "repeat_job", lambda *_: Repeated()):
        engine.capture_job(job, tmp_path / "measured.headroom")
    simulate_job(job, tmp_path / "simulated.headroom")
    measured, simulated = (Footprint.of(read_recording(tmp_path / f"{name}.headroom")) for name in ("measured", "simulated"))

    assert measured.peak_bytes - sum(measured.measured_only.values()) == simulated.peak_bytes
