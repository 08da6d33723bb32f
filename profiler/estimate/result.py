"""What a closed formula says of a run: bytes in parts, with the formula, its source and where it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from profiler.recording import Category, Provenance

Part = Category | str
"""A category, or a label where a formula has a part that no category names."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One formula's answer to how much memory a run needs at its peak."""

    provenance: ClassVar[Provenance] = Provenance.ESTIMATED

    name: str
    """Whose formula, such as ``Headroom`` or ``DeepSpeed, ZeRO stage 3``."""
    formula_text: str
    source_url: str
    validity: str
    """What the formula assumes and leaves out, in a sentence or two."""
    parts: Mapping[Part, int]
    """Bytes of each part; the total is their sum."""

    @property
    def total_bytes(self) -> int:
        """The sum of the parts: the estimated peak."""
        return sum(self.parts.values())

    def to_json(self) -> dict[str, Any]:
        """Return plain data; parts under the category's name or the label."""
        return {
            "name": self.name,
            "provenance": str(self.provenance),
            "total_bytes": self.total_bytes,
            "parts": {part.name if isinstance(part, Category) else part: num_bytes for part, num_bytes in self.parts.items()},
            "formula": self.formula_text,
            "source_url": self.source_url,
            "validity": self.validity,
        }
