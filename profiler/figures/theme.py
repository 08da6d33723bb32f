"""Categories -> explicit colours and patterns, for light and dark.

The same category has the same colour on every page. What persists is cool, gradients are warm, activations violet, temporaries yellow,
communication red, unknown grey and hatched. Seven categories are plain; their kin share the hue and carry a pattern. Distances between any
two that carry the same pattern, as people with each kind of colour blindness see them, and contrast with the page are held by
tests/figures/test_theme.py.
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

PATTERNS = {
    Category.PARAMETER: "",
    Category.MASTER_PARAMETER: "/",
    Category.BUFFER: ".",
    Category.OPTIMIZER_STATE: "",
    Category.KV_CACHE: "",
    Category.GRADIENT: "",
    Category.INPUT: "|",
    Category.ACTIVATION: "",
    Category.LOGITS: "\\",
    Category.ACTIVATION_GRADIENT: "/",
    Category.COMMUNICATION: "",
    Category.OPTIMIZER_TEMPORARY: "+",
    Category.TEMPORARY: "",
    Category.WORKSPACE: "-",
    Category.UNKNOWN: "x",
}
"""Each category's pattern as plotly names it; empty for plain ones."""


@dataclass(frozen=True)
class Theme:
    """Every colour a figure uses, as hex."""

    name: ThemeName
    background: str
    text: str
    muted: str
    grid: str
    accent: str
    strips: tuple[str, str]
    """Neighbouring phases alternate between these."""
    overlays: tuple[str, ...]
    """Lines laid over a stack: resident set, device used and the like."""
    colors: dict[Category, str]


LIGHT = Theme(
    name="light",
    background="#ffffff",
    text="#1d1d1b",
    muted="#6a6a65",
    grid="#e4e4df",
    accent="#2457c5",
    strips=("#ecece8", "#dcdcd6"),
    overlays=("#1d1d1b", "#6a6a65", "#94571f", "#3f6f3a"),
    colors={
        Category.PARAMETER: "#2662d2",
        Category.MASTER_PARAMETER: "#5786e0",
        Category.BUFFER: "#4a6c9c",
        Category.OPTIMIZER_STATE: "#0ea491",
        Category.KV_CACHE: "#1d5666",
        Category.GRADIENT: "#a2581e",
        Category.INPUT: "#5f7d3a",
        Category.ACTIVATION: "#5a0f9c",
        Category.LOGITS: "#9355cf",
        Category.ACTIVATION_GRADIENT: "#c9733a",
        Category.COMMUNICATION: "#80040f",
        Category.OPTIMIZER_TEMPORARY: "#94731b",
        Category.TEMPORARY: "#b7860f",
        Category.WORKSPACE: "#857a45",
        Category.UNKNOWN: "#7d7d7d",
    },
)

DARK = Theme(
    name="dark",
    background="#171614",
    text="#ecebe6",
    muted="#a3a198",
    grid="#34322e",
    accent="#7aa5f5",
    strips=("#262522", "#33312d"),
    overlays=("#ecebe6", "#a3a198", "#d9a36c", "#93bd8d"),
    colors={
        Category.PARAMETER: "#74a8f8",
        Category.MASTER_PARAMETER: "#4d7fd6",
        Category.BUFFER: "#8ba3c7",
        Category.OPTIMIZER_STATE: "#6cf0d4",
        Category.KV_CACHE: "#3f8aa6",
        Category.GRADIENT: "#e08a45",
        Category.INPUT: "#9dbd6a",
        Category.ACTIVATION: "#8a4fe0",
        Category.LOGITS: "#b58af0",
        Category.ACTIVATION_GRADIENT: "#b3642a",
        Category.COMMUNICATION: "#bf3434",
        Category.OPTIMIZER_TEMPORARY: "#c9ad3f",
        Category.TEMPORARY: "#f7da55",
        Category.WORKSPACE: "#b0a878",
        Category.UNKNOWN: "#8f8f8f",
    },
)

_THEMES: dict[str, Theme] = {"light": LIGHT, "dark": DARK}


def theme_named(name: ThemeName) -> Theme:
    """Return the theme of that name."""
    return _THEMES[name]


def ink_on(color: str) -> str:
    """Return black or white, whichever reads better on ``color``."""
    return "#000000" if relative_luminance(color) > 0.18 else "#ffffff"


def relative_luminance(color: str) -> float:
    """Return the relative luminance of a hex colour, 0 to 1 (WCAG 2.2)."""
    red, green, blue = (_linear(int(color[place : place + 2], 16) / 255) for place in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)
