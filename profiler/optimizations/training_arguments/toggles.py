"""The fields of a training configuration that switch optimizations on -> toggles, and notes on where those are not quite the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from profiler.errors import SpecError, unknown_name
from profiler.optimizations.adapters import ATTENTION_LAYERS, QUERY_VALUE
from profiler.optimizations.precision import ITEMSIZES
from profiler.optimizations.registry import REGISTRY
from profiler.optimizations.training_arguments.reading import Fields, shown
from profiler.spec import Toggle

_T = TypeVar("_T")
_FLOAT32 = "float32"
_OPTIMIZER = "adamw_torch_fused"
"""TrainingArguments' default from torch 2.8 on; adamw_torch before."""
_OPTIMIZERS = {
    "adamw_torch": Toggle("adamw"),
    "adamw_torch_fused": Toggle("adamw", (("implementation", "fused"),)),
    "sgd": Toggle("sgd"),
    "rmsprop": Toggle("rmsprop"),
    "adafactor": Toggle("adafactor"),
    "adamw_torch_8bit": Toggle("adamw-8bit"),
    "adamw_torch_4bit": Toggle("adamw-4bit"),
    "paged_adamw_8bit": Toggle("paged-adamw-8bit"),
}
_WITH_ARGUMENTS = ("sgd", "rmsprop")
"""Those that take what memory depends on from ``optim_args``."""
_ATTENTIONS = {"eager": "eager", "sdpa": "sdpa", "flash_attention_2": "flash"}
_LORA_RANK, _LORA_ALPHA, _LORA_DROPOUT = 16, 32, 0.05
"""ModelConfig's defaults in TRL."""
_WHOLE_ATTENTION = (frozenset(("q_proj", "k_proj", "v_proj", "o_proj")), frozenset(("c_attn",)))
_ALL_LINEAR = _WHOLE_ATTENTION[0] | {"gate_proj", "up_proj", "down_proj"}


@dataclass(frozen=True)
class Translation:
    """A configuration on its way to a job."""

    fields: Fields
    is_trl: bool
    """Whether TRL's defaults hold for what is absent."""
    assumed: dict[str, object] = field(default_factory=dict)
    """Fields that are absent, and what they were taken as."""
    notes: list[str] = field(default_factory=list)
    """Sentences on what the job does otherwise."""

    def assume(self, name: str, value: _T) -> _T:
        """Take an absent field as ``value``, and return that."""
        self.assumed[name] = value
        return value


def toggles_of(said: Translation) -> tuple[Toggle, ...]:
    """Return what a configuration switches on.

    Raises:
        SpecError: a field has a value that cannot be, or names what is not modelled.
    """
    if said.is_trl:
        _note_loss(said)
    toggles = (_precision(said), _attention(said), _adapters(said), _checkpointing(said), _offload(said), _optimizer(said))
    return tuple(toggle for toggle in toggles if toggle is not None)


def _precision(said: Translation) -> Toggle:
    kept_in, mixed = _kept_in(said), _mixed(said)
    if mixed is None:
        return Toggle(kept_in)
    if said.fields.flag("load_in_4bit"):
        said.notes.append(f"Autocast over 4-bit weights is modelled as products in {mixed} alone, and float32 between the layers.")
        return Toggle(mixed)
    if kept_in != _FLOAT32:
        said.notes.append(f"Autocast over {kept_in} weights is modelled as {kept_in} alone, without what autocast keeps in float32.")
        return Toggle(kept_in)
    said.notes.append("accelerate's mixed precision also makes a float32 copy of the outputs, logits included; it is not modelled.")
    return Toggle("amp", (("dtype", mixed),))


def _kept_in(said: Translation) -> str:
    """Return the number format of the weights."""
    name = said.fields.text("dtype", "torch_dtype")
    if name is None:
        if said.is_trl:
            return said.assume("dtype", _FLOAT32)
        said.notes.append("The file does not tell in what the weights are kept (dtype): taken as float32.")
        return _FLOAT32
    if name == "auto":
        said.notes.append("dtype=auto is what the weights were saved in, which the file does not tell: taken as float32.")
        return _FLOAT32
    name = name.removeprefix("torch.")
    if name not in ITEMSIZES:
        raise unknown_name("dtype", name, ITEMSIZES, f"Choose one of {', '.join(ITEMSIZES)}.")
    return name


def _mixed(said: Translation) -> str | None:
    """Return the format of the autocast region, if there is one."""
    bf16, fp16 = said.fields.flag("bf16"), said.fields.flag("fp16")
    if bf16 and fp16:
        raise SpecError("The training configuration sets bf16 and fp16, and a run has one of them. Take one out.")
    if bf16 is None and said.is_trl and not fp16:
        bf16 = said.assume("bf16", True)
    return "bfloat16" if bf16 else "float16" if fp16 else None


def _attention(said: Translation) -> Toggle | None:
    name = said.fields.text("attn_implementation") or ("flash_attention_2" if said.fields.flag("use_flash_attention_2") else None)
    if name is None:
        return None
    if name not in _ATTENTIONS:
        allowed = f"Choose one of {', '.join(_ATTENTIONS)}; others are not modelled."
        raise unknown_name("attn_implementation", name, _ATTENTIONS, allowed)
    if name == "flash_attention_2":
        said.notes.append("flash_attention_2 is a package of its own; torch's FlashAttention 2 kernel stands for it.")
    return Toggle(_ATTENTIONS[name])


def _adapters(said: Translation) -> Toggle | None:
    in_4_bits = said.fields.flag("load_in_4bit")
    if not said.fields.flag("use_peft"):
        if in_4_bits:
            raise SpecError("The training configuration sets load_in_4bit: such weights are not trained. Set use_peft, or take it out.")
        return None
    rank, alpha = said.fields.count("lora_r"), said.fields.count("lora_alpha")
    if rank is None:
        rank = said.assume("lora_r", _LORA_RANK)
    if "lora_dropout" not in said.fields:
        said.assume("lora_dropout", _LORA_DROPOUT)
    if "lora_dropout" not in said.fields or said.fields.is_set("lora_dropout"):
        said.notes.append("lora_dropout is not modelled: masks and dropped inputs of the adapters come on top.")
    alpha = _LORA_ALPHA if alpha is None else alpha
    options = (("alpha", str(alpha)), ("rank", str(rank)), ("targets", _targets(said)))
    if not in_4_bits:
        return Toggle("lora", options)
    nested = str(bool(said.fields.flag("use_bnb_nested_quant"))).lower()
    return Toggle("qlora", tuple(sorted((*options, ("double_quant", nested)))))


def _targets(said: Translation) -> str:
    """Return the smaller of the sets of layers that the toggle knows which holds the named ones."""
    layers = frozenset(said.fields.words("lora_target_modules") or ())
    if layers == {"q_proj", "v_proj"}:
        return QUERY_VALUE
    if layers == {"all-linear"} or layers >= _ALL_LINEAR:
        return "all-linear"
    is_attention = layers <= set(ATTENTION_LAYERS)
    if not is_attention or not any(layers >= whole for whole in _WHOLE_ATTENTION):
        named = shown(", ".join(sorted(layers))) if layers else "peft's own choice"
        all_of = "attention's projections" if is_attention else "linear layers but the output"
        said.notes.append(f"lora_target_modules: adapters on all {all_of} stand for {named}, so this is what they need at most.")
    return "attention" if is_attention else "all-linear"


def _checkpointing(said: Translation) -> Toggle | None:
    on = said.fields.flag("activation_checkpointing", "gradient_checkpointing")
    if on is None and said.is_trl:
        on = said.assume("gradient_checkpointing", True)
    if not on:
        return None
    options = Fields(said.fields.mapping("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"))
    if options.flag("use_reentrant"):
        said.notes.append("use_reentrant=True is not modelled: checkpointing is taken as with use_reentrant=False.")
    if options.flag("offload"):
        said.notes.append("Checkpointing's offload is not modelled: what is kept lies on the GPU, so this is what it needs at most.")
    every = options.count("every_n_layers")
    return Toggle("checkpointing", () if every is None else (("every", str(every)),))


def _offload(said: Translation) -> Toggle | None:
    if not said.fields.flag("activation_offloading"):
        return None
    said.notes.append("activation_offloading is modelled without a stream of its own, on which TRL holds up to five more tensors.")
    return Toggle("offload-activations")


def _optimizer(said: Translation) -> Toggle:
    name = said.fields.text("optim") or said.assume("optim", _OPTIMIZER)
    toggle = _OPTIMIZERS.get(name)
    if toggle is None:
        allowed = f"Modelled are {', '.join(_OPTIMIZERS)}: set optim to one of them, and read the result as that optimizer's."
        raise SpecError(f"optim={shown(name)} is not modelled. {allowed}")
    if name == "adafactor":
        said.notes.append("adafactor is transformers' own class; torch's, which keeps the same state, stands for it.")
    if name not in _WITH_ARGUMENTS:
        return toggle
    if said.fields.is_set("weight_decay"):
        said.notes.append(f"weight_decay is not modelled with {name}: it makes one more temporary in the optimizer's step.")
    return Toggle(toggle.name, _arguments(said.fields.text("optim_args") or "", toggle.name))


def _arguments(text: str, name: str) -> tuple[tuple[str, str], ...]:
    """Return those of ``optim_args`` that an optimizer has as options; memory does not depend on the others."""
    known = {parameter.name for parameter in REGISTRY[name].parameters} - {"lr", "implementation"}
    pairs = (part.partition("=") for part in text.split(","))
    return tuple(sorted((key.strip(), value.strip().lower()) for key, _, value in pairs if key.strip() in known))


def _note_loss(said: Translation) -> None:
    """Say that TRL's newer losses never have all logits at once."""
    loss = said.fields.text("loss_type")
    if loss != "nll":
        which = "TRL 1.x's default loss" if loss is None else f"loss_type={shown(loss)}"
        said.notes.append(f"{which} is modelled as nll, which has all logits at once: what a chunked loss needs at most.")
