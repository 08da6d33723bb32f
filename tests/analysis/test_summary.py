"""The summary that lists and ``show --json`` print, and the sentences beside it."""

from __future__ import annotations

import json

from hypothesis import given

from profiler.analysis.explain import explain
from profiler.analysis.summary import summarize
from profiler.analysis.timeline import Timeline
from profiler.recording import EVENTS, Phase, Recording, Role
from tests.analysis.histories import recordings
from tests.builders import MIB, Tape, metadata, small_training


def test_the_summary_of_a_training_has_the_hand_counted_numbers() -> None:
    summary = summarize(small_training())

    assert summary["peak_allocated_bytes"] == 2000
    assert summary["peak_at"] == {"step": 1, "phase": "backward", "event": 22, "time_us": 220.0}
    assert sum(summary["categories_at_peak"].values()) == 2000
    assert (summary["weights_bytes"], summary["states_bytes"]) == (400, 800)
    assert (summary["steps"], summary["warmup_steps"], summary["provenance"]) == ([0, 1, 2], 1, "measured")


@given(recordings())
def test_every_summary_is_json_and_its_categories_sum_to_the_peak(recording: Recording) -> None:
    summary = summarize(recording)

    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert sum(summary["categories_at_peak"].values()) == summary["peak_allocated_bytes"]
    assert 0 not in summary["categories_at_peak"].values()


def test_inference_has_no_states() -> None:
    tape = Tape()
    tape.preexisting(10, roles=Role.PARAMETER)
    for step in range(2):
        with tape.step(step), tape.phase(Phase.PREFILL):
            tape.free(tape.alloc(5))

    assert summarize(tape.recording(warmup_steps=1))["states_bytes"] is None


def test_unmatched_frees_are_a_warning() -> None:
    tape = Tape()
    tape.free(tape.alloc(5))
    tape.alloc(1)
    del tape.rows[0]

    assert summarize(tape.recording(warnings=["one"]))["warnings"] == [
        "one",
        "1 blocks were freed whose birth is not in the recording; totals leave them out.",
    ]


def test_an_empty_recording_has_a_summary() -> None:
    summary = summarize(Recording(metadata=metadata(), events=EVENTS.empty_table()))

    assert (summary["num_events"], summary["peak_allocated_bytes"], summary["peak_at"]) == (0, 0, None)


def test_the_sentences_of_a_training_name_its_peak_and_what_stays() -> None:
    assert explain(Timeline.of(small_training())) == [
        "The peak, 1.95 KiB, is in step 1, in backward: 40 % optimizer state, 20 % parameters and 20 % gradients.",
        "The largest block then is 800 B of optimizer state of exp_avg.",
        "1.17 KiB is there at every moment after the warm-up; the other 800 B (40 % of the peak) comes and goes.",
        "The optimizer step reaches 1.63 KiB, 330 B below the peak: saving more than that in backward alone moves the peak there.",
    ]


def test_what_is_kept_from_step_to_step_is_said() -> None:
    tape = Tape()
    for step in range(4):
        with tape.step(step), tape.phase(Phase.FORWARD):
            tape.alloc(MIB)

    sentences = explain(Timeline.of(tape.recording()))

    assert "What is left at the end of a step grows by 1.00 MiB each step, over 4 steps: something is kept." in sentences
    assert "4.00 MiB of the peak (100 %) could not be attributed." in sentences


@given(recordings())
def test_sentences_are_sentences_for_any_recording(recording: Recording) -> None:
    for sentence in explain(Timeline.of(recording)):
        assert sentence.endswith(".")
        assert "nan" not in sentence
