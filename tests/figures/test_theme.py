"""Colours: every category has one per theme, readable on the page and told apart by people with any colour vision.

Distances are 100 times OKLab distance, the least over normal vision and Machado's (2009) full deuteranopia, protanopia and tritanopia.
Reached: 11.3 between plain categories (the best published nine-way palettes have about 9 to 12), contrast 3.0 to 1 with the page.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from profiler.figures.theme import DARK, LIGHT, PATTERNS, STACK_ORDER, Theme, ink_on, relative_luminance, theme_named
from profiler.recording import Category

SAME_PATTERN = 11.0
NEIGHBOURS = 12.0
CONTRAST = 3.0
MACHADO = (
    np.eye(3),
    np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
)
THEMES = pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
TRAINING = [c for c in STACK_ORDER if c not in (Category.KV_CACHE, Category.MASTER_PARAMETER, Category.BUFFER, Category.COMMUNICATION)]


def _linear(color: str) -> np.ndarray:
    channels = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def _oklab(rgb: np.ndarray) -> np.ndarray:
    to_cones = np.array([[0.41222147, 0.53633254, 0.05144599], [0.21190350, 0.68069955, 0.10739696], [0.08830246, 0.28171884, 0.62997870]])
    to_lab = np.array([[0.21045426, 0.79361779, -0.00407205], [1.97799850, -2.42859221, 0.45059371], [0.02590404, 0.78277177, -0.80867577]])
    return to_lab @ np.cbrt(to_cones @ rgb)


def distance(one: str, other: str) -> float:
    """Return how far two colours are apart for those who see the least difference."""
    seen = [[_oklab(np.clip(vision @ _linear(color), 0, 1)) for color in (one, other)] for vision in MACHADO]
    return 100 * min(float(np.linalg.norm(a - b)) for a, b in seen)


def contrast(one: str, other: str) -> float:
    light, dark = sorted((relative_luminance(one), relative_luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@THEMES
def test_every_category_has_a_colour_a_pattern_and_a_place(theme: Theme) -> None:
    assert set(theme.colors) == set(PATTERNS) == set(STACK_ORDER) == set(Category)
    assert len(STACK_ORDER) == len(Category)
    assert theme_named(theme.name) is theme


@THEMES
def test_categories_with_the_same_pattern_are_told_apart_by_colour(theme: Theme) -> None:
    close = {
        (one.name, other.name): round(apart, 1)
        for one, other in itertools.combinations(Category, 2)
        if PATTERNS[one] == PATTERNS[other] and (apart := distance(theme.colors[one], theme.colors[other])) < SAME_PATTERN
    }
    assert close == {}


@THEMES
def test_neighbours_in_a_training_are_told_apart_by_colour_or_pattern(theme: Theme) -> None:
    close = {
        (one.name, other.name): round(apart, 1)
        for one, other in itertools.pairwise(TRAINING)
        if PATTERNS[one] == PATTERNS[other] and (apart := distance(theme.colors[one], theme.colors[other])) < NEIGHBOURS
    }
    assert close == {}


@THEMES
def test_colours_and_texts_are_readable_on_the_page(theme: Theme) -> None:
    faint = {c.name: round(contrast(color, theme.background), 2) for c, color in theme.colors.items()}
    assert {name: value for name, value in faint.items() if value < CONTRAST} == {}
    assert contrast(theme.text, theme.background) >= 12
    assert contrast(theme.muted, theme.background) >= 4.5
    assert all(contrast(line, theme.background) >= CONTRAST for line in (*theme.overlays, theme.accent))


@THEMES
def test_labels_on_a_category_are_readable(theme: Theme) -> None:
    assert min(contrast(ink_on(color), color) for color in theme.colors.values()) >= 4.5


def test_the_distance_itself_is_right() -> None:
    assert distance("#ff0000", "#ff0000") == 0
    assert distance("#000000", "#ffffff") == pytest.approx(100, abs=0.1)
    assert distance("#ff0000", "#00aa00") < 30 < distance("#0000ff", "#ffff00")
