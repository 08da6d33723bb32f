"""Quantization: fewer bits a weight."""

from __future__ import annotations

from profiler.compression.base import Kind, Saves, Technique
from profiler.optimizations.base import Parameter, ParameterKind

_AO = "torch.ao.quantization: https://docs.pytorch.org/docs/stable/quantization.html"
_TORCHAO = "torchao: https://docs.pytorch.org/ao/stable/"

_HALF_FORMULA = "2 bytes a number instead of 4: 0.5 of the model"
_INT8_FORMULA = "rows x columns + 4 bytes a row (scale) for each linear layer; embeddings stay float32"
_GROUP = Parameter(name="group", kind=ParameterKind.CHOICE, default="64", choices=("32", "64", "128"), help="weights that share a scale")

BFLOAT16 = Technique(
    name="bfloat16",
    label="bfloat16",
    kind=Kind.QUANTIZATION,
    saves=Saves.MEMORY,
    promise="Half the memory at the same quality.",
    explanation=(
        "Every parameter is kept in 16 bits with float32's range. Halves memory and file exactly, nearly without loss, and is faster where"
        " the processor has bfloat16 instructions."
    ),
    formula=_HALF_FORMULA,
    source="torch.nn.Module.to",
    code="quantize:to_bfloat16",
)

FLOAT16 = Technique(
    name="float16",
    label="float16",
    kind=Kind.QUANTIZATION,
    saves=Saves.MEMORY,
    promise="Half the memory, twice as fast.",
    explanation=(
        "Every parameter is kept in 16 bits with 10 bits of fraction. Halves memory and file exactly. On a processor without float16"
        " arithmetic each product is slower, by several times: the format is made for GPUs."
    ),
    formula=_HALF_FORMULA,
    source="torch.nn.Module.to",
    code="quantize:to_float16",
)

DYNAMIC_INT8 = Technique(
    name="dynamic-int8",
    label="Dynamic int8 (torch.ao)",
    kind=Kind.QUANTIZATION,
    saves=Saves.MEMORY,
    promise="A quarter of the memory and two to four times as fast, with one call.",
    explanation=(
        "Weights of linear and LSTM layers become int8 with one scale a tensor, activations are quantized at every call with one range a"
        " tensor. Fast, but one range for all activations costs much quality on real language models. Layers of another class, such as"
        " GPT-2's Conv1D, are skipped without a word: the notes say how many layers were changed. Some engines pack a second copy."
    ),
    formula="rows x columns + 16 bytes (scale and zero point) a layer; embeddings stay float32",
    source=_AO,
    code="quantize:dynamic_int8",
    parameters=(
        Parameter(
            name="engine",
            kind=ParameterKind.CHOICE,
            default="x86",
            choices=("x86", "fbgemm", "onednn", "qnnpack"),
            help="who packs and multiplies; they differ in resident memory",
        ),
    ),
)

DYNAMIC_FLOAT16 = Technique(
    name="dynamic-float16",
    label="Dynamic float16 (torch.ao)",
    kind=Kind.QUANTIZATION,
    saves=Saves.MEMORY,
    promise="Half the memory of linear layers.",
    explanation=(
        "Weights of linear layers are packed as float16 outside of what Python sees: unpacking them gives float32, and so the held bytes"
        " count what an unpacked copy would take. Only the resident set shows the saving, and the file has none."
    ),
    formula="packed: 2 bytes a weight, resident only; held as Python sees it and file: 4",
    source=_AO,
    code="quantize:dynamic_float16",
)

STATIC_INT8 = Technique(
    name="static-int8",
    label="Static int8 (PT2E)",
    kind=Kind.QUANTIZATION,
    saves=Saves.NOTHING,
    promise="A quarter of the memory, and faster than dynamic since ranges are known beforehand.",
    explanation=(
        "The model is exported, observers find the ranges of activations on a few batches, weights become int8. Run as it is, the exported"
        " graph keeps the float32 originals beside the int8 weights: it takes more memory than before until a compiler has folded them."
    ),
    formula="the float32 model + 1 byte a quantized weight, until compiled",
    source="torchao.quantization.pt2e",
    code="quantize:static_int8",
    draws_batches=True,
    parameters=(
        Parameter(
            name="batches", kind=ParameterKind.INTEGER, default=4, low=1, high=64, help="batches of training data that show the ranges"
        ),
    ),
    needs=("torchao",),
)

INT8_WEIGHT_ONLY = Technique(
    name="int8-weight-only",
    label="int8 weights (torchao)",
    kind=Kind.QUANTIZATION,
    saves=Saves.MEMORY,
    promise="A quarter of the memory at the same quality.",
    explanation=(
        "Weights of linear layers become int8 with one scale a row; each product expands them first. Embeddings stay float32, which is why"
        " a model with a large vocabulary stays far above a quarter."
    ),
    formula=_INT8_FORMULA,
    source=_TORCHAO,
    code="quantize:int8_weight_only",
    by_layer=True,
    needs=("torchao",),
)

INT8_ACTIVATIONS = Technique(
    name="int8-dynamic",
    label="int8 weights and activations by token (torchao)",
    kind=Kind.QUANTIZATION,
    saves=Saves.MEMORY,
    promise="int8 arithmetic without the damage of one range for all activations.",
    explanation=(
        "As int8 weights, and the activations of each token are quantized with a range of their own. Keeps quality where dynamic int8 with"
        " one range a tensor loses it."
    ),
    formula=_INT8_FORMULA,
    source=_TORCHAO,
    code="quantize:int8_activations",
    by_layer=True,
    needs=("torchao",),
)

FLOAT8_WEIGHT_ONLY = Technique(
    name="float8-weight-only",
    label="float8 weights (torchao)",
    kind=Kind.QUANTIZATION,
    saves=Saves.MEMORY,
    promise="A quarter of the memory with a format that newer GPUs compute in.",
    explanation="Weights of linear layers become float8 (e4m3) with one scale a row; each product expands them first.",
    formula=_INT8_FORMULA,
    source=_TORCHAO,
    code="quantize:float8_weight_only",
    by_layer=True,
    needs=("torchao",),
)

INT4_IN_INT8 = Technique(
    name="intx-weight-only",
    label="int4 values in int8 storage (torchao)",
    kind=Kind.QUANTIZATION,
    saves=Saves.MEMORY,
    promise="An eighth of the memory.",
    explanation=(
        "Weights take one of 16 values (or 4) with a scale a group, but each is kept in a whole byte: the quality of int4 at the size of"
        " int8. A name is no storage format; look at the held bytes."
    ),
    formula="rows x columns + 4 bytes (scale) and 1 byte (zero point) a group of each linear layer",
    source=_TORCHAO,
    code="quantize:intx_weight_only",
    by_layer=True,
    parameters=(
        Parameter(name="bits", kind=ParameterKind.CHOICE, default="4", choices=("2", "4"), help="bits that a weight's values need"),
        Parameter(name="group", kind=ParameterKind.CHOICE, default="32", choices=("32", "64", "128"), help="weights that share a scale"),
    ),
    amount="bits",
    needs=("torchao",),
)

INT4_WEIGHT_ONLY = Technique(
    name="int4-weight-only",
    label="int4 weights, packed (torchao)",
    kind=Kind.QUANTIZATION,
    saves=Saves.MEMORY,
    promise="An eighth of the memory, at the speed of bfloat16.",
    explanation=(
        "Weights of linear layers are packed two a byte, with a scale and a zero point for each group, in the order in which torch's own"
        " product for four bits reads them: nothing is expanded into a second copy. That product is fast in bfloat16, so everything else"
        " becomes bfloat16; in float32 it was seen to take some 40 times as long. Layers whose outputs are no multiple of 16 are not"
        " packed. torchao calls it a prototype."
    ),
    formula="rows x columns / 2 + 4 bytes (scale and zero point; 8 in float32) a group; 2 bytes for all other numbers",
    source=_TORCHAO,
    code="quantize:int4_weight_only",
    by_layer=True,
    parameters=(
        _GROUP,
        Parameter(
            name="dtype",
            kind=ParameterKind.CHOICE,
            default="bfloat16",
            choices=("bfloat16", "float32"),
            help="of all other numbers, scales among them",
        ),
    ),
    needs=("torchao",),
)

PACKED = Technique(
    name="packed-int",
    label="int8, int4, int2, int1, packed",
    kind=Kind.QUANTIZATION,
    saves=Saves.MEMORY,
    promise="An eighth of the memory with 4 bits.",
    explanation=(
        "Weights of linear layers are packed, two (int4) or four (int2) a byte, with a scale and a lowest value for each group, whose"
        " range is searched for the least error; each product expands them first. int4 costs little on a small model and more on one that"
        " was quantized before; int2 costs much. The scales of groups keep it above bits / 32."
    ),
    formula="bits / 8 bytes a weight + 8 bytes (scale and lowest value) a group; embeddings stay float32",
    source="round to nearest in groups, the layout of hqq and GPTQ files: https://github.com/mobiusml/hqq",
    code="quantize:packed",
    by_layer=True,
    parameters=(
        Parameter(name="bits", kind=ParameterKind.CHOICE, default="4", choices=("1", "2", "4", "8"), help="bits a weight"),
        _GROUP,
    ),
    amount="bits",
)

NF4 = Technique(
    name="nf4",
    label="NF4 (as bitsandbytes stores it)",
    kind=Kind.QUANTIZATION,
    saves=Saves.MEMORY,
    promise="4 bits that suit normally distributed weights.",
    explanation=(
        "Two weights a byte, each one of 16 levels that are denser where weights are, with a scale for 64 of them. The output layer and"
        " embeddings stay float32."
    ),
    formula="0.5 bytes a weight + 4 bytes a group of 64 + 64 bytes (levels) a layer, in all linear layers but the output",
    source="Dettmers et al. 2023: QLoRA, arXiv:2305.14314",
    code="quantize:nf4",
    by_layer=True,
)

K_MEANS = Technique(
    name="k-means",
    label="Shared weights (k-means)",
    kind=Kind.QUANTIZATION,
    saves=Saves.NOTHING,
    promise="5 bits a weight instead of 32.",
    explanation=(
        "The weights of each matrix are grouped into 2^bits clusters and each takes its cluster's mean; weights that were pruned stay"
        " zero. Saves nothing by itself: in memory and in the file the means are float32 numbers as before. Only a coder behind it makes"
        " the file smaller: packed indices keep bits a weight and the means, an entropy coder less, since clusters are not equally full."
    ),
    formula="1.00 in memory and on disk; with a coder behind it bits/8 bytes a weight + 4 x 2^bits bytes a matrix on disk",
    source="Han, Mao, Dally 2016: Deep Compression, arXiv:1510.00149",
    code="kmeans:share_weights",
    by_layer=True,
    parameters=(
        Parameter(name="bits", kind=ParameterKind.INTEGER, default=5, low=1, high=8, help="2^bits clusters a matrix"),
        Parameter(name="rounds", kind=ParameterKind.INTEGER, default=25, low=1, high=200, help="rounds of Lloyd's algorithm"),
    ),
    amount="bits",
)

TECHNIQUES: tuple[Technique, ...] = (
    BFLOAT16,
    FLOAT16,
    INT8_WEIGHT_ONLY,
    INT8_ACTIVATIONS,
    FLOAT8_WEIGHT_ONLY,
    INT4_IN_INT8,
    INT4_WEIGHT_ONLY,
    PACKED,
    NF4,
    DYNAMIC_INT8,
    DYNAMIC_FLOAT16,
    STATIC_INT8,
    K_MEANS,
)
