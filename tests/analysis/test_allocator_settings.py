"""Settings as text: what is tried exists in that torch version, and what is written is read as the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.allocator.config import NEWEST, AllocatorConfig
from profiler.analysis.allocator_settings import DEFAULT, EXPANDABLE, TORCH_VERSIONS, label_of, presets, text_of
from profiler.units import MIB


@pytest.mark.parametrize("version", TORCH_VERSIONS)
@pytest.mark.parametrize("has_capacity", [False, True])
def test_every_preset_is_known_to_its_torch_version(version: tuple[int, int], has_capacity: bool) -> None:
    texts = presets(version, has_capacity=has_capacity)

    assert texts[0] == DEFAULT
    assert (EXPANDABLE in texts) == (version >= (2, 1))
    assert len({AllocatorConfig.parse(text, version) for text in texts}) == len(texts)


def test_collecting_garbage_is_tried_only_on_a_card_of_known_size() -> None:
    assert not [text for text in presets(NEWEST, has_capacity=False) if "garbage" in text]
    assert [text for text in presets(NEWEST, has_capacity=True) if "garbage" in text]


_CONFIGS = st.builds(
    AllocatorConfig,
    expandable_segments=st.booleans(),
    max_split_size_bytes=st.none() | st.integers(21, 9_000).map(lambda size: size * MIB),
    garbage_collection_threshold=st.sampled_from([0.0, 0.5, 0.8]),
    roundup_power2_divisions=st.sampled_from([(0,) * 16, (4,) * 16, (1,) * 4 + (8,) * 12]),
    large_segment_size_bytes=st.sampled_from([20 * MIB, 64 * MIB]),
    memory_fraction=st.sampled_from([None, 0.5, 1.0]),
)


@given(_CONFIGS)
def test_the_text_of_settings_is_read_as_these_settings(config: AllocatorConfig) -> None:
    assert AllocatorConfig.parse(text_of(config)) == config


def test_the_default_has_a_name() -> None:
    assert text_of(AllocatorConfig()) == DEFAULT
    assert label_of(DEFAULT) == "default"
    assert label_of(EXPANDABLE) == EXPANDABLE
