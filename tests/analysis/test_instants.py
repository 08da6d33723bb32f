"""Where a replay stopped, in the events of the recording."""

from __future__ import annotations

import pytest

from profiler.allocator.trace import Kind, Trace
from profiler.analysis.instants import failing_event


@pytest.mark.parametrize(("row", "event"), [(0, -1), (1, 4), (2, 4), (3, 6)])
def test_a_row_that_is_no_event_belongs_to_the_event_before_it(row: int, event: int) -> None:
    trace = Trace.of([Kind.ALLOC, Kind.ALLOC, Kind.OOM, Kind.ALLOC], [0, 1, -1, 2], [1] * 4, [0] * 4, [-1, 4, -1, 6])

    assert failing_event(trace, row) == event
