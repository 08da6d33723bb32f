"""Profile simulates: where a job runs is chosen, the verdict comes first, and formulas stand beside it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from profiler.jobs.key import run_key
from profiler.jobs.manager import JobManager
from profiler.jobs.run import CAPTURE, LARGEST_BATCH, SIMULATE, RunState
from profiler.jobs.targets import Target
from profiler.optimizations.registry import validate
from profiler.recording import Phase, Provenance, Recording, Role
from profiler.spec import Job, Model, Workload
from profiler.storage import RunStore
from profiler.units import GIB
from tests.builders import Tape
from tests.pages.conftest import Open, texts

JOB = validate(Job(model=Model(name="tiny-gpt2"), workload=Workload(batch=2, seq=16, steps=1), device="rtx-4090"))
LINK = '{"model":{"name":"tiny-gpt2"},"device":"rtx-4090","workload":{"batch":2,"seq":16,"steps":1}}'
FACTS = {
    "not_included": ["CUDA context and loaded kernels", "NCCL buffers"],
    "estimated_step_seconds": 0.25,
    "assumptions": ["Arithmetic reaches 70% of the peak rate."],
}


def training(parameter_bytes: int, device: int) -> Recording:
    """A step with 8 GiB of activations over the parameters."""
    tape = Tape(device=device)
    tape.preexisting(parameter_bytes, roles=Role.PARAMETER, module="fc")
    with tape.step(0), tape.phase(Phase.FORWARD):
        tape.free(tape.alloc(8 * GIB, roles=Role.SAVED, module="fc", operator="aten::mm"))
    return tape.recording()


def store(home: Path, job: Job, engine: str, parameter_bytes: int, **fields: Any) -> str:
    """Put a run of a job into the store, so that it is the answer to the same job."""
    recording = training(parameter_bytes, -1 if job.device == "cpu" else 0)
    provenance = Provenance.SIMULATED if engine == SIMULATE else Provenance.MEASURED
    described = {"provenance": provenance, "job": job.to_json(), "key": run_key(job, engine), "title": job.title} | fields
    return RunStore(home).add(replace(recording, metadata=replace(recording.metadata, **described))).id


def on_gpu(home: Path, parameter_bytes: int) -> str:
    device = {"kind": "cuda", "name": "GeForce RTX 4090", "index": 0, "total_bytes": 24 * GIB}
    return store(home, JOB, SIMULATE, parameter_bytes, device=device, facts=FACTS)


def simulated(opened: Open, link: str = LINK, **query: str) -> AppTest:
    app = opened("profile", job=link, **query)
    assert app.button(key="profile_run").label == "Simulate"
    return app.button(key="profile_run").click().run()


def formulas(app: AppTest) -> dict[str, str]:
    """Return the error that each row of the table of formulas names."""
    table = next(frame.value for frame in app.dataframe if "peak of" in frame.value)
    return dict(zip(table["peak of"], table["error"], strict=True))


def test_where_is_asked_in_the_first_row_with_every_gpu_and_its_memory(opened: Open) -> None:
    where = opened("profile").selectbox(key="form_where")

    assert where.options[:2] == ["Measure on this CPU", "Simulate on this CPU"]
    assert "Simulate on GeForce RTX 4090, 23.5 GiB" in where.options
    assert where.value == Target(CAPTURE, "cpu")


def test_one_simulated_step_is_enough_and_a_number_that_was_chosen_stays(opened: Open) -> None:
    app = opened("profile")
    where = app.selectbox(key="form_where")

    where.set_value(Target(SIMULATE, "t4")).run()
    assert (app.number_input(key="form_steps").value, app.button(key="profile_run").label) == (1, "Simulate")
    app.selectbox(key="form_where").set_value(Target(CAPTURE, "cpu")).run()
    assert (app.number_input(key="form_steps").value, app.button(key="profile_run").label) == (2, "Run")
    app.number_input(key="form_steps").set_value(5).run()
    app.selectbox(key="form_where").set_value(Target(SIMULATE, "t4")).run()
    assert app.number_input(key="form_steps").value == 5


def test_the_button_submits_to_the_engine_of_the_device(opened: Open, server: JobManager) -> None:
    status = server.status(str(simulated(opened).query_params["run"]))

    assert (status.engine, status.job.device) == (SIMULATE, "rtx-4090")


def test_the_link_of_a_simulated_cpu_says_so_and_that_of_a_measured_one_need_not(opened: Open, server: JobManager) -> None:
    app = opened("profile")
    app.selectbox(key="form_where").set_value(Target(SIMULATE, "cpu")).run()
    app.button(key="profile_run").click().run()
    assert app.query_params["engine"] == SIMULATE
    assert server.status(str(app.query_params["run"])).engine == SIMULATE

    again = opened("profile", job=str(app.query_params["job"]), engine=SIMULATE)
    assert again.selectbox(key="form_where").value == Target(SIMULATE, "cpu")
    again.selectbox(key="form_where").set_value(Target(CAPTURE, "cpu")).run()
    again.button(key="profile_run").click().run()
    assert "engine" not in again.query_params


def test_a_gpu_of_a_link_that_is_not_known_is_refused_with_the_nearest(opened: Open) -> None:
    app = opened("profile", job='{"model":{"name":"tiny-gpt2"},"device":"rtx-4099"}')

    assert "Unknown GPU 'rtx-4099'. Did you mean 'rtx-4090'?" in app.error[0].value


def test_what_does_not_fit_is_said_first_with_where_it_fails(opened: Open, home: Path) -> None:
    on_gpu(home, 20 * GIB)

    app = simulated(opened)
    said = texts(app)

    assert app.error[0].value.startswith("It does not fit on GeForce RTX 4090: at least")
    assert "The first request that fails comes in step 0, forward, fc, aten::mm. Largest then: 20.0 GiB of parameters." in said
    assert "Outside of the allocator lie" in said
    assert "A step takes about **250 ms** at best." in said
    assert "Arithmetic reaches 70% of the peak rate." in said
    assert "Not included: CUDA context and loaded kernels, NCCL buffers." in said
    assert app.metric[0].value == "28.0 GiB"


def test_what_fits_is_said_to_fit(opened: Open, home: Path) -> None:
    on_gpu(home, 4 * GIB)

    app = simulated(opened)

    assert app.success[0].value.startswith("It fits on GeForce RTX 4090: of 23.5 GiB, the allocator reserves 12.0 GiB at most")
    assert not app.error


def test_what_the_band_decides_is_too_close_to_say(opened: Open, home: Path) -> None:
    on_gpu(home, 24_250 * 1024**2 - 8 * GIB - 300 * 1024**2)

    assert simulated(opened).warning[-1].value.startswith("Too close to say on GeForce RTX 4090")


def test_a_simulated_cpu_has_no_verdict(opened: Open, home: Path) -> None:
    job = replace(JOB, device="cpu")
    store(home, job, SIMULATE, 4 * GIB, device={"kind": "cpu", "name": "cpu"})

    app = simulated(opened, LINK.replace(',"device":"rtx-4090"', ""), engine=SIMULATE)

    assert app.metric[0].value == "12.0 GiB"
    assert "fits on" not in texts(app)


def test_formulas_stand_beside_the_newest_simulated_and_measured_run_of_the_same_step(opened: Open, home: Path) -> None:
    on_gpu(home, 4 * GIB)
    measured = replace(JOB, device="cpu", workload=replace(JOB.workload, steps=7))
    store(home, measured, CAPTURE, 2 * GIB, device={"kind": "cpu", "name": "cpu"})
    store(home, replace(measured, workload=replace(measured.workload, batch=4)), CAPTURE, 30 * GIB)

    app = simulated(opened, formulas="others")
    errors = formulas(app)

    assert errors["Measured on CPU"] == "reference"
    assert errors["Simulated on GeForce RTX 4090"] == "+20.00 %"
    assert {"Headroom", "accelerate estimate-memory", "Megatron-LM"} < errors.keys()
    assert "It ran on CPU, where kernels and rounding are others than on the job's device." in texts(app)
    app.segmented_control(key="linked_formulas").set_value("ours").run()
    assert formulas(app).keys() == {"Headroom", "Simulated on GeForce RTX 4090", "Measured on CPU"}


def test_before_any_run_the_formula_s_error_is_not_known(opened: Open) -> None:
    assert formulas(opened("profile", job=LINK)) == {"Headroom": "not known yet"}


def test_an_error_too_small_for_percent_is_told_in_bytes(opened: Open, home: Path) -> None:
    on_gpu(home, 4 * GIB)
    store(home, replace(JOB, device="cpu"), CAPTURE, 4 * GIB + 96, device={"kind": "cpu", "name": "cpu"})

    assert formulas(simulated(opened))["Simulated on GeForce RTX 4090"] == "-96 B"


def test_a_search_shows_its_answer_and_what_it_found(opened: Open, home: Path) -> None:
    on_gpu(home, 4 * GIB)
    largest = {
        "what": "batch",
        "sentences": ["The largest batch that fits is 3.", "At batch 4: it does not fit."],
        "simulated": [{"value": 3, "verdict": "fits", "peak_reserved_bytes": 22 * GIB}],
    }
    found = replace(JOB, workload=replace(JOB.workload, batch=3))
    recording_id = store(home, found, SIMULATE, 13 * GIB, key=run_key(JOB, LARGEST_BATCH), facts={"largest": largest})

    app = simulated(opened)
    app.button(key="run_largest_batch").click().run()
    said = texts(app)

    assert "**The largest batch that fits is 3.**" in said
    assert "At batch 4: it does not fit." in said
    assert "**Largest batch that fits: tiny-gpt2" in said
    assert app.metric[0].value == "21.0 GiB"
    assert next(frame.value for frame in app.dataframe if "batch" in frame.value)["batch"].tolist() == [3]
    assert any(recording_id in link.proto.query_string for link in app.get("page_link"))
    assert not [button for button in app.button if button.key == "run_largest_batch"]


def test_how_far_a_simulation_may_be_trusted_is_said(opened: Open, home: Path) -> None:
    on_gpu(home, 4 * GIB)

    assert "The nearest validated run is" in texts(simulated(opened))


def test_what_cannot_be_simulated_is_one_sentence(opened: Open, server: JobManager) -> None:
    run_id = server.submit(Job(model=Model(name="refuse"), device="rtx-4090"), engine=SIMULATE).run_id
    while server.status(run_id).state is not RunState.FAILED:
        time.sleep(0.05)

    assert opened("profile", run=run_id).error[-1].value == "heads=5 do not divide hidden=16. Use a divisor of 16."


@pytest.mark.parametrize(
    ("kind", "title"),
    [("cuda", "Estimated time since the recording began (ms)"), ("cpu", "Order of what happened, not time (thousands)")],
)
def test_timeline_says_what_a_simulated_recording_s_times_are(opened: Open, home: Path, kind: str, title: str) -> None:
    job = JOB if kind == "cuda" else replace(JOB, device="cpu")
    recording_id = store(home, job, SIMULATE, GIB, device={"kind": kind, "name": kind})

    app = opened("timeline", recording=recording_id)

    assert title in app.get("plotly_chart")[0].proto.spec
    assert ("(estimated), step 0" in texts(app)) == (kind == "cuda")
