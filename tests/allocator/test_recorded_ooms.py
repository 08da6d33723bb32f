"""Out-of-memory errors that were recorded, through the metadata of a recording and back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from profiler.allocator.recorded_ooms import MAX_OOMS, RecordedOom, oom_facts, recorded_ooms
from profiler.recording import Metadata, Provenance


def _metadata(facts: dict[str, Any]) -> Metadata:
    return Metadata(title="", provenance=Provenance.IMPORTED, engine="", created="2026-01-01T00:00:00+00:00", facts=facts)


def test_the_last_errors_come_back_from_the_metadata() -> None:
    seen = [RecordedOom(0, number, 7) for number in range(MAX_OOMS + 2)]

    kept = json.loads(json.dumps(oom_facts(seen)))

    assert recorded_ooms(_metadata(kept)) == seen[2:]


def test_a_run_without_errors_has_no_fact() -> None:
    assert oom_facts([]) == {}
    assert recorded_ooms(_metadata({})) == []


def test_recordings_of_before_are_still_read() -> None:
    facts = {"oom": [{"device": 1, "event": 12, "requested_bytes": 5, "device_free_bytes": 3}]}

    assert recorded_ooms(_metadata(facts)) == [RecordedOom(1, 5, 3)]


@pytest.mark.parametrize("value", [None, 3, "ooms", {}, [None], [[0, 1, 2]], [{"device": 0}], [{"device": 0, "requested_bytes": "5"}]])
def test_what_is_no_error_is_left_out(value: Any) -> None:
    assert recorded_ooms(_metadata({"ooms": value})) == []
