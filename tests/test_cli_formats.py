"""The commands about other people's files: what they print, what they write, and what they refuse."""

from __future__ import annotations

import copy
import gzip
import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from profiler.cli import main
from profiler.formats.convert import to_recording
from profiler.formats.snapshot import read_snapshot
from profiler.recording import Category
from profiler.storage import read_recording, write_recording
from tests import builders
from tests.conftest import ROOT
from tests.formats import snapshots
from tests.formats.snapshots import BASE, MIB, History, block, segment, write

RECORDINGS = ROOT.parent / "shared" / "recordings"
INDEX = RECORDINGS / "index.json"
REAL = [row for row in json.loads(INDEX.read_text(encoding="utf-8")) if "devices" in row.get("facts", {})] if INDEX.exists() else []
MESSAGE = """
  File "/data/ada/secret/train.py", line 3
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 501.00 MiB. GPU 0 has a total capacity of 23.69 GiB of which 210.00 MiB is \
free. Including non-PyTorch memory, this process has 23.40 GiB memory in use. Of the allocated memory 21.00 GiB is allocated by PyTorch, \
and 2.00 GiB is reserved by PyTorch but unallocated."""


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]
Import = Callable[[dict[str, Any]], Path]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""

    def call(*arguments: str | Path) -> Result:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Import:
    """Return the recording file of a snapshot, made in this process: a worker takes half a second to start."""

    def make(data: dict[str, Any]) -> Path:
        folder = tmp_path_factory.mktemp("imported")
        recording = to_recording(read_snapshot(write(folder / "made.pickle", data)))
        write_recording(recording, folder / "made.headroom")
        return folder / "made.headroom"

    return make


@pytest.fixture(scope="session")
def recorded_training(imported: Import) -> Path:
    """The recording of `training`."""
    return imported(snapshots.training())


@pytest.fixture
def training(here: Path) -> Path:
    """A snapshot of one training step: 16 MiB allocated at the peak, in one segment of 20 MiB."""
    return write(here / "training.pickle", snapshots.training())


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


def is_refused(result: Result) -> bool:
    return result.code == 2 and not result.out and result.err.startswith("headroom: ") and result.err.count("\n") == 1


# import


def test_a_snapshot_is_imported_and_shown(run: Run, training: Path, here: Path) -> None:
    result = run("import", training, "--out", "t.headroom", "--json")

    assert result.code == 0
    assert result.json["provenance"] == "imported"
    assert result.json["peak_allocated_bytes"] == 16 * MIB
    assert result.json["path"] == "t.headroom"
    assert sum(rule["peak_bytes"] for rule in result.json["category_rules"]) == 16 * MIB
    shown = run("show", "t.headroom", "--json").json
    assert shown["categories_at_peak"] == result.json["categories_at_peak"]
    assert shown["id"] == result.json["id"] == read_recording(here / "t.headroom").id


def test_the_suffix_of_the_recording_is_added(run: Run, training: Path, here: Path) -> None:
    assert run("import", training, "--out", "kept").code == 0
    assert (here / "kept.headroom").exists()


def test_a_gzipped_snapshot_is_imported_as_the_plain_one(run: Run, training: Path, here: Path) -> None:
    packed = here / "training.pickle.gz"
    packed.write_bytes(gzip.compress(training.read_bytes()))

    plain, gzipped = (run("import", path, "--out", f"{path.name}.headroom", "--json").json for path in (training, packed))

    assert gzipped["categories_at_peak"] == plain["categories_at_peak"]


def test_a_recording_in_progress_is_imported_as_a_file(run: Run, here: Path) -> None:
    from profiler.storage import RecordingWriter

    recording = builders.small_training()
    writer = RecordingWriter(here / "mine.headroom")
    writer.describe(recording.metadata)
    writer.add("events", recording.events)

    assert run("import", "mine.partial", "--out", "whole").code == 0
    assert len(read_recording(here / "whole.headroom").events) == len(recording.events)


def test_a_folder_is_imported_as_one_recording_with_a_rank_a_file(run: Run, here: Path) -> None:
    (here / "run").mkdir()
    later = snapshots.training()
    for event in later["device_traces"][0]:
        event["time_us"] += 1_000
    write(here / "run" / "snapshot_rank10.pickle", later)
    write(here / "run" / "snapshot_rank2.pickle", snapshots.training())
    (here / "run" / "notes.txt").write_text("not read", encoding="utf-8")

    result = run("import", "run", "--out", "both", "--json").json

    assert result["title"] == "run · 2 ranks · CUDA snapshots"
    assert result["lanes"] == ["GPU 0, rank 2", "GPU 0, rank 10"]
    assert result["peak_allocated_bytes"] == 16 * MIB
    events = read_recording(here / "both.headroom").events
    times = dict(zip(events["rank"].to_pylist()[::-1], events["time_us"].to_pylist()[::-1], strict=True))
    assert times[10] - times[2] == 1_000
    for rank in (2, 10):
        assert run("replay", "both.headroom", "--rank", str(rank), "--json").json["peak_reserved_bytes"] == 20 * MIB


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.pickle", b"", "is empty"),
        ("text.pickle", b"hello", "is not a CUDA memory snapshot"),
        ("trace.json", b'{"traceEvents": []}', "is not a CUDA memory snapshot"),
        ("page.html", b"<html></html>", "without a snapshot"),
        ("list.pickle", pickle.dumps([1, 2]), "not a CUDA memory snapshot"),
        ("cut.pickle", pickle.dumps(snapshots.training(), 4)[:-40], "cut.pickle"),
        ("cut.headroom", b"PK", "is not a Headroom recording"),
    ],
)
def test_a_file_that_is_none_is_refused_and_nothing_written(run: Run, here: Path, name: str, content: bytes, says: str) -> None:
    (here / name).write_bytes(content)

    result = run("import", name, "--out", "x.headroom")

    assert is_refused(result)
    assert says in result.err
    assert not list(here.glob("*x.headroom*"))


def test_a_file_that_would_run_something_is_refused_and_does_not(run: Run, here: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(here / "executed"),)

    (here / "hostile.pickle").write_bytes(pickle.dumps({"segments": Hostile()}))

    for command in (("import", "--out", "x.headroom"), ("replay",), ("export", "--to", "trace", "--out", "y")):
        result = run(command[0], "hostile.pickle", *command[1:])
        assert is_refused(result)
        assert "mkdir" in result.err
    assert sorted(path.name for path in here.iterdir()) == ["hostile.pickle"]


@pytest.mark.parametrize("name", ["missing.pickle", "missing.headroom", "missing"])
def test_a_file_that_is_not_there_is_refused(run: Run, name: str) -> None:
    result = run("replay", name)

    assert is_refused(result)
    assert "No such file" in result.err


def test_a_folder_without_snapshots_is_refused_and_says_what_is_looked_for(run: Run, here: Path) -> None:
    (here / "empty").mkdir()

    result = run("import", "empty", "--out", "x")

    assert is_refused(result)
    assert "0 snapshots" in result.err
    assert "*.pickle" in result.err


def test_two_files_of_one_rank_are_refused(run: Run, here: Path) -> None:
    (here / "run").mkdir()
    for name in ("a_rank0.pickle", "b_rank0.pickle"):
        write(here / "run" / name, snapshots.training())

    assert "several snapshots of one rank" in run("replay", "run").err


def test_a_pipe_is_refused_instead_of_waited_for(run: Run, here: Path) -> None:
    os.mkfifo(here / "pipe.pickle")

    assert "neither a file nor a folder" in run("replay", "pipe.pickle").err


def test_the_model_tells_parameters_among_what_is_older(run: Run, here: Path) -> None:
    size = 512 * 512 * 4
    old = block(BASE, size, size)
    config = {"model_type": "lstm", "vocab_size": 512, "hidden_size": 512, "num_hidden_layers": 1}
    (here / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write(here / "old.pickle", snapshots.snapshot([segment(BASE, 2 * MIB, [old, block(BASE + MIB, MIB, 0, "inactive")])], [[]]))

    assert set(run("import", "old.pickle", "--out", "a", "--json").json["categories_at_peak"]) == {"UNKNOWN"}
    assert set(run("import", "old.pickle", "--out", "b", "--model", "config.json", "--json").json["categories_at_peak"]) == {"PARAMETER"}
    assert "Did you mean 'gpt2'" in run("import", "old.pickle", "--out", "c", "--model", "gtp2").err


# replay


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
    assert {"alloc_conf": "expandable_segments:True", "peak_reserved_bytes": 80 * MIB} in oom["remedies"]


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

    oom = run("replay", imported(data), "--json").json["oom"]

    assert oom["requested_bytes"] == 30 * MIB
    assert oom["frames"][0] == "/job/model.py:7:forward"
    assert oom["categories_alive"] == {"PARAMETER": 4 * MIB, "OPTIMIZER_STATE": 4 * MIB}


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
    assert "does not say what was reserved" in result["notes"][0]


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


# export


def test_an_exported_snapshot_replays_to_the_same_peaks(run: Run, recorded_training: Path) -> None:
    assert run("export", recorded_training, "--to", "snapshot", "--out", "again.pickle", "--json").json["path"] == "again.pickle"

    first, second = (run("replay", path, "--json").json for path in (recorded_training, "again.pickle"))

    assert {name: first[name] for name in first if name.startswith("peak")} == {
        name: second[name] for name in second if name.startswith("peak")
    }


def test_an_exported_snapshot_says_the_category_beside_each_allocation(run: Run, here: Path) -> None:
    write_recording(builders.small_training(), here / "cpu.headroom")
    run("export", "cpu.headroom", "--to", "snapshot", "--out", "s.pickle")

    traces = pickle.loads((here / "s.pickle").read_bytes())["device_traces"]

    labels = {event["user_metadata"] for trace in traces for event in trace if event["action"] == "alloc"}
    assert {Category.GRADIENT.label, Category.LOGITS.label, Category.INPUT.label} <= labels


def test_an_exported_trace_counts_memory_by_category(run: Run, here: Path) -> None:
    write_recording(builders.small_training(), here / "cpu.headroom")
    run("export", "cpu.headroom", "--to", "trace", "--out", "t.json.gz")

    events = json.loads(gzip.decompress((here / "t.json.gz").read_bytes()))["traceEvents"]

    counters = [event for event in events if event["ph"] == "C"]
    assert {event["name"] for event in counters} == {"Allocated, Host"}
    assert max(sum(event["args"].values()) for event in counters[1:]) >= 2_000
    assert {"Parameter", "Optimizer state"} <= counters[-1]["args"].keys()


@pytest.mark.parametrize("out", ["no/such/folder.pickle", "."])
def test_an_export_that_cannot_be_written_leaves_nothing(run: Run, recorded_training: Path, here: Path, out: str) -> None:
    result = run("export", recorded_training, "--to", "snapshot", "--out", out)

    assert result.code == 2
    assert "cannot be written" in result.err
    assert not list(here.iterdir())


# explain


def test_a_message_is_explained_as_markdown_without_whose_it_is(run: Run) -> None:
    result = run("explain", "--text", MESSAGE, "--hide", "train")

    assert result.code == 0
    assert "501 MiB" in result.out
    assert "expandable_segments:True" in result.out
    for private in ("ada", "secret", "/data", "train.py"):
        assert private not in result.out


def test_a_log_file_is_explained_by_its_end(run: Run, here: Path) -> None:
    (here / "log.txt").write_text("step 1\n" * 100_000 + MESSAGE, encoding="utf-8")

    facts = run("explain", "log.txt", "--json").json["facts"]

    assert facts["requested_bytes"] == 501 * MIB
    assert facts["unallocated_bytes"] == 2 * 1024 * MIB


def test_a_piped_message_is_explained(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(MESSAGE))

    assert run("explain", "-", "--json").json["facts"]["requested_bytes"] == 501 * MIB


def test_the_model_names_the_tensor_of_the_requested_size(run: Run) -> None:
    # 4 x 1,024 x 50,257 logits in bfloat16 are 392.6 MiB, which the driver is asked for as 394 MiB.
    text = MESSAGE.replace("501.00 MiB", "394.00 MiB")

    result = run("explain", "--text", text, "--model", "gpt2", "--batch", "4", "--seq", "1024", "--json").json

    assert any("logits" in name and "4 x 1,024 x 50,257" in name for name in result["tensors"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--text", "all is well"), "no out-of-memory message"),
        (("missing.log",), "No such file"),
        (("--text", MESSAGE, "--model", "gtp2"), "Did you mean 'gpt2'"),
        ((), "required"),
        (("a.log", "--text", MESSAGE), "not allowed with"),
    ],
)
def test_a_text_that_cannot_be_explained_is_refused(run: Run, arguments: tuple[str, ...], says: str) -> None:
    result = run("explain", *arguments)

    assert is_refused(result)
    assert says in result.err


def test_a_snapshot_is_no_text_and_says_what_reads_it(run: Run, training: Path) -> None:
    assert "`replay`" in run("explain", training).err


# diff


def test_what_is_alive_in_one_snapshot_and_not_in_the_other_is_listed_by_call(run: Run, recorded_training: Path, imported: Import) -> None:
    leaked = snapshots.training()
    gradient = BASE + 8 * MIB
    leaked["device_traces"][0] = leaked["device_traces"][0][:-2]
    blocks = [block(BASE + n * 4 * MIB, 4 * MIB, 4 * MIB) for n in (0, 2, 3)]
    blocks.insert(1, block(BASE + 4 * MIB, 4 * MIB, 0, "inactive"))
    leaked["segments"] = [segment(BASE, 20 * MIB, [*blocks, block(BASE + 16 * MIB, 4 * MIB, 0, "inactive")])]
    leak = imported(leaked)

    result = run("diff", recorded_training, leak, "--json").json

    assert gradient == blocks[2]["address"]
    assert result["before_bytes"] == result["same_bytes"] == 8 * MIB
    assert result["more_bytes"] == 4 * MIB
    assert result["less_bytes"] == 0
    (row,) = result["rows"]
    assert row["num_before"] == 0
    assert row["num_after"] == 1
    assert "backward" in row["origin"]
    assert row["difference_bytes"] == 4 * MIB
    assert "+4.00 MiB  0 -> 1 blocks of 4.00 MiB · Gradient" in run("diff", recorded_training, leak).out


def test_a_recording_does_not_differ_from_itself(run: Run, recorded_training: Path) -> None:
    result = run("diff", recorded_training, recorded_training, "--at", "peak", "--json").json

    assert result["same_bytes"] == result["before_bytes"] == 16 * MIB
    assert result["rows"] == []


def test_a_memory_that_one_of_them_does_not_have_is_refused(run: Run, recorded_training: Path) -> None:
    result = run("diff", recorded_training, recorded_training, "--device", "-1")

    assert is_refused(result)
    assert "It has: --device 0 --rank 0" in result.err


def test_a_negative_limit_is_refused(run: Run, recorded_training: Path) -> None:
    assert is_refused(run("diff", recorded_training, recorded_training, "--limit", "-1"))


# The real recordings


@pytest.fixture
def recordings() -> Path:
    if INDEX.exists():
        return RECORDINGS
    if os.environ.get("CI") == "true":
        pytest.fail("The folder of real recordings is missing beside the project; CI must test with it.")
    pytest.skip("The folder of real recordings is not beside the project.")


@pytest.mark.parametrize("row", REAL or [{}], ids=lambda row: row.get("file", "none"))
def test_a_real_snapshot_is_imported_shown_and_replayed_to_its_known_peak(run: Run, recordings: Path, row: dict[str, Any]) -> None:
    assert run("import", recordings / row["file"], "--out", "real", "--json").code == 0
    shown = run("show", "real.headroom", "--json").json

    for facts in row["facts"]["devices"]:
        replayed = run("replay", "real.headroom", "--device", str(facts["device"]), "--json").json
        assert replayed["peak_reserved_bytes"] == facts["peak_reserved"]
        assert replayed["peak_requested_bytes"] == facts["peak_requested"]
        assert replayed["peak_allocated_bytes"] == shown["peak_allocated_bytes"]
    assert sum(shown["categories_at_peak"].values()) == shown["peak_allocated_bytes"]
