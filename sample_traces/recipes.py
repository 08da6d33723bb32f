"""The sample recordings: what each one runs, and what to notice in it. The only list of them.

A notice is a text with numbers left open, such as ``{peak}``, ``{logits}`` or ``{logits_share}``: `sample_traces.make` fills them in from
the recording itself, so that no text says a number that its recording does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass

from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One sample recording."""

    name: str
    """Of its file; the number gives the order of the gallery."""
    title: str
    job: Job
    notice: str


def _job(model: str, *toggles: str, device: str = "cpu", **workload: int | WorkloadKind) -> Job:
    return Job(
        model=Model(name=model),
        workload=Workload(**workload),  # type: ignore[arg-type]
        device=device,
        toggles=tuple(map(Toggle.parse, toggles)),
    )


RECIPES = (
    Recipe(
        name="1-gpt2-training",
        title="Training GPT-2 124M",
        job=_job("gpt2", "adamw", batch=4, seq=256),
        notice=(
            "Weights are the small part: {parameter} of the peak of {peak} ({parameter_share}). AdamW keeps {optimizer_state} beside "
            "them, and activations for backward take {activation}. The peak is where forward ends and backward begins, and a fifth of "
            "it belongs to the output layer: 1,024 tokens with 50,257 numbers each are 196 MiB, held twice as logits ({logits}) and "
            "twice as their gradients ({activation_gradient}). The first step is lower: AdamW's state does not exist before it."
        ),
    ),
    Recipe(
        name="2-bert-training",
        title="Training BERT base to guess masked words",
        job=_job("bert-base", "adamw", batch=8, seq=128, steps=1),
        notice=(
            "As many tokens in a step as in the GPT-2 sample, and fewer activations: {activation}, for two reasons. BERT's GELU is one "
            "operation, so each MLP holds two tensors of 8x128x3072, where GPT-2's, written in several operations, holds five of this "
            "size. And attention over 128 tokens instead of 256 has tables of scores half as large. Logits are {logits}: their size "
            "depends on the tokens and on the 30,522 words of the vocabulary, not on the depth of the model."
        ),
    ),
    Recipe(
        name="3-llama-decode",
        title="Writing text with a tiny Llama and its KV cache",
        job=_job("tiny-llama", kind=WorkloadKind.DECODE, batch=8, seq=512, new_tokens=32, steps=1),
        notice=(
            "The peak, {peak}, is at the end of prefill: {logits} are logits of all 4,096 prompt tokens, of which only the last ones "
            "are used. The KV cache then holds {kv_cache}: 2,048 B a token, eight prompts of 512. In decode, watch its saw teeth: each "
            "new token makes a layer's cache anew, one token longer, while the old one is still there. Nothing is kept for backward, so "
            "there are no activations."
        ),
    ),
    Recipe(
        name="4-lstm-training",
        title="Training an LSTM language model",
        job=_job("lstm", "adamw", batch=20, seq=35, steps=1),
        notice=(
            "A recurrent model of the time before transformers: 66 million weights and few tokens in a step, so weights and optimizer "
            "state are most of the peak, not activations ({activation_share}). Find the two largest blocks: one a layer, without a "
            "shape of the model, is what the LSTM kernel keeps of all 35 time steps for its backward. The peak is in the middle of "
            "backward, not at its start."
        ),
    ),
    Recipe(
        name="5-plain-sgd",
        title="Optimizers, 1 of 3: plain SGD",
        job=_job("tiny-gpt2", "sgd", batch=4, seq=128, steps=1),
        notice=(
            "Plain SGD keeps nothing: there is no optimizer state, and between two steps only the weights ({parameter}) and the batch "
            "are left. Compare it with the next two: the same model, the same batch, other optimizers."
        ),
    ),
    Recipe(
        name="6-sgd-with-momentum",
        title="Optimizers, 2 of 3: SGD with momentum",
        job=_job("tiny-gpt2", "sgd:momentum=0.9", batch=4, seq=128, steps=1),
        notice=(
            "Momentum is one number a weight, 4 B in float32: {optimizer_state} of optimizer state, as large as the weights themselves."
            " It appears in the optimizer step of the first step and never goes away; the peak grew by exactly this."
        ),
    ),
    Recipe(
        name="7-adamw",
        title="Optimizers, 3 of 3: AdamW",
        job=_job("tiny-gpt2", "adamw", batch=4, seq=128, steps=1),
        notice=(
            "AdamW keeps two numbers a weight, 8 B in float32: {optimizer_state}, twice the momentum of SGD. Activations and logits are"
            " the same as in the other two to the byte, so the optimizer alone explains the difference of the three peaks."
        ),
    ),
    Recipe(
        name="8-whole-batch",
        title="A batch of 16 at once",
        job=_job("tiny-gpt2", "adamw", batch=16, seq=256, steps=1),
        notice=(
            "Here the batch decides: activations, logits and their gradients grow with every sequence, and {activation_share} of the "
            "peak of {peak} are activations. Weights and optimizer state, {parameter} and {optimizer_state}, are what they were. The "
            "next sample runs the same batch in four parts."
        ),
    ),
    Recipe(
        name="9-micro-batches",
        title="The same batch of 16 in four micro-batches",
        job=_job("tiny-gpt2", "adamw", batch=16, seq=256, micro_batches=4, steps=1),
        notice=(
            "Gradient accumulation: four times forward and backward for one optimizer step. Four sequences at a time need a quarter of "
            "the activations, {activation}, and the peak is {peak}. The price: gradients ({gradient}) are there while activations are, "
            "because they are summed up over the parts; before, activations were gone when gradients were complete."
        ),
    ),
    Recipe(
        name="10-llama-on-an-rtx-4090",
        title="Training Llama 3.2 1B on an RTX 4090, simulated",
        job=_job("llama-3.2-1b", "adamw", device="rtx-4090", batch=1, seq=512, steps=1),
        notice=(
            "A billion weights in float32 fill a card of 24 GB: {peak} are allocated at the peak and {reserved} would be reserved, while "
            "its driver reports 23.5 GiB. So it is too close to say whether it fits: by giving back what is cached it might, where CUDA's "
            "context is small. No such card was needed to know it: the same code ran on tensors without memory, and the allocator's rules "
            "were applied to what it asked for. "
            "The peak is in the optimizer step, after activations are gone, so that a smaller batch would not help: beside weights "
            "({parameter}), gradients ({gradient}) and AdamW's state ({optimizer_state}) there is a copy of all weights "
            "({optimizer_temporary}), since on a GPU AdamW updates all tensors at once. In bfloat16 all four are half as large. The time "
            "axis is an estimate."
        ),
    ),
)
