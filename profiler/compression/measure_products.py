"""The time of a product with a sparse matrix against a dense one, by the share of zeros. Meant for a process that does nothing else.

Processor time on one thread, the least of several rounds. What is measured is this machine; the bytes of the same formats are closed
formulas (`sparse_formats`).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from profiler.compression.products import FORMATS, SHARES, Products, ProductTime
from profiler.compression.prune import two_of_four
from profiler.compression.sparse_formats import BLOCK_SIZES
from profiler.compression.sparse_storage import BitmaskLinear, SparseLinear, TwoOfFourLinear, bsr, csr

_ROUNDS = 7
_FEWEST_SECONDS = 0.002
"""A round repeats the product for so long: the clock has a grain."""


def measure_products(
    products: Products,
    tell: Callable[[str, float], None] = lambda phase, share: None,
    *,
    shares: Sequence[float] = SHARES,
    rounds: int = _ROUNDS,
) -> list[ProductTime]:
    """Return a row for each format and share of zeros.

    Args:
        products: the shape.
        tell: called with what is measured and how much is done, 0 to 1; what it raises ends the work.
        shares: of zeros; of zero blocks for BSR.
        rounds: of which the fastest counts.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    weight, inputs = torch.randn(products.rows, products.columns), torch.randn(products.inputs, products.columns)
    rows: list[ProductTime] = []
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch says that sparse layouts are in beta
        for share in shares:
            dense = _seconds(lambda: nn.functional.linear(inputs, weight), rounds)
            for name in FORMATS:
                tell(f"{name} with {share:.0%} zeros", len(rows) / (len(shares) * len(FORMATS)))
                layer = _MAKE[name](weight, share)
                seconds = _seconds(lambda layer=layer: layer(inputs), rounds)  # type: ignore[misc]
                rows.append(ProductTime(format=name, zeros=share, seconds=seconds, ratio=seconds / dense))
    return rows


def _single(weight: Tensor, share: float) -> Tensor:
    return weight * (torch.rand_like(weight) >= share)


def _blocked(weight: Tensor, share: float, block: int) -> Tensor:
    keep = torch.rand(weight.shape[0] // block, weight.shape[1] // block) >= share
    return weight * keep.repeat_interleave(block, 0).repeat_interleave(block, 1)


def _bsr(block: int) -> Callable[[Tensor, float], nn.Module]:
    return lambda weight, share: SparseLinear(bsr(_blocked(weight, share, block), block), None)


_MAKE: Mapping[str, Callable[[Tensor, float], nn.Module]] = {
    "coo": lambda weight, share: SparseLinear(_single(weight, share).to_sparse().coalesce(), None),
    "csr-int64": lambda weight, share: SparseLinear(csr(_single(weight, share)), None),
    "csr-int32": lambda weight, share: SparseLinear(csr(_single(weight, share), torch.int32), None),
    **{f"bsr-{size}": _bsr(size) for size in BLOCK_SIZES},
    "bitmask": lambda weight, share: BitmaskLinear(_single(weight, share), None),
    "2:4": lambda weight, share: TwoOfFourLinear(weight * two_of_four(weight), None),
}


def _seconds(run: Callable[[], Tensor], rounds: int) -> float:
    best = float("inf")
    run()
    for _ in range(rounds):
        count, began = 0, time.process_time()
        while (taken := time.process_time() - began) < _FEWEST_SECONDS:
            run()
            count += 1
        best = min(best, taken / max(count, 1))
    return best
