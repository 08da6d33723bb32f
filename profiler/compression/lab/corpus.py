"""The lab's text -> paragraphs with their chapters, split into those to train on and those held out. Loads no torch.

The text is Python's language reference as `pydoc_data.topics` of Python 3.11.7 has it (PSF licence), each paragraph once. It is shipped,
since another Python has another text, and what one held out the other would train on.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from pydoc_data.topics import topics
from typing import NamedTuple

from profiler.models.text import SEPARATOR

PATH = Path(__file__).with_name("data") / "corpus.json.xz"
_RUN = 20
"""So many paragraphs in a row are of one side: what is held out has a context of its own."""
_EVERY = 10
"""One run in so many is held out."""


class Paragraph(NamedTuple):
    """A piece of the reference."""

    chapter: str
    text: str


@cache
def paragraphs() -> Sequence[Paragraph]:
    """Return the shipped paragraphs, in their order."""
    return [Paragraph(*pair) for pair in json.loads(lzma.decompress(PATH.read_bytes()))]


def training() -> list[Paragraph]:
    """Return the paragraphs to train on."""
    return [paragraph for index, paragraph in enumerate(paragraphs()) if not _held_out(index)]


def held_out() -> list[Paragraph]:
    """Return the paragraphs to judge by; about a tenth of the text."""
    return [paragraph for index, paragraph in enumerate(paragraphs()) if _held_out(index)]


def text(some: Sequence[Paragraph]) -> bytes:
    """Return paragraphs as one text, in UTF-8."""
    return SEPARATOR.join(paragraph.text for paragraph in some).encode()


def digest() -> str:
    """Return the SHA-256 of the whole text."""
    return sha256(text(paragraphs())).hexdigest()


def collect() -> list[Paragraph]:
    """Return the paragraphs of the running Python's reference, each where it comes first."""
    found: dict[str, str] = {}
    for chapter in sorted(topics):
        for paragraph in topics[chapter].split(SEPARATOR):
            if stripped := paragraph.strip("\n"):
                found.setdefault(stripped, chapter)
    return [Paragraph(chapter, paragraph) for paragraph, chapter in found.items()]


def ship() -> None:
    """Replace the shipped text by the running Python's; every model is then to be trained again."""
    PATH.write_bytes(lzma.compress(json.dumps(collect()).encode(), preset=9 | lzma.PRESET_EXTREME))


def _held_out(index: int) -> bool:
    return index // _RUN % _EVERY == _EVERY - 1
