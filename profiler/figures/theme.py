"""Categories -> explicit colours and patterns, for light and dark.

The same category has the same colour on every page. Kin share a hue and differ by shade and pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from profiler.recording import Category

ThemeName = Literal["light", "dark"]

STACK_ORDER = (
    Category.PARAMETER,
    Category.MASTER_PARAMETER,
    Category.BUFFER,
    Category.OPTIMIZER_STATE,
    Category.KV_CACHE,
    Category.GRADIENT,
    Category.INPUT,
    Category.ACTIVATION,
    Category.LOGITS,
    Category.ACTIVATION_GRADIENT,
    Category.COMMUNICATION,
    Category.OPTIMIZER_TEMPORARY,
    Category.TEMPORARY,
    Category.WORKSPACE,
    Category.UNKNOWN,
)
"""From the bottom of a stack to its top: what stays longest lies lowest."""


@dataclass(frozen=True)
class Theme:
    """Every colour a figure uses, as hex."""

    name: ThemeName
    background: str
    text: str
    muted: str
    grid: str
    accent: str
    overlays: tuple[str, ...]
    """Lines laid over a stack: resident set, device used and the like."""
    colors: dict[Category, str]


PATTERNS: dict[Category, str] = {}
"""Pattern of each category that is not plain: one of plotly's shapes ``/ \\\\ x - | + .``."""
