from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import SpecError
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind, ZeroGrad, canonical_json

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)
toggles = st.builds(lambda name, options: Toggle(name, tuple(sorted(options.items()))), names, st.dictionaries(names, names, max_size=3))
workloads = st.builds(
    lambda parts, rest: Workload(batch=parts * 3, micro_batches=parts, **rest),
    st.integers(1, 50),
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(WorkloadKind),
            "seq": st.integers(1, 10_000),
            "steps": st.integers(1, 9),
            "zero_grad": st.sampled_from(ZeroGrad),
            "set_to_none": st.booleans(),
        }
    ),
)
jobs = st.builds(
    Job, model=st.builds(Model, name=names), workload=workloads, device=names, toggles=st.lists(toggles, max_size=3).map(tuple)
)


@given(jobs)
def test_a_job_survives_json_and_keeps_its_identity(job: Job) -> None:
    again = Job.from_json(job.to_json())
    assert again == job
    assert again.id == job.id
    assert hash(again) == hash(job)


@given(jobs, jobs)
def test_different_jobs_have_different_ids(first: Job, second: Job) -> None:
    assert (first == second) == (first.id == second.id)


@given(toggles)
def test_a_toggle_is_its_text(toggle: Toggle) -> None:
    assert Toggle.parse(str(toggle)) == toggle


def test_the_order_in_which_toggles_are_given_is_not_part_of_a_job() -> None:
    first, second = Toggle("adamw"), Toggle("bfloat16")
    model = Model(name="gpt2")
    assert Job(model=model, toggles=(first, second)).id == Job(model=model, toggles=(second, first)).id


def test_a_users_configuration_is_canonical_whatever_its_order() -> None:
    assert Model.from_config("mine", {"a": 1, "b": 2}) == Model.from_config("mine", {"b": 2, "a": 1})


def test_the_title_tells_runs_apart_that_differ_only_in_the_workload() -> None:
    plain, kept = (Job(model=Model(name="gpt2"), workload=Workload(batch=4, keep_outputs=kept)) for kept in (False, True))
    late = Job(model=Model(name="gpt2"), workload=Workload(batch=4, steps=40, zero_grad="before_forward"))

    assert plain.title == "gpt2 · train · batch 4 x 128"
    assert kept.title == "gpt2 · train · batch 4 x 128 · keep_outputs=True"
    assert late.title == "gpt2 · train · batch 4 x 128 · steps=40 · zero_grad=before_forward"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"batch": 0}, "batch=0 is not possible. Use a whole number from 1 to"),
        ({"seq": -5}, "seq=-5 is not possible"),
        ({"seq": 2.5}, "seq=2.5 is not possible"),
        ({"steps": True}, "steps=True is not possible"),
        ({"batch": 10**9}, "Use a whole number from 1 to 65,536"),
        ({"batch": 4, "micro_batches": 3}, "batch=4 cannot be cut into micro_batches=3 equal parts. Choose a divisor of 4"),
        ({"kind": "trian"}, "Did you mean 'train'"),
        ({"zero_grad": "never"}, "Choose one of after_step, before_forward, before_backward"),
        ({"set_to_none": "yes"}, "set_to_none='yes' is not true or false"),
    ],
)
def test_an_impossible_workload_is_refused_with_the_value_and_what_is_allowed(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError) as refused:
        Workload(**fields)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("text", ["", ":x=1", "sgd:momentum", "sgd:=0.9"])
def test_a_text_that_is_no_toggle_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="is not a toggle. Write NAME"):
        Toggle.parse(text)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"model": "gpt2"},
        {"model": {"name": "gpt2", "extra": 1}},
        {"model": {"name": 5}},
        {"model": {"name": "gpt2"}, "workload": {"bacth": 1}},
        {"model": {"name": "gpt2"}, "workload": []},
        {"model": {"name": "gpt2"}, "toggles": [5]},
        {"model": {"name": "gpt2"}, "toggles": 5},
        {"model": {"name": "gpt2"}, "device": 5},
        {"model": {"name": "x" * 500}},
        {"model": {"name": "gpt2", "config": "[1]"}},
        {"model": {"name": "gpt2", "config": "{"}},
        {"model": {"name": "gpt2", "config": {}}},
    ],
)
def test_what_is_no_job_is_refused_in_a_sentence(data: Any) -> None:
    with pytest.raises(SpecError) as refused:
        Job.from_json(data)
    assert len(str(refused.value)) > 20


def test_canonical_json_is_the_same_for_equal_data() -> None:
    assert canonical_json({"b": [1, 2], "a": "é"}) == '{"a":"é","b":[1,2]}'
