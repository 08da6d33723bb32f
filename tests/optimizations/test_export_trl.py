"""The script for TRL's SFTTrainer: what it says is read back as the job, and what it cannot say is named. TRL itself is not needed."""

from __future__ import annotations

import ast
import sys
from types import SimpleNamespace
from typing import Any

import peft
import pytest
import transformers

from profiler.models.build import build_model
from profiler.optimizations.adapters import adapted
from profiler.optimizations.export.program import Program
from profiler.optimizations.export.trl import trl_program
from profiler.optimizations.registry import REGISTRY, validate
from profiler.optimizations.training_arguments import TrainingJob, job_from_training_arguments
from profiler.spec import Job, Model, Toggle, Workload
from profiler.workloads import Setup

OPT = {"model_type": "opt", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32, "vocab_size": 50}
OPT |= {"word_embed_proj_dim": 16, "max_position_embeddings": 128}


def job(*toggles: str, model: str = "llama-3.2-1b", device: str = "rtx-4090", **workload: Any) -> Job:
    sizes = Workload(**{"batch": 4, "micro_batches": 2, "seq": 32} | workload)
    return Job(model=Model(name=model), workload=sizes, device=device, toggles=tuple(map(Toggle.parse, toggles)))


def chosen(program: Program) -> dict[str, Any]:
    """Return the keyword arguments of ModelConfig and SFTConfig: the fields that a file for ``trl sft`` has."""
    calls = [node.value for node in ast.parse(program.text).body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)]
    wanted = [call for call in calls if ast.unparse(call.func) in ("ModelConfig", "SFTConfig")]
    assert len(wanted) == 2
    return {str(keyword.arg): ast.literal_eval(keyword.value) for call in wanted for keyword in call.keywords}


def read_back(asked: Job) -> TrainingJob:
    return job_from_training_arguments(trl_program(asked).text, device=asked.device)


EXACT = [
    (),
    ("bfloat16", "checkpointing:every=2"),
    ("float16", "eager", "sgd:momentum=0.9"),
    ("sdpa", "adamw:implementation=fused"),
    ("rmsprop:centered=true",),
    ("adamw-8bit",),
    ("adamw-4bit", "bfloat16"),
    ("paged-adamw-8bit",),
    ("lora:alpha=64,rank=8,targets=all-linear", "checkpointing"),
    ("lora:alpha=32,targets=query-value", "bfloat16"),
    ("qlora:alpha=32,double_quant=false", "bfloat16"),
]


@pytest.mark.parametrize("toggles", EXACT, ids=" ".join)
def test_what_it_says_is_read_back_as_the_job(toggles: tuple[str, ...]) -> None:
    asked = validate(job(*toggles))
    found, notes = read_back(asked)
    assert validate(found) == validate(asked)
    assert notes == (), "nothing is left to TRL's defaults, and nothing is unknown"


@pytest.mark.parametrize(
    ("toggle", "read"),
    [
        ("amp", "amp"),
        ("amp:dtype=float16", "amp:dtype=float16"),
        ("flash", "flash"),
        ("adafactor", "adafactor"),
        ("offload-activations", "offload-activations"),
        ("lora", "lora:alpha=16"),  # alpha=0 is the rank
    ],
)
def test_what_is_nearly_the_same_is_read_back_with_a_note(toggle: str, read: str) -> None:
    toggles = (toggle, "bfloat16") if toggle == "flash" else (toggle,)
    found, notes = read_back(job(*toggles))
    assert read in map(str, validate(found).toggles)
    assert len(notes) == (toggle != "lora")


def test_trl_s_own_defaults_are_said_where_the_job_has_others() -> None:
    found = chosen(trl_program(job()))
    assert {name: found[name] for name in ("gradient_checkpointing", "bf16", "loss_type", "dtype", "max_length", "packing")} == {
        "gradient_checkpointing": False,
        "bf16": False,
        "loss_type": "nll",
        "dtype": "float32",
        "max_length": 32,
        "packing": False,
    }
    assert chosen(trl_program(job("chunked-loss")))["loss_type"] == "chunked_nll"
    assert "TRL 1.6" in str(ast.get_docstring(ast.parse(trl_program(job()).text)))


CAUSAL = [*(Model(name=f"tiny-{name}") for name in ("llama", "gpt2", "qwen", "mixtral")), Model.from_config("opt", OPT)]


@pytest.mark.parametrize("targets", ["attention", "query-value"])
@pytest.mark.parametrize("model", CAUSAL, ids=lambda model: model.name)
def test_adapters_are_beside_the_layers_beside_which_the_run_has_them(model: Model, targets: str) -> None:
    asked = Job(model=model, workload=Workload(), toggles=(Toggle("lora", (("targets", targets),)),))
    names = chosen(trl_program(asked))["lora_target_modules"]
    theirs = adapted(build_model(model), peft.LoraConfig(target_modules=names))
    setup = Setup()
    REGISTRY["lora"].apply(setup, REGISTRY["lora"].read_options({"targets": targets}), asked)
    ours = setup.transforms[0](build_model(model))
    trained = [{name for name, parameter in each.named_parameters() if parameter.requires_grad} for each in (ours, theirs)]
    assert trained[0] == trained[1] != set()


def test_a_model_is_named_as_on_the_hub_or_said_to_have_no_name_there() -> None:
    assert chosen(trl_program(job()))["model_name_or_path"] == "meta-llama/Llama-3.2-1B"
    assert not any(sentence.startswith("model: ") for sentence in trl_program(job()).missing)
    for asked in (job(model="tiny-llama"), job("grouped-query:kv_heads=1", model="tiny-llama")):
        program = trl_program(asked)
        assert program.missing[0].startswith(f"model: {chosen(program)['model_name_or_path']} has no name on the hub")


def test_what_it_does_otherwise_is_named() -> None:
    missing = trl_program(job("qlora", "chunked-loss:chunks=4", "offload-activations:min_bytes=2048", "bfloat16")).missing
    assert {sentence.partition(":")[0] for sentence in missing[:3]} == {"qlora", "chunked-loss", "offload-activations"}
    assert "chunked-loss:chunks=4: TRL decides this itself." in missing
    assert "offload-activations:min_bytes=2048: TRL decides this itself." in missing
    assert any("copies the logits once more" in sentence for sentence in missing)


@pytest.mark.parametrize(
    ("model", "kind"), [("tiny-bert", "train"), ("tiny-t5", "train"), ("tiny-lstm", "train"), ("tiny-llama", "decode")]
)
def test_a_job_that_it_cannot_train_has_no_script(model: str, kind: str) -> None:
    program = trl_program(job(model=model, kind=kind, micro_batches=1, device="cpu"))
    assert not program.text
    assert len(program.missing) == 1


def test_the_script_hands_over_what_it_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def trainer(**arguments: Any) -> Any:
        given.update(arguments)
        return SimpleNamespace(train=lambda: given.update(trained=True))

    def model(name: str, **arguments: Any) -> Any:
        return SimpleNamespace(name=name, config=SimpleNamespace(vocab_size=50), **arguments)

    trl = SimpleNamespace(
        ModelConfig=lambda **fields: SimpleNamespace(**{"attn_implementation": None} | fields),
        SFTConfig=SimpleNamespace,
        SFTTrainer=trainer,
        get_peft_config=lambda fields: fields.lora_r,
        get_quantization_config=lambda fields: fields.load_in_4bit,
    )
    monkeypatch.setitem(sys.modules, "trl", trl)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(Dataset=SimpleNamespace(from_dict=dict)))
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda name: f"tokenizer of {name}")
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", model)
    exec(compile(trl_program(job("qlora:rank=4", "bfloat16", model="tiny-llama")).text, "sft.py", "exec"), {})
    assert given["trained"]
    assert (given["model"].name, given["model"].dtype, given["model"].quantization_config) == ("tiny-llama", "bfloat16", True)
    assert (given["processing_class"], given["peft_config"], given["args"].max_length) == ("tokenizer of tiny-llama", 4, 32)
    rows = given["train_dataset"]["input_ids"]
    assert (len(rows), len(rows[0])) == (3 * 4, 32)
