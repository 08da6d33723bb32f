"""Events out of the unpickler into columns while it still works, so that millions of dictionaries never live together.

The unpickler asks its source for bytes again and again; each time, the events that it has finished since are taken out of their list and
emptied. Its memo tells which lists there are. What it memoized stays alive as long as it works, so nothing is taken twice for another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from profiler.errors import FormatError
from profiler.formats.containers import Source
from profiler.formats.history import DeviceHistory, HistoryColumns
from profiler.formats.stacks import Stacks
from profiler.formats.unpickle import PlainUnpickler
from profiler.units import MIB

_EVERY_BYTES = MIB // 2
"""Read between two times: the objects made of them are then still in the processor's cache."""
_BATCH = 2_048
"""Events that are turned into columns together: few enough to stay in the processor's cache."""
_LOOK_AGAIN = 1.25
"""Looking through the memo costs as much as it is long: each look comes a quarter further into the file."""


class Drain:
    """Loads one snapshot.

    Args:
        stacks: takes the frames.
        what: how messages call the file.
        progress: called with the bytes read so far.
    """

    def __init__(self, stacks: Stacks, what: str, progress: Callable[[int], None]) -> None:
        self._stacks, self._what, self._progress = stacks, what, progress
        self._unpickler: PlainUnpickler | None = None
        self._columns: dict[int, tuple[list[Any], HistoryColumns]] = {}
        """By identity of the list that its events are in; the list is kept, so the identity is."""
        self._growing: list[Any] | None = None
        self._next_bytes = _EVERY_BYTES
        self._next_look = float(_EVERY_BYTES)
        self._num_unknown = 0
        self.keys: set[str] = set()
        """The fields that events have."""

    def load(self, source: Source) -> Any:
        """Return the data of the pickle; the lists of events lack what `history` adds back.

        Raises:
            FormatError: it is no snapshot.
        """
        self._unpickler = PlainUnpickler(source, self._what)
        try:
            return self._unpickler.plain()
        finally:
            self._unpickler = None

    def before_read(self, position: int) -> None:
        """Take what is finished, about twice a MiB; called by the source while the unpickler waits for bytes."""
        if position < self._next_bytes or self._unpickler is None:
            return
        self._next_bytes = position + _EVERY_BYTES
        self._progress(position)
        if self._growing is None:
            if position < self._next_look:
                return
            self._next_look = position * _LOOK_AGAIN
            self._growing = self._find()
        elif not self._growing:
            self._growing = None
        if self._growing:
            self._take(self._growing)

    def history(self, device: int, trace: Any) -> DeviceHistory:
        """Return a device's history: what was taken before, and what is left in its list.

        Raises:
            FormatError: it is not a list of events.
        """
        if type(trace) is not list:
            raise FormatError(f"the history of device {device} is not a list. Record the snapshot again.")
        self._take(trace)
        columns = self._columns[id(trace)][1]
        history = columns.finish(device)
        self.keys |= columns.keys
        self._num_unknown += columns.num_unknown_actions
        return history

    def warnings(self) -> list[str]:
        """Return what was left out."""
        if not self._num_unknown:
            return []
        return [f"{self._num_unknown:,} events of a kind that only newer torch versions write are not shown."]

    def _find(self) -> list[Any] | None:
        """Return a list of events that is being filled."""
        assert self._unpickler is not None
        filled: list[list[Any]] = [found for found in self._unpickler.lists() if found and _is_event(found[0]) and _is_event(found[-1])]
        return filled[-1] if filled else None

    def _take(self, trace: list[Any]) -> None:
        _, columns = self._columns.setdefault(id(trace), (trace, HistoryColumns(self._stacks)))
        events = trace[:]
        trace.clear()
        for start in range(0, len(events), _BATCH):
            batch = events[start : start + _BATCH]
            columns.take(batch)
            # An event is used once; where a file uses one again, it is refused for having no action.
            deque(map(dict.clear, batch), maxlen=0)


def _is_event(value: Any) -> bool:
    return isinstance(value, dict) and "action" in value
