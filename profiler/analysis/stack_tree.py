"""Blocks with call stacks -> a tree of calls with exact sums: own code first, library frames folded into what it called last.

For recordings without modules, as snapshots of other people's programs are: the way from the script to the line that allocated.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from profiler.analysis.columns import Array, read_numbers
from profiler.analysis.timeline import Timeline
from profiler.analysis.tree import MAX_DEPTH, Path, Tree, TreeNode, sums_by_category

if TYPE_CHECKING:
    import pandas as pd

NO_STACK = "(no call stack)"
NO_OWN_CODE = "(library code alone)"
BACKWARD = "(backward, outside Python)"
SEPARATOR = " > "
# fmt: off
_LIBRARIES = frozenset({
    "torch", "torchvision", "torchaudio", "torchao", "transformers", "accelerate", "peft",
    "lightning", "pytorch_lightning", "deepspeed", "numpy", "datasets", "trl", "einops", "timm",
    "xformers", "flash_attn", "triton", "diffusers", "bitsandbytes", "tqdm",
})
# fmt: on
"""Packages whose paths a recording of this machine shows without the folder they were installed in."""
_INSTALLED = re.compile(r"(?i)(?:^|/)(?:site|dist)-packages/([^/]+)")
_STANDARD = re.compile(r"(?i)/lib/python\d[\d.]*/|/python[\d.]*/lib/|^<frozen ")
_OWN = re.compile(r"\.py$|^<(?:ipython|stdin|string|cell)|ipykernel")
_OPERATOR = re.compile(r"at::_ops::(\w+?)::(?:call|redispatch)\b")
_BACKWARD_NODE = re.compile(r"generated::(\w+?)::apply\b")


class _Frame(NamedTuple):
    """One call of a stack."""

    label: str
    is_own: bool
    library_call: str
    """What to call the library code that ends in this frame; empty where the frame says nothing."""
    is_autograd: bool


def has_stacks(timeline: Timeline) -> bool:
    """Return whether blocks of this lane have call stacks."""
    return bool((timeline.blocks.stack[timeline.members] >= 0).any())


def has_modules(timeline: Timeline) -> bool:
    """Return whether blocks of this lane have modules."""
    return bool((timeline.blocks.module.codes[timeline.members] >= 0).any())


def stack_tree(timeline: Timeline, stacks: pa.Table, event: int, max_nodes: int = 300) -> pd.DataFrame:
    """Return the tree of calls with the bytes alive right after ``event``, for an icicle.

    Columns: those of `attribution.module_tree`. A branch is the way through the user's own code, outermost call first; its last node is the
    library function or operator that was called there. What does not fit is summed into one node "other" under its parent.

    Args:
        timeline: the lane.
        stacks: the recording's call stacks.
        event: the instant.
        max_nodes: nodes to return at most, 3 or more.
    """
    import pandas as pd  # what only reads recordings does without

    alive, blocks = timeline.alive(event), timeline.blocks
    numbers, codes = np.unique(blocks.stack[alive], return_inverse=True)
    sums = sums_by_category(codes, len(numbers), blocks.category[alive], blocks.bytes[alive])
    texts = stack_texts(stacks, numbers)
    tree = Tree()
    for number, row in zip(numbers.tolist(), sums, strict=False):
        if row.any():
            tree.add(call_path(texts.get(number, "")), row)
    return pd.DataFrame(tree.nodes(_parents_first(tree.largest(max_nodes)), SEPARATOR), columns=list(TreeNode._fields))


def call_path(frames: str) -> list[str]:
    """Return the way that a call stack goes, outermost first: own frames, then the library code that the last of them called.

    Args:
        frames: one ``file:line:function`` a line, innermost first; empty where no stack was recorded.
    """
    if not frames:
        return [NO_STACK]
    calls = [_frame(line) for line in reversed(frames.split("\n"))]
    own = [place for place, call in enumerate(calls) if call.is_own]
    library = _library_call(calls[own[-1] + 1 :] if own else calls)
    if own:
        return [calls[place].label for place in own][: MAX_DEPTH - 1] + library
    return [BACKWARD if any(call.is_autograd for call in calls) else NO_OWN_CODE, *library]


def _library_call(calls: Sequence[_Frame]) -> list[str]:
    """Return one name for library frames: the operator that was called first, else the innermost function that has a name."""
    operators = [call.library_call for call in calls if call.library_call.startswith(("aten::", "backward: "))]
    functions = [call.library_call for call in calls if call.library_call]
    return operators[:1] or functions[-1:]


@lru_cache(maxsize=50_000)
def _frame(line: str) -> _Frame:
    """Return what a line of a stack says. C++ names hold colons and begin after the line number, as all functions do."""
    found = re.match(r"(.*?):(\d+):(.*)", line, flags=re.DOTALL)
    file, number, function = found.groups() if found else (line, "0", "")
    file = file.replace("\\", "/")
    name = file.rpartition("/")[2]
    if not _OWN.search(file):
        return _Frame("", False, _native_call(function), "torch::autograd::Engine" in function)
    package = _library_of(file)
    if package:
        return _Frame("", False, f"{package}: {function}", False)
    return _Frame(f"{function} ({name}:{number})", True, "", False)


def _native_call(function: str) -> str:
    operator, node = _OPERATOR.search(function), _BACKWARD_NODE.search(function)
    if operator:
        return f"aten::{operator[1]}"
    return f"backward: {node[1]}" if node else ""


def _library_of(file: str) -> str:
    """Return the package that a Python file belongs to; ``python`` for the standard library, empty for own code."""
    installed = _INSTALLED.search(file)
    if installed or _STANDARD.search(file):
        return installed[1].removesuffix(".py") if installed else "python"
    first, separator, _ = file.partition("/")
    if separator:
        return first if first in _LIBRARIES else ""
    return "python" if first.removesuffix(".py") in sys.stdlib_module_names else ""


def stack_texts(stacks: pa.Table, numbers: Array) -> Mapping[int, str]:
    """Return the frames of the stacks of these numbers."""
    known = read_numbers(stacks["stack"], -1)
    rows = np.flatnonzero(np.isin(known, numbers))
    return dict(zip(known[rows].tolist(), stacks["frames"].take(pa.array(rows)).to_pylist(), strict=True))


def _parents_first(paths: list[Path]) -> list[Path]:
    """Return the paths, which come largest first, so that every parent is before its children and siblings stay in their order."""
    rank = {path: place for place, path in enumerate(paths)}
    return sorted(paths, key=lambda path: [rank[path[: depth + 1]] for depth in range(len(path))])
