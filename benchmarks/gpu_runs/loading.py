"""Sizes of weights -> the orders in which transformers before 5.4 may load them in 4 bits, and what lies between their results.

Up to 5.3 a pool of threads brings the weights to the GPU while the main thread quantizes: core_model_loading.py submits all of them, in the
order of their names, to GLOBAL_WORKERS threads, and takes one after another when it is there. How many whole weights lie on the GPU beside
each other, and so into which holes the quantized ones fall, is a matter of threads' luck. From 5.4 on a weight that is to be quantized is
brought by the main thread itself (has_on_the_fly_quantization; pull request 44576), and the load is the same every time.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from random import Random

from benchmarks.gpu_runs.requests import LoadStep

SYNCHRONOUS_SINCE = (5, 4)
"""The first version of transformers that loads one weight after another when it quantizes."""
NUM_LOADS = 64
"""Loads that are tried; fewer would find less of what is possible."""
_NUM_WORKERS = 4
"""GLOBAL_WORKERS, on a machine with as many processors or more."""
_LARGEST_FACTOR = 2.0
"""A weight takes between half and twice the time that its size would have it take."""
_SHORTEST_TAKING, _LONGEST_TAKING = 0.01, 1 / _NUM_WORKERS
"""Time to quantize a weight, as a share of the mean time to bring one; how long it takes is not known. Were it longer, the threads would be
further ahead with each weight, until most of the model lay on the card in 16 bits; what the runs reserved shows that it did not."""


def threaded_load(weight_bytes: Sequence[int], random: Random, num_workers: int = _NUM_WORKERS) -> Iterator[LoadStep]:
    """Yield the steps of a load in threads: which weights begin to be brought before which ones are taken.

    Args:
        weight_bytes: of each weight on its way, in the order of their names.
        random: decides how fast threads happen to be.
        num_workers: threads that bring weights.
    """
    mean_bytes = sum(weight_bytes) / len(weight_bytes)
    taking = _SHORTEST_TAKING * (_LONGEST_TAKING / _SHORTEST_TAKING) ** random.random()
    free_at = [0.0] * num_workers
    there_at: list[float] = []
    main_free_at = 0.0
    taken = 0
    while taken < len(weight_bytes):
        taken_at = max(main_free_at, there_at[taken]) if taken < len(there_at) else None
        if len(there_at) < len(weight_bytes) and (taken_at is None or free_at[0] <= taken_at):
            yield LoadStep(len(there_at), is_taken=False)
            duration = weight_bytes[len(there_at)] / mean_bytes * _LARGEST_FACTOR ** random.uniform(-1, 1)
            there_at.append(heapq.heapreplace(free_at, free_at[0] + duration) + duration)
        else:
            assert taken_at is not None
            yield LoadStep(taken, is_taken=True)
            main_free_at = taken_at + taking * random.uniform(0.5, 1.5)
            taken += 1
