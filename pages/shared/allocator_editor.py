"""The controls of Allocator: the user's own settings, the torch version, the card, and which setting is drawn beside the default."""

from __future__ import annotations

import re
from dataclasses import dataclass

import streamlit as st

from pages.shared import components, session
from profiler.allocator.config import AllocatorConfig
from profiler.allocator.options import bare_text
from profiler.analysis.allocator_settings import DEFAULT, TORCH_VERSIONS, label_of, presets
from profiler.errors import SpecError
from profiler.units import parse_bytes

_MAX_CHARS = 400


@dataclass(frozen=True)
class Choice:
    """What is compared."""

    settings: tuple[str, ...]
    """The texts of all settings, the default first."""
    shown: str
    """The one that is drawn beside the default."""
    torch_version: tuple[int, int]
    capacity_bytes: int | None


def editor(in_force: str, recorded_version: tuple[int, int]) -> Choice:
    """Draw the controls and return what they say; a text that is refused is said so and left out.

    Args:
        in_force: the settings that the recording was made with.
        recorded_version: the torch version that it was made with.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        own_text = st.text_input(
            "Your settings",
            placeholder="PYTORCH_CUDA_ALLOC_CONF, such as max_split_size_mb:64",
            help="As you would write them in PYTORCH_CUDA_ALLOC_CONF or PYTORCH_ALLOC_CONF.",
            width="stretch",
            **session.linked_text("conf", _MAX_CHARS),
        )
        card_text = st.text_input(
            "Card",
            placeholder="unlimited, or 24GiB",
            help="What the allocator may reserve: the card's memory less the CUDA context and other processes, often 0.5 GiB.",
            width=170,
            **session.linked_text("card", 20),
        )
        others = [version for version in TORCH_VERSIONS if version != recorded_version]
        versions = ["{}.{}".format(*version) for version in (recorded_version, *others)]
        version_text = st.selectbox("Torch", versions, width=110, **session.linked("torch", versions))
    version = (int(version_text.partition(".")[0]), int(version_text.partition(".")[2]))
    capacity_bytes = read_capacity(card_text, "card")
    own = _own(own_text, version, capacity_bytes)
    texts = list(dict.fromkeys([DEFAULT, *own, *_known([in_force], version), *presets(version, has_capacity=capacity_bytes is not None)]))
    shown = st.selectbox("Beside the default", texts[1:], format_func=label_of, **session.linked("setting", texts[1:]))
    return Choice(tuple(texts), str(shown), version, capacity_bytes)


def read_capacity(text: str, what: str) -> int | None:
    """Return the bytes of a card, or of another limit; a plain number is GiB, nothing or what is refused is no limit."""
    if not text.strip():
        return None
    try:
        num_bytes = parse_bytes(f"{text}GiB" if re.fullmatch(r"\s*\d+(\.\d+)?\s*", text) else text)
    except SpecError as error:
        st.error(str(error))
        return None
    if num_bytes <= 0:
        st.error(f"A {what} of {text.strip()} holds nothing. Write a size above 0, such as 24GiB, or leave it empty for no limit.")
        return None
    return num_bytes


def _own(text: str, version: tuple[int, int], capacity_bytes: int | None) -> list[str]:
    """Return the user's settings, where they can be."""
    text = bare_text(text)
    found: list[str] = []
    with components.refusals_shown():
        config = AllocatorConfig.parse(text, version)
        if config.memory_fraction is not None and capacity_bytes is None:
            raise SpecError("per_process_memory_fraction is a share of a card. Give the card's size too, such as 24GiB.")
        if config.ignored:
            st.caption(f"Without effect on GPU memory, and so not modelled: {', '.join(config.ignored)}.")
        found = [text] if text else []
    return found


def _known(texts: list[str], version: tuple[int, int]) -> list[str]:
    """Return the texts that this torch version reads."""
    known = []
    for text in texts:
        try:
            AllocatorConfig.parse(text, version)
        except SpecError:
            continue
        known.append(text)
    return known
