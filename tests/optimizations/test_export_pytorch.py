"""The exported script against the run it stands for: the same peak, made of the same, to the byte."""

from __future__ import annotations

import gc
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from profiler.analysis.footprint import Footprint
from profiler.capture.engine import capture_job
from profiler.errors import SpecError
from profiler.models.build import build_model
from profiler.optimizations.attention import Attention
from profiler.optimizations.export import export_job
from profiler.optimizations.export.pytorch import model_lines, pytorch_program
from profiler.optimizations.export.pytorch_toggles import MISSING, WRITERS
from profiler.optimizations.optimizers import TorchOptimizer
from profiler.optimizations.registry import REGISTRY, is_said_by_job, validate
from profiler.recording import Category
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind
from profiler.storage import read_recording
from profiler.workloads import Setup
from tests.optimizations.recorded import recorded

GPU_ONLY = ("efficient", "paged-adamw-8bit", "expandable-segments", "max-split-size", "roundup-power2", "tf32", "cudnn-benchmark")
"""Written, and nothing on a CPU."""
WARMUP = 1


def written() -> list[str]:
    return [
        name
        for name, item in REGISTRY.items()
        if not is_said_by_job(item) and (name in WRITERS or isinstance(item, (TorchOptimizer, Attention)))
    ]


def job(*toggles: str, model: str = "tiny-llama", **workload: object) -> Job:
    sizes = {"batch": 2, "seq": 16, "steps": 1, "warmup_steps": WARMUP} | workload
    return Job(model=Model(name=model), workload=Workload(**sizes), toggles=tuple(map(Toggle.parse, toggles)))  # type: ignore[arg-type]


def test_every_optimization_is_written_or_says_why_not() -> None:
    toggles = {name for name, item in REGISTRY.items() if not is_said_by_job(item)}
    assert toggles <= set(written()) | set(MISSING) <= set(REGISTRY)
    assert not set(written()) & set(MISSING)


def workload_of(*names: str) -> WorkloadKind:
    for kind in (WorkloadKind.TRAIN, WorkloadKind.DECODE):
        try:
            validate(job(*names, kind=kind))
        except SpecError:
            continue
        return kind
    raise AssertionError(f"{' + '.join(names)} can be switched on in no workload")


TOGETHER: tuple[tuple[str, ...], ...] = (
    ("float32", "sdpa", "adamw"),
    ("bfloat16", "eager", "lora", "adafactor"),
    ("float16", "math", "freeze", "adam"),
    ("amp", "flash", "checkpointing", "rmsprop"),
    ("ia3", "sgd"),
    ("adamw-8bit",),
    ("adamw-4bit",),
    ("adamw-fp8",),
    ("int8", "static-cache"),
    ("float8",),
    ("int8-dynamic",),
)
"""Every toggle that a script can have on a CPU; a run takes seconds, so those of several families share one."""


@pytest.mark.parametrize("names", TOGETHER, ids=" ".join)
def test_toggles_in_the_script_need_what_they_need_in_the_run(names: tuple[str, ...], tmp_path: Path) -> None:
    assert_equal(job(*names, kind=workload_of(*names), new_tokens=2), tmp_path)


def test_no_toggle_of_a_script_is_left_out() -> None:
    assert {name for names in TOGETHER for name in names} == {name for name in written() if name not in GPU_ONLY}


@pytest.mark.parametrize(
    "asked",
    [
        job("amp", "checkpointing:every=2", "lora:rank=4,targets=all-linear", micro_batches=2),
        job("bfloat16", "sgd:momentum=0.9", zero_grad="before_backward", micro_batches=2, set_to_none=False),
        job("lora:targets=query-value"),
        job("eager", zero_grad="before_forward", model="tiny-bert"),
        job(model="tiny-t5"),
        job(model="tiny-t5", kind="decode", new_tokens=2),
        job("bfloat16", model="tiny-gpt2", kind="prefill"),
    ],
    ids=lambda asked: asked.title,
)
def test_the_script_of_a_job_needs_what_the_job_needs(asked: Job, tmp_path: Path) -> None:
    assert_equal(asked, tmp_path)


def test_what_a_script_cannot_say_is_named() -> None:
    program = pytorch_program(job("lion"))
    assert program.missing == (f"lion: {MISSING['lion']}",)
    lstm = pytorch_program(job(model="tiny-lstm"))
    assert not lstm.text
    assert "Headroom's own" in lstm.missing[0]


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-gpt2", "tiny-bert", "tiny-roberta", "tiny-t5", "tiny-distilbert", "tiny-mixtral"])
@pytest.mark.parametrize("num_layers", [0, 1, 999])
def test_the_script_freezes_what_the_run_freezes(model: str, num_layers: int) -> None:
    asked = validate(job(f"freeze:trainable_layers={num_layers}", model=model))
    namespace: dict[str, Any] = {}
    exec(compile("\n".join(model_lines(asked, ["freeze"])), "run.py", "exec"), namespace)
    theirs = {name for name, parameter in namespace["model"].named_parameters() if parameter.requires_grad}
    setup = Setup()
    REGISTRY["freeze"].apply(setup, {"trainable_layers": num_layers}, asked)
    ours = setup.transforms[0](build_model(asked.model))
    assert theirs == {name for name, parameter in ours.named_parameters() if parameter.requires_grad}


def test_what_cannot_be_written_of_an_optimizer_leaves_adamw() -> None:
    for name in ("lion", "muon"):
        text = pytorch_program(job(name)).text
        assert "optimizer = torch.optim.AdamW(trained, lr=0.0001, weight_decay=0.01, foreach=False)" in text
        assert "the script has AdamW in its place" in pytorch_program(job(name)).missing[0]
    paged = pytorch_program(replace(job("paged-adamw-8bit"), device="rtx-4090"))
    assert "optimizer = PagedAdamW8bit(trained)" in paged.text
    assert not paged.missing


def test_gpu_settings_come_before_torch() -> None:
    asked = replace(job("expandable-segments", "max-split-size:mib=64", "tf32"), device="rtx-4090")
    text = export_job(asked)[0].text
    environment = 'os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True,max_split_size_mb:64"'
    assert text.index(environment) < text.index("import torch")
    assert 'torch.backends.cuda.matmul.fp32_precision = "tf32"' in text


def test_a_strangers_configuration_stays_data() -> None:
    config = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    hostile = '"""\nraise SystemExit("executed")\n"""'
    model = Model.from_config(hostile, {**config, "vocab_size": 50, hostile: hostile})
    compiled = compile(pytorch_program(replace(job(), model=model)).text, "run.py", "exec")
    assert "executed" not in " ".join(str(name) for name in compiled.co_names)


def assert_equal(asked: Job, folder: Path) -> None:
    gc.collect()
    capture_job(asked, folder / "ours.headroom")
    gc.collect()
    run_script(pytorch_program(asked).text, folder / "theirs.headroom")
    ours, theirs = (footprint(folder / name) for name in ("ours.headroom", "theirs.headroom"))
    assert theirs.peak_bytes == ours.peak_bytes
    assert lasting(theirs) == lasting(ours)


def lasting(found: Footprint) -> dict[Category, int]:
    """Return what lasts beyond a step: a script tells no phases, by which the rest is told apart."""
    names = (Category.PARAMETER, Category.BUFFER, Category.OPTIMIZER_STATE, Category.KV_CACHE)
    return {name: found.peak.categories[name] for name in names if name in found.peak.categories}


def footprint(path: Path) -> Footprint:
    """Return the footprint of the last step."""
    recording = read_recording(path)
    last = max(step for step in recording.events["step"].to_pylist())
    return Footprint.of(replace(recording, metadata=replace(recording.metadata, warmup_steps=last)))


def run_script(text: str, path: Path) -> None:
    """Run a script under the recorder, a step at each batch; on a CPU nothing is compiled, as in Headroom's own runs there."""
    torch.set_num_threads(1)
    randint = torch.randint
    with recorded(path) as recorder:

        def stepping(*sizes: Any) -> torch.Tensor:
            recorder.step()
            return randint(*sizes)

        as_written = patch.object(torch, "compile", lambda function, **options: function)
        with redirect_stdout(StringIO()), as_written, patch.object(torch, "randint", stepping):
            exec(compile(text, "run.py", "exec"), {"__name__": "__main__", "torch": torch})
