"""``diff``: what is alive in one recording and not in the other, by call stack and size."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from profiler.cli.command import DONE, Commands, add_command, print_json, require
from profiler.cli.reading import add_file_option, add_lane_options, add_reading_options, chosen_lane, read_file, reading_of
from profiler.errors import SpecError
from profiler.units import format_bytes

if TYPE_CHECKING:
    from profiler.analysis.alive_difference import AliveDifference

_NUM_ROWS = 20


def add(commands: Commands) -> None:
    """Declare the command."""
    command = add_command(commands, "diff", _run, "list what is alive in one recording and not in the other, by call stack and size")
    add_file_option(command, "before")
    add_file_option(command, "after")
    command.add_argument("--at", default="end", choices=("end", "peak"), help="the instants to compare (default end)")
    command.add_argument("--limit", type=int, default=_NUM_ROWS, metavar="N", help=f"rows to print (default {_NUM_ROWS}); 0 for all")
    add_lane_options(command)
    add_reading_options(command)
    command.epilog = "For leaks, compare two snapshots of one run; for regressions, the peaks of two runs."


def _run(options: argparse.Namespace) -> int:
    require("pandas", "diff")
    from profiler.analysis.alive_difference import Side, alive_difference

    if options.limit < 0:
        raise SpecError(f"--limit {options.limit} is not possible. Use 0 for all rows, or how many to print.")
    side = Side.at_peak if options.at == "peak" else Side.at_end
    reading = reading_of(options)
    recordings = (read_file(path, reading) for path in (options.before, options.after))
    before, after = (side(recording, chosen_lane(recording, options)) for recording in recordings)
    found = alive_difference(before, after)
    rows = (found.table.head(options.limit) if options.limit else found.table).to_dict("records")
    if options.json:
        numbers = {name: getattr(found, name) for name in ("before_bytes", "after_bytes", "same_bytes", "more_bytes", "less_bytes")}
        print_json({"at": options.at, **numbers, "num_rows": len(found.table), "rows": rows})
    else:
        _print(found, rows, [before.recording.metadata.title, after.recording.metadata.title], options.at)
    return DONE


def _print(found: AliveDifference, rows: list[dict[Any, Any]], titles: list[str], at: str) -> None:
    print(f"{titles[0]}: {format_bytes(found.before_bytes)} alive at the {at}")
    print(f"{titles[1]}: {format_bytes(found.after_bytes)}, of which {format_bytes(found.same_bytes)} are the same")
    print(f"More: {format_bytes(found.more_bytes)}. Less: {format_bytes(found.less_bytes)}.")
    for row in rows:
        change = format_bytes(row["difference_bytes"], signed=True)
        print(f"{change:>12}  {row['num_before']} -> {row['num_after']} blocks of {format_bytes(row['bytes'])} · {row['category']}")
        print(f"{'':>14}{row['origin']}")
    if len(rows) < len(found.table):
        print(f"{len(found.table) - len(rows):,} smaller differences are not listed; --limit 0 lists all.")
