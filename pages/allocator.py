"""Allocator: what does the allocator reserve, and why?"""

import streamlit as st

from pages.shared import (
    allocator_charts,
    allocator_details,
    allocator_downloads,
    allocator_editor,
    allocator_failure,
    allocator_what_if,
    choosing,
    components,
    navigation,
    replays,
    session,
)

navigation.require_app()
components.heading("Allocator", "What does the allocator reserve, and why?")

entry = choosing.recording()
if entry is None:
    st.stop()

lane = choosing.lane(entry.id)
components.provenance(entry.metadata)
timeline = session.timeline(entry.id, lane)
if not timeline.num_events:
    st.info("This recording has no events: nothing was allocated or freed while it ran.")
    st.stop()
choice = allocator_editor.editor(*replays.in_force(entry.id, lane))
allocator_what_if.metrics(entry.id, lane, choice)
st.markdown(allocator_what_if.sentence(entry.id, lane, choice))


def explore() -> None:
    """Draw the charts and the details of an instant; they change together."""
    allocator_charts.side_by_side(entry.id, lane, choice, timeline)
    st.subheader("Segments and blocks", anchor=False)
    allocator_details.panel(entry.id, lane, choice, timeline)


components.fragment(explore)
st.subheader("Other settings", anchor=False)
table = allocator_what_if.table(entry.id, lane, choice)
st.subheader("Out of memory", anchor=False)
allocator_failure.panel(entry.id, lane, choice, timeline)
allocator_downloads.row(entry.id, lane, choice, table)
components.how_to_read(
    """
- **Allocated** is what live tensors hold. **Reserved** is what PyTorch's caching allocator took from the card: this is what `nvidia-smi`
  sees beside the CUDA context, and what runs out.
- **What lies between** is free inside the allocator: cached for later, or in pieces that no request fits. That is external fragmentation.
  Internal fragmentation is what rounding adds to each tensor.
- **Each row of the map is a segment** that was obtained from the driver; blocks in use keep it from being given back.
- **Type settings** as in `PYTORCH_CUDA_ALLOC_CONF` and a card's size, and the same requests are replayed: every number here that is not
  marked measured or imported is such a simulation.
- **A recording made on a CPU** shows what the same requests would reserve on a GPU.
"""
)
