"""The text that every Python carries -> bytes to train on, the same on every machine with this Python.

`pydoc_data.topics` is the language reference that ``help()`` shows (PSF licence). Its topics repeat each other's paragraphs; each is taken
once, so that text held out from training is not in it.
"""

from __future__ import annotations

from functools import cache
from pydoc_data.topics import topics

SEPARATOR = "\n\n"


@cache
def language_reference() -> bytes:
    """Return the paragraphs of Python's language reference, each once, in UTF-8; about 374 kB."""
    paragraphs = (paragraph.strip("\n") for name in sorted(topics) for paragraph in topics[name].split(SEPARATOR))
    return SEPARATOR.join(dict.fromkeys(paragraph for paragraph in paragraphs if paragraph)).encode()
