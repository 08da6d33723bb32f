"""What each technique leaves in memory, counted by hand on a small Llama.

Width 64, 192 neurons, two blocks, 256 bytes. Matrices of a block: attention 4 x 64 x 64, feed-forward 3 x 64 x 192.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from profiler.compression.fine_tune import train
from profiler.compression.held import held_bytes
from profiler.compression.quality import evaluate
from profiler.compression.registry import TECHNIQUES
from profiler.compression.subject import Subject
from profiler.spec import Toggle
from tests.compression.tasks import ClassifierTask, RecurrentTask, TinyTask

NUMBERS = 2 * (4 * 64 * 64 + 3 * 64 * 192)
"""In the matrices of the blocks."""
ROWS = 2 * (4 * 64 + 192 + 192 + 64)
NUM_MATRICES = 14
HEAD, HEAD_ROWS = 256 * 64, 256
NORMS = 2 * 2 * 64 + 64
ROTARY = 2 * 4 * 16
"""Bytes of the rotary embedding's frequencies, of which transformers keeps a second copy."""
BASE = 4 * (NUMBERS + HEAD + HEAD + NORMS) + ROTARY
REST = BASE - 4 * NUMBERS
REST_WITHOUT_HEAD = REST - 4 * HEAD
LINEAR, LINEAR_ROWS = NUMBERS + HEAD, ROWS + HEAD_ROWS
KEPT = NUMBERS // 2

BY_HAND: dict[str, int] = {
    "bfloat16": BASE // 2,
    "float16": BASE // 2,
    "int8-weight-only": LINEAR + LINEAR_ROWS * (4 + 1) + REST_WITHOUT_HEAD,
    "int8-dynamic": LINEAR + LINEAR_ROWS * (4 + 1) + REST_WITHOUT_HEAD,
    "float8-weight-only": LINEAR + LINEAR_ROWS * 4 + REST_WITHOUT_HEAD,
    "intx-weight-only:bits=4": LINEAR + LINEAR // 32 * (4 + 1) + REST_WITHOUT_HEAD,
    "intx-weight-only:bits=2": LINEAR + LINEAR // 32 * (4 + 1) + REST_WITHOUT_HEAD,
    "int4-weight-only": LINEAR // 2 + LINEAR // 64 * 2 * 2 + REST_WITHOUT_HEAD // 2,
    "int4-weight-only:dtype=float32,group=32": LINEAR // 2 + LINEAR // 32 * 2 * 4 + REST_WITHOUT_HEAD,
    "int4-weight-only:dtype=float32,group=64": LINEAR // 2 + LINEAR // 64 * 2 * 4 + REST_WITHOUT_HEAD,
    "int4-weight-only:dtype=float32,group=128": BASE,
    "packed-int:bits=8": LINEAR + LINEAR // 64 * 8 + REST_WITHOUT_HEAD,
    "packed-int:bits=4": LINEAR // 2 + LINEAR // 64 * 8 + REST_WITHOUT_HEAD,
    "packed-int:bits=2,group=32": LINEAR // 4 + LINEAR // 32 * 8 + REST_WITHOUT_HEAD,
    "packed-int:bits=1,group=32": LINEAR // 8 + LINEAR // 32 * 8 + REST_WITHOUT_HEAD,
    "nf4": NUMBERS // 2 + NUMBERS // 64 * 4 + NUM_MATRICES * 64 + REST,
    "dynamic-int8": LINEAR + (NUM_MATRICES + 1) * 16 + REST_WITHOUT_HEAD,
    "dynamic-float16": BASE,
    "static-int8:batches=1": BASE + LINEAR + LINEAR_ROWS * (4 + 8) - ROTARY // 2,  # 64-bit zero points; an export takes one copy
    "k-means": BASE,
    "prune": BASE,
    "prune-global": BASE,
    "prune-2-4": BASE,
    "prune-blocks": BASE,
    "prune-structured:amount=0.25": BASE - 4 * 2 * 3 * 64 * 48,
    "prune-structured:amount=0.25,remove=false": BASE,
    "prune + store-csr": 8 * KEPT + 4 * (ROWS + NUM_MATRICES) + REST,
    "prune + store-csr:index=int64": 12 * KEPT + 8 * (ROWS + NUM_MATRICES) + REST,
    "prune + store-csr:index=int64,tight=false": 20 * KEPT + 8 * (ROWS + NUM_MATRICES) + REST,
    "prune + store-coo": 20 * KEPT + REST,
    "store-bsr": NUMBERS // 16 * (4 * 16 + 8) + 8 * (ROWS // 4 + NUM_MATRICES) + REST,
    "prune-blocks + store-bsr": KEPT // 16 * (4 * 16 + 8) + 8 * (ROWS // 4 + NUM_MATRICES) + REST,
    "prune-blocks:amount=0.75,block=8 + store-bsr:block=8": KEPT // 2 // 64 * (4 * 64 + 8) + 8 * (ROWS // 8 + NUM_MATRICES) + REST,
    "prune-blocks:block=16 + store-bsr:block=16": KEPT // 256 * (4 * 256 + 8) + 8 * (ROWS // 16 + NUM_MATRICES) + REST,
    "prune-blocks:block=32 + store-bsr:block=32": KEPT // 1024 * (4 * 1024 + 8) + 8 * (ROWS // 32 + NUM_MATRICES) + REST,
    "prune-blocks:block=32 + store-bsr": KEPT // 16 * (4 * 16 + 8) + 8 * (ROWS // 4 + NUM_MATRICES) + REST,
    "prune + store-bitmask": 4 * KEPT + NUMBERS // 8 + REST,
    "prune-2-4 + store-2-4": 4 * KEPT + NUMBERS // 8 + REST,
    "low-rank:rank=8": 4 * 8 * 2 * (4 * (64 + 64) + 3 * (64 + 192)) + REST,
    "low-rank:rank=40": BASE - 4 * 2 * 3 * (64 * 192 - 40 * (64 + 192)),
    "layer-drop": BASE - 4 * (4 * 64 * 64 + 3 * 64 * 192 + 2 * 64),
    "layer-drop:count=9": BASE - 4 * (4 * 64 * 64 + 3 * 64 * 192 + 2 * 64),
    "distill:steps=1": 4 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 256 * 32 + 3 * 32) + 2 * 4 * 8,
    "fine-tune:steps=1": BASE,
    "lora-merge:steps=1": BASE,
    "fixed": BASE,
    "huffman": BASE,
    "ans": BASE,
    "zstd": BASE,
}


def subject_after(stages: str, folder: Path, task: Any = None) -> Subject:
    task = task or TinyTask()
    subject = Subject(task=task, model=task.build(), folder=folder)
    for text in filter(None, stages.split(" + ")):
        toggle = Toggle.parse(text)
        technique = TECHNIQUES[toggle.name]
        technique.apply(subject, technique.read_options(dict(toggle.options)))
    return subject


@pytest.mark.parametrize(("stages", "expected"), BY_HAND.items(), ids=BY_HAND)
def test_a_technique_leaves_the_bytes_that_a_hand_count_says(stages: str, expected: int, tmp_path: Path) -> None:
    subject = subject_after(stages, tmp_path)
    inputs = subject.task.held_out()[0].inputs

    with torch.no_grad():
        logits = subject.logits(inputs)

    assert held_bytes(subject.model) == expected
    assert logits.shape == (*inputs.shape, 256)


def test_every_technique_has_a_hand_count() -> None:
    counted = {part.partition(":")[0] for stages in BY_HAND for part in stages.split(" + ")}

    assert counted == set(TECHNIQUES)


def test_pruning_with_torch_holds_original_mask_and_product_meanwhile(tmp_path: Path) -> None:
    subject = subject_after("prune", tmp_path)

    assert subject.extra["pruning_parameters_and_masks_bytes"] == BASE + 4 * NUMBERS
    assert subject.extra["pruning_held_bytes"] == BASE + 2 * 4 * NUMBERS


def test_lora_holds_its_additions_until_they_are_merged(tmp_path: Path) -> None:
    subject = subject_after("lora-merge:rank=8,steps=1", tmp_path)

    additions = 8 * 2 * (4 * (64 + 64) + 3 * (64 + 192))
    assert subject.extra["trained_parameters"] == additions
    assert subject.extra["unmerged_bytes"] == BASE + 4 * additions


def test_additions_that_are_merged_leave_the_zeros_of_pruning_so_that_a_bitmask_saves(tmp_path: Path) -> None:
    pruned, merged = (subject_after(stages, tmp_path) for stages in ("prune", "prune + lora-merge:steps=2"))

    for before, after in zip(pruned.matrices(), merged.matrices(), strict=True):
        assert torch.equal(before.weight == 0, after.weight == 0)
        assert not torch.equal(before.weight, after.weight)
    stored = subject_after("prune + lora-merge:steps=2 + store-bitmask", tmp_path)
    assert stored.extra["zero_share"] == 0.5
    assert held_bytes(stored.model) == BY_HAND["prune + store-bitmask"]


def test_additions_to_a_pruned_model_are_trained_with_its_zeros_so_that_what_is_merged_is_what_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[float] = []

    def spied(task: TinyTask, model: nn.Module, **options: Any) -> None:
        train(task, model, **options)
        trained.append(evaluate(partial(task.logits, model), task.held_out()).loss)

    monkeypatch.setattr("profiler.compression.low_rank.train", spied)
    pruned, merged = (subject_after(stages, tmp_path) for stages in ("prune", "prune + lora-merge:steps=3,lr=0.05"))

    before, after = (evaluate(subject.logits, subject.task.held_out()).loss for subject in (pruned, merged))
    assert trained == [pytest.approx(after, abs=1e-4)]
    assert abs(after - before) > 0.01


@pytest.mark.parametrize("cut", ["prune-structured", "layer-drop"])
def test_training_keeps_the_zeros_of_matrices_that_were_cut_or_moved_after_pruning(cut: str, tmp_path: Path) -> None:
    before, after = (subject_after(stages, tmp_path) for stages in (f"prune + {cut}", f"prune + {cut} + fine-tune:steps=1,lr=0.01"))

    for one, other in zip(before.matrices(), after.matrices(), strict=True):
        assert torch.equal(one.weight == 0, other.weight == 0)
        assert not torch.equal(one.weight, other.weight)


def test_a_layer_of_a_class_that_the_library_skips_is_told_and_a_tied_output_layer_makes_the_model_larger(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    class Gpt2(TinyTask):
        def build(self) -> nn.Module:
            return GPT2LMHeadModel(GPT2Config(vocab_size=256, n_positions=64, n_embd=32, n_layer=1, n_head=2)).eval()

    before = held_bytes(Gpt2().build())
    subject = subject_after("dynamic-int8", tmp_path, Gpt2())

    assert held_bytes(subject.model) == before + 256 * 32 + 16
    assert subject.notes[0] == "transformer.wte and lm_head shared a weight: the linear layer now has one of its own beside the other."
    assert subject.extra["num_layers_changed"] == 1


def test_a_technique_that_finds_nothing_to_do_says_so(tmp_path: Path) -> None:
    subject = subject_after("prune-structured", tmp_path, RecurrentTask())

    assert subject.notes == ["0 layers changed: this model has no feed-forward layers of a known kind."]


def test_torchaos_four_bits_leave_layers_alone_that_its_product_does_not_take(tmp_path: Path) -> None:
    subject = subject_after("int4-weight-only:dtype=float32,group=32", tmp_path, ClassifierTask())
    packed = 2 * (4 * 32 * 32 + 2 * 32 * 64) + 32 * 32
    """Of the blocks and the pooler; the classifier has four outputs."""

    assert held_bytes(subject.model) == held_bytes(ClassifierTask().build()) - 4 * packed + packed // 2 + packed // 32 * 8
    assert subject.notes == ["13 layers changed: linear layers of a multiple of 16 outputs and of 32 inputs."]


def test_layers_of_an_lstm_are_matrices_too(tmp_path: Path) -> None:
    weights = 4 * 48 * (32 + 48) + 4 * 48 * (48 + 48)
    biases = 2 * 2 * 4 * 48
    rest = 256 * 32 + 256

    pruned = subject_after("prune:amount=0.5", tmp_path, RecurrentTask())
    quantized = subject_after("dynamic-int8", tmp_path, RecurrentTask())

    assert sum(int((mask).sum()) for mask in pruned.masks.values()) == weights // 2
    assert held_bytes(quantized.model) == weights + 48 * 256 + (4 + 1) * 16 + 4 * (biases + rest)


def test_a_classifier_loses_the_neurons_and_blocks_that_a_hand_count_says(tmp_path: Path) -> None:
    before = held_bytes(ClassifierTask().build())
    neurons = 2 * 32 * (32 + 32 + 1)  # half of 64: a row in, a column out, a bias
    block = 4 * (32 * 32 + 32) + (32 * 64 + 64) + (64 * 32 + 32) + 2 * 2 * 32

    narrower = subject_after("prune-structured:amount=0.5", tmp_path, ClassifierTask())
    shallower = subject_after("layer-drop", tmp_path, ClassifierTask())

    assert held_bytes(narrower.model) == before - 4 * neurons
    assert held_bytes(shallower.model) == before - 4 * block
    for subject in (narrower, shallower):
        assert evaluate(subject.logits, subject.task.held_out()).loss > 0


def test_a_storage_that_two_tensors_share_counts_once_and_a_view_counts_in_full() -> None:
    module = nn.Module()
    module.whole = nn.Parameter(torch.zeros(100))
    module.register_buffer("part", module.whole.data[:3])
    module.plain = torch.zeros(50)[:1]
    module.deep = {"scales": [torch.zeros(7)]}

    assert held_bytes(module) == 4 * (100 + 50 + 7)
