"""The statements of the workloads: in which order, what is alive when, and that the arithmetic is that of plain training."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer

from profiler.errors import SpecError
from profiler.models.catalogue import CATALOGUE, entry
from profiler.models.text import language_reference
from profiler.optimizations.registry import setup_for
from profiler.recording import Phase
from profiler.spec import Job, Model, Toggle, Workload, WorkloadKind, ZeroGrad
from profiler.workloads import Setup, run

SMALL = Model.from_config(
    "small",
    {
        "model_type": "gpt2",
        "vocab_size": 50,
        "n_positions": 32,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 1,
    },
)
TINY = [name for name, item in CATALOGUE.items() if item.tiny]


class Listener:
    """Writes down what it is told; ``at`` is called when a phase begins or ends."""

    def __init__(self, at: Callable[[Listener, str, Phase], None] | None = None) -> None:
        self.said: list[str] = []
        self.losses: list[float] = []
        self.inputs: list[dict[str, torch.Tensor]] = []
        self.logits: list[weakref.ref[torch.Tensor]] = []
        self.model: nn.Module = nn.Identity()
        self.optimizer: Optimizer | None = None
        self.current = Phase.OTHER
        self._at = at or (lambda *_: None)

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        self.said.append(phase.value)
        self._at(self, "begin", phase)
        self.current = phase
        yield
        self.current = Phase.OTHER
        self._at(self, "end", phase)

    @contextmanager
    def step(self, index: int) -> Iterator[None]:
        self.said.append(f"step {index}")
        yield

    def built(self, model: nn.Module, optimizer: Optimizer | None) -> None:
        self.model, self.optimizer = model, optimizer
        model.register_forward_hook(self._called, with_kwargs=True)

    def scalar(self, name: str, value: float) -> None:
        assert name == "loss"
        self.losses.append(value)

    def _called(self, module: nn.Module, args: Any, kwargs: dict[str, Any], outputs: Any) -> None:
        assert not args
        self.inputs.append({name: value.clone() for name, value in kwargs.items() if isinstance(value, torch.Tensor)})
        self.logits.append(weakref.ref(outputs.logits))


def job(model: Model = SMALL, *toggles: str, **workload: Any) -> Job:
    defaults = {"batch": 4, "seq": 8, "steps": 1, "warmup_steps": 1}
    return Job(model=model, workload=Workload(**{**defaults, **workload}), toggles=tuple(map(Toggle.parse, toggles)))


def listen(job: Job, listener: Listener | None = None, setup: Setup | None = None, **options: Any) -> Listener:
    listener = listener or Listener()
    run(job, setup or setup_for(job), listener, **options)
    return listener


@pytest.mark.parametrize(
    ("place", "step"),
    [
        (ZeroGrad.AFTER_STEP, ["data", "forward", "backward", "optimizer", "zero_grad"]),
        (ZeroGrad.BEFORE_FORWARD, ["data", "zero_grad", "forward", "backward", "optimizer"]),
        (ZeroGrad.BEFORE_BACKWARD, ["data", "forward", "zero_grad", "backward", "optimizer"]),
    ],
)
def test_a_training_step_is_these_phases_in_this_order(place: ZeroGrad, step: list[str]) -> None:
    said = listen(job(zero_grad=place)).said
    assert said == ["build", "step 0", *step, "step 1", *step]


@pytest.mark.parametrize(
    ("place", "middle"), [(ZeroGrad.AFTER_STEP, []), (ZeroGrad.BEFORE_FORWARD, []), (ZeroGrad.BEFORE_BACKWARD, ["zero_grad"])]
)
def test_micro_batches_repeat_forward_and_backward_and_drop_gradients_once(place: ZeroGrad, middle: list[str]) -> None:
    said = listen(job(zero_grad=place, micro_batches=2, steps=1, warmup_steps=0)).said
    assert said[said.index("forward") : said.index("optimizer")] == ["forward", *middle, "backward", "forward", "backward"]
    assert said.count("zero_grad") == 1


def test_warm_up_steps_come_first_and_count() -> None:
    said = listen(job(steps=2, warmup_steps=3)).said
    assert [item for item in said if item.startswith("step")] == [f"step {index}" for index in range(5)]


def alive_logits(keep_outputs: bool) -> dict[str, int]:
    counts: dict[str, int] = {}

    def count(listener: Listener, edge: str, phase: Phase) -> None:
        counts[f"{edge} {phase.value}"] = sum(ref() is not None for ref in listener.logits)

    listen(job(keep_outputs=keep_outputs), Listener(count))
    return counts


def test_logits_live_through_backward_and_are_gone_before_the_optimizers_step() -> None:
    counts = alive_logits(keep_outputs=False)
    assert counts["end backward"] == 1
    assert counts["begin optimizer"] == 0
    assert counts["begin forward"] == 0


def test_kept_outputs_live_until_the_next_forward_has_new_ones() -> None:
    counts = alive_logits(keep_outputs=True)
    assert counts["begin optimizer"] == 1
    assert counts["begin forward"] == 1  # those of the step before
    assert counts["end forward"] == 1


@pytest.mark.parametrize("kind", [WorkloadKind.PREFILL, WorkloadKind.DECODE])
def test_inference_lets_go_of_its_outputs_between_steps(kind: WorkloadKind) -> None:
    counts: list[int] = []

    def count(listener: Listener, edge: str, phase: Phase) -> None:
        if edge == "begin" and phase is Phase.DATA:
            counts.append(sum(ref() is not None for ref in listener.logits))

    listen(job(kind=kind, new_tokens=3), Listener(count))
    assert counts == [0, 0]


def gradients_after_zero_grad(set_to_none: bool) -> list[torch.Tensor | None]:
    listener = listen(job(set_to_none=set_to_none))
    return [parameter.grad for parameter in listener.model.parameters()]


def test_set_to_none_drops_the_gradients_and_else_they_stay_as_zeros() -> None:
    assert all(gradient is None for gradient in gradients_after_zero_grad(set_to_none=True))
    kept = gradients_after_zero_grad(set_to_none=False)
    assert all(gradient is not None and not gradient.any() for gradient in kept)


def trained(num_steps: int, **workload: Any) -> tuple[dict[str, torch.Tensor], list[float]]:
    listener = listen(job(SMALL, "sgd:lr=0.5", steps=num_steps, warmup_steps=0, **workload))
    return {name: value.detach().clone() for name, value in listener.model.state_dict().items()}, listener.losses


def test_it_trains_as_a_loop_written_by_hand_does() -> None:
    weights, losses = trained(2)
    listener = Listener()
    listen(job(kind="prefill", steps=1, warmup_steps=0), listener)  # the same seed: the same model and the same first batch
    model, tokens = listener.model.train(), listener.inputs[0]["input_ids"]
    text, random = language_reference(), Random(0)
    places = [[random.randrange(len(text) - 7) for _ in range(4)] for _ in range(2)]
    batches = [torch.tensor([[2 + byte % 48 for byte in text[place : place + 8]] for place in four]) for four in places]
    assert torch.equal(batches[0], tokens)
    expected = []
    for batch in batches:
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        expected.append(loss.item())
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter -= 0.5 * parameter.grad
                parameter.grad = None
    assert losses == expected
    for name, value in model.state_dict().items():
        assert torch.equal(weights[name], value)


@pytest.mark.parametrize("place", ZeroGrad)
@pytest.mark.parametrize("set_to_none", [True, False])
def test_where_gradients_are_dropped_does_not_change_what_is_learned(place: ZeroGrad, set_to_none: bool) -> None:
    weights, losses = trained(3)
    others, other_losses = trained(3, zero_grad=place, set_to_none=set_to_none, keep_outputs=True)
    assert losses == other_losses
    for name, value in weights.items():
        assert torch.equal(value, others[name])


def test_micro_batches_learn_what_the_whole_batch_does() -> None:
    weights, losses = trained(2)
    others, other_losses = trained(2, micro_batches=4)
    assert losses == pytest.approx(other_losses, rel=1e-5)
    for name, value in weights.items():
        torch.testing.assert_close(value, others[name])


def test_a_run_repeats_exactly_with_its_seed_and_differs_with_another() -> None:
    tiny = Model(name="tiny-gpt2")  # has dropout
    first, again, other = (listen(job(tiny, steps=2, seed=seed)).losses for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("name", TINY)
def test_every_tiny_model_trains_and_its_first_loss_is_near_that_of_guessing(name: str) -> None:
    losses = listen(job(Model(name=name), seq=16, steps=1, warmup_steps=0)).losses
    guessing = torch.tensor(float(entry(name).facts.vocab_size)).log().item()
    assert losses[0] == pytest.approx(guessing, rel=0.25)


def test_masked_language_modelling_hides_what_it_asks_for() -> None:
    inputs = listen(job(Model(name="tiny-bert"), batch=8, seq=128, steps=1, warmup_steps=0)).inputs[0]
    asked = inputs["labels"] != -100
    assert 0.10 < asked.float().mean() < 0.20
    assert (inputs["input_ids"][asked] == 4095).all()
    assert (inputs["input_ids"] >= 2).all()


@pytest.mark.parametrize("name", [name for name in TINY if entry(name).head != "masked-lm"])
def test_decode_reads_the_prompt_once_and_then_one_token_at_a_time(name: str) -> None:
    listener = listen(job(Model(name=name), kind="decode", batch=2, seq=6, new_tokens=3, steps=1, warmup_steps=0))
    assert listener.said == ["build", "step 0", "data", "prefill", "decode"]
    fed = "decoder_input_ids" if name == "tiny-t5" else "input_ids"
    prompt = 1 if name == "tiny-t5" else 6
    assert [inputs[fed].shape[1] for inputs in listener.inputs] == [prompt, 1, 1, 1]


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama", "tiny-mixtral", "tiny-lstm"])
def test_decode_makes_the_tokens_that_reading_everything_again_would_make(name: str) -> None:
    listener = listen(job(Model(name=name), kind="decode", batch=2, seq=6, new_tokens=4, steps=1, warmup_steps=0))
    tokens = listener.inputs[0]["input_ids"]
    with torch.inference_mode():
        for fed in [inputs["input_ids"] for inputs in listener.inputs[1:]]:
            best = listener.model(input_ids=tokens).logits[:, -1:].argmax(-1)
            assert torch.equal(fed, best)
            tokens = torch.cat([tokens, best], 1)


@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_inference_builds_no_graph_and_no_optimizer(kind: str) -> None:
    listener = listen(job(kind=kind, new_tokens=2))
    assert listener.optimizer is None
    assert not listener.model.training
    assert all(parameter.grad is None for parameter in listener.model.parameters())
    assert not listener.losses


def test_forwards_and_nothing_else_run_inside_the_forward_contexts() -> None:
    entered: list[Phase] = []
    listener = Listener()

    @contextmanager
    def context() -> Iterator[None]:
        entered.append(listener.current)
        yield

    wanted = job(micro_batches=2)
    setup = setup_for(wanted)
    setup.forward_contexts.append(context)
    listen(wanted, listener, setup)
    assert entered == [Phase.FORWARD] * 4


def test_transforms_change_the_model_before_its_optimizer_is_made() -> None:
    def freeze_embedding(model: nn.Module) -> nn.Module:
        model.get_input_embeddings().requires_grad_(False)  # type: ignore[operator]
        return model

    wanted = job()
    setup = setup_for(wanted)
    setup.transforms.append(freeze_embedding)
    listener = listen(wanted, setup=setup)
    assert listener.optimizer is not None
    held = sum(len(group["params"]) for group in listener.optimizer.param_groups)
    assert held == len(list(listener.model.parameters())) - 1


def test_an_engine_without_values_tells_no_loss() -> None:
    assert listen(job(), read_loss=lambda loss: None).losses == []


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-t5", "tiny-mixtral", "tiny-lstm"])
def test_the_same_statements_run_on_tensors_without_values(name: str) -> None:
    wanted = job(Model(name=name), "bf16", seq=16)
    with FakeTensorMode():
        fake = listen(wanted, read_loss=lambda loss: None)
    real = listen(wanted)
    assert fake.said == real.said
    assert [inputs["input_ids"].shape for inputs in fake.inputs] == [inputs["input_ids"].shape for inputs in real.inputs]


def test_training_without_an_optimizer_is_refused() -> None:
    with pytest.raises(SpecError, match="Training needs an optimizer"):
        listen(job(), setup=Setup())


def test_a_workload_that_the_model_cannot_run_is_refused_before_anything_is_built() -> None:
    listener = Listener()
    impossible = job(seq=33)
    with pytest.raises(SpecError, match="seq=33; small has 32 positions"):
        run(impossible, setup_for(job()), listener)
    with pytest.raises(SpecError, match="cannot decode"):
        run(replace(job(kind="decode"), model=Model(name="tiny-bert")), Setup(), listener)
    assert listener.said == []
