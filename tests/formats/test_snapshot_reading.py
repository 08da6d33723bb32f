"""Reading CUDA snapshots: what real files hold, every container, and what is refused."""

from __future__ import annotations

import base64
import copyreg
import gzip
import json
import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler.errors import FormatError, StorageError
from profiler.formats import containers, drain
from profiler.formats.history import ACTIONS
from profiler.formats.snapshot import Snapshot, read_snapshot
from profiler.formats.stacks import NO_STACK
from tests.formats.conftest import SNAPSHOTS
from tests.formats.snapshots import BASE, FORWARD, MIB, START, History, block, segment, snapshot, training, write


@pytest.mark.parametrize("row", SNAPSHOTS, ids=lambda row: row["file"])
def test_real_files_hold_what_is_known_of_them(row: dict[str, Any], recordings: Path) -> None:
    read = read_snapshot(recordings / row["file"])

    known = row["facts"]["devices"][0]
    (history,) = read.devices
    counts = {ACTIONS[code]: int(count) for code, count in zip(*np.unique(history.actions, return_counts=True), strict=True)}
    assert counts == known["actions"]
    assert len(history) == known["events"]
    assert sum(segment.bytes for segment in read.segments) == known["final_reserved"]
    active = [block for segment in read.segments for block in segment.blocks if block.status != "inactive"]
    assert len(active) == known["final_blocks_live"]
    assert sum(block.bytes for block in active) == known["final_active"]
    pools = {pool: sum(segment.pool == pool for segment in read.segments) for pool in ("large", "small")}
    assert pools == {"large": 0, "small": 0} | row["facts"]["segments"]
    assert any(segment.expandable for segment in read.segments) == row["facts"]["expandable"]


@pytest.mark.parametrize("row", SNAPSHOTS, ids=lambda row: row["file"])
def test_the_version_is_guessed_as_by_hand(row: dict[str, Any], recordings: Path) -> None:
    by_hand = row["facts"]["version_guess"].split(" (")[0]
    spoken = {"2.5/2.6": "2.5 or 2.6", "2.10 - 2.11": "2.10 or 2.11", "2.7 - 2.9": "2.7 to 2.9", "1.13 - 2.0": "1.13 or 2.0"}

    assert read_snapshot(recordings / row["file"]).torch_version_guess == spoken[by_hand]


def test_a_page_and_the_pickle_it_was_made_from_are_the_same(recordings: Path) -> None:
    page, plain = (read_snapshot(recordings / f"silmont_forward_ctx128.{kind}") for kind in ("html", "pickle"))

    assert _facts(page) == _facts(plain)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_reads_the_same(protocol: int, tmp_path: Path) -> None:
    reference = read_snapshot(write(tmp_path / "a.pickle", training()))

    assert _facts(read_snapshot(write(tmp_path / "b.pickle", training(), protocol))) == _facts(reference)


def test_a_gzipped_snapshot_and_a_page_read_the_same(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.pickle", training())
    (tmp_path / "a.pickle.gz").write_bytes(gzip.compress(plain.read_bytes()))
    embedded = json.dumps([{"name": "snapshot.pickle", "base64": base64.b64encode(plain.read_bytes() + b"\0\0").decode()}])
    (tmp_path / "a.html").write_text(f"\n<!DOCTYPE html>\n<script>const local_files = {embedded}</script>")

    facts = [_facts(read_snapshot(tmp_path / name)) for name in ("a.pickle", "a.pickle.gz", "a.html")]

    assert facts[0] == facts[1] == facts[2]


def test_columns_say_what_the_events_said(tmp_path: Path) -> None:
    read = read_snapshot(write(tmp_path / "a.pickle", training()))

    (history,) = read.devices
    assert [ACTIONS[code] for code in history.actions[:4]] == ["segment_alloc", "alloc", "alloc", "alloc"]
    assert history.addresses[1:4].tolist() == [BASE, BASE + 4 * MIB, BASE + 8 * MIB]
    assert history.sizes[:2].tolist() == [20 * MIB, 4 * MIB]
    assert history.times_us is not None
    assert history.times_us[:3].tolist() == [START, START + 10, START + 20]
    assert read.stack_text(int(history.stacks[2])).splitlines()[0] == "/job/model.py:7:forward"
    assert len(set(history.stacks.tolist())) == 5


def test_events_taken_while_reading_are_those_taken_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    histories = []
    for device in range(3):
        history = History()
        for number in range(9_000):
            history.alloc(BASE + number * 512, 512 + device, list(FORWARD)).free(BASE + number * 512, 512 + device)
        histories.append(history.events)
    path = write(tmp_path / "a.pickle", snapshot([], [*histories, []]))
    at_the_end = read_snapshot(path)
    taken: list[int] = []
    monkeypatch.setattr(drain, "_EVERY_BYTES", 2**16)
    monkeypatch.setattr(drain.Drain, "_take", _counting(drain.Drain._take, taken))

    while_reading = read_snapshot(path)

    assert len(taken) > 10
    assert _facts(while_reading) == _facts(at_the_end)
    assert [len(history) for history in while_reading.devices] == [27_000] * 3


def _counting(take: Callable[..., None], taken: list[int]) -> Callable[..., None]:
    def counted(self: drain.Drain, trace: list[Any]) -> None:
        taken.append(len(trace))
        take(self, trace)

    return counted


def test_out_of_memory_events_labels_and_pools_are_kept(tmp_path: Path) -> None:
    history = History(user_metadata="", compile_context="N/A", pool_id=(0, 0))
    history.alloc(BASE, 512, user_metadata="parameter").alloc(BASE + 512, 512, user_metadata="gradient", pool_id=(3, 1))
    history.add("oom", 0, 7 * MIB, device_free=3 * MIB)
    del history.events[-1]["addr"]

    (read,) = read_snapshot(write(tmp_path / "a.pickle", snapshot([], [history.events]))).devices

    assert read.device_free_bytes == {2: 3 * MIB}
    assert read.addresses.tolist() == [BASE, BASE + 512, -1]
    labels = read.labels["user_metadata"]
    assert [labels.names[code] if code >= 0 else None for code in labels.codes.tolist()] == ["parameter", "gradient", None]
    assert "compile_context" not in read.labels
    assert read.pools is not None
    assert [read.pools.names[code] for code in read.pools.codes.tolist()] == ["0,0", "3,1", "0,0"]


@pytest.mark.parametrize("said", [{}, {"device_free": None}, {"device_free": -1}, {"device_free": "3"}])
def test_an_error_that_does_not_say_what_was_free_leaves_that_open(tmp_path: Path, said: dict[str, Any]) -> None:
    history = History().alloc(BASE, 512).add("oom", 0, 7 * MIB, **said)

    (read,) = read_snapshot(write(tmp_path / "a.pickle", snapshot([], [history.events]))).devices

    assert read.device_free_bytes == {1: None}


def test_events_of_a_kind_that_is_not_known_are_left_out_and_said(tmp_path: Path) -> None:
    history = History().alloc(BASE, 512, user_metadata="first").add("teleport", BASE, 512).alloc(BASE + 512, 512, user_metadata="second")
    history.add("teleport", BASE, 512).add("oom", 0, 7 * MIB, device_free=3 * MIB)

    read = read_snapshot(write(tmp_path / "a.pickle", snapshot([], [history.events])))

    assert read.devices[0].addresses.tolist() == [BASE, BASE + 512, 0]
    labels = read.devices[0].labels["user_metadata"]
    assert [None if code < 0 else labels.names[code] for code in labels.codes] == ["first", "second", None]
    assert read.devices[0].device_free_bytes == {2: 3 * MIB}
    assert read.warnings == ["2 events of a kind that only newer torch versions write are not shown."]


def test_the_oldest_format_has_no_addresses_and_no_times(tmp_path: Path) -> None:
    old = {"size": 512, "requested_size": 100, "state": "active_allocated", "history": [{"addr": 1, "real_size": 90, "frames": FORWARD}]}
    data = {
        "segments": [segment(BASE, 2 * MIB, [old | {"requested_size": 100}])],
        "device_traces": [[{"action": "alloc", "addr": 5, "size": 6}]],
    }

    read = read_snapshot(write(tmp_path / "a.pickle", data))

    assert read.torch_version == (2, 0)
    assert read.devices[0].times_us is None
    assert read.devices[0].stacks.tolist() == [NO_STACK]
    assert read.segments[0].blocks[0].address is None
    assert read.stack_text(read.segments[0].blocks[0].stack).startswith("/job/model.py:7:forward")


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("it-ran",)


def test_a_file_that_wants_to_run_code_is_refused_with_what_it_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "evil.pickle", {"segments": [], "device_traces": [_Runs()]})

    with pytest.raises(FormatError, match=r"evil\.pickle tries to import posix\.mkdir|nt\.mkdir"):
        read_snapshot(path)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("opcodes", [b"cos\nsystem\n.", b"\x80\x04\x8c\x02os\x8c\x06system\x93.", b"(S'x'\nios\nsystem\n."])
def test_every_way_to_import_is_refused(opcodes: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.pickle"
    path.write_bytes(opcodes)

    with pytest.raises(FormatError, match=r"tries to import os\.system"):
        read_snapshot(path)


def test_persistent_ids_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pickle"
    path.write_bytes(b"Pthing\n.")

    with pytest.raises(FormatError, match="persistent id"):
        read_snapshot(path)


@pytest.mark.parametrize("opcode", [b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"])
def test_extension_codes_are_refused_even_where_one_was_used_before(opcode: bytes, tmp_path: Path) -> None:
    copyreg.add_extension("os", "mkdir", 0xF0)
    try:
        assert pickle.loads(b"\x80\x02\x82\xf0.") is os.mkdir
        path = tmp_path / "a.pickle"
        path.write_bytes(b"\x80\x02" + opcode + b"X\x04\x00\x00\x00dead\x85R.")
        with pytest.raises(FormatError, match=r"tries to import os\.mkdir"):
            read_snapshot(path)
    finally:
        copyreg.remove_extension("os", "mkdir", 0xF0)
        copyreg.clear_extension_cache()


def test_a_size_that_the_file_only_claims_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.pickle"
    path.write_bytes(b"\x80\x04\x8d" + (2**40).to_bytes(8, "little") + b"abc.")

    with pytest.raises(FormatError, match=r"announces 1,099,511,627,776 bytes more"):
        read_snapshot(path)


def test_gzip_that_unpacks_to_far_more_than_a_snapshot_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_MAX_EXPANSION", 3)
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(pickle.dumps({"segments": [], "x": "a" * 2**20})))

    with pytest.raises(FormatError, match="unpacks to at least"):
        read_snapshot(path)


def test_a_gzip_holds_what_it_unpacks_to(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"abc") + gzip.compress(b"defgh"))  # members one after the other are one file

    assert containers.inspect(path) == containers.Container("gzip", 8)

    path.write_bytes(gzip.compress(b"abcdefgh" * 2))  # the same path, another file

    assert containers.inspect(path) == containers.Container("gzip", 16)


def test_to_count_what_a_gzip_holds_takes_the_memory_of_a_piece(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(range(256)) * 8 + bytes(32 * MIB)))
    tracemalloc.start()
    with pytest.raises(FormatError, match="unpacks to at least"):
        containers.inspect(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak_bytes < 2 * MIB


def test_a_truncated_gzip_is_told_when_it_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(pickle.dumps(training()))[:-12])

    with pytest.raises(FormatError, match=r"a\.gz is truncated or damaged"):
        containers.inspect(path)


def test_every_beginning_of_a_file_is_refused_in_words(tmp_path: Path) -> None:
    whole = pickle.dumps(training(), 4)
    path = tmp_path / "a.pickle"
    for length in range(1, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=r"a\.pickle"):
            read_snapshot(path)


def _broken(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    data = training()
    change(data)
    return data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("segments"), "has no segments"),
        (lambda d: d.update(device_traces=7), "device_traces is not a list"),
        (lambda d: d["device_traces"].append({}), "history of device 1 is not a list"),
        (lambda d: d["device_traces"][0].append(5), "is not a dictionary"),
        (lambda d: d["device_traces"][0][3].pop("action"), "event 3 has no action"),
        (lambda d: d["device_traces"][0][3].update(size="big"), "event 3 has a size that is no whole number"),
        (lambda d: d["device_traces"][0][3].update(size=2**51), "event 3 has an impossible size"),
        (lambda d: d["device_traces"][0][3].update(addr=-5), "event 3 has an impossible addr"),
        (lambda d: d["device_traces"][0][3].update(addr=2**70), "over 64 bits"),
        (lambda d: d["device_traces"][0][3].update(size=True), "no whole number"),
        (lambda d: d["device_traces"][0][3].update(frames="x"), "frames are not a list"),
        (lambda d: d["device_traces"][0][3].update(frames=["x"]), "a frame is not a dictionary"),
        (lambda d: d["device_traces"][0][3].update(frames=[{"name": "f"}]), "no file, line or function"),
        (lambda d: d["segments"].append([]), "segment 1 has no list of blocks"),
        (lambda d: d["segments"][0].update(total_size=-1), "segment 0 has no total_size"),
        (lambda d: d["segments"][0]["blocks"][0].update(state="liquid"), "is in no known state"),
        (lambda d: d["segments"][0]["blocks"][0].update(size=2**40), "outside of its segment"),
        (lambda d: d["segments"][0]["blocks"][0].update(address=0), "outside of its segment"),
        (lambda d: d.update(external_annotations=[{"name": "x"}]), "external annotation 0"),
    ],
)
def test_a_field_that_is_not_as_torch_writes_it_is_named(change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.pickle", _broken(change))

    with pytest.raises(FormatError, match=message) as caught:
        read_snapshot(path)
    assert "a.pickle" in str(caught.value)


def test_an_event_that_is_used_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History().alloc(BASE, 512)
    path = write(tmp_path / "a.pickle", snapshot([], [history.events, history.events[:]]))

    with pytest.raises(FormatError, match="no action"):
        read_snapshot(path)


def test_settings_keep_only_plain_values(tmp_path: Path) -> None:
    data = training()
    data["allocator_settings"] |= {"deep": {"1": 0, "x": [1]}, "list": [1, 2], 5: 6, "long": "x" * 20_000}

    settings = read_snapshot(write(tmp_path / "a.pickle", data)).settings

    assert settings["deep"] == {"1": 0}
    assert not {"list", 5, "long"} & settings.keys()


def test_a_file_that_is_not_there_or_empty_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        read_snapshot(tmp_path / "none.pickle")
    (tmp_path / "empty.pickle").touch()
    with pytest.raises(FormatError, match="is empty"):
        read_snapshot(tmp_path / "empty.pickle")
    (tmp_path / "page.html").write_text("<html>nothing</html>")
    with pytest.raises(FormatError, match="web page without a snapshot"):
        read_snapshot(tmp_path / "page.html")


def test_blocks_of_two_devices_stay_apart(tmp_path: Path) -> None:
    segments = [segment(BASE, 2 * MIB, [block(BASE, 512, 100)]), segment(BASE, 2 * MIB, [block(BASE, 1024, 700)], device=1)]

    read = read_snapshot(write(tmp_path / "a.pickle", snapshot(segments, [[], []])))

    assert [(found.device, found.blocks[0].requested_bytes) for found in read.segments] == [(0, 100), (1, 700)]
    assert read.devices == []


def _facts(read: Snapshot) -> Any:
    columns = ("actions", "addresses", "sizes", "streams", "times_us", "stacks")
    histories = [
        [history.device, *(None if getattr(history, name) is None else getattr(history, name).tolist() for name in columns)]
        for history in read.devices
    ]
    return histories, read.segments, read.frames, read.stacks, read.settings, read.external_annotations
