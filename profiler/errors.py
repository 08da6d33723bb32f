"""Everything Headroom refuses, in one tree.

    HeadroomError
      SpecError(ValueError)      a model, workload, toggle or option that cannot be
      FormatError                a file that is not what it should be
      StorageError               a file or folder that cannot be read or written
      CaptureUnavailable         this machine cannot measure that
      SimulationUnsupported      the simulation does not model that
      JobFailed                  a run ended without a result

Every message says what happened with the value and where, what is allowed, and what to do next. Anything else that is raised is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HeadroomError(Exception):
    """Base of all errors that tell the user what to do; pages and the command line show its text as it is."""


class SpecError(HeadroomError, ValueError):
    """A model, workload, toggle or option that cannot be."""


class FormatError(HeadroomError):
    """A file that is not what it should be: truncated, foreign or of a newer schema."""


class StorageError(HeadroomError):
    """A file or folder that cannot be read or written."""


class CaptureUnavailable(HeadroomError):
    """This machine cannot measure what was asked."""


class SimulationUnsupported(HeadroomError):
    """The simulation does not model what was asked."""


class JobFailed(HeadroomError):
    """A run ended without a result: crashed, was cancelled, or hit a limit."""


def unknown_name(kind: str, name: str, known: Iterable[str], how_to_list: str) -> SpecError:
    """Return the error for a name that is not in ``known``, naming the nearest one.

    Args:
        kind: what the name should have been, such as ``"model"``.
        name: what was given.
        known: the allowed names.
        how_to_list: one sentence on where all names are shown.
    """
    nearest = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.4)
    hint = f"Did you mean {nearest[0]!r}? " if nearest else ""
    return SpecError(f"Unknown {kind} {name!r}. {hint}{how_to_list}")
