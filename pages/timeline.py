"""Timeline: where did the memory go, and when?"""

import streamlit as st

from pages.shared import against, charts, choosing, components, details, downloads, instant, navigation, session

navigation.require_app()
components.heading("Timeline", "Where did the memory go, and when?")

entry = choosing.recording()
if entry is None:
    st.stop()

lane = choosing.lane(entry.id)
summary = session.summary(entry.id, lane)
components.provenance(entry.metadata)
components.warnings(summary["warnings"])
components.metrics(details.headline(entry.id, lane))
st.markdown(" ".join(session.sentences(entry.id, lane)))
components.notice(entry.metadata)


def explore() -> None:
    """Draw the main chart and what is alive at the chosen instant; both change together."""
    timeline = session.timeline(entry.id, lane)
    if not timeline.num_events:
        st.info("This recording has no events: nothing was allocated or freed while it ran.")
        return
    charts.main(entry.id, timeline)
    instant.panel(entry.id, timeline)
    link_to_allocator()


def link_to_allocator() -> None:
    """Draw the link to Allocator, which opens with this memory and, where one was chosen, at this instant."""
    chosen = {"memory": lane.label if lane else None, "at": session.chosen("at")}
    st.page_link(
        "pages/allocator.py",
        label="What the allocator reserves for this, and why",
        icon=":material/arrow_forward:",
        query_params=session.recording_link(entry) | {name: value for name, value in chosen.items() if value},
    )


session.let_paint()
components.fragment(explore)
against.panel(entry.id, lane)
downloads.row(entry, lane)
components.how_to_read(
    """
- **Height is allocated memory**, one colour a category. The line over it is the resident set or device used: what the system sees.
- **The peak decides whether a run fits.** It is marked, and covers the steps after the warm-up.
- **Click the chart**, or move the slider, to see what was alive at that instant: by category, by module, by tensor.
- **Segment map** and **Allocator events** show what the allocator held at that instant and what it asked of the driver: as recorded, or,
  where that was not recorded, as a GPU's allocator would have.
- **Blocks** shows each allocation as a rectangle from birth to end. Wheel or W and S zoom, drag or A and D pan, 0 shows all, a click pins.
- Long recordings are reduced for drawing; the peak and every number in the tables stay exact.
"""
)
