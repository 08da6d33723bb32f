"""The time of a product with a sparse matrix against a dense one, by the share of zeros: ``python -m profiler.compression.sparse_times``.

Prints one JSON list. Processor time on one thread, the least of several rounds, of 768 x 768 weights times 128 columns by default. What is
measured is this machine; the bytes of the same formats are closed formulas (`sparse_formats`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from profiler.compression.prune import two_of_four
from profiler.compression.sparse_storage import BitmaskLinear, SparseLinear, TwoOfFourLinear, bsr, csr

SHARES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
_BLOCK = 16
_ROUNDS = 9
_FEWEST_SECONDS = 0.002
"""A round repeats the product for so long: the clock has a grain."""


def measure_times(
    size: int = 768, columns: int = 128, shares: tuple[float, ...] = SHARES, rounds: int = _ROUNDS
) -> list[dict[str, float | str]]:
    """Return rows of format, share of zeros, seconds of a product and the same relative to dense.

    Args:
        size: rows and columns of the weight, a multiple of 16.
        columns: inputs at once.
        shares: of zeros; of zero blocks for BSR.
        rounds: of which the fastest counts.
    """
    torch.manual_seed(0)
    weight, inputs = torch.randn(size, size), torch.randn(columns, size)
    rows: list[dict[str, float | str]] = []
    for share in shares:
        dense = _seconds(nn.functional.linear, inputs, weight, rounds=rounds)
        for name, make in _FORMATS.items():
            seconds = _seconds(make(weight, share), inputs, rounds=rounds)
            rows.append({"format": name, "zeros": share, "seconds": seconds, "ratio": seconds / dense})
    return rows


def _single(weight: Tensor, share: float) -> Tensor:
    return weight * (torch.rand_like(weight) >= share)


def _blocked(weight: Tensor, share: float) -> Tensor:
    keep = torch.rand(weight.shape[0] // _BLOCK, weight.shape[1] // _BLOCK) >= share
    return weight * keep.repeat_interleave(_BLOCK, 0).repeat_interleave(_BLOCK, 1)


_FORMATS: Mapping[str, Callable[[Tensor, float], nn.Module]] = {
    "csr-int32": lambda weight, share: SparseLinear(csr(_single(weight, share), torch.int32), None),
    "coo": lambda weight, share: SparseLinear(_single(weight, share).to_sparse().coalesce(), None),
    "bsr-16": lambda weight, share: SparseLinear(bsr(_blocked(weight, share), _BLOCK), None),
    "bitmask": lambda weight, share: BitmaskLinear(_single(weight, share), None),
    "2:4": lambda weight, share: TwoOfFourLinear(weight * two_of_four(weight), None),
}


def _seconds(run: Callable[..., Tensor], *arguments: Tensor, rounds: int) -> float:
    best = float("inf")
    with torch.no_grad():
        run(*arguments)
        for _ in range(rounds):
            count, began = 0, time.process_time()
            while (taken := time.process_time() - began) < _FEWEST_SECONDS:
                run(*arguments)
                count += 1
            best = min(best, taken / max(count, 1))
    return best


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--columns", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    json.dump(measure_times(options.size, options.columns), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
