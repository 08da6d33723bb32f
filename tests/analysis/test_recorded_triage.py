"""Why a recorded request failed: what was free and of no use, on snapshots made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from profiler.allocator.recorded_ooms import RecordedOom, oom_facts
from profiler.analysis.recorded_triage import triage_recording
from profiler.formats.convert import to_recording
from profiler.formats.snapshot import read_snapshot
from profiler.formats.triage import Triage
from profiler.recording import Role
from tests import builders
from tests.formats import snapshots
from tests.formats.snapshots import BASE, MIB, NONE, START, block, segment, snapshot, write
from tests.gpu_programs import run_on_gpu

OTHER = BASE + 2**30
SMALL = BASE + 2**31


def event(action: str, address: int, size: int, time: int, **more: Any) -> dict[str, Any]:
    return {"action": action, "addr": address, "size": size, "stream": 0, "time_us": START + time, "frames": NONE, **more}


def failed(tmp_path: Path, requested_bytes: int, *, free: int = 0, settings: dict[str, Any] | None = None) -> Triage:
    """Memory runs out with 10 of 20 MiB held; 10 are free, 30 of another stream too, and 1 of the small pool; 40 were let go."""
    history = [
        event("segment_alloc", BASE, 20 * MIB, 0),
        event("alloc", BASE, 10 * MIB, 1),
        event("segment_alloc", OTHER, 40 * MIB, 2, stream=7),
        event("alloc", OTHER, 10 * MIB, 3, stream=7),
        event("segment_alloc", SMALL, 2 * MIB, 4),
        event("alloc", SMALL, MIB, 5),
        event("segment_alloc", SMALL + 2**30, 40 * MIB, 6),
        event("alloc", SMALL + 2**30, 40 * MIB, 7),
        event("free_requested", SMALL + 2**30, 40 * MIB, 8),
        event("free_completed", SMALL + 2**30, 40 * MIB, 9),
        event("segment_free", SMALL + 2**30, 40 * MIB, 10),
        {name: value for name, value in event("oom", 0, requested_bytes, 11, device_free=free).items() if name != "addr"},
    ]
    held = [
        segment(BASE, 20 * MIB, [block(BASE, 10 * MIB, 10 * MIB), block(BASE + 10 * MIB, 10 * MIB, 0, "inactive")]),
        segment(OTHER, 40 * MIB, [block(OTHER, 10 * MIB, 10 * MIB), block(OTHER + 10 * MIB, 30 * MIB, 0, "inactive")], stream=7),
        segment(SMALL, 2 * MIB, [block(SMALL, MIB, MIB), block(SMALL + MIB, MIB, 0, "inactive")]),
    ]
    data = snapshot(held, [history])
    data["allocator_settings"] |= settings or {}
    return triage_recording(to_recording(read_snapshot(write(tmp_path / "failed.pickle", data))))


def test_free_memory_is_told_by_why_it_was_of_no_use(tmp_path: Path) -> None:
    said = failed(tmp_path, 12 * MIB)

    assert said.verdict == (
        "12.0 MiB could not be had on GPU 0: tensors held 21.0 MiB of 62.0 MiB that PyTorch had reserved, and the driver had 0 B left."
    ), "what was given back before the request failed is not reserved"
    assert said.explanation[-4:] == (
        "The largest free block that could be used was 10.0 MiB.",
        "30.0 MiB were free but kept for another stream.",
        "10.0 MiB were free but in pieces smaller than the request, in segments that are partly in use.",
        "1.00 MiB were free but in the pool of the other size class (small: up to 1 MiB, large: above).",
    )


def test_expandable_segments_are_suggested_where_pieces_would_have_been_enough(tmp_path: Path) -> None:
    def suggests(*arguments: Any, **more: Any) -> bool:
        return "expandable_segments" in failed(tmp_path, *arguments, **more).suggestions[0]

    assert suggests(12 * MIB, free=2 * MIB), "10 MiB in pieces and 2 of the driver"
    assert not suggests(12 * MIB, free=MIB), "another stream's memory is of no use to them either"
    assert not suggests(12 * MIB, free=2 * MIB, settings={"expandable_segments": True})


def test_the_setting_that_a_replay_passes_under_is_suggested_first() -> None:
    # Two segments of 20 MiB of which half is freed: of the 50 MiB there are, 18 fit where pages can be put together, 50 do not.
    begin = [("alloc", 9 * MIB, 0)] * 4 + [("free", 1, 0)] * 2

    def first(requested_mib: int) -> str:
        facts = oom_facts([RecordedOom(0, requested_mib * MIB, 10 * MIB)])
        program = [*begin, ("alloc", requested_mib * MIB, 0)]
        return triage_recording(run_on_gpu(program, capacity_bytes=50 * MIB, facts=facts).recording).suggestions[0]

    assert first(18) == (
        "Set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True before Python starts: replayed under it, the request passes."
    )
    assert first(48).startswith("Use a smaller micro-batch")


def test_a_block_that_was_large_enough_is_told_apart(tmp_path: Path) -> None:
    said = failed(tmp_path, 9 * MIB).explanation

    assert "10.0 MiB were free but in blocks that were large enough, but of a private pool or not to be split." in said


def test_the_last_error_of_any_memory_is_meant(tmp_path: Path) -> None:
    data = snapshots.training()
    data["device_traces"].append([{name: v for name, v in event("oom", 0, MIB, 10_000, device_free=3).items() if name != "addr"}])

    said = triage_recording(to_recording(read_snapshot(write(tmp_path / "two.pickle", data))))

    assert said.facts.device == 1
    assert said.facts.free_bytes == 3
    assert said.facts.unallocated_bytes is None


def test_names_of_modules_stay_in_their_cells_and_private_ones_out() -> None:
    tape = builders.Tape(device=0)
    for name in ("a|b`c\n<x>", "secret"):
        tape.alloc(MIB, roles=Role.SAVED, module=name)

    markdown = triage_recording(tape.recording(), names=("secret",)).to_markdown()

    assert "| a\\|b'c &lt;x> | 1.00 MiB |" in markdown
    assert "secret" not in markdown


def test_a_recording_without_events_has_no_peak() -> None:
    said = triage_recording(builders.Tape().recording())

    assert said.alive == {}
    assert said.explanation == ()
