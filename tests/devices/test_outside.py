"""The band outside of the allocator: what it stands on, and that it never pretends to know."""

from __future__ import annotations

import pytest

from profiler.devices import GPUS, Gpu, context_band
from profiler.devices.outside import MEASUREMENTS
from profiler.units import GIB, MIB


@pytest.mark.parametrize("gpu", GPUS.values(), ids=list(GPUS))
@pytest.mark.parametrize("eager_loading", [False, True])
def test_every_gpu_has_a_band_of_more_than_one_measurement(gpu: Gpu, eager_loading: bool) -> None:
    band = context_band(gpu, eager_loading=eager_loading)
    assert 50 * MIB < band.low_bytes <= band.likely_bytes <= band.high_bytes < 2 * GIB
    assert len(band.measurements) > 1
    assert {m.bytes for m in band.measurements} >= {band.low_bytes, band.high_bytes}
    assert all(source.startswith("https://") for source in band.sources)


def test_the_band_of_an_a6000_covers_both_runs_that_were_measured_on_it() -> None:
    band = context_band(GPUS["rtx-a6000"])
    assert band.low_bytes <= 736_296_960 <= 744_685_568 <= band.high_bytes
    assert band.likely_bytes == 736_296_960
    assert band.is_of_architecture


def test_the_band_of_a_t4_ends_with_the_context_that_was_measured_exactly() -> None:
    band = context_band(GPUS["t4"])
    assert band.high_bytes == 147_718_144
    assert {measurement.architecture for measurement in band.measurements} == {"turing"}


def test_an_architecture_that_was_not_measured_gets_the_span_of_all_and_says_so() -> None:
    band = context_band(GPUS["v100-16gb"])
    lazy = [measurement.bytes for measurement in MEASUREMENTS if not measurement.eager_loading]
    assert (band.low_bytes, band.high_bytes) == (min(lazy), max(lazy))
    assert not band.is_of_architecture
    assert "too few Volta GPUs were measured" in band.statement


def test_one_measurement_is_no_band_but_says_what_is_likely() -> None:
    band = context_band(GPUS["h200"])
    assert not band.is_of_architecture
    assert band.low_bytes < band.likely_bytes == 676 * MIB < band.high_bytes


def test_loading_all_kernels_at_the_start_takes_what_it_took_before_they_were_loaded_lazily() -> None:
    assert context_band(GPUS["v100-16gb"], eager_loading=True).high_bytes == 1343 * MIB
    assert context_band(GPUS["v100-16gb"]).high_bytes < 1343 * MIB


def test_what_was_measured_on_a_gpu_of_the_catalogue_is_of_its_architecture() -> None:
    known = [m for m in MEASUREMENTS if m.gpu in GPUS]
    assert len(known) > 20
    assert all(GPUS[m.gpu].architecture == m.architecture for m in known)


def test_the_statement_says_the_span_and_what_it_stands_on() -> None:
    assert context_band(GPUS["t4"]).statement == "Outside of the allocator lie 99.0 MiB to 141 MiB, by 3 measurements of Turing GPUs."
