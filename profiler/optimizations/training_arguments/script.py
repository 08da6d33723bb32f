"""A Python script that trains -> the fields that it gives to TrainingArguments, SFTConfig and ModelConfig. It is parsed, and never run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from profiler.errors import SpecError
from profiler.optimizations.training_arguments.names import NOT_MODELLED, READ, REFUSED

_TRL = "SFTConfig"
_FIRST = {"TrainingArguments": "output_dir", _TRL: "output_dir", "ModelConfig": "model_name_or_path"}
"""The field that each class takes without its name."""
_CALL = re.compile(rf"\b(?:{'|'.join(_FIRST)})\(")
_MATTERS = READ | NOT_MODELLED.keys() | REFUSED.keys()


def fields_of_script(text: str) -> dict[str, Any] | None:
    """Return the fields that a script gives; None where the text is no such script.

    Raises:
        SpecError: one that matters is not written out, so that only running the script would tell it, or is given twice.
    """
    if not _CALL.search(text):
        return None
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    calls = [(node, name) for node in ast.walk(tree) if isinstance(node, ast.Call) and (name := _called(node)) in _FIRST]
    fields: dict[str, Any] = {}
    for call, name in calls:
        for field, value in _given(call, name):
            if field in fields:
                raise SpecError(f"The training script gives {field} twice. Leave one configuration in it.")
            fields[field] = _value(field, value)
    if any(name == _TRL for _, name in calls):
        fields.setdefault("loss_type", None)  # a field of TRL's alone: what is absent is as TRL has it
    return fields if calls else None


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""


def _given(call: ast.Call, name: str) -> Iterator[tuple[str, ast.expr]]:
    """Yield the fields of a call, and what is given for each."""
    if len(call.args) > 1 or any(isinstance(value, ast.Starred) for value in call.args):
        raise SpecError(f"The training script gives {name} values without their names. Name each, as in bf16=True.")
    for value in call.args:
        yield _FIRST[name], value
    for keyword in call.keywords:
        if keyword.arg is None:
            raise SpecError(f"The training script gives {name} a mapping (**): only running it would tell what is in it. Write it out.")
        yield keyword.arg, keyword.value


def _value(name: str, node: ast.expr) -> Any:
    """Return a literal, or a dtype by its name; None for what is neither and changes no memory."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
        return node.attr
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        if name not in _MATTERS:
            return None
        raise SpecError(f"The training script computes {name}: only running it would tell. Write the value itself in its place.") from None
    return list(value) if isinstance(value, (tuple, set)) else value
