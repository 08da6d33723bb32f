"""The numbers of an out-of-memory message or a memory summary -> what ran out and why, what to try, and Markdown to paste."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from profiler.formats.messages import RECORDING, MemoryFacts, message_start, read_message
from profiler.formats.redact import redact
from profiler.formats.tensor_sizes import SizedTensor, driver_bytes, tensors_of_size
from profiler.spec import Model, Workload
from profiler.units import MIB, format_bytes

_MAX_QUOTE = 1_200
"""Characters from the message's first on."""
_MAX_BEFORE = 400
_SNAPSHOT = (
    "Record a snapshot (torch.cuda.memory._record_memory_history, then _dump_snapshot) and open it here: it tells what the tensors are."
)
_FIXED_REQUESTS = {driver_bytes(1): "up to 1 MiB", driver_bytes(2 * MIB): "between 1 and 10 MiB"}


@dataclass(frozen=True)
class Triage:
    """What can be said about a text that somebody pasted, or about a recording."""

    facts: MemoryFacts
    verdict: str
    """One sentence: what ran out, and why."""
    explanation: tuple[str, ...]
    """Sentences, each with its numbers."""
    suggestions: tuple[str, ...]
    """What to try, likeliest help first."""
    tensors: tuple[SizedTensor, ...]
    """Tensors of the named model that have the requested size."""
    quote: str
    """The message, with a few lines before and after it, without paths and names; of a recording, the request's call stack."""
    alive: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Of a recording: bytes that were held then, largest first, by what; one table a key."""

    def to_markdown(self) -> str:
        """Return all of it as Markdown, ready for a bug report; paths and names are left out."""
        lines = [f"**{self.verdict}**", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in _table(self.facts)]
        lines += ["", *(f"- {sentence}" for sentence in self.explanation)]
        for title, held in self.alive.items():
            lines += ["", f"| {title} | |", "|---|---|", *(f"| {_cell(name)} | {format_bytes(size)} |" for name, size in held.items())]
        if self.suggestions:
            lines += ["", "What to try, likeliest help first:", "", *(f"{n}. {text}" for n, text in enumerate(self.suggestions, 1))]
        return "\n".join([*lines, *self._quoted(), ""])

    def _quoted(self) -> list[str]:
        if not self.quote:
            return []
        what = "Call stack of the request" if self.facts.source == RECORDING else "Message"
        summary = f"<details><summary>{what} (paths and names removed)</summary>"
        return ["", summary, "", "```", self.quote.replace("```", "'''"), "```", "</details>"]


def _cell(text: str) -> str:
    """Return a name that stays one cell of a table, whatever a recording calls its modules."""
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'").replace("<", "&lt;")


def triage(text: str, model: Model | None = None, workload: Workload | None = None, *, names: tuple[str, ...] = ()) -> Triage:
    """Return what a pasted out-of-memory message or memory summary means.

    Args:
        text: what torch printed; a whole log is fine.
        model: what ran, where known: tells which tensor has the requested size.
        workload: its batch and sequence.
        names: words to leave out of what is quoted.

    Raises:
        FormatError: there is no such message in the text.
        SpecError: the model is not known.
    """
    facts = read_message(text)
    tensors: tuple[SizedTensor, ...] = ()
    if model is not None and facts.requested_bytes is not None:
        within = -(-facts.requested_unit_bytes // 200)
        tensors = tuple(tensors_of_size(facts.requested_bytes, model, workload, within_bytes=within)[:5])
    return Triage(
        facts=facts,
        verdict=_verdict(facts),
        explanation=tuple(_explanation(facts, tensors)),
        suggestions=tuple(suggestions(facts, tensors)),
        tensors=tensors,
        quote=_quote(text, names),
    )


def _quote(text: str, names: tuple[str, ...]) -> str:
    """Return the text from the message on, after the few lines that lead to it.

    Each half is redacted as a whole before it is cut: half of a path is none that a rule knows.
    """
    start = message_start(text)
    before = redact(text[:start], names)
    if len(before) > _MAX_BEFORE:
        before = before[-_MAX_BEFORE:]
        before = before.partition("\n")[2] or before
    return (before + redact(text[start:], names)[:_MAX_QUOTE]).strip()


def _is_too_large(facts: MemoryFacts) -> bool:
    return bool(facts.requested_bytes and facts.total_bytes and facts.requested_bytes > facts.total_bytes)


def _is_limited(facts: MemoryFacts) -> bool:
    """The process's own limit was reached before the card's."""
    if facts.backend == "MPS":
        return _is_over_mps_limit(facts)
    return bool(
        facts.allowed_bytes and facts.requested_bytes and facts.free_bytes is not None and facts.requested_bytes <= facts.free_bytes
    )


def _is_over_mps_limit(facts: MemoryFacts) -> bool:
    """Tensors, what else the process has on the device, and the request are more than is allowed, which is what MPS compares."""
    if facts.allocated_bytes is None or facts.requested_bytes is None or facts.allowed_bytes is None:
        return False
    return facts.allocated_bytes + (facts.other_allocated_bytes or 0) + facts.requested_bytes > facts.allowed_bytes


def _is_fragmented(facts: MemoryFacts) -> bool:
    """What was reserved and free, with what the driver had, would have been enough."""
    if facts.requested_bytes is None or not facts.unallocated_bytes:
        return False
    return facts.unallocated_bytes + (facts.free_bytes or 0) >= facts.requested_bytes


def _other_bytes(facts: MemoryFacts) -> int:
    """Return what is neither free nor this process's."""
    if facts.other_process_bytes:
        return sum(facts.other_process_bytes)
    if facts.total_bytes is None or facts.free_bytes is None or facts.process_bytes is None:
        return 0
    return max(facts.total_bytes - facts.free_bytes - facts.process_bytes, 0)


def _is_crowded(facts: MemoryFacts) -> bool:
    return bool(facts.total_bytes and facts.requested_bytes and _other_bytes(facts) >= max(facts.requested_bytes, facts.total_bytes // 20))


def _spilled(facts: MemoryFacts) -> bool:
    return bool(facts.allocated_bytes and facts.total_bytes and facts.allocated_bytes > facts.total_bytes)


def _verdict(facts: MemoryFacts) -> str:
    where = f"GPU {facts.device}" if facts.device is not None else "the GPU"
    if facts.source == "memory summary":
        reserved = facts.reserved_bytes or 0
        return f"PyTorch holds {format_bytes(reserved)} of {where}, {format_bytes(facts.allocated_bytes or 0)} of it in tensors."
    if facts.requested_bytes is None:
        return f"{facts.backend} ran out of memory; the message says neither how much was asked for nor who held it."
    asked = format_bytes(facts.requested_bytes)
    if facts.backend == "CPU":
        return f"The machine's own memory (RAM) ran out when {asked} more were asked for; the GPU is not concerned."
    if _is_too_large(facts):
        total = format_bytes(facts.total_bytes or 0)
        return f"One request of {asked} is larger than all of {where} ({total}): nothing that is freed can make it fit."
    if _is_limited(facts):
        return _limit_verdict(facts, asked, where)
    if _is_crowded(facts):
        return f"{asked} could not be had on {where}, where other processes hold {format_bytes(_other_bytes(facts))}."
    if _is_fragmented(facts):
        return f"{asked} could not be had on {where} although {_unused(facts)}: most likely it was in pieces that were too small."
    return f"{asked} could not be had on {where}{_held_by_tensors(facts)}"


def _limit_verdict(facts: MemoryFacts, asked: str, where: str) -> str:
    limit = format_bytes(facts.allowed_bytes or 0)
    if facts.backend != "MPS":
        return f"The limit of {limit} that was set for this process was reached, not the memory of {where}."
    others = f" and other allocations {format_bytes(facts.other_allocated_bytes)}" if facts.other_allocated_bytes else ""
    held = format_bytes(facts.allocated_bytes or 0)
    return f"The limit of {limit} that MPS keeps was reached: tensors held {held}{others} when {asked} more were asked for."


def _unused(facts: MemoryFacts) -> str:
    held, asked, free = facts.unallocated_bytes or 0, facts.requested_bytes or 0, facts.free_bytes or 0
    if held >= asked:
        return f"PyTorch held {format_bytes(held)} that no tensor used"
    return f"the {format_bytes(held)} that PyTorch held and no tensor used and the {format_bytes(free)} that were free are enough together"


def _held_by_tensors(facts: MemoryFacts) -> str:
    """Return the end of a verdict where nothing but the tensors can be the cause, as far as the message tells."""
    if facts.allocated_bytes is None:
        return "; the message does not say why: it does not tell what held the memory."
    held = format_bytes(facts.allocated_bytes)
    if facts.total_bytes is None:
        return f": tensors hold {held}."
    of = f"{held} of {format_bytes(facts.total_bytes)}"
    if 2 * facts.allocated_bytes < facts.total_bytes:
        return f", where tensors hold only {of}; the message does not say what holds the rest."
    return f": tensors hold {of}."


def _explanation(facts: MemoryFacts, tensors: tuple[SizedTensor, ...]) -> list[str]:
    said = []
    if facts.requested_bytes in _FIXED_REQUESTS and facts.backend in ("CUDA", "HIP"):
        what = _FIXED_REQUESTS[facts.requested_bytes or 0]
        said.append(f"{format_bytes(facts.requested_bytes or 0)} is what PyTorch asks the driver for on behalf of any tensor {what}.")
    if tensors:
        others = f" It is also that of {'; '.join(str(tensor) for tensor in tensors[1:])}." if tensors[1:] else ""
        said.append(f"It is the size of {tensors[0]}.{others}")
    if facts.allocated_bytes is not None and facts.total_bytes:
        share = 100 * facts.allocated_bytes / facts.total_bytes
        said.append(
            f"Tensors held {format_bytes(facts.allocated_bytes)}, {share:.0f} % of the {format_bytes(facts.total_bytes)} there are."
        )
    if facts.unallocated_bytes:
        said.append(
            f"{format_bytes(facts.unallocated_bytes)} were reserved by PyTorch and held by no tensor; they serve later requests only where "
            "a piece is large enough, in the same pool and on the same stream."
        )
    if _is_fragmented(facts) and not _is_limited(facts):
        said.append(
            "The totals alone do not tell why that memory was of no use: it can also be another stream's, in another pool, or freed while "
            "another stream still used it. A snapshot tells."
        )
    if facts.private_pool_bytes:
        pools = format_bytes(facts.private_pool_bytes)
        said.append(f"{pools} of the tensors' memory is in private pools of CUDA graphs, which no other tensor may use.")
    context = (facts.process_bytes or 0) - (facts.reserved_bytes or 0)
    if facts.process_bytes is not None and facts.reserved_bytes is not None and context > 0:
        said.append(f"{format_bytes(context)} of this process are not PyTorch's tensors: the CUDA context, libraries, NCCL.")
    if other := _other_bytes(facts):
        said.append(f"Other processes on the GPU held {format_bytes(other)}.")
    if _spilled(facts):
        said.append("Tensors held more than the card has: the driver had moved part of them to the machine's memory, which is slow.")
    return said + _summary_explanation(facts)


def _summary_explanation(facts: MemoryFacts) -> list[str]:
    said = []
    if facts.peak_allocated_bytes is not None and facts.peak_reserved_bytes is not None:
        peaks = (format_bytes(facts.peak_allocated_bytes), format_bytes(facts.peak_reserved_bytes))
        said.append(f"At their peaks tensors held {peaks[0]} and PyTorch reserved {peaks[1]}.")
    if facts.non_releasable_bytes:
        pieces = format_bytes(facts.non_releasable_bytes)
        said.append(f"{pieces} are free pieces of segments that are partly in use: empty_cache cannot give them back.")
    if facts.num_retries:
        said.append(f"{facts.num_retries:,} times PyTorch gave back all it could and asked again, which makes a step slow.")
    if facts.num_ooms:
        said.append(f"{facts.num_ooms:,} requests failed.")
    return said


def suggestions(facts: MemoryFacts, tensors: tuple[SizedTensor, ...] = ()) -> list[str]:
    """Return what to try, likeliest help first."""
    if facts.backend == "CPU":
        return ["Use a smaller batch or fewer data-loader workers, or load the model in its final precision (torch_dtype, meta device)."]
    said = []
    if _is_limited(facts) and facts.backend == "MPS":
        said.append(
            "Raise the limit: torch.mps.set_per_process_memory_fraction, or PYTORCH_MPS_HIGH_WATERMARK_RATIO (0.0 lifts it; then the whole "
            "machine can run out)."
        )
    elif _is_limited(facts):
        said.append("Raise or drop torch.cuda.set_per_process_memory_fraction (per_process_memory_fraction in PYTORCH_ALLOC_CONF).")
    if _is_crowded(facts):
        said.append("End the other processes (nvidia-smi lists them; a notebook's kernel keeps its memory until it is restarted).")
    if _is_fragmented(facts) or (facts.non_releasable_bytes or 0) > (facts.allocated_bytes or 0) // 5:
        said.append(
            "Set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True before Python starts (torch 2.1 and newer; 2.9 ignores the new "
            "name PYTORCH_ALLOC_CONF). If it is set already, the message suggests it all the same."
        )
    if any("logits" in tensor.name for tensor in tensors):
        said.append("Compute the loss in chunks, or with a fused linear cross-entropy: then the logits are never there as a whole.")
    if any("attention scores" in tensor.name for tensor in tensors):
        said.append("Use scaled_dot_product_attention or flash attention: they never hold the scores as a whole.")
    said.append("Use a smaller micro-batch with gradient accumulation, or shorter sequences: activations and logits shrink with both.")
    said.append("Switch on activation checkpointing if the peak is in backward, or a leaner optimizer if it is in the optimizer's step.")
    if facts.backend in ("CUDA", "HIP") and facts.source != RECORDING:
        said.append(_SNAPSHOT)
    return said


def _table(facts: MemoryFacts) -> list[tuple[str, str]]:
    rows = [
        ("asked for", facts.requested_bytes),
        ("total", facts.total_bytes),
        ("free", facts.free_bytes),
        ("limit of this process", facts.allowed_bytes),
        ("held by this process", facts.process_bytes),
        ("held by other processes", _other_bytes(facts) or None),
        ("held by tensors", facts.allocated_bytes),
        ("other allocations of this process", facts.other_allocated_bytes),
        ("reserved, held by no tensor", facts.unallocated_bytes),
        ("in private pools", facts.private_pool_bytes),
        ("tensors at their peak", facts.peak_allocated_bytes),
        ("reserved at its peak", facts.peak_reserved_bytes),
    ]
    return [(name, format_bytes(value)) for name, value in rows if value is not None]
