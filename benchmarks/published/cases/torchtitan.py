"""torchtitan's Llama 3.1 8B on eight H100: FSDP2 with float32 shares and bfloat16 products, activations saved by operator, reserved memory.

Its script lets the allocator's segments expand. The model here is transformers', whose loss and norms keep other temporaries than
torchtitan's, and the communication library's buffers are outside both numbers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.published.table import Published, Row, Tolerance
from profiler.analysis.summary import summarize
from profiler.recording import Provenance
from profiler.simulate.engine import simulate_job
from profiler.spec import Job, Model, Toggle, Workload
from profiler.storage import read_recording
from profiler.units import GIB

_ID = "titan-T1-FSDP"
_TOLERANCE = Tolerance(share=0.10)
_JOB = Job(
    model=Model(name="llama-3-8b"),
    workload=Workload(batch=2, seq=8192, steps=1),
    device="h100-80gb",
    toggles=(
        Toggle.parse("fsdp2:ranks=8,compute=bfloat16"),
        Toggle.parse("selective-checkpointing:save=every-second-matmul"),
        Toggle.parse("adamw:implementation=fused"),
        Toggle.parse("expandable-segments"),
    ),
)


def rows(published: Published) -> Iterator[Row]:
    """Yield the peak of reserved memory of one rank of eight."""
    if _ID in set(published.ids(_ID)):
        note = "transformers' model in place of torchtitan's"
        yield from published.row(_ID, reserved_bytes() / GIB, _TOLERANCE, note, provenance=Provenance.SIMULATED)


def reserved_bytes() -> int:
    """Return the peak of what the allocator of the first rank has reserved."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rank.headroom"
        simulate_job(_JOB, path)
        return int(summarize(read_recording(path))["peak_reserved_bytes"])
