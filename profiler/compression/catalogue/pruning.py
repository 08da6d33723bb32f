"""Pruning: weights that become zero, or go."""

from __future__ import annotations

from profiler.compression.base import Kind, Saves, Technique
from profiler.compression.sparse_formats import BLOCK_SIZES
from profiler.optimizations.base import Parameter, ParameterKind


def share(default: float, what: str) -> Parameter:
    """Return a parameter for a share of something, called ``amount``."""
    return Parameter(name="amount", kind=ParameterKind.NUMBER, default=default, low=0.0, high=0.99, help=what)


def block() -> Parameter:
    """Return the parameter for the size of square blocks, called ``block``."""
    sizes = tuple(map(str, BLOCK_SIZES))
    return Parameter(name="block", kind=ParameterKind.CHOICE, default=sizes[0], choices=sizes, help="rows and columns of a block")


_PRUNE = "torch.nn.utils.prune: https://docs.pytorch.org/tutorials/intermediate/pruning_tutorial.html"
_ZEROS = (
    " Zeros take as much memory as other numbers: nothing is saved until a sparse format stores them, and not before its break-even. While"
    " pruning with torch.nn.utils.prune, originals, masks and their products are all held: nearly three times the model."
)

UNSTRUCTURED = Technique(
    name="prune",
    label="Prune weights, layer by layer",
    kind=Kind.PRUNING,
    saves=Saves.NOTHING,
    promise="Keeping 40 % of the weights keeps 40 % of the memory and 70 % of the compute.",
    explanation="In each matrix but the output layer the share of weights that is smallest in magnitude becomes zero." + _ZEROS,
    formula="1.00 after; 8 bytes more for each weight during (mask and product)",
    source=_PRUNE,
    code="prune:prune_each",
    by_layer=True,
    parameters=(share(0.5, "share of each matrix's weights that become zero"),),
    amount="amount",
)

GLOBAL = Technique(
    name="prune-global",
    label="Prune weights, across layers",
    kind=Kind.PRUNING,
    saves=Saves.NOTHING,
    promise="As pruning layer by layer, with less damage, since layers that matter keep more.",
    explanation="Of the weights of all matrices but the output layer together, the smallest in magnitude become zero." + _ZEROS,
    formula=UNSTRUCTURED.formula,
    source=_PRUNE,
    code="prune:prune_globally",
    by_layer=True,
    parameters=(share(0.5, "share of all these weights that become zero"),),
    amount="amount",
)

TWO_OF_FOUR = Technique(
    name="prune-2-4",
    label="Prune two of four",
    kind=Kind.PRUNING,
    saves=Saves.NOTHING,
    promise="Half of the weights gone, and twice as fast on GPUs that know the pattern.",
    explanation=(
        "Of each four weights in a row the two smallest become zero, in all matrices but the output layer. The pattern that GPUs since"
        " Ampere"
        " multiply faster; torch refuses its format on a processor." + _ZEROS
    ),
    formula="1.00 after; stored as 2:4 0.5625 (16 bits) or 0.53 (32 bits) of each matrix",
    source="Mishra et al. 2021: Accelerating Sparse Deep Neural Networks, arXiv:2104.08378",
    code="prune:prune_two_of_four",
    by_layer=True,
)

BLOCKS = Technique(
    name="prune-blocks",
    label="Prune blocks",
    kind=Kind.PRUNING,
    saves=Saves.NOTHING,
    promise="Zeros in blocks are nearly free to leave out, and products with them are fast.",
    explanation=(
        "Each matrix but the output layer is cut into square blocks, and the share of blocks whose norm is smallest becomes zero. Stored"
        " as BSR in blocks of that size a zero block takes nothing, and one that is kept 8 bytes more than its numbers. Larger blocks have"
        " cheaper indices and cost more quality, since large weights go with the small ones around them. Matrices that do not divide into"
        " such blocks stay as they are." + _ZEROS
    ),
    formula="1.00 after; stored as BSR in the same blocks (1 - amount) x (1 + 2 / block^2) of each matrix, and 8 bytes a row of blocks",
    source="Gray, Radford, Kingma 2017: GPU Kernels for Block-Sparse Weights",
    code="prune:prune_blocks",
    by_layer=True,
    parameters=(share(0.5, "share of each matrix's blocks that become zero"), block()),
    amount="amount",
)

STRUCTURED = Technique(
    name="prune-structured",
    label="Remove neurons",
    kind=Kind.SMALLER_MODEL,
    saves=Saves.MEMORY,
    promise="Half of the neurons, half of the memory and time.",
    explanation=(
        "The neurons of each feed-forward layer whose weights have the smallest norm go. Removed physically, memory, file and time shrink"
        " with any library; with remove=false they only become zero, as torch.nn.utils.prune does it, and nothing is saved."
    ),
    formula="1 - amount x (share of the parameters that are in feed-forward layers)",
    source=_PRUNE,
    code="structured:remove_neurons",
    parameters=(
        share(0.25, "share of each feed-forward layer's neurons that go"),
        Parameter(name="remove", kind=ParameterKind.BOOLEAN, default=True, help="make the matrices smaller, rather than zero"),
    ),
    amount="amount",
)

TECHNIQUES: tuple[Technique, ...] = (UNSTRUCTURED, GLOBAL, TWO_OF_FOUR, BLOCKS, STRUCTURED)
