"""Which engine serves which device."""

from __future__ import annotations

import pytest

from profiler.devices import GPUS
from profiler.errors import SpecError
from profiler.jobs.run import CAPTURE, SIMULATE
from profiler.jobs.targets import Target, engine_of, target_of, targets


@pytest.mark.parametrize(
    ("device", "wanted", "engine"),
    [
        ("cpu", None, CAPTURE),
        ("cpu", SIMULATE, SIMULATE),
        ("cpu", "nonsense", CAPTURE),
        ("cuda", None, CAPTURE),
        ("cuda:1", SIMULATE, CAPTURE),
        ("rtx-4090", None, SIMULATE),
        ("rtx-4090", CAPTURE, SIMULATE),
    ],
)
def test_a_device_has_its_engine_and_only_the_cpu_leaves_a_choice(device: str, wanted: str | None, engine: str) -> None:
    assert engine_of(device, wanted) == engine


def test_every_target_is_its_own_target() -> None:
    known = targets([0, 1])

    assert [target_of(target.device, target.engine) for target in known] == known
    assert len(set(known)) == len(known) == 3 + 1 + len(GPUS)


def test_other_names_of_a_device_lead_to_its_target() -> None:
    assert target_of("NVIDIA GeForce RTX 4090") == Target(SIMULATE, "rtx-4090")
    assert target_of("cuda") == Target(CAPTURE, "cuda:0")


def test_a_gpu_that_is_not_known_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SpecError, match="Did you mean 'rtx-4090'"):
        target_of("rtx-4099")
