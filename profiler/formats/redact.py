"""A text that people are about to paste in public -> the same without what tells whose it is.

Taken: paths, of which the last part stays, or what follows ``site-packages`` (folders with spaces in quotes, after a drive's letter with
backslashes, and under ``/Users``); the user whose home folder is named; what stands behind ``user=``, ``username:``, ``login=`` or
``logged in as``; addresses of mail, of the network, and of the web but for those of PyTorch, Python, NVIDIA and Hugging Face's
documentation; host names that end in a usual domain (``node.cluster.example.com``, ``my-box.local``) or stand behind ``hostname=``; keys of
services; numbers of processes.

Not taken, as nothing tells them from other words: names of people, projects, data sets and models in running text; a host's short name
(``node17``); the second word of a home folder that neither quotes nor a further folder end. The reader is told to look it over.
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_CHARS = 200_000

_DOMAINS = (
    "com|org|net|edu|gov|mil|int|io|ai|dev|cloud|tech|app|co|eu|us|uk|ca|mx|br|ar|cl|de|at|ch|fr|be|nl|lu|it|es|pt|ie|se|no|fi|dk|is|pl|cz|sk"
    "|hu|ro|bg|gr|tr|ru|ua|il|ae|sa|in|cn|jp|kr|tw|hk|sg|au|nz|za|local|localdomain|internal|lan|corp|intranet|private|home|arpa"
)
"""Without those that are suffixes of files too, such as ``py`` and ``so``."""
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,62})"
_HOST = rf"(?<![\w.-])(?:(?:{_LABEL}\.){{2,8}}(?:{_DOMAINS})|(?=[a-z0-9]*[0-9-]){_LABEL}\.(?:local|internal|lan))(?![\w-]|\.\w)"
_PUBLIC = re.compile(
    r"(?:[\w-]{1,63}\.){0,3}(?:pytorch\.org|python\.org|nvidia\.com)(?![\w.-])|github\.com/(?:pytorch|huggingface)/|huggingface\.co/docs"
)
_WEB = re.compile(r"\b(https?|wss?|ftp|ssh|git|s3|gs|hdfs|tcp|grpc)://([^\s\"'<>]{1,2000})", re.IGNORECASE)
_USER_WORDS = r"user(?:[-_ ]?name)?|login|logname|logged in as"

_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b(?:hf|sk|ghp|gho|github_pat|glpat|xoxb|AKIA)[-_]?[A-Za-z0-9_-]{12,200}"), "<key>"),
    (re.compile(r"\b[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,100}"), "<user>@<host>"),
    (re.compile(r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b"), "<address>"),
    (re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", re.IGNORECASE), "<address>"),
    (
        re.compile(rf"\b({_USER_WORDS})(\"?'? {{0,3}}[=:] {{0,3}}\"?'?)[\w.-]{{1,64}}(?: \([\w .-]{{1,64}}\))?", re.IGNORECASE),
        r"\1\2<user>",
    ),
    (re.compile(r"\b(logged in as) [\w.-]{1,64}(?: \([\w .-]{1,64}\))?", re.IGNORECASE), r"\1 <user>"),
    (re.compile(r"\b(hostname|nodename|master_addr)(\"?'? {0,3}[=:] {0,3}\"?'?)[\w.-]{1,253}", re.IGNORECASE), r"\1\2<host>"),
    (re.compile(r"\bProcess \d{1,10}\b"), "Process <number>"),
    (re.compile(r"\bpid[ =:]{1,3}\d{1,10}\b", re.IGNORECASE), "pid=<number>"),
)
_HOSTS = re.compile(_HOST, re.IGNORECASE)
_PART = r"[^\s\\/:\"'<>|,;()]"
_SPACED_PART = r"[^\n\\/:\"'<>|,;()]"
_PATH = re.compile(rf"(?<![\w.<>])(?:[A-Za-z]:)?(?:[\\/]|~[\\/])(?:{_PART}{{1,255}}[\\/]){{1,60}}(?:{_PART}{{0,255}})")
_SPACED = re.compile(
    rf"(?<![\w.<>])(?:[A-Za-z]:\\(?:{_SPACED_PART}{{1,255}}\\){{1,60}}|(?:[A-Za-z]:)?/Users/{_SPACED_PART}{{1,64}}/(?:{_PART}{{1,255}}/){{0,60}})"
    rf"{_PART}{{0,255}}",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"(?<=File \")[^\"\n]{1,2000}(?=\")|(?<=[\"'])(?:[A-Za-z]:|~)?[\\/](?![\\/])[^\"'\n]{1,2000}(?=[\"'])")
_HOME = re.compile(r"(?:home|Users)[\\/][^\\/]{1,255}[\\/]?$", re.IGNORECASE)
_LIBRARY = re.compile(r".{0,4000}[\\/](?:site-packages|dist-packages|lib[\\/]python3\.\d{1,2})[\\/]", re.DOTALL)


def redact(text: str, names: tuple[str, ...] = ()) -> str:
    """Return ``text``, cut to `MAX_CHARS`, without paths, names, addresses and keys.

    Args:
        text: what will be shown to others.
        names: further words to take out, such as a user's or a project's name.
    """
    text = _WEB.sub(_shown_web, text[:MAX_CHARS])
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    text = _HOSTS.sub(_shown_host, text)
    text = _QUOTED.sub(_shown_quoted, text)
    for paths in (_SPACED, _PATH):
        text = paths.sub(_shown, text)
    for name in names:
        if len(name) >= 2:
            text = _word(name).sub("<name>", text)
    return text


def _shown_web(match: re.Match[str]) -> str:
    return match[0] if _PUBLIC.match(match[2]) else f"{match[1]}://<host>"


def _shown_host(match: re.Match[str]) -> str:
    return match[0] if _PUBLIC.match(match.string, match.start()) else "<host>"


def _shown(match: re.Match[str]) -> str:
    if match.string[max(match.start() - 2, 0) : match.start()] == ":/":
        return match[0]  # a web address
    return _last_part(match[0])


def _shown_quoted(match: re.Match[str]) -> str:
    """Return a quoted path, such as a traceback's, which may hold spaces; ``<stdin>`` and the like stay."""
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
