"""A user's ``config.json`` or model folder -> a `spec.Model`.

Only the configuration is read: no weights, no code. Whether the library can build it is checked by `profiler.models.build`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from profiler.errors import SpecError
from profiler.models.config import read_facts
from profiler.spec import Model

MAX_CONFIG_BYTES = 1_000_000
_FILE_NAME = "config.json"


def model_from_path(path: str | Path) -> Model:
    """Return the model that a ``config.json``, or a folder that holds one, describes.

    Raises:
        SpecError: there is no such file, it is too large or cannot be read, or its content is no possible configuration.
    """
    path = Path(path)
    file = path / _FILE_NAME if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SpecError(
            f"{file} cannot be read: {reason}. Give a config.json, or a folder that holds one, or a name of the catalogue."
        ) from None
    folder = file.absolute().parent.name
    return model_from_text(content, name=folder if file.name == _FILE_NAME and folder else file.stem)


def model_from_text(content: bytes | str, name: str) -> Model:
    """Return the model that the content of a ``config.json`` describes, shown under ``name``.

    Raises:
        SpecError: the content is too large, not JSON, or no possible configuration.
    """
    if len(content) > MAX_CONFIG_BYTES:
        raise SpecError(f"{name}: the configuration has more than {MAX_CONFIG_BYTES:,} bytes. Give a config.json; weights are not read.")
    config = _parse(content, name)
    if not isinstance(config, dict):
        raise SpecError(f"{name}: the configuration is not a JSON object. Use the config.json of a transformers model.")
    read_facts(config, name)
    return Model.from_config(name[:200], config)


def _parse(content: bytes | str, name: str) -> Any:
    try:
        return json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{name}: the configuration is not valid JSON: {error}. Use the config.json of a transformers model.") from None


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")
