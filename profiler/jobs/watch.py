"""One running worker -> its memory over time, and how it ended: by itself, cancelled, or at a limit."""

from __future__ import annotations

import time

from profiler.devices import this_machine
from profiler.jobs.folder import RunFolder
from profiler.jobs.process import WorkerProcess, how_it_ended, last_words
from profiler.jobs.run import Ending, LivePoint, Order, RunState
from profiler.units import format_bytes, format_duration_us

_LIVE_SECONDS = 0.25
_LIVE_GROWTH = 0.002
"""Points come further apart as a run gets longer: about 2,000 in the first hour, 500 for each time it then gets e times longer."""
_FREE_SHARE = 0.95


class Watch:
    """Looks at one run again and again until it has ended.

    Args:
        folder: the run's files.
        order: what was asked for.
        process: the worker.
        started: when it started, in seconds since the epoch.
    """

    def __init__(self, folder: RunFolder, order: Order, process: WorkerProcess, started: float) -> None:
        self.folder, self.order, self.process, self.started = folder, order, process, started
        self._given = order.limits.memory_bytes is not None
        # What a worker that is taken over holds already is not free any more, but it is its own.
        self._memory_bytes = order.limits.memory_bytes or int(this_machine().available_bytes * _FREE_SHARE) + process.rss_bytes()
        self._ending: Ending | None = None
        self._live_due = 0.0
        self._live_peak_bytes = 0

    def look(self) -> Ending | None:
        """Do what is due now; return how the run ended once it has."""
        seconds = time.time() - self.started
        rss_bytes = self.process.rss_bytes()
        if not self.process.running():
            return self._conclude()
        self._note(seconds, rss_bytes)
        self.folder.bound_stderr()
        if self._ending is not None:
            self.process.press()
            return None
        self._ending = self._reason_to_end(seconds, rss_bytes)
        if self._ending is not None:
            self.process.ask_to_end()
        return None

    def _conclude(self) -> Ending:
        self.process.sweep()
        outcome = self.folder.outcome()
        if outcome is not None and outcome.done:
            return Ending(RunState.DONE)
        if self._ending is not None:
            return self._ending
        if outcome is not None:
            return Ending(RunState.FAILED, outcome.message)
        return Ending(RunState.FAILED, how_it_ended(self.process.exit_code, last_words(self.folder.stderr)))

    def _reason_to_end(self, seconds: float, rss_bytes: int) -> Ending | None:
        if self.folder.cancel_asked:
            return Ending(RunState.CANCELLED, f"Cancelled after {format_duration_us(seconds * 1e6)}.")
        if rss_bytes > self._memory_bytes:
            limit = "its limit of" if self._given else "what this machine had free when it started,"
            return Ending(
                RunState.FAILED,
                f"The run used {format_bytes(rss_bytes)}, more than {limit} {format_bytes(self._memory_bytes)}, and was ended."
                " Use a smaller batch, sequence or model.",
            )
        if seconds > self.order.limits.seconds:
            limit = format_duration_us(self.order.limits.seconds * 1e6)
            return Ending(
                RunState.FAILED, f"The run took longer than its limit of {limit} and was ended. Use fewer steps or a higher limit."
            )
        return None

    def _note(self, seconds: float, rss_bytes: int) -> None:
        self._live_peak_bytes = max(self._live_peak_bytes, rss_bytes)
        if seconds < self._live_due:
            return
        progress = self.folder.progress()
        self.folder.add_live(LivePoint(seconds, self._live_peak_bytes, progress.allocated_bytes if progress else None))
        self._live_due = seconds + max(_LIVE_SECONDS, _LIVE_GROWTH * seconds)
        self._live_peak_bytes = 0
