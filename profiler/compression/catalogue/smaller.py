"""Smaller models, and the training that repairs or makes them."""

from __future__ import annotations

from profiler.compression.base import Kind, Saves, Technique
from profiler.optimizations.base import Parameter, ParameterKind


def _steps(default: int, most: int = 5000) -> Parameter:
    return Parameter(name="steps", kind=ParameterKind.INTEGER, default=default, low=1, high=most, help="training steps")


def _rate(default: float) -> Parameter:
    return Parameter(
        name="lr", kind=ParameterKind.NUMBER, default=default, low=1e-7, high=1.0, help="the highest learning rate; it decays to zero"
    )


LOW_RANK = Technique(
    name="low-rank",
    label="Low rank (SVD)",
    kind=Kind.SMALLER_MODEL,
    saves=Saves.MEMORY,
    promise="Weight matrices have low rank, so two thin factors do as well.",
    explanation=(
        "Each matrix but the output layer becomes the product of two thin ones that are nearest to it. Saves memory, file and time where"
        " rank x (rows + columns) is less than rows x columns; matrices where it is not stay whole. Trained weights are seldom of low rank:"
        " fine-tune afterwards."
    ),
    formula="4 x rank x (rows + columns) bytes a matrix",
    source="Eckart, Young 1936; torch.linalg.svd",
    code="low_rank:factorize",
    by_layer=True,
    parameters=(Parameter(name="rank", kind=ParameterKind.INTEGER, default=48, low=1, high=4096, help="inner size of the factors"),),
    amount="rank",
)

LAYER_DROP = Technique(
    name="layer-drop",
    label="Drop layers",
    kind=Kind.SMALLER_MODEL,
    saves=Saves.MEMORY,
    promise="Deep models have layers to spare.",
    explanation=(
        "Whole blocks go: those whose output differs least from their input on training data (largest cosine). Memory, file and time"
        " shrink in proportion. A model of few layers has none to spare."
    ),
    formula="1 - count / layers of the parameters in blocks",
    source="Men et al. 2024: ShortGPT, arXiv:2403.03853",
    code="layer_drop:drop_layers",
    draws_batches=True,
    parameters=(Parameter(name="count", kind=ParameterKind.INTEGER, default=1, low=1, high=64, help="blocks that go"),),
    amount="count",
)

DISTILL = Technique(
    name="distill",
    label="Distillation",
    kind=Kind.SMALLER_MODEL,
    saves=Saves.MEMORY,
    promise="A student learns more from a teacher than from data alone: 40 % smaller, 97 % as good.",
    explanation=(
        "A smaller model is trained on the teacher's probabilities and the data together. The smaller size is the student's own doing: the"
        " same student trained on the data alone, with as many steps, is measured beside it as control_loss. A short training often gains"
        " nothing."
    ),
    formula="the student's parameters x 4 bytes",
    source="Hinton et al. 2015, arXiv:1503.02531; Sanh et al. 2019: DistilBERT, arXiv:1910.01108",
    code="distill:distill",
    parameters=(
        _steps(250),
        _rate(2e-3),
        Parameter(name="temperature", kind=ParameterKind.NUMBER, default=2.0, low=0.5, high=20.0, help="softens the probabilities"),
        Parameter(name="weight", kind=ParameterKind.NUMBER, default=0.5, low=0.0, high=1.0, help="the teacher's share of the loss"),
    ),
    amount="steps",
    first=True,
)

FINE_TUNE = Technique(
    name="fine-tune",
    label="Fine-tune",
    kind=Kind.TRAINING,
    saves=Saves.NOTHING,
    promise="A little training recovers what compression lost.",
    explanation=(
        "Trains on; what was pruned stays zero. The untouched model is trained in the same way beside it, and its loss is control_loss:"
        " what the training itself gains or harms is not the compression's. Too high a learning rate makes the control worse, too."
    ),
    formula="no bytes when it is over; while it trains 16 bytes a parameter and activations",
    source="torch.optim.AdamW",
    code="fine_tune:recover",
    parameters=(_steps(80), _rate(3e-4)),
    amount="steps",
)

LORA_MERGE = Technique(
    name="lora-merge",
    label="LoRA, merged",
    kind=Kind.TRAINING,
    saves=Saves.NOTHING,
    promise="Fine-tuning for a fraction of the memory, at no cost when it is merged.",
    explanation=(
        "Trains a low-rank addition to each matrix with everything else frozen, then adds it in. Before the merge the model is larger by"
        " the adapters (unmerged_bytes); after it, exactly as large as before. It saves optimizer state and gradients of training, not"
        " weights. What was pruned is zero in the sum, while it trains too; the untouched model, trained in the same way, is control_loss."
    ),
    formula="1.00 after; + 4 x rank x (rows + columns) a matrix before",
    source="Hu et al. 2021: LoRA, arXiv:2106.09685",
    code="low_rank:train_and_merge",
    parameters=(
        Parameter(name="rank", kind=ParameterKind.INTEGER, default=8, low=1, high=256, help="inner size of the additions"),
        _steps(40),
        _rate(2e-3),
    ),
    amount="rank",
    needs=("peft",),
)

TECHNIQUES: tuple[Technique, ...] = (LOW_RANK, LAYER_DROP, DISTILL, FINE_TUNE, LORA_MERGE)
