"""What training takes: the state of optimizers by hand, and steps in several processes that come to an end."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from profiler.compression import lab
from profiler.compression import measure_training as module
from profiler.compression.measure_training import WORKERS
from profiler.errors import JobFailed
from profiler.jobs.experiments import Experiments
from profiler.jobs.facts import training_asked
from profiler.jobs.run import RunState
from tests.compression.tasks import TinyTask
from tests.conftest import ROOT


def test_momentum_keeps_a_number_a_parameter_and_adam_two_and_its_steps(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shape = lab.Shape(num_parameters=1000, num_linear=800, num_output=100)
    tiny = lab.LabModel(name="tiny", label="The tiny model", explanation="For tests.", fingerprint=lambda: "", code="", shape=shape)
    monkeypatch.setattr(lab, "MODELS", {"tiny": tiny})
    parameters = list(TinyTask().build().parameters())
    num_bytes = sum(4 * parameter.numel() for parameter in parameters)
    asked, runs = training_asked("tiny", home), Experiments(home, command=[sys.executable, "-m", "tests.compression.fake_lab_worker"])
    try:
        status = runs.ask(asked)
        while not status.state.final:
            time.sleep(0.1)
            status = runs.status(status.run_id)
    finally:
        runs.close()

    facts = asked.find()

    assert status.state is RunState.DONE, status.message
    assert facts is not None
    assert facts.parameter_bytes == num_bytes
    assert facts.state_bytes("sgd") == 0
    assert facts.state_bytes("sgd:momentum=0.9") == num_bytes
    assert facts.state_bytes("adam") == 2 * num_bytes + 4 * len(parameters)
    assert [found.num_workers for found in facts.times] == list(WORKERS)
    assert all(found.seconds > 0 for found in facts.times)


def test_a_process_that_is_lost_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_train", lambda *_: os._exit(1))

    with pytest.raises(JobFailed, match="in 2 processes failed"):
        module._step_seconds(TinyTask(), next(TinyTask().training(0)), 2)
