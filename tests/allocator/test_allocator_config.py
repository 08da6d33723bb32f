"""The text users write, read as their torch version reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.allocator.config import NEWEST, AllocatorConfig
from profiler.errors import SpecError
from profiler.units import MIB


def test_nothing_means_the_defaults_of_torch() -> None:
    assert AllocatorConfig.parse("") == AllocatorConfig()


def test_options_are_read_with_spaces_and_lists() -> None:
    config = AllocatorConfig.parse(" expandable_segments:True, max_split_size_mb:128 ,roundup_power2_divisions:[256:1,>:4]")
    assert config.expandable_segments
    assert config.max_split_size_bytes == 128 * MIB
    assert config.roundup_power2_divisions == (1,) * 9 + (4,) * 7


def test_up_to_2_9_the_rest_began_with_the_last_named_size() -> None:
    text = "roundup_power2_divisions:[256:1,512:2,>:8]"
    assert AllocatorConfig.parse(text, (2, 9)).roundup_power2_divisions[8:11] == (1, 8, 8)
    assert AllocatorConfig.parse(text, (2, 11)).roundup_power2_divisions[8:11] == (1, 2, 8)


@pytest.mark.parametrize(
    ("text", "version", "message"),
    [
        ("expandable_segment:True", NEWEST, "Did you mean 'expandable_segments'"),
        ("max_splitsize_mb:128", NEWEST, "Did you mean 'max_split_size_mb'"),
        ("expandable_segments:True", (2, 0), "came with torch 2.1; this is torch 2.0"),
        ("large_segment_size_mb:40", (2, 9), "came with torch 2.11"),
        ("max_split_size_mb:20", NEWEST, "max_split_size_mb:20 is not possible. Use a whole number of MiB above 20"),
        ("max_split_size_mb:many", NEWEST, "whole number"),
        ("garbage_collection_threshold:1.0", NEWEST, "between 0 and 1"),
        ("garbage_collection_threshold:nan", NEWEST, "between 0 and 1"),
        ("expandable_segments:yes", NEWEST, "Use True or False"),
        ("roundup_power2_divisions:3", NEWEST, "'3' is not a power of two"),
        ("roundup_power2_divisions:[256:1,512]", NEWEST, "'512' is not an entry"),
        ("backend:cudaMallocAsync", NEWEST, "another allocator, which is not modelled"),
        ("max_split_size_mb", NEWEST, "is not an allocator option. Write name:value"),
    ],
)
def test_what_torch_would_not_take_is_refused_and_what_to_write_is_said(text: str, version: tuple[int, int], message: str) -> None:
    with pytest.raises(SpecError, match=message.replace("[", r"\[")):
        AllocatorConfig.parse(text, version)


def test_a_version_is_offered_only_names_that_it_knows() -> None:
    with pytest.raises(SpecError) as error:
        AllocatorConfig.parse("large_segment_size:40", (2, 4))
    assert "large_segment_size_mb" not in str(error.value)


def test_options_that_change_nothing_here_are_kept_by_name() -> None:
    assert AllocatorConfig.parse("pinned_use_background_threads:True").ignored == ("pinned_use_background_threads",)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        config = AllocatorConfig.parse(text)
    except SpecError as error:
        assert str(error).endswith(".")
    else:
        assert config.torch_version == NEWEST


def test_a_snapshot_tells_its_settings() -> None:
    divisions = {str(1 << slot): 4 if slot >= 8 else 0 for slot in range(16)}
    settings = {"max_split_size": 64 * MIB, "expandable_segments": True, "roundup_power2_divisions": divisions, "strange": object()}
    config = AllocatorConfig.from_settings(settings, (2, 6))
    assert config == AllocatorConfig.parse("expandable_segments:True,max_split_size_mb:64", (2, 6)).__class__(
        expandable_segments=True,
        max_split_size_bytes=64 * MIB,
        roundup_power2_divisions=(0,) * 8 + (4,) * 8,
        torch_version=(2, 6),
    )
    assert AllocatorConfig.from_settings({"max_split_size": -1}) == AllocatorConfig()


@pytest.mark.parametrize(
    "settings",
    [
        {"max_split_size": "64"},
        {"expandable_segments": 1},
        {"garbage_collection_threshold": -0.5},
        {"garbage_collection_threshold": float("nan")},
        {"roundup_power2_divisions": {"1": "many"}},
        {"roundup_power2_divisions": [1, 2]},
    ],
)
def test_impossible_settings_in_a_snapshot_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="allocator_settings hold an impossible"):
        AllocatorConfig.from_settings(settings)
