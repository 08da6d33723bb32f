"""What every optimization is run with on both engines, and which tests stand for those that this machine cannot measure.

To add one: its default options run on tiny-llama by themselves; put more under its name in `CASES`. One that the CPU refuses, or that only
one engine runs, goes into `ORACLES` with the test that holds its bytes to something computed by hand or published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from profiler.optimizations.registry import optimization
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind


@dataclass(frozen=True)
class Case:
    """One run of an optimization.

    Args:
        toggles: as users write them, the optimization among them.
        workload: fields that differ from training with a batch of 2 x 32.
    """

    model: str
    toggles: tuple[str, ...]
    workload: Mapping[str, Any]

    @property
    def job(self) -> Job:
        """The job; the toggles' families say whether it trains."""
        allowed = optimization(Toggle.parse(self.toggles[0]).name).family.workloads
        kind = next(kind for kind in (WorkloadKind.TRAIN, WorkloadKind.DECODE, WorkloadKind.PREFILL) if kind in allowed)
        workload = Workload(**({"kind": kind, "batch": 2, "seq": 32, "steps": 1, "new_tokens": 3} | dict(self.workload)))
        return Job(model=Model(name=self.model), workload=workload, toggles=tuple(map(Toggle.parse, self.toggles)))

    def __str__(self) -> str:
        return " ".join([*self.toggles, self.model, *(f"{name}={value}" for name, value in self.workload.items())])


def case(*toggles: str, model: str = "tiny-llama", **workload: Any) -> Case:
    """Return a case; the first of ``toggles`` is what it is about."""
    return Case(model, toggles, workload)


DEFAULT_OPTIONS: dict[str, str] = {"muon": "muon:rounds=1"}
"""Of those that are slow with their default options: others that allocate the same."""


def default_case(name: str) -> Case:
    """Return the case of an optimization by itself."""
    return case(DEFAULT_OPTIONS.get(name, name))


CASES: dict[str, tuple[Case, ...]] = {
    "amp": (case("amp", model="tiny-gpt2"), case("amp:dtype=float16"), case("amp", kind="decode")),
    "bfloat16": (case("bfloat16", model="tiny-bert"), case("bfloat16", kind="decode")),
    "checkpointing": (case("checkpointing:every=2", model="tiny-gpt2"),),
    "selective-checkpointing": (
        case("selective-checkpointing:save=matmuls", model="tiny-gpt2"),
        case("selective-checkpointing:save=every-second-matmul", "bfloat16", "sgd", seq=64),
    ),
    "chunked-loss": (
        case("chunked-loss:chunks=3", "bfloat16", "sgd", batch=4, seq=64),
        case("chunked-loss", "amp", "lora", model="tiny-gpt2"),
        case("chunked-loss", "micro-batches", model="tiny-qwen"),
    ),
    "fused-loss": (
        case("fused-loss", "sgd", batch=4, seq=64),
        case("fused-loss:tokens=24", "bfloat16", "sgd", batch=4, seq=64),
        case("fused-loss", "amp", "lora", model="tiny-gpt2"),
    ),
    "offload-activations": (
        case("offload-activations", "sgd", batch=4, seq=64),
        case("offload-activations:min_bytes=64", "checkpointing", model="tiny-bert"),
    ),
    "offload-optimizer": (
        case("offload-optimizer:gradients=false", "micro-batches", "bfloat16"),
        case("offload-optimizer", "micro-batches", "master-weights", model="tiny-gpt2"),
    ),
    "offload-parameters": (
        case("offload-parameters", "checkpointing", "offload-activations", "sgd", batch=4, seq=64),
        case("offload-parameters", "lora", model="tiny-t5"),
        case("offload-parameters", "bfloat16", model="tiny-gpt2"),
    ),
    "packing": (case("packing:fill=0.4", "micro-batches", batch=8),),
    "lora": (case("lora:rank=4,targets=all-linear", model="tiny-bert"), case("lora:targets=query-value", "bfloat16", model="tiny-qwen")),
    "adalora": (case("adalora:targets=all-linear", model="tiny-bert"), case("adalora", "bfloat16", model="tiny-gpt2")),
    "ia3": (case("ia3", "bfloat16", model="tiny-gpt2"), case("ia3", model="tiny-bert")),
    "qlora": (
        case("qlora:double_quant=false", "bfloat16", model="tiny-gpt2"),
        case("qlora:targets=all-linear", "float16", model="tiny-bert"),
    ),
    "freeze": (case("freeze:trainable_layers=0"), case("freeze:trainable_layers=2", "bfloat16", model="tiny-t5")),
    "bottleneck-adapters": (
        case("bottleneck-adapters", "bfloat16", model="tiny-bert"),
        case("bottleneck-adapters:width=8", model="tiny-t5"),
    ),
    "tied-embeddings": (case("tied-embeddings", "grouped-query:kv_heads=4", kind="decode"), case("tied-embeddings", model="tiny-gpt2")),
    "low-rank": (case("low-rank:rank=16", "bfloat16", model="tiny-gpt2"), case("low-rank", model="tiny-bert", kind="prefill")),
    "distillation": (case("distillation:teacher=tiny-llama", "lora", model="tiny-gpt2"), case("distillation", model="tiny-lstm")),
    "master-weights": (
        case("master-weights:gradients=kept", model="tiny-gpt2"),
        case("master-weights", "keep-gradients", "adamw:implementation=foreach", "micro-batches"),
        case("master-weights", "lora", model="tiny-bert"),
    ),
    "micro-batches": (case("micro-batches:count=4", "keep-gradients", "sgd", batch=4, model="tiny-gpt2"),),
    "zero-grad": (case("zero-grad:place=before_forward", "sgd", model="tiny-bert"),),
    "sgd": (case("sgd:momentum=0.9"),),
    "adamw": (case("adamw:implementation=foreach"),),
    "lion": (case("lion", "bfloat16", model="tiny-gpt2"),),
    "muon": (case("muon:rounds=1", "bfloat16", model="tiny-bert"),),
    "adamw-8bit": (case("adamw-8bit", "bfloat16", "lora"),),
    "adamw-4bit": (case("adamw-4bit", "bfloat16"),),
    "adamw-fp8": (case("adamw-fp8", "bfloat16", model="tiny-gpt2"),),
    "optimizer-in-backward": (case("optimizer-in-backward", "lion", "lora"), case("optimizer-in-backward", "adafactor", "amp")),
    "int8": (case("int8", "bfloat16", model="tiny-qwen"), case("int8:output=false"), case("int8", model="tiny-bert", kind="prefill")),
    "float8": (case("float8", "bfloat16"), case("float8", model="tiny-t5")),
    "int8-dynamic": (case("int8-dynamic", "bfloat16"), case("int8-dynamic", model="tiny-bert", kind="prefill")),
    "int8-static": (case("int8-static", "bfloat16", model="tiny-qwen"), case("int8-static", model="tiny-bert", kind="prefill")),
    "nf4": (
        *(case("nf4:double=true", "bfloat16", model=model) for model in ("tiny-qwen", "tiny-gpt2", "tiny-t5")),
        case("nf4", batch=3, seq=64),
    ),
    "int4": (case("int4:group=32", "bfloat16"), case("int4", model="tiny-bert", kind="prefill"), case("int4", model="tiny-t5")),
    "quantized-cache": (
        *(case(f"quantized-cache:format={name}", "bfloat16") for name in ("float8", "int8")),
        case("quantized-cache:format=int2,residual=2", model="tiny-qwen"),
        case("quantized-cache:residual=3,group=32", "int4", batch=3, seq=33, new_tokens=4),
    ),
}
"""Beside every optimization's default options on tiny-llama; slow tests, which CI runs, and you with ``-m slow``."""

_GPU_ONLY = "tests/optimizations/test_gpu_only_toggles.py"
ORACLES: dict[str, str] = {
    "int8-eager": "tests/optimizations/test_quantization.py::test_packed_weights_leave_the_allocator_and_stay_in_the_resident_set",
    "expandable-segments": f"{_GPU_ONLY}::test_expandable_segments_reserve_whole_pages_of_what_is_allocated_and_little_more",
    "max-split-size": f"{_GPU_ONLY}::test_large_blocks_stay_whole_above_the_largest_split",
    "roundup-power2": f"{_GPU_ONLY}::test_rounding_up_makes_every_block_that_step_of_a_power_of_two",
    "tf32": f"{_GPU_ONLY}::test_a_switch_changes_no_byte_and_says_so",
    "cudnn-benchmark": f"{_GPU_ONLY}::test_a_switch_changes_no_byte_and_says_so",
    "paged-adamw-8bit": "tests/optimizations/test_quantized_optimizers.py::test_paged_states_are_on_the_host_and_their_scales_on_the_gpu",
    "ddp": "tests/optimizations/test_parallelism.py::test_buckets_are_as_large_as_the_gradients",
    "zero1": "tests/optimizations/test_parallelism.py::test_the_fullest_rank_of_zero_1_keeps_the_state_of_its_parameters",
    "fsdp2": "tests/optimizations/test_parallelism.py::test_a_rank_of_fsdp2_holds_its_share_of_parameters_and_state",
    "efficient": "tests/simulate/cuda/test_sdpa.py::test_efficient_keeps_the_mask_of_every_call_in_the_compute_dtype",
}
"""Of those that one engine runs alone, or a CPU cannot: the test that holds their bytes."""

NO_OTHER_BYTES: dict[str, str] = {
    "sdpa": "what transformers chooses anyway",
    "flash": "the CPU's only fused kernel, which torch chooses anyway",
}
"""Of those that allocate what the run without them does, on tiny-llama and a CPU: the reason."""
