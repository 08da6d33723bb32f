"""Blocks are packed without overlap, as low as they were, below the limit, and in time that does not grow with the number of holes."""

from __future__ import annotations

import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.packing import UNPLACED, pack

LIVES = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20), st.integers(1, 64)), max_size=30)


def columns(lives: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    births, lengths, sizes = np.array(lives, np.int64).reshape(-1, 3).T
    return births, births + lengths, sizes


@given(LIVES, st.none() | st.integers(0, 500))
def test_blocks_that_live_together_never_overlap_and_stay_below_the_limit(lives: list[tuple[int, int, int]], limit: int | None) -> None:
    births, deaths, sizes = columns(sorted(lives))

    bottom, height = pack(births, deaths, sizes, limit)

    placed = bottom != UNPLACED
    assert placed.all() or limit is not None
    assert height == max((bottom + sizes)[placed], default=0)
    assert limit is None or height <= limit
    together = (births[:, None] < deaths) & (births < deaths[:, None])
    touching = (bottom[:, None] < bottom + sizes) & (bottom < (bottom + sizes)[:, None])
    assert not (np.triu(together & touching, 1) & placed[:, None] & placed).any()


@given(LIVES)
def test_a_block_is_left_out_only_where_the_top_is_too_near_to_the_limit(lives: list[tuple[int, int, int]]) -> None:
    births, deaths, sizes = columns(sorted(lives))

    _, height = pack(births, deaths, sizes)
    bottom, _ = pack(births, deaths, sizes, height)

    assert (bottom != UNPLACED).all()


def test_a_hole_that_grew_by_its_neighbour_is_found() -> None:
    births, deaths, sizes = np.arange(4), np.array([4, 5, 9, 9]), np.array([10, 10, 10, 10])

    bottom, height = pack(np.append(births, 6), np.append(deaths, 9), np.append(sizes, 20))

    assert (bottom.tolist(), height) == ([0, 10, 20, 30, 0], 40)


def test_random_lifetimes_are_packed_almost_as_low_as_their_peak_in_time_that_does_not_grow_with_the_holes() -> None:
    rng = np.random.default_rng(0)
    num_blocks = 30_000
    births = np.arange(num_blocks)
    deaths = births + 1 + rng.exponential(3_000, num_blocks).astype(np.int64)
    sizes = rng.integers(1, 4_000, num_blocks) * 512
    change = np.zeros(deaths.max() + 1, np.int64)
    np.add.at(change, births, sizes)
    np.subtract.at(change, deaths, sizes)

    began = time.process_time()
    _, height = pack(births, deaths, sizes)

    assert height < 1.3 * np.cumsum(change).max()
    assert time.process_time() - began < 3.0
