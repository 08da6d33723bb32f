"""A run that ended -> its final state in its folder, and its recording in the store: whole, or what was recorded until then."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

from profiler.errors import HeadroomError
from profiler.jobs.folder import RunFolder
from profiler.jobs.run import Ending, Outcome, RunState, Standing
from profiler.storage import PARTIAL_SUFFIX, read_metadata, recover


def settle(folder: RunFolder, ending: Ending) -> Standing:
    """Write how a run ended and return it; on a full disk it is not written, and whoever looks next settles it again.

    Raises:
        FormatError: the run's files are damaged.
    """
    path, before = folder.order().recording, folder.standing()
    ending = _with_recovery(path.with_suffix(PARTIAL_SUFFIX), ending)
    standing = replace(before, state=ending.state, message=ending.message, ended=time.time())
    try:
        standing = replace(standing, recording=str(path), recording_id=read_metadata(path).id)
    except HeadroomError as error:
        if ending.state is RunState.DONE:
            standing = replace(standing, recording=None, state=RunState.FAILED, message=f"The worker left no recording: {error}")
    try:
        folder.write_standing(standing)
    except OSError:
        return standing
    return standing


def ending_of_lost(standing: Standing, outcome: Outcome | None) -> Ending:
    """Return how a run ended whose manager and worker are both gone."""
    if outcome is not None:
        return Ending(RunState.DONE if outcome.done else RunState.FAILED, outcome.message)
    when = "while it ran" if standing.state is RunState.RUNNING else "before it began"
    return Ending(RunState.FAILED, f"The server stopped {when}. Run it again.")


def _with_recovery(partial: Path, ending: Ending) -> Ending:
    """Make a recording of what a failed run left; drop what a cancelled one left."""
    if not partial.is_dir():
        return ending
    if ending.state is RunState.CANCELLED or not any(partial.iterdir()):
        shutil.rmtree(partial, ignore_errors=True)
        return ending
    try:
        recover(partial)
    except HeadroomError:
        return ending
    return replace(ending, message=f"{ending.message} What was recorded until then is kept.".strip())
