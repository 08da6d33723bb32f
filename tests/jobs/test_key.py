"""What makes two runs the same run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from profiler import __version__
from profiler.capture.surroundings import library_versions
from profiler.jobs import key as key_module
from profiler.jobs.key import run_key, source_digest, versions
from profiler.spec import Job, Model, Toggle, Workload

JOB = Job(model=Model(name="tiny-gpt2"))


def test_equal_jobs_have_equal_keys_and_other_jobs_others() -> None:
    others = [
        Job(model=Model(name="tiny-bert")),
        Job(model=JOB.model, workload=Workload(batch=2)),
        Job(model=JOB.model, toggles=(Toggle("sgd"),)),
        Job(model=JOB.model, device="cuda"),
    ]

    assert run_key(JOB) == run_key(Job(model=Model(name="tiny-gpt2")))
    assert len({run_key(job) for job in [JOB, *others]}) == 5


def test_the_engine_and_the_versions_are_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_key(JOB)
    assert run_key(JOB, "simulate") != before
    for name in ("torch", "transformers", "headroom"):
        monkeypatch.setattr(key_module, "versions", lambda name=name: {**versions(), name: "0.0.0"})
        assert run_key(JOB) != before


def test_only_what_is_measured_depends_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, simulated = run_key(JOB), run_key(JOB, "simulate")
    machine = key_module.this_machine()
    monkeypatch.setattr(key_module, "this_machine", lambda: replace(machine, host="elsewhere"))

    assert run_key(JOB) != measured
    assert run_key(JOB, "simulate") == simulated


def test_free_memory_is_no_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = run_key(JOB)
    machine = key_module.this_machine()
    monkeypatch.setattr(key_module, "this_machine", lambda: replace(machine, available_bytes=1))

    assert run_key(JOB) == measured


def test_the_gpus_of_the_machine_are_part_of_a_measured_cuda_run(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cuda = replace(JOB, device="cuda")
    keys = set()
    for names in (["H100"], ["A100"]):
        monkeypatch.setattr(key_module, "_gpu_names", lambda device, names=names: names if device == "cuda" else [])
        keys |= {run_key(on_cuda), run_key(JOB)}

    assert len(keys) == 3


def test_the_versions_are_those_of_the_installed_libraries_and_of_the_code_itself() -> None:
    installed = library_versions()

    assert set(installed) == {"torch", "transformers", "headroom"}
    assert versions() == {**installed, "headroom": source_digest()}
    assert installed["torch"].startswith("2.")
    assert installed["headroom"] == __version__ != source_digest()
