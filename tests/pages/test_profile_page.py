"""Profile: the form is a job, the run is in the link, and what happens to it is said."""

from __future__ import annotations

import time

import pytest
from streamlit.testing.v1 import AppTest

from pages.shared import fit
from profiler.jobs.manager import JobManager
from profiler.jobs.run import RunState, RunStatus
from profiler.models.catalogue import CATALOGUE
from profiler.optimizations.registry import REGISTRY
from profiler.spec import Job, Model, Workload
from tests.pages.conftest import Open, texts


def until_final(manager: JobManager, run_id: str) -> RunStatus:
    deadline = time.monotonic() + 20
    while not (status := manager.status(run_id)).state.final:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return status


def run_of(app: AppTest) -> str:
    return str(app.query_params["run"])


def test_the_exact_parameter_count_and_the_lower_bound_are_shown_before_the_run(opened: Open) -> None:
    said = texts(opened("profile", job='{"model":{"name":"gpt2"},"workload":{"batch":4}}'))

    assert "124,439,808 parameters" in said
    assert "weights 475 MiB, gradients 475 MiB, optimizer state 949 MiB" in said


def test_a_model_that_cannot_fit_is_warned_of_before_the_run(opened: Open) -> None:
    app = opened("profile", job='{"model":{"name":"llama-3.1-405b"}}')

    assert "before any activation" in app.warning[0].value


def test_every_catalogue_model_and_every_optimization_can_be_chosen(opened: Open) -> None:
    app = opened("profile")
    offered = set(app.selectbox(key="form_family_precision").options) | set(app.selectbox(key="form_family_optimizer").options)

    assert len(app.selectbox(key="form_model").options) == len(CATALOGUE)
    assert offered >= {item.label for item in REGISTRY.values() if item.family.name in ("precision", "optimizer")}


def test_a_job_in_the_link_fills_the_form(opened: Open) -> None:
    job = '{"model":{"name":"tiny-llama"},"toggles":["sgd:momentum=0.9","bfloat16"],"workload":{"batch":6,"micro_batches":3,"seq":64}}'
    app = opened("profile", job=job)

    assert app.selectbox(key="form_model").value == "tiny-llama"
    assert app.number_input(key="form_batch").value == 6
    assert app.number_input(key="form_micro_batches").value == 3
    assert app.selectbox(key="form_family_optimizer").value == "sgd"
    assert app.number_input(key="form_option_sgd_momentum").value == 0.9
    assert app.selectbox(key="form_family_precision").value == "bfloat16"


def test_fields_that_do_not_go_together_are_refused_and_cannot_run(opened: Open) -> None:
    app = opened("profile", job='{"model":{"name":"tiny-gpt2"},"workload":{"batch":4}}')
    app.number_input(key="form_micro_batches").set_value(3).run()

    assert "batch=4 cannot be cut into micro_batches=3" in app.error[0].value
    assert app.button(key="profile_run").disabled


def test_an_encoder_cannot_decode(opened: Open) -> None:
    app = opened("profile", job='{"model":{"name":"tiny-bert"}}')
    app.segmented_control(key="form_kind").set_value("decode").run()

    assert "cannot decode" in app.error[0].value


def test_a_run_goes_from_the_button_to_its_recording(opened: Open, server: JobManager) -> None:
    app = opened("profile")
    app.button(key="profile_run").click().run()
    status = until_final(server, run_of(app))
    app.run()

    assert status.state is RunState.DONE
    assert "Recorded in" in app.success[0].value
    assert '"tiny-gpt2"' in app.query_params["job"]


def test_changing_the_form_after_a_run_keeps_the_change(opened: Open, server: JobManager) -> None:
    app = opened("profile")
    app.button(key="profile_run").click().run()
    until_final(server, run_of(app))
    app.number_input(key="form_batch").set_value(2).run()

    assert app.number_input(key="form_batch").value == 2


def test_the_same_job_again_is_answered_from_the_store_and_says_so(opened: Open, server: JobManager) -> None:
    first = opened("profile")
    first.button(key="profile_run").click().run()
    until_final(server, run_of(first))

    again = opened("profile")
    again.button(key="profile_run").click().run()

    assert run_of(again) != run_of(first)
    assert "Answered from the store" in again.success[0].value


def test_a_running_job_is_shown_in_another_session_and_can_be_cancelled(opened: Open, server: JobManager) -> None:
    run_id = server.submit(Job(model=Model(name="sleep"))).run_id
    while server.status(run_id).step == 0:
        time.sleep(0.05)

    app = opened("profile", run=run_id)
    assert "Forward, step 2 of 3" in str(app.get("progress")[0].proto)

    app.button(key="run_cancel").click().run()
    assert until_final(server, run_id).state is RunState.CANCELLED
    assert "Cancelled" in texts(app.run())


def test_only_who_opened_a_run_by_its_link_is_asked_before_it_is_cancelled(opened: Open, server: JobManager) -> None:
    server.submit(Job(model=Model(name="sleep")))  # so that what follows waits
    own = opened("profile")
    own.button(key="profile_run").click().run()
    other = opened("profile", run=run_of(own))

    assert (own.button(key="run_cancel").label, other.button(key="run_cancel").label) == ("Cancel", "Cancel the run")
    assert "for everybody who waits for it" in texts(other)
    assert "for everybody who waits for it" not in texts(own)


def test_a_run_that_waits_says_its_place(opened: Open, server: JobManager) -> None:
    server.submit(Job(model=Model(name="sleep")))
    waits = server.submit(Job(model=Model(name="sleep"), workload=Workload(batch=2)))

    assert "Number 1 in the queue" in texts(opened("profile", run=waits.run_id))


@pytest.mark.parametrize("name", ["refuse", "stumble"])
def test_a_failed_run_says_why(opened: Open, server: JobManager, name: str) -> None:
    status = until_final(server, server.submit(Job(model=Model(name=name))).run_id)

    assert status.state is RunState.FAILED
    assert opened("profile", run=status.run_id).error[-1].value == status.message


def test_a_run_that_is_not_here_can_be_made_from_the_job_in_its_link(opened: Open) -> None:
    app = opened("profile", run="00000000-00000000", job='{"model":{"name":"tiny-lstm"}}')

    assert "The run of this link is not on this machine" in app.info[0].value
    assert app.selectbox(key="form_model").value == "tiny-lstm"


def test_an_own_configuration_is_chosen_and_counted(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "inspect_in_worker", lambda model: {"num_parameters": 1234})
    config = b'{"model_type":"gpt2","vocab_size":64,"n_embd":16,"n_layer":1,"n_head":2,"n_positions":256}'

    app = opened("profile")
    app.file_uploader(key="form_config").set_value(("mine.json", config, "application/json")).run()

    assert app.selectbox(key="form_model").value == "own configuration: mine"
    assert "1,234 parameters" in texts(app)


def test_an_impossible_configuration_is_refused_with_a_sentence(opened: Open) -> None:
    config = b'{"model_type":"gpt2","vocab_size":64,"n_embd":16,"n_layer":1,"n_head":3}'

    app = opened("profile")
    app.file_uploader(key="form_config").set_value(("mine.json", config, "application/json")).run()

    assert "does not divide" in app.error[0].value


def test_a_training_configuration_fills_the_form_and_says_what_it_leaves_out(opened: Open) -> None:
    config = b"model_name_or_path: ./mine\nper_device_train_batch_size: 2\ngradient_accumulation_steps: 4\nmax_length: 256\nfsdp: full\n"
    shown = {"model": "tiny-llama", "batch": 8, "micro_batches": 4, "seq": 256, "steps": 1, "family_precision": "amp"}

    app = opened("profile", job='{"model":{"name":"tiny-llama"},"device":"rtx-4090"}')
    app.file_uploader(key="form_training_config").set_value(("sft.yaml", config, "application/yaml")).run()

    assert {name: app.session_state[f"form_{name}"] for name in shown} == shown
    assert app.session_state["form_where"].device == "rtx-4090"
    assert "./mine' is not in the catalogue: tiny-llama is taken." in app.text[0].value
    assert "fsdp is set and not modelled" in app.text[0].value

    app.number_input(key="form_batch").set_value(4).run()
    assert app.number_input(key="form_batch").value == 4


def test_a_training_configuration_that_is_not_modelled_is_refused_and_leaves_the_form(opened: Open) -> None:
    app = opened("profile", job='{"model":{"name":"tiny-llama"}}')
    app.file_uploader(key="form_training_config").set_value(("x.json", b'{"torch_compile": true, "bf16": true}', "application/json")).run()

    assert "sets torch_compile, which is not modelled" in app.error[0].value
    assert app.session_state["form_family_precision"] == "float32"
