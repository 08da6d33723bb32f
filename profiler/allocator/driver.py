"""The card below the allocator: it hands out address ranges until its capacity is reached."""

from __future__ import annotations

from profiler.units import MIB

ABOVE_ALL_ADDRESSES = 1 << 48
"""Where made-up addresses begin: no processor in use today gives a program addresses up there, so they never meet recorded ones."""
_GRANULARITY_BYTES = 2 * MIB
_DEFAULT_TOTAL_BYTES = 1 << 40


class Driver:
    """A card with room for ``capacity_bytes``.

    Args:
        capacity_bytes: what the allocator may reserve: the card's memory less what lies outside (context, other processes); None: no limit.
        total_bytes: the card's whole memory: expandable segments reserve addresses for 9/8 of it, and the memory fraction refers to it.
        first_address: where the addresses begin.
        descending: hand out addresses downwards, the other order a driver may choose.
    """

    def __init__(
        self,
        capacity_bytes: int | None = None,
        total_bytes: int | None = None,
        first_address: int = ABOVE_ALL_ADDRESSES,
        *,
        descending: bool = False,
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self.knows_total = total_bytes is not None or capacity_bytes is not None
        self.total_bytes = total_bytes or capacity_bytes or _DEFAULT_TOTAL_BYTES
        self.used_bytes = 0
        self._next = first_address
        self._descending = descending

    def reserve(self, num_bytes: int) -> bool:
        """Take memory; False where there is not enough."""
        if self.capacity_bytes is not None and self.used_bytes + num_bytes > self.capacity_bytes:
            return False
        self.used_bytes += num_bytes
        return True

    def give_back(self, num_bytes: int) -> None:
        """Return memory."""
        self.used_bytes -= num_bytes

    def address_for(self, num_bytes: int) -> int:
        """Return the address of a new range; the replay of a history overrides this with what was recorded."""
        size = -(-num_bytes // _GRANULARITY_BYTES) * _GRANULARITY_BYTES
        address = self._next - size if self._descending else self._next
        self._next = address if self._descending else address + size
        return address
