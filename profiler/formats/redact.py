"""A text that people are about to paste in public -> the same without what tells whose it is.

Paths keep their last part, or what follows ``site-packages``. User names, hosts, addresses of the network and of mail, and keys of services
are replaced. What no rule knows stays: the reader is told to look it over.
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_CHARS = 200_000

_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b(?:hf|sk|ghp|gho|github_pat|glpat|xoxb|AKIA)[-_]?[A-Za-z0-9_-]{12,200}"), "<key>"),
    (re.compile(r"\b[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,100}"), "<user>@<host>"),
    (re.compile(r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b"), "<address>"),
    (re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", re.IGNORECASE), "<address>"),
    (re.compile(r"\bProcess \d{1,10}\b"), "Process <number>"),
    (re.compile(r"\bpid[ =:]{1,3}\d{1,10}\b", re.IGNORECASE), "pid=<number>"),
)
_PATH = re.compile(r"(?<![\w.<>])(?:[A-Za-z]:)?(?:[\\/]|~[\\/])(?:[^\s\\/:\"'<>|,;()]{1,255}[\\/]){1,60}(?:[^\s\\/:\"'<>|,;()]{0,255})")
_QUOTED = re.compile(r"(?<=File \")[^\"\n]{1,2000}(?=\")")
_HOME = re.compile(r"(?:home|Users)[\\/][^\\/]{1,255}[\\/]?$", re.IGNORECASE)
_LIBRARY = re.compile(r".{0,4000}[\\/](?:site-packages|dist-packages|lib[\\/]python3\.\d{1,2})[\\/]", re.DOTALL)


def redact(text: str, names: tuple[str, ...] = ()) -> str:
    """Return ``text``, cut to `MAX_CHARS`, without paths, names, addresses and keys.

    Args:
        text: what will be shown to others.
        names: further words to take out, such as a user's or a project's name.
    """
    text = text[:MAX_CHARS]
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    text = _QUOTED.sub(_shown_quoted, text)
    text = _PATH.sub(_shown, text)
    for name in names:
        if len(name) >= 2:
            text = _word(name).sub("<name>", text)
    return text


def _shown(match: re.Match[str]) -> str:
    if match.string[max(match.start() - 2, 0) : match.start()] == ":/":
        return match[0]  # a web address
    return _last_part(match[0])


def _shown_quoted(match: re.Match[str]) -> str:
    """Return a file of a traceback, whose path may hold spaces; ``<stdin>`` and the like stay."""
    return match[0] if match[0].startswith("<") else _last_part(match[0])


def _last_part(path: str) -> str:
    library = _LIBRARY.match(path)
    if library:
        return ".../" + path[library.end() :].replace("\\", "/")
    if _HOME.search(path):
        return ".../<user>"
    return ".../" + re.split(r"[\\/]", path)[-1]


@lru_cache(maxsize=100)
def _word(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(name[:200])}(?!\w)", re.IGNORECASE)
