"""The GPU catalogue: ``gpus.json`` beside this module -> `GPUS`, found by the catalogue's name or by the name that torch reports.

Memory is what the driver reports on Linux (``total_memory`` in torch), not what the box says; it differs by up to half a percent between
driver versions, and more where error correction (ECC) is switched. Rates are the makers' peak rates, without sparsity; for half precision
with sums in float32, as torch computes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from profiler.errors import SpecError, unknown_name
from profiler.units import MIB

_NO_PART_OF_A_NAME = re.compile(r"\(.*\)|\b(nvidia|geforce|tesla|quadro)\b")
_HOW_TO_LIST = "The GPU catalogue goes from rtx-3060 to b200."


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU as it is sold; variants that differ in memory or rates are GPUs of their own."""

    name: str
    """The catalogue's name, such as ``rtx-4090``."""
    label: str
    """The name to show, such as ``GeForce RTX 4090``."""
    device_names: tuple[str, ...]
    """What ``torch.cuda.get_device_name`` calls it."""
    architecture: str
    """volta, turing, ampere, ada, hopper or blackwell."""
    compute_capability: tuple[int, int]
    num_multiprocessors: int
    """Streaming multiprocessors; attention splits its work by them."""
    memory_bytes: int
    """What the driver reports in total; context and other processes are not yet taken off."""
    memory_source: str
    bandwidth_bytes_per_s: float
    """Peak of the GPU's own memory."""
    dense_flops_per_s: Mapping[str, float]
    """Peak rate by dtype: float32 outside of the tensor cores; tf32, float16, bfloat16 and float8 inside, where it has them."""
    source: str
    """Where the rates are from."""

    def peak_flops_per_s(self, dtype: str, *, allow_tf32: bool = False) -> float:
        """Return the peak rate of matrix products in ``dtype``; one without tensor cores of its own runs at float32's.

        Args:
            dtype: as torch writes it, such as ``bfloat16``; every ``float8_...`` is float8.
            allow_tf32: whether float32 products may run as tf32 (``torch.backends.cuda.matmul.allow_tf32``).
        """
        rates = self.dense_flops_per_s
        name = "float8" if dtype.startswith("float8") else "tf32" if dtype == "float32" and allow_tf32 else dtype
        return rates.get(name, rates["float32"])


def find_gpu(name: str) -> Gpu:
    """Return the GPU of this name: the catalogue's, the maker's or torch's, in any case, such as ``NVIDIA RTX A6000`` for ``rtx-a6000``.

    Raises:
        SpecError: no GPU, or more than one, has this name.
    """
    key = _key(name)
    found = _NAMES.get(key) or _NAMES.get(f"rtx-{key}")
    if found is not None:
        return GPUS[found]
    variants = [known for known in GPUS if key and known.startswith(f"{key}-")]
    if len(variants) > 1:
        raise SpecError(f"{name!r} names more than one GPU. Write {', '.join(variants[:-1])} or {variants[-1]}.")
    raise unknown_name("GPU", key or name, GPUS, _HOW_TO_LIST)


def _key(name: str) -> str:
    """Return the words of a name in lower case, joined by hyphens, without the maker's."""
    return "-".join(re.findall(r"[a-z0-9]+", _NO_PART_OF_A_NAME.sub(" ", name.lower())))


def _load() -> dict[str, Gpu]:
    rows = json.loads(files(__package__).joinpath("gpus.json").read_text(encoding="utf-8"))
    return {name: _read(name, row) for name, row in rows.items()}


def _read(name: str, row: dict[str, Any]) -> Gpu:
    major, minor = row["compute_capability"]
    return Gpu(
        name=name,
        label=row["label"],
        device_names=tuple(row["device_names"]),
        architecture=row["architecture"],
        compute_capability=(major, minor),
        num_multiprocessors=row["num_multiprocessors"],
        memory_bytes=row["memory_mib"] * MIB,
        memory_source=row["memory_source"],
        bandwidth_bytes_per_s=row["bandwidth_gb_per_s"] * 1e9,
        dense_flops_per_s={dtype: tera * 1e12 for dtype, tera in row["dense_tflops"].items()},
        source=row["source"],
    )


GPUS: dict[str, Gpu] = _load()
_NAMES = {_key(text): gpu.name for gpu in GPUS.values() for text in (gpu.name, gpu.label, *gpu.device_names)}
