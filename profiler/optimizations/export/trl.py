"""A `Job` -> a script for TRL's SFTTrainer: its ModelConfig and SFTConfig, which are what `trl sft` reads, written out.

Fields are TRL 1.6's. What it does otherwise than the Trainer is read from sft_trainer.py of its versions 1.x, and was not run here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from profiler.models.catalogue import config_of, entry, facts_of, is_known
from profiler.models.config import Head
from profiler.optimizations.adapters import ALL_LINEAR, ATTENTION_LAYERS, QUERY_VALUE, QUERY_VALUE_LAYERS
from profiler.optimizations.base import Value
from profiler.optimizations.export.program import ALL, Program, Said, call_lines, commented, one_line, switched_on
from profiler.optimizations.export.trainer import training_arguments
from profiler.optimizations.precision import ITEMSIZES
from profiler.optimizations.registry import validate
from profiler.spec import Job, Model, WorkloadKind

_TOOL = "TRL"
_ATTENTIONS = {"sdpa": "sdpa", "eager": "eager", "flash": "flash_attention_2"}
_LORAS = ("lora", "qlora")
_PROJECTIONS = {"gpt2": ("c_attn",)} | dict.fromkeys(
    ("llama", "mistral", "mixtral", "qwen2", "qwen3"), ("q_proj", "k_proj", "v_proj", "o_proj")
)
"""What attention's projections are called in models of a type; peft passes over names that a model does not have."""
_OTHERWISE = (
    "TRL logs entropy and accuracy: with loss_type nll it copies the logits once more at the end of forward, beside all activations.",
    "TRL makes an attention mask beside the labels, eight bytes a token.",
)
_DIFFERENT = {
    "flash": "flash_attention_2 is a package of its own; this job has torch's FlashAttention 2 kernel.",
    "qlora": "TRL keeps adapters of 4-bit weights in bfloat16 and other weights in dtype; this job has both in float32, as peft advises.",
    "chunked-loss": "TRL's chunked_nll takes 256 tokens a chunk, however many there are.",
    "offload-activations": "TRL copies on a stream of its own, holds up to five tensors until that is done, and leaves the output layer's.",
}


def trl_program(job: Job) -> Program:
    """Return the script.

    Raises:
        SpecError: the job is not possible.
    """
    job = validate(job)
    why = _impossible(job)
    if why:
        return Program(tool=_TOOL, filename="sft.py", language="python", text="", missing=(f"SFTTrainer cannot say this job: {why}",))
    toggles = switched_on(job)
    name, unnamed = _name(job.model)
    model, said = _model_config(job, toggles)
    sft = _sft_config(job, toggles, said)
    arguments, missing = training_arguments(job, toggles, said, _TOOL)
    different = [f"{key}: {_DIFFERENT[key]}" for key in toggles if key in _DIFFERENT]
    missing = [*unnamed, *different, *missing, *_OTHERWISE]
    text = "\n".join(_script(job, {"model_name_or_path": name} | model, _renamed(arguments) | sft)) + "\n"
    return Program(tool=_TOOL, filename="sft.py", language="python", text=commented(text, missing), missing=tuple(missing))


def _impossible(job: Job) -> str | None:
    if job.workload.kind is not WorkloadKind.TRAIN:
        return "it trains, and this job does not."
    if facts_of(job.model).head is not Head.CAUSAL_LM:
        return f"it trains causal language models, and {job.model.name} is none."
    return None


def _name(model: Model) -> tuple[str, list[str]]:
    """Return the model's name on the hub, and a sentence where it has none that is known here."""
    if model.config is None and is_known(model.name) and entry(model.name).hub_ids:
        return entry(model.name).hub_ids[0], []
    return model.name, [f"model: {model.name} has no name on the hub that is known here. Put your checkpoint's in model_name_or_path."]


def _model_config(job: Job, toggles: Mapping[str, Mapping[str, Value]]) -> tuple[dict[str, Any], Said]:
    """Return the keyword arguments of ModelConfig but the name, and what they say."""
    formats = [name for name in toggles if name in ITEMSIZES]
    found: dict[str, Any] = {"dtype": formats[0] if formats else "float32"}
    said: Said = dict.fromkeys(formats, ALL)
    for name, options in toggles.items():
        if name in _ATTENTIONS:
            found["attn_implementation"] = _ATTENTIONS[name]
            said[name] = ALL
        elif name in _LORAS:
            found |= _lora(job, options)
            said[name] = ALL
    return found, said


def _lora(job: Job, options: Mapping[str, Value]) -> dict[str, Any]:
    rank, alpha = int(options["rank"]), int(options["alpha"])
    found: dict[str, Any] = {"use_peft": True, "lora_r": rank, "lora_alpha": alpha or rank, "lora_dropout": 0.0}
    found |= {"lora_target_modules": _targets(str(options["targets"]), config_of(job.model)["model_type"])}
    if "double_quant" in options:
        found |= {"load_in_4bit": True, "use_bnb_nested_quant": options["double_quant"]}
    return found


def _targets(targets: str, model_type: str) -> str | list[str]:
    if targets == ALL_LINEAR:
        return ALL_LINEAR
    wanted = QUERY_VALUE_LAYERS if targets == QUERY_VALUE else ATTENTION_LAYERS
    return [name for name in wanted if name in _PROJECTIONS.get(model_type, wanted)]


def _sft_config(job: Job, toggles: Mapping[str, Mapping[str, Value]], said: Said) -> dict[str, Any]:
    """Return what SFTConfig has beside TrainingArguments, or has another default for; ``said`` gets what of the job that says."""
    found = {"max_length": job.workload.seq, "packing": False, "loss_type": "nll"}
    if "chunked-loss" in toggles:
        found["loss_type"] = "chunked_nll"
        said["chunked-loss"] = frozenset()
    if "offload-activations" in toggles:
        found["activation_offloading"] = True
        said["offload-activations"] = frozenset()
    return found


def _renamed(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments by the names that TRL's defaults stand under, with what it switches on by itself switched off."""
    older = {name.replace("activation_checkpointing", "gradient_checkpointing"): value for name, value in arguments.items()}
    return older | {name: older.get(name, False) for name in ("bf16", "gradient_checkpointing")}


def _script(job: Job, model: Mapping[str, Any], sft: Mapping[str, Any]) -> list[str]:
    num_rows = f"arguments.max_steps * {job.workload.batch}"
    return [
        f'"""{one_line(job.title)}. The fields are TRL 1.6\'s."""',
        "",
        "import torch",
        "from datasets import Dataset",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "from trl import ModelConfig, SFTConfig, SFTTrainer, get_peft_config, get_quantization_config",
        "",
        *call_lines("chosen", "ModelConfig", model),
        *call_lines("arguments", "SFTConfig", sft),
        "tokenizer = AutoTokenizer.from_pretrained(chosen.model_name_or_path)",
        "model = AutoModelForCausalLM.from_pretrained(",
        "    chosen.model_name_or_path,",
        "    dtype=chosen.dtype,",
        "    attn_implementation=chosen.attn_implementation,",
        "    quantization_config=get_quantization_config(chosen),",
        ")",
        f"tokens = torch.randint(2, model.config.vocab_size, ({num_rows}, {job.workload.seq}))  # your data",
        'dataset = Dataset.from_dict({"input_ids": tokens.tolist()})',
        "trainer = SFTTrainer(",
        "    model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer, peft_config=get_peft_config(chosen)",
        ")",
        "trainer.train()",
    ]
