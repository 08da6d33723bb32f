"""What a fused kernel cannot run is refused before a run, and nothing else is: held to the simulation, which knows each call."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from profiler.errors import SimulationUnsupported, SpecError
from profiler.models.config import attention_dropout
from profiler.optimizations import registry
from profiler.optimizations.attention import Efficient, Flash
from profiler.optimizations.registry import validate
from profiler.simulate.engine import simulate_job
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind

TRAIN, PREFILL, DECODE = WorkloadKind.TRAIN, WorkloadKind.PREFILL, WorkloadKind.DECODE
IN_FLOAT32 = "flash takes float16 and bfloat16, and attention is in float32 here. Switch on bfloat16 or amp first, or choose sdpa."
QLORA = "qlora keeps what lies between the layers in float32, and flash takes float16 and bfloat16. Use sdpa, or switch one of them off."
STATIC = "decoding masks the room of a static cache that no token has yet, and flash takes no mask. Use sdpa, or switch one of them off."
BIAS = "flash takes no mask on GPUs, and tiny-t5 adds a bias by position to its scores. Choose sdpa or efficient."
WINDOW = "flash takes no mask on GPUs, and tiny-mistral masks what its window no longer sees. Choose sdpa, or fewer tokens."
HEADS = "efficient takes as many heads of keys as of queries, and tiny-llama has 2 for 8. Choose sdpa, flash or math."
DROPOUT = "flash has no dropout on CPUs, and {} trains attention with it. Choose sdpa, or simulate on a GPU."
TOO_OLD = "flash is a kernel of GPUs from Ampere on, and {} is older. Choose sdpa or math."


def job(
    *toggles: str, device: str = "rtx-4090", kind: WorkloadKind = TRAIN, model: str = "tiny-llama", seq: int = 16, kernel: str = "flash"
) -> Job:
    workload = Workload(kind=kind, batch=2, seq=seq, steps=1, warmup_steps=0, new_tokens=3)
    return Job(model=Model(name=model), workload=workload, device=device, toggles=tuple(map(Toggle.parse, (kernel, *toggles))))


REFUSED = {
    IN_FLOAT32: (
        job(),
        job("tf32"),
        job(model="tiny-gpt2"),
        job("lora"),
        job("fsdp2"),
        job(kind=WorkloadKind.DECODE),
        *(job(name, kind=PREFILL) for name in ("int8", "int4", "nf4", "float8", "int8-dynamic")),
    ),
    QLORA: (job("qlora"), job("qlora", "bfloat16"), job("qlora", "float16", model="tiny-gpt2")),
    STATIC: (job("static-cache", "bfloat16", kind=DECODE),),
    BIAS: tuple(job("bfloat16", model="tiny-t5", kind=kind) for kind in WorkloadKind),
    WINDOW: (
        job("bfloat16", model="tiny-mistral", seq=64),
        job("bfloat16", model="tiny-mistral", seq=64, kind=PREFILL),
        job("bfloat16", model="tiny-mistral", seq=61, kind=DECODE),
    ),
    HEADS: (job(kernel="efficient"), job(kernel="efficient", kind=DECODE)),
    HEADS.replace("llama", "mistral"): (job(kernel="efficient", model="tiny-mistral", seq=61, kind=DECODE),),
    **{DROPOUT.format(model): (job(device="cpu", model=model),) for model in ("tiny-t5", "tiny-gpt2", "tiny-bert", "tiny-distilbert")},
    TOO_OLD.format("T4"): (job("float16", device="t4"), job(device="t4")),
    TOO_OLD.format("V100 32GB SXM2"): (job("amp:dtype=float16", device="v100-32gb"),),
}
ALLOWED = (
    *map(job, ("bfloat16", "float16", "amp", "amp:dtype=float16", "master-weights", "fsdp2:compute=bfloat16")),
    job("bfloat16", "lora"),
    job("bfloat16", "int8", kind=PREFILL),
    job("bfloat16", model="tiny-gpt2", device="a100-80gb"),
    job(device="cpu"),
    job("qlora", device="cpu"),
    job("qlora", "fsdp2:compute=bfloat16"),
    job("static-cache", kind=DECODE, device="cpu"),
    job("static-cache", "bfloat16", kind=PREFILL),
    job(model="tiny-t5", device="cpu", kind=PREFILL),
    job("bfloat16", model="tiny-mistral", seq=63),
    job("bfloat16", model="tiny-mistral", seq=60, kind=DECODE),
    job("bfloat16", "sequence-length:tokens=32", model="tiny-mistral", seq=64),
    job(model="tiny-mistral", seq=64, device="cpu"),
    job(kernel="efficient", model="tiny-t5"),
    job(kernel="efficient", model="tiny-mistral", seq=64),
    job("grouped-query:kv_heads=8", kernel="efficient"),
)


@pytest.mark.parametrize(("message", "wanted"), [(message, wanted) for message, jobs in REFUSED.items() for wanted in jobs])
def test_what_is_refused_would_fail(message: str, wanted: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        validate(wanted)

    for place, check in ((Flash, "refusal"), (Efficient, "refusal"), (registry, "_check_conflicts")):
        monkeypatch.setattr(place, check, lambda *_: None)
    with pytest.raises((SimulationUnsupported, RuntimeError), match="No attention kernel|No available kernel"):
        simulate_job(wanted, tmp_path / "run.headroom")


@pytest.mark.parametrize("wanted", ALLOWED)
def test_what_runs_is_not_refused(wanted: Job, tmp_path: Path) -> None:
    simulate_job(validate(wanted), tmp_path / "run.headroom")


def test_a_card_of_this_machine_is_refused_float32_too() -> None:
    with pytest.raises(SpecError, match=re.escape(IN_FLOAT32)):
        validate(job(device="cuda:0"))


@pytest.mark.parametrize(
    ("config", "share"),
    [({}, 0), ({"attn_pdrop": 0.1}, 0.1), ({"attention_dropout": 0}, 0), ({"dropout_rate": 0.2}, 0.2), ({"attention_dropout": None}, 0)],
)
def test_attentions_dropout_is_read_by_whatever_name_a_configuration_has_for_it(config: dict[str, float], share: float) -> None:
    assert attention_dropout(config) == share
