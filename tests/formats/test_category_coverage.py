"""The benchmark that says how much of the peak each category rule names."""

from __future__ import annotations

from pathlib import Path

from benchmarks.category_coverage import in_all, measure
from profiler.formats.rules import read_rules
from tests.formats.snapshots import BASE, MIB, START, History, block, segment, snapshot, training, write


def _unmarked(path: Path, *, marked: bool) -> Path:
    """Write a block of 2 MiB without a stack, of which a mark of the optimizer's step is all that tells something."""
    marks = [
        {"stage": stage, "name": "Optimizer.step#Adam.step", "device": 0, "time_us": START + at}
        for stage, at in (("START", 5), ("END", 99))
    ]
    history = History().add("segment_alloc", BASE, 2 * MIB).alloc(BASE, 2 * MIB)
    blocks = [block(BASE, 2 * MIB, 2 * MIB)]
    return write(path, snapshot([segment(BASE, 2 * MIB, blocks)], [history.events], external_annotations=marks if marked else []))


def test_what_no_rule_names_is_no_part_of_the_share(tmp_path: Path) -> None:
    whole = measure(write(tmp_path / "a.pickle", training()), read_rules())
    nothing = measure(_unmarked(tmp_path / "b.pickle", marked=False), read_rules())

    assert (whole["named_share"], whole["peak_bytes"]) == (1, 16 * MIB)
    assert (nothing["named_share"], nothing["peak_bytes"]) == (0, 2 * MIB)
    both = in_all([whole, nothing])
    assert both["named_share"] == 16 / 18
    assert sum(row["peak_bytes"] for row in both["category_rules"]) == 18 * MIB
    assert {row["rule"]: row["num_blocks"] for row in both["category_rules"]}["no rule"] == 1


def test_marks_of_the_file_can_be_left_out(tmp_path: Path) -> None:
    path = _unmarked(tmp_path / "a.pickle", marked=True)

    shares = [measure(path, read_rules(), with_annotations=wanted)["named_share"] for wanted in (True, False)]

    assert shares == [1, 0]
