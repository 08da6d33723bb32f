"""The worker that builds a model only to look at it: ``python -m profiler.jobs.inspect MODEL ANSWER``, both paths of JSON files."""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from profiler.errors import HeadroomError
from profiler.spec import Model


def main(arguments: Sequence[str], inspect: Callable[[Model], Any] | None = None) -> int:
    """Write the facts of a model, or why there are none, and return the exit code.

    Args:
        arguments: path of the model as JSON, path of the answer.
        inspect: gives the facts as a dataclass; by default `profiler.models.build.inspect_model`.
    """
    source, answer = map(Path, arguments)
    try:
        model = Model(**json.loads(source.read_text(encoding="utf-8")))
        inspect = inspect or importlib.import_module("profiler.models.build").inspect_model
        found: dict[str, Any] = {"facts": asdict(inspect(model))}
    except HeadroomError as error:
        found = {"error": str(error)}
    except Exception as error:  # noqa: BLE001  # told to the user, with the traceback kept beside it
        traceback.print_exc()
        found = {"bug": f"{type(error).__name__}: {error}".splitlines()[0][:1000]}
    answer.write_text(json.dumps(found), encoding="utf-8")
    return 0 if "facts" in found else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
