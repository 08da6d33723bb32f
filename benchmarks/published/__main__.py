"""Published numbers beside ours: every claim that a case module checks, with its tolerance; exit code 1 where one fails.

    python -m benchmarks.published [FILE] [--only CASE] [--json]

``FILE`` is a published.json, by default the one in the folder ``shared`` beside this checkout. A case is a module of
``benchmarks/published/cases`` with ``rows(published)``; rows whose entries the file lacks are left out. "as printed" means that ours rounds
to the printed digits. Numbers that their source contradicts are named "wrong as printed" and not judged.
"""

from __future__ import annotations

import argparse
import json
import pkgutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.published import cases  # noqa: E402
from benchmarks.published.table import Published, Row  # noqa: E402

DEFAULT_FILE = ROOT.parent / "shared" / "data" / "published.json"


def case_names() -> list[str]:
    """Return the names of all case modules."""
    return sorted(module.name for module in pkgutil.iter_modules(cases.__path__))


def all_rows(published: Published, names: list[str]) -> Iterator[tuple[str, Row]]:
    """Yield the rows of the named cases, each with its case's name."""
    for name in names:
        for row in import_module(f"{cases.__name__}.{name}").rows(published):
            yield name, row


def main(arguments: list[str] | None = None) -> int:
    """Print the table, or JSON; return 1 where a row fails."""
    parser = argparse.ArgumentParser(prog="benchmarks.published", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=DEFAULT_FILE)
    parser.add_argument("--only", action="append", choices=case_names(), metavar="CASE", help=f"one of {', '.join(case_names())}")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    if not chosen.file.is_file():
        parser.error(f"{chosen.file} is not there. Name a published.json.")
    published = Published.read(chosen.file)
    rows = list(all_rows(published, chosen.only or case_names()))
    failing = [row for _, row in rows if not row.holds and not row.wrong_as_printed]
    if chosen.json:
        print(json.dumps([{"case": name, **row.to_json()} for name, row in rows], indent=1))
    else:
        _print_table(rows, len(published), len(failing))
    return 1 if failing else 0


def _print_table(rows: list[tuple[str, Row]], num_entries: int, num_failing: int) -> None:
    before = ""
    for name, row in rows:
        if name != before:
            print(f"\n{name}")
            before = name
        numbers = f"{_number(row.published.value):>17} {_number(row.ours):>17} {row.unit:<11}{row.error:>+9.2%}"
        print(f"  {row.what[:58]:<58} {numbers}  {row.tolerance!s:<22} {row.provenance!s:<10} {row.verdict}")
        print(f"    {', '.join(row.ids)}" + (f". {row.note}" if row.note else ""))
    used = len({identity for _, row in rows for identity in row.ids})
    doubtful = sum(row.wrong_as_printed for _, row in rows)
    held = len(rows) - num_failing - doubtful
    print(f"\n{len(rows)} rows: {held} hold, {num_failing} fail, {doubtful} wrong as printed; {used} of the file's {num_entries} entries.")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e6 or value == int(value) else f"{value:,.4g}" if abs(value) < 100 else f"{value:,.2f}"


if __name__ == "__main__":
    raise SystemExit(main())
