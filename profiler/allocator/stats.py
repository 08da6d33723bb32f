"""Counters of the allocator, under PyTorch's own names (``torch.cuda.memory_stats``)."""

from __future__ import annotations

from dataclasses import dataclass

_BYTES = ("allocated_bytes", "requested_bytes", "active_bytes", "reserved_bytes")


@dataclass(slots=True)
class Stats:
    """Bytes and counts now and at their peak."""

    allocated_bytes: int = 0
    requested_bytes: int = 0
    active_bytes: int = 0
    reserved_bytes: int = 0
    peak_allocated_bytes: int = 0
    peak_requested_bytes: int = 0
    peak_active_bytes: int = 0
    peak_reserved_bytes: int = 0
    num_device_alloc: int = 0
    """Calls of cudaMalloc, and mappings of expandable segments."""
    num_device_free: int = 0
    num_alloc_retries: int = 0
    num_ooms: int = 0

    def start_peaks(self) -> None:
        """Let the peaks begin at what is held now."""
        for name in _BYTES:
            setattr(self, f"peak_{name}", getattr(self, name))

    def to_torch(self, inactive_split_bytes: int) -> dict[str, int]:
        """Return the numbers under the keys of ``torch.cuda.memory_stats()``.

        requested_bytes counts live tensors only; torch also counts blocks that are freed and wait for another stream.
        """
        values = {}
        for name in _BYTES:
            values[f"{name}.all.current"] = getattr(self, name)
            values[f"{name}.all.peak"] = getattr(self, f"peak_{name}")
        counts = ("num_device_alloc", "num_device_free", "num_alloc_retries", "num_ooms")
        return values | {"inactive_split_bytes.all.current": inactive_split_bytes} | {name: getattr(self, name) for name in counts}
