"""Reads a canvas payload in Python, as the component does in the browser."""

from __future__ import annotations

import json
from typing import Any

import numpy as np


def unpack(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:4], "little")
    header = json.loads(data[4 : 4 + length])
    assert (4 + length) % 8 == 0
    body = data[4 + length :]
    for name, (kind, offset, count) in header["columns"].items():
        assert offset % 8 == 0
        header[name] = np.frombuffer(body, np.dtype(f"<{kind}"), count, offset)
    return header
