"""What torch prints when memory runs out, or in a memory summary -> numbers.

Wordings of torch 1.0 to 2.13 for CUDA and HIP, XPU's, MPS's and the CPU's. Sources: c10/cuda/CUDACachingAllocator.cpp of these versions,
torch/cuda/memory.py (memory_summary), and messages that people pasted into issues.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from profiler.errors import FormatError
from profiler.units import GIB, KIB, MIB

MAX_CHARS = 200_000
"""Of a text; longer ones are logs of which the message must be cut out."""
MAX_BYTES = 2**60
RECORDING = "recording"

_FACTORS = {"bytes": 1, "byte": 1, "b": 1, "kib": KIB, "mib": MIB, "gib": GIB, "tib": 2**10 * GIB, "pib": 2**20 * GIB}
# Before torch 1.13 the summary said KB and meant 1,024 bytes.
_FACTORS |= {old: _FACTORS[new] for old, new in (("kb", "kib"), ("mb", "mib"), ("gb", "gib"), ("tb", "tib"))}
_SIZE = r"(\d{1,15}(?:\.\d{1,6})?) {0,3}(bytes|[KMGTP]?i?B)"


@dataclass(frozen=True, kw_only=True)
class MemoryFacts:
    """What a message or a summary says; None where it does not."""

    source: str
    """``out-of-memory message``, ``memory summary`` or `RECORDING`."""
    backend: str = "CUDA"
    """CUDA, HIP, XPU, MPS or CPU."""
    device: int | None = None
    requested_bytes: int | None = None
    """What could not be had, as it is written: rounded."""
    requested_unit_bytes: int = 1
    """The unit it is written in; two decimals of it are known."""
    total_bytes: int | None = None
    free_bytes: int | None = None
    """What the driver still had for this process."""
    allowed_bytes: int | None = None
    """What set_per_process_memory_fraction, or MPS, leaves this process."""
    other_allocated_bytes: int | None = None
    """What this process holds of an MPS device beside tensors."""
    process_bytes: int | None = None
    """What this process held on the device, with what is not PyTorch's."""
    other_process_bytes: tuple[int, ...] = ()
    """What other processes held."""
    allocated_bytes: int | None = None
    """Held by tensors."""
    private_pool_bytes: int | None = None
    """Of that, in the private pools of CUDA graphs."""
    unallocated_bytes: int | None = None
    """Reserved by PyTorch and held by no tensor."""
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None
    non_releasable_bytes: int | None = None
    """Free pieces of segments that are partly in use."""
    num_ooms: int | None = None
    num_retries: int | None = None
    said_max_split: bool = False
    """The message suggests max_split_size_mb, which versions before 2.2 did."""

    @property
    def reserved_bytes(self) -> int | None:
        """What PyTorch held of the device."""
        if self.allocated_bytes is None or self.unallocated_bytes is None:
            return None
        return self.allocated_bytes + self.unallocated_bytes


_KINDS = re.compile(
    r"(?P<backend>CUDA|HIP|XPU) out of memory\.? Tried to allocate"
    r"|(?P<mps>MPS) backend out of memory"
    r"|(?P<cpu>DefaultCPUAllocator: (?:can't allocate memory|not enough memory): you tried to allocate)"
    r"|(?P<pool>Allocation on device \d{1,4} would exceed allowed memory)"
    r"|(?P<summary>PyTorch (?:CUDA )?memory summary)"
    r"|(?P<bare>CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|hipErrorOutOfMemory|CUDNN_STATUS_ALLOC_FAILED)"
)
_PATTERNS = {
    "requested_bytes": rf"Tried to allocate {_SIZE}",
    "total_bytes": rf"{_SIZE} total capacity|total capac?ity of {_SIZE}|has a total capacty of {_SIZE}|Device limit {{0,20}}: {_SIZE}",
    "free_bytes": rf"of which {_SIZE} is free|{_SIZE} free[;)]|Free \(according to CUDA\) {{0,20}}: {_SIZE}",
    "allowed_bytes": rf"{_SIZE} allowed;|max allowed: {_SIZE}",
    "process_bytes": rf"this process has {_SIZE} memory in use",
    "allocated_bytes": rf"{_SIZE} is allocated by PyTorch|{_SIZE} already allocated|MPS allocated: {_SIZE}"
    rf"|Currently allocated {{0,20}}: {_SIZE}",
    "other_allocated_bytes": rf"other allocations: {_SIZE}",
    "private_pool_bytes": rf"{_SIZE} allocated in private pools",
    "unallocated_bytes": rf"{_SIZE} is reserved by PyTorch but unallocated|{_SIZE} cached[;)]",
    "reserved": rf"{_SIZE} reserved in total by PyTorch",
}
_COMPILED = {name: re.compile(pattern) for name, pattern in _PATTERNS.items()}
_OTHERS = re.compile(rf"Process \d{{1,10}} has {_SIZE} memory in use")
_DEVICE = re.compile(r"GPU (\d{1,4})|on device (\d{1,4})|device ID (\d{1,4})")
_CPU_BYTES = re.compile(r"you tried to allocate (\d{1,20}) bytes")
_POOL_REQUEST = re.compile(rf"Requested {{0,20}}: {_SIZE}")
_UNLIMITED = 2**50
"""Torch writes 17179869184.00 GiB where there is no limit."""
_AFTER = 4_000
"""Characters of a message that can belong to it."""


def read_message(text: str) -> MemoryFacts:
    """Return the numbers of the last out-of-memory message in a text, or of the memory summary in it.

    Raises:
        FormatError: the text is too long, or there is neither in it.
    """
    match = _found(text)
    part = " ".join(text[match.start() : match.start() + _AFTER].split())
    if match["summary"]:
        return _summary(text[match.start() :])
    if match["cpu"]:
        size = _CPU_BYTES.search(part)
        return MemoryFacts(source="out-of-memory message", backend="CPU", requested_bytes=_bounded(size[1]) if size else None)
    backend = match["backend"] or match["mps"] or ("HIP" if "hip" in match[0] else "CUDA")
    return _message(part, backend)


def message_start(text: str) -> int:
    """Return the place of the first character of what `read_message` reads.

    Raises:
        FormatError: as `read_message`.
    """
    return _found(text).start()


def _found(text: str) -> re.Match[str]:
    if len(text) > MAX_CHARS:
        raise FormatError(f"The text has {len(text):,} characters; at most {MAX_CHARS:,} are read. Paste the message itself.")
    found = list(_KINDS.finditer(text))
    if not found:
        raise FormatError(
            "There is no out-of-memory message and no memory summary of torch in this text. Paste the line that begins with "
            "'CUDA out of memory. Tried to allocate', or what torch.cuda.memory_summary() printed."
        )
    messages = [match for match in found if match.lastgroup not in ("summary", "bare")]
    return (messages or found)[-1]


def _message(part: str, backend: str) -> MemoryFacts:
    values = {name: _size(pattern, part) for name, pattern in _COMPILED.items()}
    requested = _COMPILED["requested_bytes"].search(part) or _POOL_REQUEST.search(part)
    reserved = values.pop("reserved")
    if values["unallocated_bytes"] is None and reserved is not None and values["allocated_bytes"] is not None:
        values["unallocated_bytes"] = max(reserved - values["allocated_bytes"], 0)
    if values["requested_bytes"] is None:
        values["requested_bytes"] = _size(_POOL_REQUEST, part)
    # In torch 2.1 and later this process itself is listed by its number where the driver knows no more about it.
    others = [size for match in _OTHERS.finditer(part) if (size := _bytes(match[1], match[2])) < _UNLIMITED]
    device = _DEVICE.search(part)
    return MemoryFacts(
        source="out-of-memory message",
        backend=backend,
        device=int(next(group for group in device.groups() if group)) if device else None,
        requested_unit_bytes=_FACTORS[requested[2].lower()] if requested else 1,
        other_process_bytes=tuple(others if "this process has" in part else _without_own(others, values)),
        said_max_split="max_split_size_mb" in part,
        **values,
    )


def _without_own(others: list[int], values: dict[str, int | None]) -> list[int]:
    """Return what other processes hold, without the one that must be this one.

    Inside containers the driver gives numbers that torch cannot match with its own, so this process is listed as if it were another. It is
    taken for the first that holds at least what PyTorch reserved, where no other entry says what this process holds.
    """
    if values["allocated_bytes"] is None:
        return others
    reserved = values["allocated_bytes"] + (values["unallocated_bytes"] or 0)
    own = next((size for size in others if size >= reserved * 0.99), None)
    if own is None:
        return others
    values["process_bytes"] = own
    left = list(others)
    left.remove(own)
    return left


_ROW = re.compile(r"^\W{0,4}(?P<name>[A-Z][A-Za-z -]{3,40}?) *\|(?P<cells>[^\n]{10,200})$", re.MULTILINE)
_CELL = re.compile(r"(\d{1,15}) {1,4}([KMGTP]?i?B)")
_COUNTS = re.compile(r"CUDA OOMs: {0,9}(\d{1,9}) {0,40}\| {0,40}cudaMalloc retries: {0,9}(\d{1,9})")


def _summary(text: str) -> MemoryFacts:
    """Return the numbers of a memory summary: now and at the peak."""
    rows: dict[str, list[int]] = {}
    for match in _ROW.finditer(text[:MAX_CHARS]):
        sizes = [_bytes(cell[1], cell[2]) for cell in _CELL.finditer(match["cells"])]
        if len(sizes) >= 2:
            rows.setdefault(match["name"].strip(), sizes)
    allocated, reserved = rows.get("Allocated memory"), rows.get("GPU reserved memory")
    if allocated is None or reserved is None:
        raise FormatError("The memory summary has no rows 'Allocated memory' and 'GPU reserved memory'. Paste all of it.")
    counts, device = _COUNTS.search(text), _DEVICE.search(text)
    non_releasable = rows.get("Non-releasable memory")
    return MemoryFacts(
        source="memory summary",
        device=int(next(group for group in device.groups() if group)) if device else None,
        allocated_bytes=allocated[0],
        unallocated_bytes=max(reserved[0] - allocated[0], 0),
        peak_allocated_bytes=allocated[1],
        peak_reserved_bytes=reserved[1],
        non_releasable_bytes=non_releasable[0] if non_releasable else None,
        num_ooms=int(counts[1]) if counts else None,
        num_retries=int(counts[2]) if counts else None,
    )


def _size(pattern: re.Pattern[str], part: str) -> int | None:
    match = pattern.search(part)
    if match is None:
        return None
    number, unit = [group for group in match.groups() if group is not None][:2]
    size = _bytes(number, unit)
    return size if size < _UNLIMITED else None


def _bytes(number: str, unit: str) -> int:
    return min(round(float(number) * _FACTORS[unit.lower()]), MAX_BYTES)


def _bounded(number: str) -> int:
    return min(int(number), MAX_BYTES)
