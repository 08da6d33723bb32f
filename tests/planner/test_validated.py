"""The run on a real GPU that stands behind a prediction, and what differs from it."""

from __future__ import annotations

from profiler.planner.validated import evidence, nearest_run
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind

VERSIONS = {"torch": "2.14.1+cu130", "transformers": "4.57.6"}


def job(model: str, kind: str, *toggles: str, device: str = "rtx-a6000") -> Job:
    workload = Workload(kind=WorkloadKind(kind), batch=1, seq=2048)
    return Job(model=Model(name=model), workload=workload, device=device, toggles=tuple(map(Toggle.parse, toggles)))


def test_every_row_has_every_trait_and_says_how_far_off_it_was() -> None:
    assert evidence()
    for run in evidence():
        assert run.traits.keys() == evidence()[0].traits.keys()
        assert run.differences
        assert run.measured_bytes > 0
        assert run.source


def test_a_job_that_was_recorded_finds_its_own_run() -> None:
    found = nearest_run(job("llama-3.2-1b", "train", "bfloat16", "checkpointing"), "ampere", VERSIONS)
    assert found.evidence.id == "a6000-08"
    assert found.differs == {}
    assert found.sentences()[0].startswith("Validated against Llama-3.2-1B, rtx-a6000, train, bfloat16")
    assert "equal to the byte" in found.sentences()[0]


def test_what_differs_is_named_and_the_batch_alone_counts_least() -> None:
    found = nearest_run(job("llama-3-8b", "train", "bfloat16", device="h100-80gb"), "hopper", VERSIONS | {"transformers": "5.23.0"})
    assert found.evidence.traits["workload"] == "train"
    assert found.differs["architecture"] == (found.evidence.traits["architecture"], "hopper")
    assert "architecture" in found.sentences()[1]


def test_inference_is_held_beside_inference() -> None:
    found = nearest_run(job("llama-3.2-3b", "prefill", "bfloat16"), "ampere", VERSIONS)
    assert found.evidence.id == "a6000-04"
    assert found.to_json()["differences_bytes"] == {"weights": 0, "states": 0, "peak": 0, "total": 0}
