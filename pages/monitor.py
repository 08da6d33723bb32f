"""Monitor: what is the machine doing now?"""

from pages.shared import attach, components, live, navigation

REFRESH_SECONDS = 2.0

navigation.require_app()
components.heading("Monitor", "What is the machine doing now?")


def now() -> None:
    """Draw the machine and what is recorded on it; both in one part, which costs half of two that refresh."""
    live.panel()
    attach.panel()


components.fragment(now, every_seconds=REFRESH_SECONDS)
components.how_to_read(
    """
- **Memory used** is the machine's memory that a new program could not have; in a container, of the container's share.
- **Device used** is what the driver says is in use on a GPU: PyTorch's reserved memory, the CUDA context, libraries and other processes.
- **Recordings in progress** are runs of this dashboard and trainings that write into its folder; their timeline grows with each step.
"""
)
