"""How much of the peak of CUDA snapshots each category rule names, printed for each file and in all.

    python -m benchmarks.category_coverage FILES... [--rules JSON] [--json]

Bytes are those allocated at the peak; blocks are all of the history. "no rule" and "older than the recording" are what no rule names: such
blocks are of the category Unknown. Without annotations the files are read as if the program had marked no phases: ``--no-annotations``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from profiler.cli.import_file import coverage_lines
from profiler.formats.attribution import NO_RULE, OLDER_ONLY
from profiler.formats.convert import to_recording
from profiler.formats.rules import Rules, read_rules
from profiler.formats.snapshot import read_snapshot

_ALL = "all files"
_COUNTS = ("num_blocks", "total_bytes", "peak_bytes")


def main() -> None:
    """Print the tables, or JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--rules", type=Path, metavar="JSON", help="category rules that come before Headroom's own")
    parser.add_argument("--no-annotations", action="store_true", help="leave the files' own marks out")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rules = read_rules(arguments.rules)
    results = [measure(path, rules, with_annotations=not arguments.no_annotations) for path in arguments.files]
    if len(results) > 1:
        results.append(in_all(results))
    print(json.dumps(results, indent=1) if arguments.json else "\n\n".join(map(_table, results)))


def measure(path: Path, rules: Rules, *, with_annotations: bool = True) -> dict[str, Any]:
    """Return what each rule names of one file."""
    snapshot = read_snapshot(path)
    if not with_annotations:
        snapshot = replace(snapshot, external_annotations=[])
    facts = to_recording(snapshot, rules=rules).metadata.facts
    return _result(path.name, facts["category_rules"], len(snapshot.external_annotations))


def in_all(results: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the sums over files, rule by rule."""
    sums: dict[str, dict[str, Any]] = {}
    num_annotations = 0
    for result in results:
        num_annotations += result["num_annotations"]
        for row in result["category_rules"]:
            total = sums.setdefault(row["rule"], {"rule": row["rule"], **dict.fromkeys(_COUNTS, 0)})
            for name in _COUNTS:
                total[name] += row[name]
    return _result(_ALL, sorted(sums.values(), key=_peak_bytes, reverse=True), num_annotations)


def _result(name: str, rows: list[dict[str, Any]], num_annotations: int) -> dict[str, Any]:
    peak = sum(map(_peak_bytes, rows))
    unnamed = sum(_peak_bytes(row) for row in rows if row["rule"] in (NO_RULE, OLDER_ONLY))
    share = 1 - unnamed / peak if peak else None
    return {"file": name, "num_annotations": num_annotations, "peak_bytes": peak, "named_share": share, "category_rules": rows}


def _peak_bytes(row: dict[str, Any]) -> int:
    return int(row["peak_bytes"])


def _table(result: dict[str, Any]) -> str:
    share = "nothing to name" if result["named_share"] is None else f"{result['named_share']:.1%} of the peak named"
    return "\n".join([f"{result['file']}: {share}, {result['num_annotations']} annotations", *coverage_lines(result["category_rules"])])


if __name__ == "__main__":
    main()
