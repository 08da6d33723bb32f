"""A `Job` -> a training script, or an inference one, in plain PyTorch and transformers, whose memory is that of the job to the byte.

It is written from the same facts as the run: the order of its statements is that of `profiler.workloads`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from profiler.models.catalogue import config_of, facts_of
from profiler.models.config import Head, structure_of
from profiler.optimizations.attention import Attention
from profiler.optimizations.export.program import Program, commented, one_line, switched_on
from profiler.optimizations.export.pytorch_toggles import MISSING, WRITERS, Draft, Options, arguments
from profiler.optimizations.optimizers import TorchOptimizer
from profiler.optimizations.registry import REGISTRY, validate
from profiler.spec import Job, WorkloadKind, ZeroGrad

_MODEL_CLASSES = {
    Head.CAUSAL_LM: "AutoModelForCausalLM",
    Head.MASKED_LM: "AutoModelForMaskedLM",
    Head.SEQ2SEQ: "AutoModelForSeq2SeqLM",
}


def pytorch_program(job: Job) -> Program:
    """Return the script.

    Raises:
        SpecError: the job is not possible.
    """
    job = validate(job)
    head = facts_of(job.model).head
    draft, missing = Draft(job), []
    if head not in _MODEL_CLASSES:
        missing.append(f"{job.model.name} is a model of Headroom's own; transformers has none like it.")
    for name, options in switched_on(job).items():
        if name in MISSING:
            missing.append(f"{name}: {MISSING[name]}")
        else:
            _write(draft, name, options)
    if not draft.optimizer and job.workload.kind is WorkloadKind.TRAIN:  # what is missing is an optimizer, and says so
        _write(draft, "adamw", REGISTRY["adamw"].read_options({}))
    text = "" if head not in _MODEL_CLASSES else "\n".join(_lines(draft)) + "\n"
    return Program(tool="PyTorch", filename="run.py", language="python", text=commented(text, missing), missing=tuple(missing))


def _write(draft: Draft, name: str, options: Options) -> None:
    item = REGISTRY[name]
    if isinstance(item, TorchOptimizer):
        draft.optimizer = f"torch.optim.{item.class_name}(trained, {arguments(item.arguments(options, draft.job))})"
    elif isinstance(item, Attention):
        draft.attention = item.implementation
        if item.kernels:
            draft.imports.add("from torch.nn.attention import SDPBackend, sdpa_kernel")
            draft.around_steps.append(f"sdpa_kernel([{', '.join(f'SDPBackend.{kernel}' for kernel in item.kernels)}])")
    else:
        WRITERS[name](draft, options)


def model_lines(job: Job, names: Collection[str], imports: Iterable[str] = ()) -> list[str]:
    """Return the lines that build a job's model with some of its optimizations, from the imports on.

    Args:
        job: validated; transformers has its model.
        names: of the optimizations that are to be written.
        imports: what else is imported.
    """
    draft = Draft(job)
    draft.imports.update(imports)
    for name, options in switched_on(job).items():
        if name in names:
            _write(draft, name, options)
    return _model(draft)


def _lines(draft: Draft) -> list[str]:
    workload = draft.job.workload
    is_training = workload.kind is WorkloadKind.TRAIN
    return [
        *_model(draft),
        f"model.train({is_training})",
        *(_training(draft) if is_training else _inference(draft)),
        'if device == "cuda":',
        '    print(f"peak allocated {torch.cuda.max_memory_allocated():,} B, reserved {torch.cuda.max_memory_reserved():,} B")',
    ]


def _model(draft: Draft) -> list[str]:
    config = config_of(draft.job.model)
    model_class = _MODEL_CLASSES[facts_of(draft.job.model).head]
    draft.imports.add(f"from transformers import AutoConfig, {model_class}")
    attention = f', attn_implementation="{draft.attention}"' if draft.attention else ""
    return [
        f'"""{one_line(draft.job.title)}"""',
        "",
        *(["import os", ""] if draft.environment else []),
        *(f'os.environ["{name}"] = "{value}"  # before torch is imported' for name, value in draft.environment.items()),
        *_imports(draft),
        "",
        f'device = "{draft.device}"',
        "structure = {",
        *(f"    {key!r}: {value!r}," for key, value in structure_of(config).items()),
        "}",
        *draft.switches,
        f"config = AutoConfig.for_model({config['model_type']!r}, use_cache=False, **structure)",
        f"torch.manual_seed({draft.job.workload.seed})",
        f"model = {model_class}.from_config(config, dtype=torch.{draft.dtype}{attention}).to(device)  # your weights: from_pretrained",
        *draft.changes,
    ]


def _imports(draft: Draft) -> list[str]:
    plain = sorted(line for line in draft.imports if line.startswith("import"))
    return [*plain, *sorted(draft.imports - set(plain))]


def _training(draft: Draft) -> list[str]:
    workload = draft.job.workload
    parts = workload.micro_batches
    zero = f"optimizer.zero_grad(set_to_none={workload.set_to_none})"
    loss = "outputs.loss" + (f" / {parts}" if parts > 1 else "")
    loop = [
        f"for step in range({workload.warmup_steps + workload.steps}):",
        "    batch = next_batch()",
        *([f"    {zero}"] if workload.zero_grad is ZeroGrad.BEFORE_FORWARD else []),
        f"    parts = {{name: tensor.chunk({parts}) for name, tensor in batch.items()}}",
        f"    losses = [micro_batch({{name: tensors[number] for name, tensors in parts.items()}}, number) for number in range({parts})]",
        *(["    scaler.step(optimizer)", "    scaler.update()"] if draft.scales_loss else ["    optimizer.step()"]),
        *([f"    {zero}"] if workload.zero_grad is ZeroGrad.AFTER_STEP else []),
        '    print(f"step {step}: loss {sum(losses):.4f}")',
    ]
    return [
        "trained = [parameter for parameter in model.parameters() if parameter.requires_grad]",
        f"optimizer = {draft.optimizer}",
        *([f'scaler = torch.amp.GradScaler("{draft.device}")'] if draft.scales_loss else []),
        "",
        "",
        *_data(draft, "next_batch", _batch(draft)),
        "def micro_batch(inputs, number):",
        *_indented(1, _within(draft.around_forward, ["outputs = model(**inputs)"])),
        f"    loss = {loss}",
        *([f"    if number == 0:\n        {zero}"] if workload.zero_grad is ZeroGrad.BEFORE_BACKWARD else []),
        "    scaler.scale(loss).backward()" if draft.scales_loss else "    loss.backward()",
        "    return loss.item()",
        "",
        "",
        *_within(draft.around_steps, loop),
    ]


def _inference(draft: Draft) -> list[str]:
    workload = draft.job.workload
    cache = [f"inputs['past_key_values'] = {draft.cache}"] if draft.cache else []
    loop = [
        f"for step in range({workload.warmup_steps + workload.steps}):",
        *_indented(1, ["inputs = next_prompt()", *cache]),
        *_indented(1, _within(draft.around_forward, ["outputs = model(**inputs)"])),
        *(_indented(1, _new_tokens(draft)) if workload.kind is WorkloadKind.DECODE else []),
        "    del outputs, inputs, token" if workload.kind is WorkloadKind.DECODE else "    del outputs",
    ]
    prompt = _data(draft, "next_prompt", _prompt(draft))
    return ["", "", *prompt, *_within(["torch.inference_mode()", *draft.around_steps], loop)]


def _data(draft: Draft, name: str, lines: list[str]) -> list[str]:
    """Return the function that makes what the model is fed, for the user to replace."""
    workload = draft.job.workload
    tokens = f"tokens = torch.randint(2, config.vocab_size, ({workload.batch}, {workload.seq}))  # your data"
    return [f"def {name}():", *_indented(1, [tokens, *lines]), "", ""]


def _prompt(draft: Draft) -> list[str]:
    head = facts_of(draft.job.model).head
    if head is Head.MASKED_LM:
        return ['return {"input_ids": tokens.to(device)}']
    if head is Head.SEQ2SEQ:
        return [
            "tokens = tokens.to(device)",
            'return {"input_ids": tokens, "use_cache": True, "decoder_input_ids": tokens.new_zeros((tokens.shape[0], 1))}',
        ]
    return ['return {"input_ids": tokens.to(device), "use_cache": True}']


def _new_tokens(draft: Draft) -> list[str]:
    ids = '"input_ids": token'
    if facts_of(draft.job.model).head is Head.SEQ2SEQ:
        ids = '"encoder_outputs": (outputs.encoder_last_hidden_state,), "decoder_input_ids": token'
    return [
        "token = outputs.logits[:, -1:].argmax(-1)",
        f"for _ in range({draft.job.workload.new_tokens}):",
        f'    inputs = {{{ids}, "past_key_values": outputs.past_key_values, "use_cache": True}}',
        "    del outputs",
        *_indented(1, _within(draft.around_forward, ["outputs = model(**inputs)"])),
        "    token = outputs.logits.argmax(-1)",
    ]


def _batch(draft: Draft) -> list[str]:
    if facts_of(draft.job.model).head is Head.MASKED_LM:
        return [
            "masked = torch.rand(tokens.shape) < 0.15",
            "labels = tokens.masked_fill(~masked, -100)",
            'return {"input_ids": tokens.masked_fill(masked, config.vocab_size - 1).to(device), "labels": labels.to(device)}',
        ]
    return ["tokens = tokens.to(device)", 'return {"input_ids": tokens, "labels": tokens}']


def _within(contexts: list[str], lines: list[str]) -> list[str]:
    return lines if not contexts else [f"with {', '.join(contexts)}:", *_indented(1, lines)]


def _indented(levels: int, lines: list[str]) -> list[str]:
    return [f"{'    ' * levels}{part}" for line in lines for part in line.split("\n")]
