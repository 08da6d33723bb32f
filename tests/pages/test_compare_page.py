"""Compare: the link is the comparison, what is stored is shown at once, and what cannot be is said before a run."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from pages.shared import compare_runs, compare_toggles
from profiler.jobs.key import run_key
from profiler.jobs.manager import JobManager
from profiler.jobs.run import CAPTURE, SIMULATE
from profiler.planner.comparison import Comparison, parse_toggles
from profiler.recording import PINNED_HOST, Phase, Provenance, Recording, Role
from profiler.spec import Job, Model, Workload, WorkloadKind
from profiler.storage import RunStore
from tests.builders import Tape
from tests.pages.conftest import Open, texts

LINK = '{"model":{"name":"tiny-llama"},"workload":{"batch":2,"seq":16}}'
BASELINE = Job(model=Model(name="tiny-llama"), workload=Workload(batch=2, seq=16))
TOGGLES = ("bfloat16", "checkpointing")
SIZES = {(): 900, ("bfloat16",): 500, ("bfloat16", "checkpointing"): 450, ("checkpointing",): 900}


def keep(store: RunStore, job: Job, engine: str, num_bytes: int, host_bytes: int = 0) -> Recording:
    """Store a run of a job whose step allocates so many bytes of activations, and on the host beside a GPU."""
    tape = Tape(device=0 if host_bytes else -1)
    with tape.step(0), tape.phase(Phase.FORWARD):
        if host_bytes:
            tape.alloc(host_bytes, device=PINNED_HOST)
        tape.free(tape.alloc(num_bytes, roles=Role.SAVED, module="layers.0.mlp"))
    is_simulated = engine == SIMULATE
    facts = {"estimated_step_seconds": num_bytes / 1e3} if is_simulated else {}
    made = tape.recording(job=job.to_json(), key=run_key(job, engine), facts=facts, title=job.title)
    provenance = Provenance.SIMULATED if is_simulated else Provenance.MEASURED
    return store.add(replace(made, metadata=replace(made.metadata, provenance=provenance)))


def store_runs(store: RunStore, engine: str = CAPTURE, baseline: Job = BASELINE, plus: int = 0) -> None:
    comparison = Comparison(baseline=baseline, toggles=parse_toggles(TOGGLES))
    for switched, job in comparison.jobs().items():
        keep(store, job, engine, SIZES[tuple(map(str, switched))] + plus)


@pytest.fixture
def known(server: JobManager) -> RunStore:
    """The store with every run of the comparison in it."""
    store_runs(server.store)
    return server.store


def chart(app: AppTest, number: int) -> str:
    return str(app.get("plotly_chart")[number].proto.spec)


def test_a_comparison_that_was_seen_before_is_shown_at_once_with_its_sums(opened: Open, known: RunStore) -> None:
    app = opened("compare", job=LINK, toggles=";".join(TOGGLES))
    said = texts(app)

    assert "The steps add up to 450 B, measured." in said
    assert "**bfloat16** saved 400 B, 44 % of the peak: 900 B became 500 B." in said
    assert "**checkpointing** saved 50 B" in said
    assert [metric.value for metric in app.metric] == ["450 B", "not measured", "not measured"]
    assert "baseline: 900 B" in chart(app, 0)
    assert "checkpointing: -50 B" in chart(app, 1)
    assert not [button for button in app.button if button.key == "compare_start"]


def test_a_budget_says_yes_or_no_and_is_drawn(opened: Open, known: RunStore) -> None:
    app = opened("compare", job=LINK, toggles=";".join(TOGGLES), budget="460B")
    budget = next(metric for metric in app.metric if metric.label.startswith("Under"))

    assert (budget.label, budget.value) == ("Under 460 B", "Yes")
    assert "budget 460 B" in chart(app, 0)
    app.text_input(key="linked_budget").set_value("1KB of").run()
    assert "is not a size" in texts(app) or app.error


def test_the_host_of_a_simulated_gpu_has_a_budget_of_its_own(opened: Open, server: JobManager) -> None:
    gpu = replace(BASELINE, device="rtx-4090", workload=replace(BASELINE.workload, steps=1))
    (toggle,) = parse_toggles(["offload-activations"])
    for switched, job in Comparison(baseline=gpu, toggles=(toggle,)).jobs().items():
        keep(server.store, job, SIMULATE, 500 if switched else 900, host_bytes=300 if switched else 100)
    link = LINK.replace('"seq":16', '"seq":16,"steps":1').replace("}}", '},"device":"rtx-4090"}')
    app = opened("compare", job=link, toggles="offload-activations", budget="600B", host_budget="250B", details="Table")
    values = {metric.label: metric.value for metric in app.metric}

    assert (values["Under 600 B"], values["Host under 250 B"], values["On the host"]) == ("Yes", "No", "300 B")
    assert "50 B too much, held" in texts(app)
    assert "The run is now under the budget: 500 B are allocated" in texts(app)
    assert "The run is now over the host budget: 300 B are held, 50 B more than 250 B." in texts(app)
    assert "What limits now: the host." in texts(app)
    (table,) = [frame.value for frame in app.dataframe if "over_host_budget_bytes" in frame.value]
    assert (table["over_budget_bytes"].tolist(), table["over_host_budget_bytes"].tolist()) == ([300, 0], [0, 50])

    app.text_input(key="linked_host_budget").set_value("").run()
    assert "host_budget" not in app.query_params
    assert not [metric for metric in app.metric if "Host under" in metric.label]


def test_without_a_simulated_gpu_the_host_has_no_budget(opened: Open, known: RunStore) -> None:
    app = opened("compare", job=LINK, toggles=";".join(TOGGLES), host_budget="1B")

    assert app.text_input(key="linked_host_budget").disabled
    assert not [metric for metric in app.metric if "under" in metric.label.lower()]


def test_where_nothing_is_chosen_the_next_step_is_offered(opened: Open) -> None:
    app = opened("compare", job=LINK)
    assert "Nothing is switched on yet" in texts(app)

    app.button(key="compare_example").click().run()
    assert app.query_params["toggles"] == "bfloat16;checkpointing;adamw-8bit;lora"


def test_toggles_are_added_moved_changed_and_removed_and_the_link_follows(opened: Open) -> None:
    app = opened("compare", job=LINK, toggles="bfloat16")
    app.selectbox(key="compare_add").set_value("lora").run()
    assert app.query_params["toggles"] == "bfloat16;lora"

    app.number_input(key="compare_option_1_rank").set_value(4).run()
    assert app.query_params["toggles"] == "bfloat16;lora:rank=4"

    app.button(key="compare_up_1").click().run()
    assert app.query_params["toggles"] == "lora:rank=4;bfloat16"

    app.button(key="compare_remove_0").click().run()
    assert app.query_params["toggles"] == "bfloat16"


def test_what_cannot_be_on_together_is_refused_before_a_run(opened: Open, server: JobManager) -> None:
    app = opened("compare", job=LINK, toggles="bfloat16;float16")

    assert "bfloat16 and float16 are both switched on" in app.error[0].value
    assert not server.list()
    app.button(key="compare_remove_1").click().run()
    assert not app.error


def test_a_toggle_says_what_it_applies_to_and_does_not_go_with(opened: Open) -> None:
    said = texts(opened("compare", job=LINK, toggles="fused-loss"))

    assert "Applies to the output layer and the loss of causal-lm models, in train." in said
    assert "Not with distillation: distillation compares logits, and the other never has them." in said


@pytest.mark.parametrize("toggles", ["no-such-thing", "lora:rank=zero", "lora:rank=99999999", "=;:"])
def test_a_link_with_an_impossible_toggle_says_so_and_the_page_still_works(opened: Open, toggles: str) -> None:
    app = opened("compare", job=LINK, toggles=toggles)
    assert app.error
    app.selectbox(key="compare_add").set_value("bfloat16").run()

    assert app.query_params["toggles"] == "bfloat16"
    assert not app.error


def test_a_link_with_an_impossible_baseline_offers_another(opened: Open) -> None:
    app = opened("compare", job='{"model":{"name":"no-such-model"}}')

    assert "no-such-model" in app.error[0].value
    assert "Begin with another baseline" in str(app.get("page_link")[-1].proto)


def test_the_baseline_is_changed_in_the_form_and_the_link_follows(opened: Open) -> None:
    app = opened("compare", job=LINK, toggles="bfloat16")
    app.toggle(key="compare_change").set_value(True).run()
    app.number_input(key="form_seq").set_value(32).run()

    assert '"seq":32' in app.query_params["job"]
    assert "batch 2 x 32" in app.text[0].value
    assert app.query_params["toggles"] == "bfloat16"


def test_runs_are_made_when_asked_and_not_before(opened: Open, server: JobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_runs, "_POLL_SECONDS", None)
    app = opened("compare", job=LINK, toggles="bfloat16")
    assert "2 runs to make" in texts(app)
    assert not server.list()

    app.button(key="compare_start").click().run()
    deadline = time.monotonic() + 30
    while app.get("progress") and time.monotonic() < deadline:
        time.sleep(0.2)
        app.run()
    assert len(server.list()) == 2
    assert not [button for button in app.button if button.key == "compare_start"]


def test_a_family_is_swept_each_alone(opened: Open, server: JobManager) -> None:
    app = opened("compare", job=LINK, sweep="optimizer")

    assert "Every member that this baseline can have is tried alone" in texts(app)
    assert "runs to make" in texts(app)


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ("Table", "By category: bytes at the run's peak minus those at the first run's"),
        ("Interactions", "Overlap: others save part of it already"),
        ("Bytes, time and loss", "Neither time nor loss was measured"),
        ("Two runs", "The other run's peak is **450 B** lower"),
        ("Formulas", "Allocated bytes"),
        ("Measured and simulated", "4 runs to make"),
    ],
)
def test_every_detail_is_drawn(opened: Open, known: RunStore, details: str, expected: str) -> None:
    app = opened("compare", job=LINK, toggles=";".join(TOGGLES), details=details)

    assert expected in texts(app)
    assert not app.error


def test_both_engines_are_set_beside_each_other_to_the_byte(opened: Open, known: RunStore) -> None:
    store_runs(known, SIMULATE, plus=8)
    app = opened("compare", job=LINK, toggles=";".join(TOGGLES), details="Measured and simulated")

    assert "0 of 4 peaks agree to the byte." in texts(app)
    assert "bfloat16: measured is 8 B less: 8 B less have no named mechanism." in texts(app)
    assert next(frame.value for frame in app.dataframe if "measured_bytes" in frame.value)["difference_bytes"].tolist() == [8, 8, 8, 8]


def test_a_simulated_comparison_has_estimated_time_and_no_loss(opened: Open, server: JobManager) -> None:
    gpu = replace(BASELINE, device="rtx-4090", workload=replace(BASELINE.workload, steps=1))
    store_runs(server.store, SIMULATE, gpu)
    link = LINK.replace('"seq":16', '"seq":16,"steps":1').replace("}}", '},"device":"rtx-4090"}')
    app = opened("compare", job=link, toggles=";".join(TOGGLES), details="Bytes, time and loss")
    values = {metric.label: metric.value for metric in app.metric}

    assert values == {"All together": "450 B", "Under 23.5 GiB": "Yes", "Step time": "about 450 ms", "Loss": "not measured"}
    assert "Time of a step" in chart(app, 2)


def test_the_start_page_and_a_run_that_is_done_lead_here(opened: Open, known: RunStore, server: JobManager) -> None:
    links = [str(link.proto) for link in opened("start").get("page_link")]
    assert any("Compare on Llama 3 8B" in link and "toggles=bfloat16" in link for link in links)

    status = server.submit(Comparison(baseline=BASELINE, toggles=()).job(()))
    links = [str(link.proto) for link in opened("profile", run=status.run_id).get("page_link")]
    assert any("Compare toggles on it" in link and "tiny-llama" in link for link in links)


def test_while_steps_are_missing_the_asked_combination_is_shown_under_its_own_name(opened: Open, server: JobManager) -> None:
    comparison = Comparison(baseline=BASELINE, toggles=parse_toggles(TOGGLES))
    for switched in ((), comparison.toggles):
        keep(server.store, comparison.job(switched), CAPTURE, SIZES[tuple(map(str, switched))])
    app = opened("compare", job=LINK, toggles=";".join(TOGGLES))

    assert "All together: 450 B" in chart(app, 0)
    assert "+ checkpointing" not in chart(app, 0)
    assert "2 runs to make, 2 are here already" in texts(app)
    assert "What each toggle saves" not in texts(app)


def test_a_run_is_shown_as_code(opened: Open, known: RunStore) -> None:
    app = opened("compare", job=LINK, toggles=";".join(TOGGLES))
    app.session_state["compare_code"] = True
    app.run()

    assert "import torch" in app.code[0].value
    assert app.selectbox(key="linked_code_of").value == "bfloat16 + checkpointing"


@pytest.mark.parametrize("kind", compare_toggles.EXAMPLES)
@pytest.mark.parametrize("device", ["cpu", "rtx-4090"])
def test_the_example_of_every_workload_is_possible(kind: WorkloadKind, device: str) -> None:
    baseline = replace(BASELINE, device=device, workload=replace(BASELINE.workload, kind=kind))

    assert Comparison(baseline=baseline, toggles=compare_toggles.EXAMPLES[kind]).jobs()
