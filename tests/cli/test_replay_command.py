"""The command that replays a recording's requests through the allocator's rules."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from profiler.recording import Role
from profiler.storage import write_recording
from tests import builders
from tests.cli.conftest import Import, Run, is_refused
from tests.formats import snapshots
from tests.formats.snapshots import BASE, MIB, History, block, segment


def fragmented() -> dict[str, Any]:
    """Eight blocks of 9 MiB, two a segment of 20 MiB; then the second and third are freed, and 18 MiB requested.

    In expandable segments the two holes touch, and 18 MiB fit in. Otherwise they need a segment of their own, and 98 MiB are reserved.
    """
    history, size = History(), 9 * MIB
    starts = [BASE + pair * 20 * MIB + half * size for pair in range(4) for half in range(2)]
    for number, start in enumerate(starts):
        if number % 2 == 0:
            history.add("segment_alloc", start, 20 * MIB, snapshots.BUILD)
        history.alloc(start, size, snapshots.BUILD)
    history.free(starts[1], size, snapshots.STEP).free(starts[2], size, snapshots.STEP)
    history.add("segment_alloc", BASE + 80 * MIB, 18 * MIB, snapshots.FORWARD).alloc(BASE + 80 * MIB, 18 * MIB, snapshots.FORWARD)
    live = [block(start, size, size) for start in starts]
    for freed in (1, 2):
        live[freed] |= {"state": "inactive", "requested_size": 0}
    rest = [block(BASE + pair * 20 * MIB + 2 * size, 2 * MIB, 0, "inactive") for pair in range(4)]
    pairs = [[live[0], {**live[1], "size": 11 * MIB}], [live[2], live[3], rest[1]], [*live[4:6], rest[2]], [*live[6:8], rest[3]]]
    segments = [segment(BASE + place * 20 * MIB, 20 * MIB, blocks) for place, blocks in enumerate(pairs)]
    whole = segment(BASE + 80 * MIB, 18 * MIB, [block(BASE + 80 * MIB, 18 * MIB, 18 * MIB)])
    return snapshots.snapshot([*segments, whole], [history.events])


def test_a_replay_as_recorded_reproduces_the_peaks(run: Run, recorded_training: Path) -> None:
    result = run("replay", recorded_training, "--json").json

    assert result["settings"] == "as recorded"
    assert result["provenance"] == "simulated"
    assert result["peak_reserved_bytes"] == 20 * MIB
    assert result["peak_allocated_bytes"] == 16 * MIB
    assert result["peak_requested_bytes"] == 15 * MIB
    assert result["num_segment_allocs"] == 1
    assert result["num_retries"] == 0
    assert result["oom"] is None
    assert result["fragmentation"]["external"] == 1 - 4 / 20, "when the segment came, only the weight was in it"


def test_the_settings_may_be_pasted_with_their_variable(run: Run, training: Path) -> None:
    result = run("replay", training, "--alloc-conf", 'export PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True"', "--json").json

    assert result["settings"] == "expandable_segments:True"


def test_a_snapshot_and_its_import_replay_alike(run: Run, training: Path) -> None:
    run("import", training, "--out", "t")
    conf = ("--alloc-conf", "expandable_segments:True", "--json")

    from_file, from_recording = run("replay", training, *conf).json, run("replay", "t.headroom", *conf).json

    assert from_file == from_recording
    assert from_file["peak_allocated_bytes"] == 15 * MIB, "blocks of expandable segments are split exactly and have no slack"


def test_a_card_that_is_too_small_says_what_and_where_and_what_helps(run: Run, imported: Import) -> None:
    path = imported(fragmented())
    plain = run("replay", path, "--json").json

    oom = run("replay", path, "--capacity", "90MiB", "--json").json["oom"]

    assert plain["peak_reserved_bytes"] == 98 * MIB
    assert plain["oom"] is None
    numbers = {name.removesuffix("_bytes"): value // MIB for name, value in oom.items() if name.endswith("_bytes")}
    assert numbers == {
        "requested": 18,
        "segment": 18,
        "capacity": 90,
        "reserved": 80,
        "allocated": 6 * 9,
        "largest_free": 11,
        "smallest_capacity": 98,
    }
    assert oom["frames"][0] == "/job/model.py:7:forward"
    assert sum(oom["categories_alive"].values()) == 6 * 9 * MIB
    assert oom["modules_alive"] == {"<module> (train.py:10) > torch: _apply": 6 * 9 * MIB}, "a snapshot has calls for modules"
    assert {"alloc_conf": "expandable_segments:True", "peak_reserved_bytes": 80 * MIB} in oom["remedies"]


def test_what_is_free_in_segments_that_are_partly_in_use_is_told(run: Run, imported: Import) -> None:
    """Four segments of 20 MiB hold six blocks of 9 MiB when the segment of 18 MiB comes."""
    path = imported(fragmented())

    assert run("replay", path, "--json").json["fragmentation"]["inactive_split_bytes"] == (80 - 54) * MIB
    assert "Inactive split was 26.0 MiB: free in segments that are partly in use" in run("replay", path).out


def test_a_terminal_is_told_how_far_replaying_and_trying_are(run: Run, imported: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    path = imported(fragmented())
    quiet = run("replay", path, "--capacity", "90MiB")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)

    told = run("replay", path, "--capacity", "90MiB")

    assert quiet.err == ""
    assert told.out == quiet.out
    assert "Replaying made.headroom: 100%" in run("replay", path).err
    shares = [int(share) for share in re.findall(r"Trying other settings: (\d+)%", told.err)]
    assert len(shares) > 2
    assert shares == sorted(shares)
    assert 0 < shares[0] <= shares[-1] <= 100
    assert told.err.endswith("\r\033[K"), "the line is wiped at the end"


def test_who_held_the_memory_is_printed_largest_first(run: Run, here: Path) -> None:
    tape = builders.Tape(device=0)
    for size, module in ((4, "small"), (40, "large"), (20, "")):
        tape.preexisting(size * MIB, roles=Role.PARAMETER, module=module or None)
    tape.alloc(80 * MIB, module="head")
    write_recording(tape.recording(), here / "made.headroom")

    lines = run("replay", "made.headroom", "--capacity", "100MiB").out.splitlines()

    first = lines.index("  Alive by category:")
    assert [line.split(maxsplit=2) for line in lines[first + 1 : first + 2]] == [["64.0", "MiB", "Parameter"]]
    assert [line.split(maxsplit=2) for line in lines[first + 3 : first + 6]] == [
        ["40.0", "MiB", "large"],
        ["20.0", "MiB", "outside of modules"],
        ["4.00", "MiB", "small"],
    ]


def test_the_remedy_that_is_named_helps(run: Run, imported: Import) -> None:
    path = imported(fragmented())

    tried = run("replay", path, "--capacity", "90MiB", "--alloc-conf", "expandable_segments:True", "--json").json

    assert tried["oom"] is None
    assert tried["peak_reserved_bytes"] == 80 * MIB
    assert "With expandable_segments:True it passes on this card and reserves 80.0 MiB." in run("replay", path, "--capacity", "90MiB").out


def test_an_out_of_memory_error_that_was_recorded_is_told(run: Run, imported: Import) -> None:
    data = snapshots.training()
    failed = History().add("oom", 0, 30 * MIB, snapshots.FORWARD, device_free=5 * MIB).events[0]
    del failed["addr"]
    data["device_traces"][0].append({**failed, "time_us": data["device_traces"][0][-1]["time_us"] + 1})

    path = imported(data)

    oom = run("replay", path, "--json").json["oom"]

    assert oom["requested_bytes"] == 30 * MIB
    assert (oom["reserved_bytes"], oom["device_free_bytes"], oom["capacity_bytes"]) == (20 * MIB, 5 * MIB, 25 * MIB)
    assert (oom["allocated_bytes"], oom["largest_free_bytes"], oom["segment_bytes"]) == (8 * MIB, 8 * MIB, 30 * MIB)
    assert [share["bytes"] for share in oom["unusable"]] == [12 * MIB]
    assert oom["remedies"] == [], "8 MiB are alive, 30 MiB were requested"
    assert "the recording implies 25.0 MiB for the allocator" in run("replay", path).out
    assert oom["frames"][0] == "/job/model.py:7:forward"
    assert oom["categories_alive"] == {"PARAMETER": 4 * MIB, "OPTIMIZER_STATE": 4 * MIB}


def test_an_error_that_a_replay_does_not_meet_is_told_and_not_explained(run: Run, imported: Import) -> None:
    data = snapshots.training()
    failed = History().add("oom", 0, 30 * MIB, snapshots.FORWARD, device_free=40 * MIB).events[0]
    data["device_traces"][0].append({**failed, "time_us": data["device_traces"][0][-1]["time_us"] + 1})
    path = imported(data)

    oom = run("replay", path, "--json").json["oom"]

    assert "remedies" not in oom
    assert oom["explanation"][1].startswith("Replayed with 60.0 MiB to reserve, the request passes")
    assert "the request passes: what made it fail is not in the recording" in run("replay", path).out


def test_segments_that_are_older_are_no_requests_where_an_error_was_recorded(run: Run, imported: Import) -> None:
    data = snapshots.training()
    failed = History().add("oom", 0, 30 * MIB, snapshots.FORWARD, device_free=5 * MIB).events[0]
    late = data["device_traces"][0][-4:]
    data["device_traces"] = [[*late, {**failed, "time_us": late[-1]["time_us"] + 1}]]

    result = run("replay", imported(data), "--json").json

    assert result["peak_reserved_bytes"] == 20 * MIB
    assert result["oom"]["reserved_bytes"] == 20 * MIB
    assert result["oom"]["allocated_bytes"] == 8 * MIB


def test_live_blocks_that_are_older_come_first_and_what_was_cached_does_not(run: Run, imported: Import) -> None:
    data = snapshots.training()
    data["device_traces"] = [data["device_traces"][0][-4:]]  # the state is there already, and so is the segment
    late = imported(data)

    as_it_was, tried = run("replay", late, "--json").json, run("replay", late, "--alloc-conf", "", "--json").json

    assert as_it_was["num_segment_allocs"] == 0
    assert as_it_was["peak_reserved_bytes"] == tried["peak_reserved_bytes"] == 20 * MIB
    assert tried["num_segment_allocs"] == 1
    assert tried["settings"] == "defaults"
    assert "cached before the recording began is left out" in tried["notes"][0]


def test_host_memory_is_replayed_as_if_a_gpu_served_it_and_says_so(run: Run, here: Path) -> None:
    write_recording(builders.small_training(), here / "cpu.headroom")

    result = run("replay", "cpu.headroom", "--json").json

    assert result["lane"] == "Host"
    assert result["peak_requested_bytes"] == 2_000
    assert result["peak_reserved_bytes"] == 2 * MIB
    assert "cuBLAS workspaces" in result["notes"][0]
    assert "does not say what was reserved" in result["notes"][1]


def test_how_exactly_a_card_is_known_is_a_note(run: Run, recorded_training: Path) -> None:
    said = "Out of memory is told to about 35 MiB of capacity"

    assert [note[: len(said)] for note in run("replay", recorded_training, "--capacity", "24MiB", "--json").json["notes"]] == [said]
    assert f"Note: {said}" in run("replay", recorded_training, "--capacity", "24MiB").out
    assert run("replay", recorded_training, "--json").json["notes"] == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--alloc-conf", "expandable_segment:True"), "Did you mean 'expandable_segments'"),
        (("--alloc-conf", "max_split_size_mb"), "name:value"),
        (("--alloc-conf", "expandable_segments:True", "--torch", "2.0"), "came with torch 2.1"),
        (("--torch", "two"), "2.0 to 2.13"),
        (("--torch", "1.13"), "2.0 to 2.13"),
        (("--capacity", "much"), "is not a size"),
        (("--capacity", "0"), "is not possible"),
        (("--device", "1"), "nothing of device 1 of rank 0"),
        (("--rank", "3"), "nothing of rank 3"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(run: Run, recorded_training: Path, options: tuple[str, ...], says: str) -> None:
    result = run("replay", recorded_training, *options)

    assert is_refused(result)
    assert says in result.err


def test_the_device_chooses_between_gpus(run: Run, imported: Import) -> None:
    one = snapshots.training()
    other = copy.deepcopy(one)
    other["segments"][0]["device"] = 1
    both = snapshots.snapshot(one["segments"] + other["segments"], [one["device_traces"][0], other["device_traces"][0][:4]])
    both["segments"][1] = segment(BASE, 20 * MIB, [block(BASE + n * 4 * MIB, 4 * MIB, 4 * MIB) for n in range(3)], device=1)
    two = imported(both)

    assert run("replay", two, "--json").json["lane"] == "GPU 0"
    assert run("replay", two, "--device", "1", "--json").json["peak_requested_bytes"] == 12 * MIB
