"""A simulation of an RTX A6000 that is thrown away at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from profiler.devices import find_gpu
from profiler.simulate.session import Simulation


@pytest.fixture
def gpu(tmp_path: Path) -> Iterator[Simulation]:
    with Simulation(tmp_path / "run.headroom", find_gpu("rtx-a6000")) as simulation:
        yield simulation
        simulation.abandon()
