"""Mixed precision: what stays in float32, what does not, and gradients that are scaled and scaled back."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from profiler import read_recording
from profiler.analysis.timeline import Timeline
from profiler.models.build import build_model
from profiler.optimizations.precision import Precision
from profiler.optimizations.registry import chosen, setup_for, validate
from profiler.recording import Category, Phase
from profiler.simulate.engine import simulate_job
from profiler.spec import Job, Model, Toggle, Workload
from profiler.workloads import run


def job(*toggles: str, device: str = "cpu", **workload: Any) -> Job:
    sizes = {"batch": 2, "seq": 16, "steps": 2, "warmup_steps": 0} | workload
    return Job(model=Model(name="tiny-llama"), workload=Workload(**sizes), device=device, toggles=tuple(map(Toggle.parse, toggles)))


class Watcher:
    """Keeps the losses, the largest gradient before each optimizer step, and the dtypes of products."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.gradients: list[float] = []
        self.products: set[torch.dtype] = set()

    @contextmanager
    def phase(self, phase: Phase) -> Any:
        if phase is Phase.OPTIMIZER:
            self.gradients.append(max(float(p.grad.abs().max()) for p in self.model.parameters()))
        yield

    @contextmanager
    def step(self, index: int) -> Any:
        yield

    def built(self, model: Any, optimizer: Any) -> None:
        self.model = model
        model.lm_head.register_forward_hook(lambda _, __, logits: self.products.add(logits.dtype))

    def scalar(self, name: str, value: float) -> None:
        self.losses.append(value)


def watched(*toggles: str, **workload: Any) -> Watcher:
    watcher = Watcher()
    wanted = job(*toggles, **workload)
    run(wanted, setup_for(wanted), watcher)
    return watcher


def test_mixed_precision_is_one_choice_of_precision() -> None:
    assert [str(toggle) for toggle in validate(job("autocast:dtype=bfloat16", "sgd")).toggles] == ["amp", "sgd"]
    with pytest.raises(Exception, match="amp and bfloat16 are both switched on"):
        validate(job("amp", "bfloat16"))


def test_weights_and_gradients_stay_in_float32_and_products_do_not() -> None:
    watcher = watched("amp", "sgd")
    assert watcher.products == {torch.bfloat16}
    assert {parameter.dtype for parameter in watcher.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_it_learns_what_float32_learns_but_for_rounding(dtype: str) -> None:
    exact, mixed = watched("sgd:lr=0.05", steps=4), watched(f"amp:dtype={dtype}", "sgd:lr=0.05", steps=4)
    assert mixed.losses == pytest.approx(exact.losses, rel=0.01)
    assert mixed.losses[-1] < mixed.losses[0]


def test_in_float16_gradients_are_scaled_until_the_step_and_the_loss_is_not() -> None:
    plain, scaled = watched("amp", "sgd"), watched("amp:dtype=float16", "sgd")
    assert scaled.losses[0] == pytest.approx(plain.losses[0], rel=0.01)
    assert scaled.gradients[0] == pytest.approx(2.0**16 * plain.gradients[0], rel=0.1)


def test_only_mixed_precision_in_float16_scales() -> None:
    def enabled(*toggles: str) -> bool:
        return setup_for(job(*toggles)).make_scaler().is_enabled()

    assert [enabled("float32"), enabled("float16"), enabled("amp"), enabled("amp:dtype=float16")] == [False, False, False, True]


@pytest.mark.parametrize(("device", "word"), [("cpu", "cpu"), ("cuda:1", "cuda"), ("rtx-4090", "cuda")])
def test_the_region_is_that_of_the_jobs_device(device: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch, "autocast", lambda device_type, dtype: asked.append(device_type))
    setup_for(job("amp", device=device)).forward_contexts[0]()
    assert asked == [word]


def at_forwards_end(folder: Path, *toggles: str, **workload: int) -> dict[Category, int]:
    """Return bytes by category when the last forward on a simulated GPU ends."""
    simulate_job(job(*toggles, device="rtx-a6000", steps=1, **workload), folder / "run.headroom")
    timeline = Timeline.of(read_recording(folder / "run.headroom"))
    end_us = next(phase.end_us for phase in reversed(timeline.phases) if phase.name == Phase.FORWARD)
    return timeline.categories_at(int((timeline.blocks.event_us <= end_us).sum()) - 1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_on_a_simulated_gpu_activations_shrink_and_parameters_do_not(tmp_path: Path, dtype: str) -> None:
    plain = at_forwards_end(tmp_path / "plain", "sgd", batch=8, seq=128)
    mixed = at_forwards_end(tmp_path / "mixed", "sgd", f"amp:dtype={dtype}", batch=8, seq=128)
    assert mixed[Category.PARAMETER] == plain[Category.PARAMETER]
    assert mixed[Category.ACTIVATION] < plain[Category.ACTIVATION]


def test_with_a_small_batch_the_casts_of_the_weights_outweigh_what_they_save(tmp_path: Path) -> None:
    plain, mixed = at_forwards_end(tmp_path / "plain", "sgd"), at_forwards_end(tmp_path / "mixed", "sgd", "amp")
    casts = 2 * sum(p.numel() for name, p in build_model(Model(name="tiny-llama")).named_parameters() if name.endswith("proj.weight"))
    assert mixed[Category.ACTIVATION] - plain[Category.ACTIVATION] == pytest.approx(casts, rel=0.2)


@pytest.mark.parametrize("implementation", ["foreach", "fused", "for-loop"])
def test_the_scaled_step_of_a_simulated_gpu_is_made(tmp_path: Path, implementation: str) -> None:
    wanted = job(f"adamw:implementation={implementation}", "amp:dtype=float16", device="rtx-a6000", steps=1)
    simulate_job(wanted, tmp_path / "run.headroom")
    timeline = Timeline.of(read_recording(tmp_path / "run.headroom"))
    at_the_end = timeline.categories_at(timeline.num_events - 1)
    assert at_the_end[Category.OPTIMIZER_STATE] >= 2 * at_the_end[Category.PARAMETER]


def test_formulas_that_ask_for_the_weights_size_are_told_float32s() -> None:
    item, options = chosen(job("amp"), Precision)
    assert item.itemsize == 4
    assert options == {"dtype": "bfloat16"}
    assert item.product_itemsize == 2
