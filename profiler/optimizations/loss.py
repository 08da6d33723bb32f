"""The loss: whether the logits of all tokens exist at once, which for large vocabularies is the peak of a training step."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from profiler.models.config import Head
from profiler.optimizations.base import Family, Optimization, Parameter, ParameterKind, Value
from profiler.optimizations.scope import Conflict, Scope
from profiler.spec import Job, WorkloadKind

if TYPE_CHECKING:
    from profiler.workloads import Setup

LOSS = Family(
    name="loss",
    label="Loss",
    question="Are the logits of all tokens in memory at once?",
    off_label="All logits at once",
    workloads=frozenset((WorkloadKind.TRAIN,)),
)


class _LossWithoutLogits(Optimization):
    """A loss that is computed from hidden states, so that logits need not exist as a whole."""

    family = LOSS
    applies_to = Scope(part="the output layer and the loss", heads=frozenset((Head.CAUSAL_LM,)))
    conflicts = (
        Conflict(others=("distillation",), why="distillation compares logits, and the other never has them"),
        Conflict(
            others=("offload-parameters",),
            why="the loss uses the output layer's weight outside of the layer, where offload-parameters does not bring it",
        ),
    )


class ChunkedLoss(_LossWithoutLogits):
    """Logits and their loss chunk by chunk, each made again in backward."""

    name = "chunked-loss"
    label = "Chunked"
    aliases = ("chunked-cross-entropy", "chunked-ce")
    parameters = (
        Parameter(
            name="chunks",
            kind=ParameterKind.INTEGER,
            default=8,
            low=1,
            high=65_536,
            help="Into how many parts the tokens are cut; the logits of one part exist at a time.",
        ),
    )
    formula = "logits = tokens / chunks x vocabulary numbers, in the model's dtype and in float32; the output weight's gradient twice"
    source = "Chen et al. 2016, https://arxiv.org/abs/1604.06174, applied to the output layer; torchtune's num_output_chunks, default 8"
    explanation = (
        "Cuts the tokens into chunks and computes logits and loss of one after another; each chunk's logits are dropped, and made again "
        "when backward needs them. Costs the output layer's product once more. The gradient of that layer's weight is a sum over chunks, "
        "so while it is made a second one of its size exists: with few tokens that is more than was saved."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Give the model this loss."""
        from profiler.optimizations import hidden_state_loss

        loss = partial(hidden_state_loss.chunked, num_chunks=int(options["chunks"]))
        setup.transforms.append(partial(hidden_state_loss.with_loss, loss=loss))


class FusedLoss(_LossWithoutLogits):
    """Torch's linear_cross_entropy, which computes gradients together with the loss."""

    name = "fused-loss"
    label = "Fused"
    aliases = ("linear-cross-entropy", "fused-cross-entropy")
    parameters = (
        Parameter(
            name="tokens",
            kind=ParameterKind.INTEGER,
            default=0,
            low=0,
            high=2**24,
            help="Tokens in one chunk; 0 leaves it to torch, which makes a chunk's logits about half as large as the hidden states.",
        ),
    )
    formula = "logits = tokens of a chunk x vocabulary numbers; gradients of hidden states and of the weight exist from forward on"
    source = "https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.linear_cross_entropy.html (torch 2.13)"
    explanation = (
        "Computes logits and loss of one chunk of tokens after another, and their gradients at once, so that no logits are kept and no "
        "product is done twice. The gradients of the hidden states and of the output layer's weight exist from then on, through all of "
        "backward. On a CPU half precision is computed in float32, with copies of the weight in float32: there it can cost more than it "
        "saves."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Give the model this loss."""
        from profiler.optimizations import hidden_state_loss

        loss = partial(hidden_state_loss.fused, num_tokens=int(options["tokens"]))
        setup.transforms.append(partial(hidden_state_loss.with_loss, loss=loss))


OPTIMIZATIONS: tuple[Optimization, ...] = (ChunkedLoss(), FusedLoss())
