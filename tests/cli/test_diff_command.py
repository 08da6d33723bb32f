"""The command that compares what is alive in two recordings."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Import, Run, is_refused
from tests.formats import snapshots
from tests.formats.snapshots import BASE, MIB, block, segment


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
