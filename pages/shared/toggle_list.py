"""What is switched on, in an order that the user chooses: a row each, with its explanation, its options, and buttons to move it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import streamlit as st

from pages.shared import job_form, session
from profiler.optimizations.base import Parameter, Value
from profiler.spec import Toggle

_NAME_WIDTH = 300
"""So that the buttons of all rows stand under each other."""
Toggles = tuple[Toggle, ...]


class Described(Protocol):
    """What can be switched on: an optimization, or a technique of the compression lab."""

    @property
    def label(self) -> str:
        """What people call it."""

    @property
    def explanation(self) -> str:
        """One paragraph."""

    @property
    def formula(self) -> str:
        """The bytes to expect."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its options."""

    def read_options(self, options: Mapping[str, str]) -> dict[str, Value]:
        """Return a value for every option, given or default."""


def draw(
    toggles: Toggles,
    rows: Sequence[tuple[str, Described]],
    choose: Callable[[Toggles], None],
    *,
    place: str,
    limits: Callable[[str], Sequence[str]] = lambda _: (),
) -> None:
    """Draw the rows.

    Args:
        toggles: what is switched on, in order.
        rows: what to call the kind of each, and what it is.
        choose: takes the toggles as a row changed them.
        place: begins the keys of the widgets.
        limits: tells what the toggle of a name applies to and does not go with, a sentence each.
    """
    for row, (toggle, (kind, item)) in enumerate(zip(toggles, rows, strict=True)):
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"{place}_toggle_{row}"):
            st.markdown(f"{row + 1}. **{kind}:** {item.label}", width=_NAME_WIDTH)
            options = f": {', '.join(f'{name} {value}' for name, value in toggle.options)}" if toggle.options else ""
            with st.popover(f"{'Options' if item.parameters else 'About'}{options}", key=f"{place}_about_{row}"):
                st.markdown(item.explanation)
                st.caption(f"Expected: {item.formula}")
                for sentence in limits(toggle.name):
                    st.caption(sentence)
                for parameter in item.parameters:
                    _option(toggles, row, item, parameter, choose, f"{place}_option_{row}_{parameter.name}")
            for label, changed in (
                ("Up", _swapped(toggles, row, row - 1)),
                ("Down", _swapped(toggles, row, row + 1)),
                ("Remove", (*toggles[:row], *toggles[row + 1 :])),
            ):
                take = partial(choose, changed or ())
                st.button(label, key=f"{place}_{label.lower()}_{row}", type="tertiary", on_click=take, disabled=changed is None)


def _swapped(toggles: Toggles, one: int, other: int) -> Toggles | None:
    """Return the toggles with two in each other's place, None where there is no other."""
    if not 0 <= other < len(toggles):
        return None
    swapped = list(toggles)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    return tuple(swapped)


def _option(toggles: Toggles, row: int, item: Described, parameter: Parameter, choose: Callable[[Toggles], None], key: str) -> None:
    """Draw an option of a row; a change is passed on at once."""

    def change() -> None:
        value = session.recall(key)
        options = {name: text for name, text in toggles[row].options if name != parameter.name}
        if value is not None and value != parameter.default:
            options[parameter.name] = parameter.write(value)
        changed = Toggle(toggles[row].name, tuple(sorted(options.items())))
        choose((*toggles[:row], changed, *toggles[row + 1 :]))

    session.remember(key, item.read_options(dict(toggles[row].options))[parameter.name])
    job_form.option_field(parameter, key=key, on_change=change)
