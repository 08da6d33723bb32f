"""The text users write, read as their torch version reads it."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.allocator.config import NEWEST, AllocatorConfig, unread
from profiler.allocator.options import bare_text
from profiler.errors import SpecError
from profiler.units import MIB

_SHORTENED = {"max_round_threshold", "max_cached_size"}
"""Keys that a comment of the header names by a part."""


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


@pytest.mark.parametrize(
    ("option", "since"),
    [
        ("release_lock_on_cudamalloc:True", (2, 0)),
        ("release_lock_on_hipmalloc:True", (2, 0)),
        ("pinned_use_cuda_host_register:True", (2, 1)),
        ("pinned_use_hip_host_register:False", (2, 1)),
        ("pinned_num_register_threads:8", (2, 1)),
        ("pinned_use_background_threads:True", (2, 6)),
        ("graph_capture_record_stream_reuse:True", (2, 9)),
        ("pinned_reserve_segment_size_mb:2048", (2, 10)),
        ("pinned_free_catch_all:True", (2, 12)),
        ("throw_on_cudamalloc_oom:True", (2, 13)),
        ("pinned_max_round_threshold_mb:64", (2, 13)),
        ("pinned_max_cached_size_mb:64", (2, 13)),
    ],
)
def test_options_without_effect_on_gpu_memory_are_read_from_the_version_that_brought_them(option: str, since: tuple[int, int]) -> None:
    assert AllocatorConfig.parse(option, since).ignored == (option.partition(":")[0],)
    if since > (2, 0):
        with pytest.raises(SpecError, match=f"came with torch {since[0]}.{since[1]}"):
            AllocatorConfig.parse(option, (since[0], since[1] - 1))


def test_every_key_in_the_headers_of_the_installed_torch_is_known() -> None:
    headers = Path(str(find_spec("torch").origin)).parent / "include" / "c10"  # type: ignore[union-attr]
    cuda = (headers / "cuda" / "CUDAAllocatorConfig.h").read_text()
    listed = cuda.partition("keys{")[2].partition("};")[0]
    joined = re.sub(r'"\s*\n\s*"', "", listed)  # a key in two halves is one
    common = re.findall(r"// Parse `(\w+)` from environment", (headers / "core" / "AllocatorConfig.h").read_text())
    keys = set(re.findall(r'"(\w+)"', joined)) | {f"pinned_{key}_mb" if key in _SHORTENED else key for key in common}
    assert len(keys) == 20
    for key in keys:
        with pytest.raises(SpecError, match=f"^{key}:|^'{key}:|^{key}: "):
            AllocatorConfig.parse(f"{key}:impossible")


@pytest.mark.parametrize(
    "option",
    [
        "pinned_free_catch_all:1",
        "pinned_use_hip_host_register:8",
        "pinned_num_register_threads:3",
        "pinned_num_register_threads:256",
        "pinned_reserve_segment_size_mb:0",
        "pinned_max_cached_size_mb:-1",
        "pinned_max_round_threshold_mb:some",
    ],
)
def test_options_without_effect_are_still_read_as_their_kind(option: str) -> None:
    with pytest.raises(SpecError, match="is not possible|is not a power of two"):
        AllocatorConfig.parse(option)


@pytest.mark.parametrize(
    "pasted",
    [
        "PYTORCH_CUDA_ALLOC_CONF=max_split_size_mb:64",
        "PYTORCH_ALLOC_CONF = max_split_size_mb:64",
        "PYTORCH_HIP_ALLOC_CONF=max_split_size_mb:64",
        'export PYTORCH_CUDA_ALLOC_CONF="max_split_size_mb:64"\n',
        "'PYTORCH_ALLOC_CONF=max_split_size_mb:64'",
        "set PYTORCH_CUDA_ALLOC_CONF=max_split_size_mb:64",
        '$env:PYTORCH_CUDA_ALLOC_CONF = "max_split_size_mb:64"',
        '"max_split_size_mb:64"',
    ],
)
def test_the_assignment_that_people_paste_is_no_part_of_the_settings(pasted: str) -> None:
    assert bare_text(pasted) == "max_split_size_mb:64"
    assert AllocatorConfig.parse(pasted) == AllocatorConfig.parse("max_split_size_mb:64")


def test_another_variable_is_no_setting() -> None:
    with pytest.raises(SpecError, match="Unknown allocator option 'CUDA_ALLOC_CONF=max_split_size_mb'"):
        AllocatorConfig.parse("CUDA_ALLOC_CONF=max_split_size_mb:64")


@pytest.mark.parametrize("text", ["max_split_size_mb:" + "9" * 5_000, "[," * 5_000])
def test_a_text_that_nobody_writes_is_refused_by_its_length(text: str) -> None:
    with pytest.raises(SpecError, match=r"are [\d,]+ characters long; at most 2,000 are read"):
        AllocatorConfig.parse(text)
    assert AllocatorConfig.from_settings({"PYTORCH_CUDA_ALLOC_CONF": text}) == AllocatorConfig()


def test_the_text_in_a_snapshot_tells_what_its_values_do_not() -> None:
    text = "large_segment_size_mb:64,max_non_split_rounding_mb:256,per_process_memory_fraction:0.5"
    settings = {"PYTORCH_CUDA_ALLOC_CONF": text, "expandable_segments": False, "max_split_size": -1}
    config = AllocatorConfig.from_settings(settings)
    assert config == AllocatorConfig(large_segment_size_bytes=64 * MIB, max_non_split_rounding_bytes=256 * MIB)
    assert unread(settings) == [
        "per_process_memory_fraction:0.5 is left out, since the snapshot does not say how large the card is; to replay with it, give the "
        "settings and the card's size."
    ]


def test_what_a_snapshot_states_as_values_is_taken_over_its_text() -> None:
    text = "expandable_segments:True,max_split_size_mb:64,garbage_collection_threshold:0.5,roundup_power2_divisions:8"
    stated = {
        "expandable_segments": False,
        "max_split_size": 32 * MIB,
        "garbage_collection_threshold": 0.25,
        "roundup_power2_divisions": {"1": 2},
    }
    assert AllocatorConfig.from_settings({"PYTORCH_ALLOC_CONF": text}) == AllocatorConfig.parse(text)
    assert AllocatorConfig.from_settings({"PYTORCH_CUDA_ALLOC_CONF": text, **stated}) == AllocatorConfig(
        max_split_size_bytes=32 * MIB, garbage_collection_threshold=0.25, roundup_power2_divisions=(2, *(0,) * 15)
    )


def test_an_option_in_a_snapshot_is_read_though_the_version_that_is_guessed_is_older() -> None:
    config = AllocatorConfig.from_settings({"PYTORCH_CUDA_ALLOC_CONF": "large_segment_size_mb:64"}, (2, 9))
    assert (config.large_segment_size_bytes, config.torch_version) == (64 * MIB, (2, 9))


def test_what_cannot_be_read_of_a_snapshots_text_is_told_in_one_sentence_and_the_rest_is_read() -> None:
    settings = {"PYTORCH_CUDA_ALLOC_CONF": "new_in_2_20:1,large_segment_size_mb:64,backend:cudaMallocAsync"}
    assert AllocatorConfig.from_settings(settings) == AllocatorConfig(large_segment_size_bytes=64 * MIB)
    (said,) = unread(settings)
    assert said.startswith(
        "2 of the allocator's settings could not be read and are taken for torch's defaults: Unknown allocator option 'new"
    )


@given(st.text(max_size=60))
def test_any_text_in_a_snapshot_is_read(text: str) -> None:
    settings = {"PYTORCH_CUDA_ALLOC_CONF": text}
    assert AllocatorConfig.from_settings(settings).memory_fraction is None
    assert len(unread(settings)) <= 2
