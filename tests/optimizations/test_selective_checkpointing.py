"""Selective checkpointing keeps what its policy says, changes no gradient, and lies between all and nothing."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from profiler.analysis.timeline import Timeline
from profiler.errors import SpecError
from profiler.models.build import build_model
from profiler.optimizations.registry import setup_for, validate
from profiler.simulate.engine import simulate_job
from profiler.spec import Job, Model, Toggle, Workload
from profiler.storage import read_recording

LAYERS, TOKENS, HIDDEN, KV, INTERMEDIATE, HEADS = 4, 2 * 64, 256, 64, 768, 8
"""Of tiny-llama; keys and values have a quarter of the width."""
ITEMSIZE = 4
KINDS = ("attention", "every-second-matmul", "matmuls")


def job(*toggles: str, device: str = "cpu", model: str = "tiny-llama", seq: int = 64) -> Job:
    workload = Workload(batch=2, seq=seq, steps=1)
    return Job(model=Model(name=model), workload=workload, device=device, toggles=tuple(map(Toggle.parse, ("sgd", *toggles))))


def after_forward(folder: Path, wanted: Job) -> int:
    """Return the bytes allocated when the last forward ends."""
    simulate_job(wanted, folder / "simulated.headroom")
    recording = read_recording(folder / "simulated.headroom")
    line = Timeline.of(recording)
    ends = [mark["end_us"] for mark in recording.marks.to_pylist() if (mark["kind"], mark["name"]) == ("phase", "forward")]
    return int(line.total[np.searchsorted(line.blocks.event_us, ends[-1], side="right") - 1])


def test_what_is_kept_beside_the_inputs_is_what_the_policy_names(tmp_path: Path) -> None:
    """Of each layer: attention's result and its float32 log-sum-exp; the results of seven linear layers, or of three and four of them."""
    full = after_forward(tmp_path, job("checkpointing"))
    kept = {kind: (after_forward(tmp_path, job(f"selective-checkpointing:save={kind}")) - full) / LAYERS for kind in KINDS}

    attention = TOKENS * (HIDDEN + HEADS) * ITEMSIZE
    matmuls = [HIDDEN, KV, KV, HIDDEN, INTERMEDIATE, INTERMEDIATE, HIDDEN]  # q, k, v, o, gate, up, down
    assert kept["attention"] == attention
    assert kept["matmuls"] == attention + TOKENS * sum(matmuls) * ITEMSIZE
    assert kept["every-second-matmul"] == attention + TOKENS * sum(matmuls[1::2]) * ITEMSIZE


def test_where_attention_has_no_fused_kernel_the_recording_says_that_nothing_is_kept(tmp_path: Path) -> None:
    """On a GPU grouped queries in float32 have none; in bfloat16 it is flash."""
    notes = {}
    for precision in ("float32", "bfloat16"):
        metadata = simulate_job(job("selective-checkpointing", precision, device="rtx-4090"), tmp_path / "simulated.headroom")
        notes[precision] = [note for note in metadata.facts["notes"] if note.startswith("0 results kept")]

    assert (len(notes["float32"]), notes["bfloat16"]) == (1, [])


def test_each_policy_keeps_more_than_the_one_before(tmp_path: Path) -> None:
    wanted = ("checkpointing", *(f"selective-checkpointing:save={kind}" for kind in KINDS))
    ends = [after_forward(tmp_path, job(toggle, "bf16", device="rtx-4090")) for toggle in wanted]

    assert all(first < second for first, second in pairwise(ends))


def test_checkpointing_every_second_layer_saves_half_of_what_every_layer_does(tmp_path: Path) -> None:
    """As in torchao's published ladder (53.12, 40.6 and 28.07 GB): linear to 2 %."""
    none, half, full = (after_forward(tmp_path, job(*toggles, device="rtx-4090")) for toggles in ((), ("checkpointing:every=2",), ("ac",)))

    assert (none - half) / (none - full) == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_a_model_that_keeps_everything(kind: str) -> None:
    tokens = torch.randint(2, 4096, (2, 9))
    gradients = []
    for toggles in ((), (f"selective-checkpointing:save={kind}",)):
        torch.manual_seed(0)
        model = build_model(Model(name="tiny-llama")).train()
        for transform in setup_for(job(*toggles)).transforms:
            model = transform(model)
        model(input_ids=tokens, labels=tokens).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])

    torch.testing.assert_close(*gradients, rtol=0, atol=0)


@pytest.mark.parametrize("attention", ["eager", "math"])
def test_attention_that_is_no_operator_cannot_be_kept_as_one(attention: str) -> None:
    with pytest.raises(
        SpecError, match=f"and {attention} do not go together: .* Use selective-checkpointing:save=matmuls, or switch one of"
    ):
        validate(job("selective-checkpointing", attention))
    assert validate(job("selective-checkpointing:save=matmuls", attention))


def test_a_recurrent_model_has_no_layers_to_choose_from() -> None:
    with pytest.raises(
        SpecError, match="selective-checkpointing applies to the activations of layers of transformers, and tiny-lstm is recurrent"
    ):
        validate(job("selective-checkpointing", model="tiny-lstm"))
