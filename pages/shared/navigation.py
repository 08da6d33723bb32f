"""The pages and the row of links between them; each link leads back to what its page showed last."""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from streamlit.navigation.page import Page

from pages.shared import components, session

ICON = str(Path(__file__).with_name("icon.png"))


@st.cache_resource
def pages() -> list[Page]:
    """Return the pages in the order of the navigation; the first is the default one."""
    return [
        st.Page("pages/start.py", title="Start", default=True),
        st.Page("pages/profile.py", title="Profile"),
        st.Page("pages/timeline.py", title="Timeline"),
        st.Page("pages/allocator.py", title="Allocator"),
        st.Page("pages/compare.py", title="Compare"),
        st.Page("pages/compress.py", title="Compress"),
        st.Page("pages/monitor.py", title="Monitor"),
    ]


def show() -> None:
    """Draw the row of links."""
    with st.container(horizontal=True, key="navigation", gap="small"):
        for page in pages():
            st.page_link(page, query_params=session.last_address(page.url_path))


def run(page: Page) -> None:
    """Run a page; a refused input is shown in its place."""
    with session.through_app(), components.refusals_shown():
        page.run()


def require_app() -> None:
    """Start over through app.py where Streamlit opened a page's file directly.

    While a ``pages`` folder lies beside app.py, Streamlit does so for the first session after a start, until navigation was called once.
    """
    if not session.came_through_app():
        st.navigation(pages(), position="hidden")
        st.rerun()
