"""Monitor: what is the machine doing now?"""

from pages.shared import attach, components, live, navigation

navigation.require_app()
components.heading("Monitor", "What is the machine doing now?")

components.fragment(live.panel, every_seconds=live.REFRESH_SECONDS)
attach.panel()
components.how_to_read(
    """
- **Memory used** is the machine's memory that a new program could not have; in a container, of the container's share.
- **Device used** is what the driver says is in use on a GPU: PyTorch's reserved memory, the CUDA context, libraries and other processes.
- **Recordings in progress** are runs of this dashboard and trainings that write into its folder; their timeline grows with each step.
"""
)
