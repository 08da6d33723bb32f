"""This project's own formula under the toggles that change what is held."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.analysis.timeline import Timeline
from profiler.estimate.own import own_estimate
from profiler.models.catalogue import entry
from profiler.recording import Category
from profiler.simulate.engine import simulate_job
from profiler.spec import Job, Model, Toggle, Workload
from profiler.storage import read_recording

NAME = "llama-3-8b"
NUM_PARAMETERS = entry(NAME).num_parameters_with_head
LAYERS, WIDTH, TOKENS, BFLOAT16_BYTES = 32, 4096, 2 * 8192, 2


def activations(*toggles: Toggle) -> int:
    job = Job(
        model=Model(name=NAME), workload=Workload(batch=2, seq=8192), device="b200", toggles=(Toggle("bf16"), Toggle("sgd"), *toggles)
    )
    return own_estimate(NUM_PARAMETERS, job).parts[Category.ACTIVATION]


def test_a_checkpointed_layer_keeps_its_input_and_one_is_whole_at_a_time() -> None:
    layer_input = TOKENS * WIDTH * BFLOAT16_BYTES
    whole, full = activations(), activations(Toggle("checkpointing"))
    half = activations(Toggle("checkpointing", (("every", "2"),)))

    layer = (half - full + LAYERS // 2 * layer_input) // (LAYERS // 2)
    assert whole - full == (LAYERS - 1) * layer - LAYERS * layer_input
    assert full > LAYERS * layer_input + layer


def test_formulas_say_what_they_know_nothing_of() -> None:
    job = Job(model=Model(name=NAME), workload=Workload(batch=1, seq=64), device="b200", toggles=(Toggle("eager"), Toggle("checkpointing")))
    validity = own_estimate(NUM_PARAMETERS, job).validity
    assert "nothing of eager." in validity
    assert "checkpointing" not in validity


@pytest.mark.parametrize("toggles", [("master-weights",), ("master-weights:gradients=kept",), ("master-weights:gradients=kept", "sgd")])
def test_the_step_with_master_weights_has_their_gradients_too(tmp_path: Path, toggles: tuple[str, ...]) -> None:
    job = Job(model=Model(name="tiny-llama"), workload=Workload(batch=1, seq=16, steps=1), toggles=tuple(map(Toggle.parse, toggles)))
    simulate_job(job, tmp_path / "run.headroom")
    recording = read_recording(tmp_path / "run.headroom")
    timeline = Timeline.of(recording)
    simulated = timeline.categories_at(timeline.peak_event)
    parts = own_estimate(recording.metadata.facts["num_parameters"], job).parts

    for category in (Category.PARAMETER, Category.MASTER_PARAMETER, Category.GRADIENT):
        assert parts[category] == simulated[category]
    assert sum(parts.values()) == pytest.approx(timeline.peak_bytes, rel=0.01)


def test_a_workload_that_toggles_change_is_the_changed_one() -> None:
    def estimated(*toggles: Toggle, **workload: int) -> object:
        return own_estimate(NUM_PARAMETERS, Job(model=Model(name=NAME), workload=Workload(**workload), device="b200", toggles=toggles))

    parts = (Toggle("micro-batches", (("count", "4"),)), Toggle("sequence-length", (("tokens", "512"),)))
    assert estimated(*parts, batch=8, seq=2048) == estimated(batch=8, seq=512, micro_batches=4)
