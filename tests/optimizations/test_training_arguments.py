"""TrainingArguments and TRL configurations, as people have them -> the job of one step, or one sentence on why not."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from profiler.errors import SpecError
from profiler.optimizations.registry import validate
from profiler.optimizations.training_arguments import MAX_BYTES, TrainingJob, job_from_training_arguments
from profiler.optimizations.training_arguments.names import HARMLESS, NOT_MODELLED, READ, REFUSED, TRL_ONLY
from profiler.spec import Job, Model, WorkloadKind

PLAIN = {"per_device_train_batch_size": 2, "optim": "adamw_torch", "bf16": False, "dtype": "float32", "max_seq_length": 64}
"""With nothing left open, and nothing that only TRL has."""
SFT = PLAIN | {"model_name_or_path": "gpt2", "gradient_checkpointing": False, "max_length": 64, "loss_type": "nll"}
TINY = Model(name="tiny-llama")
LLAMA_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def read(fields: dict[str, Any], **beside: Any) -> TrainingJob:
    return job_from_training_arguments(json.dumps(fields), **{"model": TINY, **beside})


def toggles(**fields: Any) -> list[str]:
    """Return what the fields switch on beside the defaults of `PLAIN`."""
    return [str(toggle) for toggle in validate(read(PLAIN | fields).job).toggles if str(toggle) not in ("adamw", "float32")]


def notes(**fields: Any) -> str:
    return "\n".join(read(PLAIN | fields).notes)


def refusal(text: str | bytes) -> str:
    with pytest.raises(SpecError) as refused:
        job_from_training_arguments(text, model=TINY, seq=8)
    return str(refused.value)


def test_what_transformers_itself_writes_is_read() -> None:
    arguments = TrainingArguments(
        output_dir="out",
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        bf16=True,
        activation_checkpointing=True,
        activation_checkpointing_kwargs={"use_reentrant": False, "every_n_layers": 2},
        use_cpu=True,
        report_to="none",
    )

    job, told = job_from_training_arguments(arguments.to_json_string(), model=TINY, device="rtx-4090", seq=32)

    workload = job.workload
    assert (workload.kind, workload.batch, workload.micro_batches, workload.seq) == (WorkloadKind.TRAIN, 8, 2, 32)
    assert [str(toggle) for toggle in validate(job).toggles] == ["adamw:implementation=fused", "amp", "checkpointing:every=2"]
    assert (job.model, job.device) == (TINY, "rtx-4090")
    assert told == (
        "The file does not tell in what the weights are kept (dtype): taken as float32.",
        "accelerate's mixed precision also makes a float32 copy of the outputs, logits included; it is not modelled.",
    )


def test_every_field_of_the_installed_training_arguments_has_its_place() -> None:
    fields = {field.name for field in dataclasses.fields(TrainingArguments)}

    assert fields - (READ | HARMLESS | NOT_MODELLED.keys() | REFUSED.keys()) == set()


def test_no_field_has_two_places() -> None:
    places = [READ, HARMLESS, frozenset(NOT_MODELLED), frozenset(REFUSED)]

    assert sum(map(len, places)) == len(frozenset().union(*places))


def test_a_file_that_says_all_of_it_has_no_notes() -> None:
    assert read(PLAIN).notes == ()
    assert read(SFT | {"use_peft": True, "lora_r": 8, "lora_dropout": 0.0, "lora_target_modules": "all-linear"}).notes == ()


def test_a_trl_file_takes_trl_s_defaults_and_says_so() -> None:
    job, told = job_from_training_arguments("model_name_or_path: meta-llama/Llama-3.2-1B\ndataset_name: x/y\nlearning_rate: 2.0e-4\n")

    assert job.model == Model(name="meta-llama/Llama-3.2-1B")
    assert validate(job).model == Model(name="llama-3.2-1b")
    assert (job.workload.batch, job.workload.seq) == (8, 1024)
    assert [str(toggle) for toggle in validate(job).toggles] == ["adamw:implementation=fused", "amp", "checkpointing"]
    assumed = (
        "per_device_train_batch_size=8, max_length=1024, dtype=float32, bf16=True, gradient_checkpointing=True, optim=adamw_torch_fused"
    )
    assert told[0] == f"Not in the file and taken as TRL 1.x does: {assumed}."
    assert "has all logits at once" in told[1]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"bf16": True}, ["amp"]),
        ({"fp16": True}, ["amp:dtype=float16"]),
        ({"dtype": "bfloat16"}, ["bfloat16"]),
        ({"dtype": "torch.float16"}, ["float16"]),
        ({"dtype": None, "torch_dtype": "bfloat16", "bf16": True}, ["bfloat16"]),
        ({"gradient_checkpointing": True}, ["checkpointing"]),
        ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": '{"every_n_layers": 3}'}, ["checkpointing:every=3"]),
        ({"attn_implementation": "eager"}, ["eager"]),
        ({"attn_implementation": "flash_attention_2"}, ["flash"]),
        ({"optim": "adamw_torch_fused"}, ["adamw:implementation=fused"]),
        ({"optim": "sgd", "optim_args": "momentum=0.9, dampening=0"}, ["sgd:momentum=0.9"]),
        ({"optim": "rmsprop", "optim_args": "centered=True"}, ["rmsprop:centered=true"]),
        ({"optim": "adafactor"}, ["adafactor"]),
        ({"optim": "adamw_torch_8bit"}, ["adamw-8bit"]),
        ({"optim": "adamw_torch_4bit"}, ["adamw-4bit"]),
        ({"use_peft": True, "lora_r": 8, "lora_target_modules": LLAMA_LINEAR}, ["lora:alpha=32,rank=8,targets=all-linear"]),
        ({"use_peft": True, "lora_alpha": 64, "lora_target_modules": LLAMA_LINEAR[:4]}, ["lora:alpha=64"]),
        ({"use_peft": True, "lora_target_modules": ["q_proj", "up_proj"]}, ["lora:alpha=32,targets=all-linear"]),
        ({"use_peft": True, "lora_target_modules": ["v_proj", "q_proj"]}, ["lora:alpha=32,targets=query-value"]),
        (
            {"use_peft": True, "load_in_4bit": True, "lora_target_modules": "all-linear", "bf16": False},
            ["qlora:alpha=32,double_quant=false,targets=all-linear"],
        ),
        ({"use_peft": True, "load_in_4bit": False, "lora_target_modules": ["v_proj", "q_proj"]}, ["lora:alpha=32,targets=query-value"]),
        ({"use_peft": False, "lora_r": 8}, []),
    ],
)
def test_a_field_switches_its_optimization_on(fields: dict[str, Any], expected: list[str]) -> None:
    trl = {"gradient_checkpointing": False}
    assert toggles(**(trl | fields)) == expected


def test_what_model_init_kwargs_hold_counts_where_nothing_else_says_it() -> None:
    inside = {"dtype": "bfloat16", "attn_implementation": "eager"}
    open_fields = {name: value for name, value in SFT.items() if name != "dtype"}

    def names(fields: dict[str, Any]) -> set[str]:
        return {toggle.name for toggle in read(fields).job.toggles}

    assert names(open_fields | {"model_init_kwargs": inside}) == {"bfloat16", "eager", "adamw"}
    assert names(open_fields | {"model_init_kwargs": json.dumps(inside)}) == {"bfloat16", "eager", "adamw"}
    assert names(SFT | {"model_init_kwargs": inside}) == {"float32", "eager", "adamw"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"deepspeed": "zero3.json"}, "deepspeed is set and not modelled: states are divided or offloaded."),
        ({"fsdp": ["full_shard"]}, "fsdp is set and not modelled"),
        ({"use_liger_kernel": True}, "use_liger_kernel is set and not modelled"),
        ({"dtype": "auto"}, "dtype=auto is what the weights were saved in"),
        ({"dtype": "bfloat16", "bf16": True}, "Autocast over bfloat16 weights is modelled as bfloat16 alone"),
        ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}, "use_reentrant=True is not modelled"),
        ({"optim": "sgd", "weight_decay": 0.1}, "weight_decay is not modelled with sgd"),
        ({"use_peft": True, "lora_target_modules": ["q_proj", "k_proj"]}, "attention's projections stand for 'k_proj, q_proj'"),
        ({"use_peft": True, "load_in_4bit": True, "bf16": True}, "Autocast over 4-bit weights is modelled as products in bfloat16 alone"),
        ({"use_peft": True, "lora_dropout": 0.1}, "lora_dropout is not modelled"),
        ({"packing": True}, "packing is set and not modelled"),
        ({"loss_type": "dft"}, "loss_type='dft' is modelled as nll"),
        ({"per_device_train_batchsize": 3}, "Not known, and so ignored: 'per_device_train_batchsize'."),
        ({f"x{n}": n for n in range(20)}, " and 12 more."),
    ],
)
def test_what_the_job_does_otherwise_is_told(fields: dict[str, Any], said: str) -> None:
    assert said in notes(**({"gradient_checkpointing": False} | fields))


@pytest.mark.parametrize("off", [None, False, 0, "", "no", [], {}])
def test_what_is_switched_off_is_not_told(off: Any) -> None:
    assert read(SFT | dict.fromkeys((*NOT_MODELLED, *REFUSED), off)) == read(SFT)


@pytest.mark.parametrize("name", sorted(HARMLESS - TRL_ONLY))
def test_what_memory_does_not_depend_on_is_not_told(name: str) -> None:
    assert read(PLAIN | {name: True}) == read(PLAIN)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_changes_nearly_every_number_is_refused_by_name(name: str) -> None:
    assert f"sets {name}, which is not modelled" in refusal(json.dumps(PLAIN | {name: "x"}))
    assert f"sets {name}, which" in refusal(json.dumps(PLAIN | {"model_init_kwargs": {name: True}}))


@pytest.mark.parametrize("optim", OptimizerNames)
def test_every_optimizer_of_transformers_is_modelled_or_refused_by_name(optim: OptimizerNames) -> None:
    try:
        switched_on = {toggle.name for toggle in read(PLAIN | {"optim": str(optim.value)}).job.toggles}
    except SpecError as error:
        assert f"optim='{optim.value}' is not modelled. Modelled are adamw_torch, " in str(error)
    else:
        (name,) = switched_on - {"float32"}
        words, said = set(name.split("-")), set(str(optim.value).split("_"))
        assert words <= said <= words | {"torch", "fused"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"bf16": True, "fp16": True}, "sets bf16 and fp16"),
        ({"bf16": "maybe"}, "bf16='maybe'. It must be true or false."),
        ({"per_device_train_batch_size": "many"}, "per_device_train_batch_size='many'. It must be a whole number."),
        ({"per_device_train_batch_size": 1.5}, "=1.5. It must be a whole number."),
        ({"per_device_train_batch_size": -1}, "batch=-1 is not possible"),
        ({"gradient_accumulation_steps": 0}, "is not possible"),
        ({"dtype": "float8"}, "Unknown dtype 'float8'. Did you mean 'float32'?"),
        ({"optim": ["sgd"]}, "optim=['sgd']. It must be a word"),
        ({"attn_implementation": "flex_attention"}, "Unknown attn_implementation 'flex_attention'."),
        ({"attn_implementation": "x" * 10_000}, "It must be a word of 1 to 200 characters."),
        ({"model_init_kwargs": "{"}, "model_init_kwargs is not valid JSON"),
        ({"model_init_kwargs": [1]}, "It must be a mapping of names to values."),
        ({"load_in_4bit": True}, "sets load_in_4bit: such weights are not trained. Set use_peft, or take it out."),
        ({"use_peft": True, "lora_target_modules": [1]}, "It must be a word, or a list of words."),
    ],
)
def test_a_field_that_cannot_be_is_refused_with_its_value(fields: dict[str, Any], said: str) -> None:
    assert said in refusal(json.dumps(PLAIN | fields))


def test_what_the_file_leaves_open_is_taken_from_beside_it_or_asked_for() -> None:
    open_file = {name: value for name, value in PLAIN.items() if name != "max_seq_length"}

    assert read(open_file, seq=16).job.workload.seq == 16
    assert read(PLAIN, seq=16).job.workload.seq == 64
    assert read(SFT).job.model == Model(name="gpt2")
    told = read(SFT | {"model_name_or_path": "./mine"}).notes
    assert told == ("model_name_or_path='./mine' is not in the catalogue: tiny-llama is taken.",)
    for fields, beside, said in (
        (open_file, {}, "how long sequences are"),
        (SFT | {"max_length": None, "max_seq_length": None}, {}, "how long sequences are"),
        (PLAIN, {"model": None}, "names no model"),
        (SFT | {"model_name_or_path": "./mine"}, {"model": None}, "model_name_or_path='./mine' is not in the catalogue."),
    ):
        with pytest.raises(SpecError, match=said):
            read(fields, **beside)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no field of TrainingArguments"),
        ("[1, 2]", "has no field of TrainingArguments"),
        ("compute_environment: LOCAL_MACHINE\nnum_processes: 8\n", "has no field of TrainingArguments"),
        ('{"bf16": ', "is not valid JSON"),
        ("bf16: true\n  fp16: [", "is neither JSON nor YAML"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        ("bf16: true\nx: !!python/object/apply:os.system ['true']\n", "is neither JSON nor YAML"),
        ("bf16: true\nx: &a [1]\ny: *a\n", "has a YAML alias (*a)"),
        ("bf16: true\nx: " + "[" * 40 + "]" * 40, "is nested more than 16 deep"),
        ("bf16: true\nx: 2026-99-99\n", "has a value that YAML cannot hold"),
        ('{"bf16": true, "x": ' + "[" * 30_000 + "]" * 30_000 + "}", "is not valid JSON"),
        ("bf16: true\n" + "#" * MAX_BYTES, f"has more than {MAX_BYTES:,} bytes"),
    ],
    ids=lambda text: repr(text)[:30],
)
def test_a_file_that_is_something_else_is_refused(text: str | bytes, said: str) -> None:
    assert refusal(text).startswith("The training configuration ")
    assert said in refusal(text)[:100]


def test_secrets_of_a_file_are_not_repeated() -> None:
    told = notes(hub_token="hf_secret", my_key="hf_secret", deepspeed={"token": "hf_secret"})

    assert "my_key" in told
    assert "hf_secret" not in told


@given(
    st.dictionaries(
        st.sampled_from(sorted(READ | TRL_ONLY | NOT_MODELLED.keys() | REFUSED.keys())) | st.text(max_size=8),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.lists(st.text(max_size=5), max_size=3),
        max_size=8,
    )
)
def test_any_file_becomes_a_job_or_is_refused_in_words(fields: dict[str, Any]) -> None:
    for text in (json.dumps(fields), yaml.safe_dump(fields)):
        try:
            job, told = job_from_training_arguments(text, model=TINY, seq=8)
        except SpecError as error:
            assert str(error).endswith((".", "?"))
            continue
        assert isinstance(job, Job)
        assert all(note.endswith(".") for note in told)
