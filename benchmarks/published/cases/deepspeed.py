"""DeepSpeed's estimators of model states, as its documentation prints them; its GB are GiB and its MB MiB."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.published.table import PRINTED, Published, Row
from profiler.estimate.others import deepspeed_zero2_bytes, deepspeed_zero3_bytes
from profiler.units import GIB, MIB

_T5_3B, _T5_3B_LARGEST = 2_851_598_336, 32_128 * 1024
_T5_LARGE, _T5_LARGE_LARGEST = 737_668_096, 32_128 * 1024


def rows(published: Published) -> Iterator[Row]:
    """Yield T5-3B on 8 GPUs and T5-large on 4."""
    yield from published.row("ds-t5-3b-z2", deepspeed_zero2_bytes(_T5_3B, 8) / GIB, PRINTED)
    yield from published.row("ds-t5-3b-z2off", deepspeed_zero2_bytes(_T5_3B, 8, offload=True) / GIB, PRINTED)
    yield from published.row("ds-t5-3b-z3", deepspeed_zero3_bytes(_T5_3B, _T5_3B_LARGEST, 8) / GIB, PRINTED)
    rounded = deepspeed_zero3_bytes(2_851_000_000, 32_000_000, 8)
    yield from published.row("ds-t5-3b-z3cold", rounded / GIB, PRINTED, "parameters rounded to millions, as that call had them")
    offloaded = deepspeed_zero3_bytes(_T5_3B, _T5_3B_LARGEST, 8, offload_optimizer=True)
    yield from published.row("ds-t5-3b-z3opt", offloaded / GIB, PRINTED)
    everything = deepspeed_zero3_bytes(_T5_3B, _T5_3B_LARGEST, 8, offload_optimizer=True, offload_parameters=True)
    yield from published.row("ds-t5-3b-z3all", everything / GIB, PRINTED)
    yield from published.row("ds-t5large-total", _T5_LARGE / 1e6, PRINTED)
    yield from published.row("ds-t5large-largest", _T5_LARGE_LARGEST / 1e6, PRINTED, last_digit=0.01)
    largest = deepspeed_zero3_bytes(_T5_LARGE, _T5_LARGE_LARGEST, 4, offload_optimizer=True, offload_parameters=True)
    yield from published.row("ds-t5large-largest-mem", largest / MIB, PRINTED)
    yield from published.row("ds-t5large-case1", deepspeed_zero3_bytes(_T5_LARGE, _T5_LARGE_LARGEST, 4) / MIB, PRINTED)
    third = deepspeed_zero3_bytes(_T5_LARGE, _T5_LARGE_LARGEST, 4, offload_optimizer=True)
    yield from published.row("ds-t5large-case3", third / MIB, PRINTED)
