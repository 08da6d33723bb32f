"""Sparse storage: formats that leave zeros out."""

from __future__ import annotations

from profiler.compression.base import Kind, Saves, Technique
from profiler.compression.catalogue.pruning import block
from profiler.optimizations.base import Parameter, ParameterKind

_SPARSE = "torch.sparse: https://docs.pytorch.org/docs/stable/sparse.html"
_CLAIM = "Sparse storage reduces the memory of a pruned model to the share of weights that are left."

CSR = Technique(
    name="store-csr",
    label="CSR",
    kind=Kind.SPARSE_STORAGE,
    saves=Saves.MEMORY,
    promise=_CLAIM,
    explanation=(
        "Each matrix as rows of (column, value). With torch's 64-bit indices a nonzero takes 12 bytes, and 20 as to_sparse_csr leaves it,"
        " since the column indices are a view of a buffer twice as long (tight=false keeps that). Smaller than dense only above 67 % zeros"
        " (80 % as torch makes it, 50 % with 32-bit indices), and slower until about nine weights of ten are zero."
    ),
    formula="(4 + index bytes) x nonzeros + index bytes x (rows + 1)",
    source=_SPARSE,
    code="sparse_storage:store_csr",
    parameters=(
        Parameter(name="index", kind=ParameterKind.CHOICE, default="int32", choices=("int32", "int64"), help="format of the indices"),
        Parameter(name="tight", kind=ParameterKind.BOOLEAN, default=True, help="copy the column indices out of torch's double buffer"),
    ),
)

COO = Technique(
    name="store-coo",
    label="COO",
    kind=Kind.SPARSE_STORAGE,
    saves=Saves.MEMORY,
    promise=_CLAIM,
    explanation=(
        "Each matrix as (row, column, value), with 64-bit indices, to which torch widens all others: smaller than dense above 80 % zeros."
    ),
    formula="20 x nonzeros",
    source=_SPARSE,
    code="sparse_storage:store_coo",
)

BSR = Technique(
    name="store-bsr",
    label="BSR",
    kind=Kind.SPARSE_STORAGE,
    saves=Saves.MEMORY,
    promise=_CLAIM,
    explanation=(
        "Each matrix as blocks, of which those with nothing but zeros are left out. Cheap indices, but single zeros save nothing: at 70 %"
        " zeros anywhere hardly a block of 4 x 4 is empty. Prune blocks of this size or larger before (prune-blocks)."
    ),
    formula="(4 x block^2 + 8) x kept blocks + 8 x (block rows + 1)",
    source=_SPARSE,
    code="sparse_storage:store_bsr",
    parameters=(block(),),
)

BITMASK = Technique(
    name="store-bitmask",
    label="Bitmask",
    kind=Kind.SPARSE_STORAGE,
    saves=Saves.MEMORY,
    promise=_CLAIM,
    explanation=(
        "One bit a weight says whether it is zero, and the others follow in order. Smaller than dense from 3 % zeros on, without a"
        " structure to keep. It has to be expanded for each product, which costs time at any share of zeros."
    ),
    formula="4 x nonzeros + rows x columns / 8, rounded up to a byte",
    source="as in compressed-tensors and published sparse kernels",
    code="sparse_storage:store_bitmask",
)

SEMI_STRUCTURED = Technique(
    name="store-2-4",
    label="2:4",
    kind=Kind.SPARSE_STORAGE,
    saves=Saves.MEMORY,
    promise="Half of the memory and twice the speed.",
    explanation=(
        "Two values of each four, and two bits each that say where they were. Only for matrices that were pruned two of four; others stay"
        " as they are. torch's own format is for CUDA alone, so here the same bytes are expanded for each product: memory is saved, time is"
        " not."
    ),
    formula="(4 / 2 + 1 / 8) bytes a weight: 0.531 of float32; 0.5625 of 16 bits",
    source="Mishra et al. 2021, arXiv:2104.08378",
    code="sparse_storage:store_two_of_four",
)

TECHNIQUES: tuple[Technique, ...] = (CSR, COO, BSR, BITMASK, SEMI_STRUCTURED)
