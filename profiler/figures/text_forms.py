"""What was measured of text -> its two tables."""

from __future__ import annotations

import pandas as pd

from profiler.compression.text_forms import TextFacts


def forms_table(facts: TextFacts) -> pd.DataFrame:
    """Return one row a form of the documents.

    Columns: form, held_bytes, dense_bytes (the same numbers with every zero stored), file_bytes, table_bytes, zero_share, accuracy_share.
    """
    sizes = ("held_bytes", "dense_bytes", "file_bytes", "table_bytes", "zero_share")
    return pd.DataFrame(
        [{"form": form.label} | {name: getattr(form, name) for name in sizes} | {"accuracy_share": form.accuracy} for form in facts.forms]
    )


def gradients_table(facts: TextFacts) -> pd.DataFrame:
    """Return one row a way to train word vectors: step, gradient_bytes, state_bytes, table_bytes."""
    sizes = ("gradient_bytes", "state_bytes", "table_bytes")
    return pd.DataFrame([{"step": step.label} | {name: getattr(step, name) for name in sizes} for step in facts.gradients])
