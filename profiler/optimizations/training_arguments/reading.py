"""The text of a training configuration, JSON, YAML or Python -> its `Fields`. Outside input: bounded, and never executed."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from profiler.errors import SpecError
from profiler.optimizations.training_arguments.script import fields_of_script

MAX_BYTES = 65_536
"""A configuration with every field written out has 4 KiB."""
_MAX_DEPTH = 16
_MAX_WORDS = 200
_WHAT = "The training configuration"
_WAY_OUT = "Use what training_args.to_json_string() gives, the YAML file that `trl sft --config` reads, or a script with SFTConfig(...)."
_NESTED = "model_init_kwargs"


class Fields:
    """What a configuration says, field by field; each is checked when it is asked for.

    Args:
        values: by field. What ``model_init_kwargs`` holds counts as fields of its own, where no field has the name.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)
        nested = self.mapping(_NESTED)
        self._values = nested | self._values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(self._values)

    def is_set(self, name: str) -> bool:
        """Return whether a field says anything but no, none or nothing."""
        value = self._values.get(name)
        return value not in (None, False, 0, "", "none", "no", "false") and value != [] and value != {}

    def flag(self, *names: str) -> bool | None:
        """Return the first of these fields that says true or false; None where none does.

        Raises:
            SpecError: one says something else.
        """
        for name in names:
            value = self._values.get(name)
            if isinstance(value, str) and value.lower() in ("true", "false"):
                value = value.lower() == "true"
            if isinstance(value, bool):
                return value
            if value is not None:
                raise _wrong(name, value, "true or false")
        return None

    def count(self, *names: str) -> int | None:
        """Return the first of these fields that says a whole number; None where none does.

        Raises:
            SpecError: one says something else.
        """
        for name in names:
            value = self._values.get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
            if value is not None:
                raise _wrong(name, value, "a whole number")
        return None

    def text(self, *names: str) -> str | None:
        """Return the first of these fields that says a word; None where none does.

        Raises:
            SpecError: one says something else, or more than 200 characters.
        """
        for name in names:
            value = self._values.get(name)
            if isinstance(value, str) and 0 < len(value) <= _MAX_WORDS:
                return value
            if value is not None:
                raise _wrong(name, value, f"a word of 1 to {_MAX_WORDS} characters")
        return None

    def words(self, name: str) -> tuple[str, ...] | None:
        """Return a field that says a word or a list of them; None where it says nothing.

        Raises:
            SpecError: it says something else.
        """
        value = self._values.get(name)
        if value is None:
            return None
        listed = value if isinstance(value, list) else [value]
        if not listed or not all(isinstance(word, str) and 0 < len(word) <= _MAX_WORDS for word in listed):
            raise _wrong(name, value, "a word, or a list of words")
        return tuple(listed)

    def mapping(self, *names: str) -> dict[str, Any]:
        """Return the first of these fields that holds others, given as such or as JSON text; empty where none does.

        Raises:
            SpecError: one holds something else.
        """
        for name in names:
            value = self._values.get(name)
            if isinstance(value, str) and value.lstrip().startswith("{"):
                value = _parse_json(value, name)
            if isinstance(value, dict):
                return {str(key): item for key, item in value.items()}
            if value is not None:
                raise _wrong(name, value, "a mapping of names to values")
        return {}


def read_fields(text: str | bytes, known: Iterable[str]) -> Fields:
    """Return the fields of a configuration: JSON where it begins with a brace, else those of a script, else YAML.

    Args:
        text: the file's content.
        known: names of fields of which it must have one, to be what it should be.

    Raises:
        SpecError: the text is too long, none of the three, or has none of those fields.
    """
    if len(text) > MAX_BYTES:
        raise SpecError(f"{_WHAT} has more than {MAX_BYTES:,} bytes. {_WAY_OUT}")
    content = _decoded(text).lstrip("\ufeff")
    data = _parse_json(content, _WHAT) if content.lstrip().startswith("{") else fields_of_script(content) or _parse_yaml(content)
    if not isinstance(data, dict) or not any(name in data for name in known):
        raise SpecError(f"{_WHAT} has no field of TrainingArguments, such as per_device_train_batch_size. {_WAY_OUT}")
    return Fields({str(name): value for name, value in data.items()})


def shown(value: Any) -> str:
    """Return a value from outside as it may stand in a sentence: short, on one line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _decoded(text: str | bytes) -> str:
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise SpecError(f"{_WHAT} is not UTF-8 text. {_WAY_OUT}") from None


def _parse_json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{what} is not valid JSON: {error}. {_WAY_OUT}") from None


def _parse_yaml(text: str) -> Any:
    """Return what YAML says. Its parts are counted before anything is built: aliases can make a short text endless, nesting a deep one.

    Raises:
        SpecError: PyYAML is not installed, or the text is not YAML, has aliases or tags, or is nested too deep.
    """
    try:
        yaml = importlib.import_module("yaml")
    except ModuleNotFoundError:
        raise SpecError("Reading YAML needs PyYAML, which is not installed. Install it (pip install pyyaml), or use JSON.") from None
    try:
        _check_events(yaml, text)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise SpecError(f"{_WHAT} is neither JSON nor YAML: {getattr(error, 'problem', None) or 'unreadable'}{where}. {_WAY_OUT}") from None
    except SpecError:
        raise
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{_WHAT} has a value that YAML cannot hold: {shown(str(error))}. {_WAY_OUT}") from None


def _check_events(yaml: Any, text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise SpecError(f"{_WHAT} has a YAML alias (*{event.anchor[:60]}). Write the value itself where it is used.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise SpecError(f"{_WHAT} is nested more than {_MAX_DEPTH} deep. {_WAY_OUT}")


def _wrong(name: str, value: Any, allowed: str) -> SpecError:
    return SpecError(f"{_WHAT} has {name}={shown(value)}. It must be {allowed}.")
