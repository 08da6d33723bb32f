"""Parallelism: which of the states each of several ranks holds. One rank's memory is shown; every rank has a batch of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from profiler.optimizations.base import Family, Optimization, Parameter, ParameterKind, Value
from profiler.optimizations.scope import Conflict, Scope
from profiler.recording import Provenance
from profiler.spec import Job, WorkloadKind

if TYPE_CHECKING:
    from torch import nn

    from profiler.workloads import Setup

PARALLELISM = Family(
    name="parallelism",
    label="Parallelism",
    question="Does a rank hold everything, or a share?",
    off_label="One process",
    workloads=frozenset((WorkloadKind.TRAIN,)),
)
MAX_RANKS = 1024
_RANKS = Parameter(
    name="ranks",
    kind=ParameterKind.INTEGER,
    default=8,
    low=2,
    high=MAX_RANKS,
    help="Processes that train together, one a GPU. The batch is that of one of them.",
)
_BUCKETS = (
    Parameter(
        name="bucket_view",
        kind=ParameterKind.BOOLEAN,
        default=False,
        help="Let gradients be views of the buckets from the first all-reduce on (gradient_as_bucket_view), instead of copies beside them.",
    ),
    Parameter(
        name="bucket_mib",
        kind=ParameterKind.INTEGER,
        default=25,
        low=1,
        high=65_536,
        help="MiB of gradients that are reduced together; all buckets together are as large as the gradients, whatever this is.",
    ),
)
_WITH_WHOLE_GRADIENTS = (
    Conflict(
        others=("optimizer-in-backward",),
        why="gradients are not averaged yet over ranks when backward has made them",
        instead="Use fsdp2, which averages them in time",
    ),
    Conflict(others=("offload-parameters",), why="offload-parameters has gradients on the host, where ranks cannot average them"),
)
_EACH = "Every rank has a batch of its own: compare with a run of one process on the same batch."


class Shares(NamedTuple):
    """Into how many parts each state is cut, of which a rank holds one."""

    parameters: int = 1
    gradients: int = 1
    optimizer_state: int = 1


class Parallelism(Optimization):
    """Several ranks that train together, of which one is simulated."""

    family = PARALLELISM
    applies_to = Scope(part="what a rank holds of parameters, gradients and optimizer state")
    engines = frozenset((Provenance.SIMULATED,))

    def shares(self, options: Mapping[str, Value]) -> Shares:
        """Return into how many parts each state is cut."""
        return Shares()

    def has_buckets(self, options: Mapping[str, Value]) -> bool:
        """Tell whether a rank has buckets beside its gradients."""
        return options.get("bucket_view") is False


class Ddp(Parallelism):
    """Distributed data parallel."""

    name = "ddp"
    label = "DDP"
    aliases = ("data-parallel", "distributed-data-parallel")
    conflicts = _WITH_WHOLE_GRADIENTS
    parameters = (_RANKS, *_BUCKETS)
    formula = "a rank = all parameters, gradients and optimizer state, and buckets as large as the gradients; 0 more with bucket_view"
    source = "Li et al. 2020, https://arxiv.org/abs/2006.15704; torch.nn.parallel.DistributedDataParallel"
    explanation = (
        "Each rank holds the whole model and its own batch, and gradients are averaged in buckets while backward runs. Saves nothing on a "
        "rank: it costs buckets as large as all gradients, unless gradients are views of them. What it buys is time: so many batches at "
        f"once as there are ranks. {_EACH} Buffers of the communication library come on top."
    )

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Let a reducer see every backward."""

        def replicated(model: nn.Module) -> nn.Module:
            setup.begin_ranks(int(options["ranks"]), 0)
            return _replicated(model, setup, options)

        setup.transforms.append(replicated)


class Zero1(Parallelism):
    """Optimizer state in shares."""

    name = "zero1"
    label = "ZeRO-1"
    aliases = ("zero-1", "zero-redundancy-optimizer")
    conflicts = _WITH_WHOLE_GRADIENTS
    parameters = (_RANKS, *_BUCKETS)
    formula = "a rank = all parameters and gradients, DDP's buckets, and the optimizer state of about 1/ranks of the parameters"
    source = "Rajbhandari et al. 2019, https://arxiv.org/abs/1910.02054; torch.distributed.optim.ZeroRedundancyOptimizer"
    explanation = (
        "DDP whose optimizer is cut: each rank keeps the state of its own parameters, updates them and sends them to the others. Whole "
        "parameters are dealt out, the largest first, so one that is larger than a fair share, such as an embedding, decides what the "
        f"fullest rank holds; that rank is shown. Gradients and parameters stay whole. {_EACH}"
    )

    def shares(self, options: Mapping[str, Value]) -> Shares:
        """Return that the optimizer state is cut."""
        return Shares(optimizer_state=int(options["ranks"]))

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Let a reducer see every backward, and give the optimizer one rank's share of the parameters."""
        make_optimizer = setup.make_optimizer

        def replicated(model: nn.Module) -> nn.Module:
            sizes = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
            rank, share = fullest_rank(sizes, int(options["ranks"]))
            setup.begin_ranks(int(options["ranks"]), rank)
            setup.notes.append(
                f"Rank {rank} of {options['ranks']} is shown: it keeps the optimizer state of {share:,} of {sum(sizes):,} trained numbers, "
                "and no rank keeps more."
            )
            return _replicated(model, setup, options)

        def make_share(parameters: Any) -> Any:
            from profiler.optimizations.data_parallel import cut_optimizer

            assert make_optimizer is not None, "the optimizer's family has a default and is applied before"
            return cut_optimizer(parameters, make_optimizer)

        setup.transforms.append(replicated)
        setup.make_optimizer = make_share


class Fsdp2(Parallelism):
    """Parameters, gradients and optimizer state in shares."""

    name = "fsdp2"
    label = "FSDP2"
    aliases = ("fsdp", "zero3", "zero-3", "fully-shard")
    conflicts = (
        Conflict(
            others=("muon",),
            why="muon multiplies whole matrices, which would be gathered one by one in its step, and that is not modelled",
        ),
        Conflict(others=("adafactor",), why="torch's Adafactor cannot update shares of parameters in place"),
        Conflict(others=("offload-optimizer",), why="offload-optimizer copies whole tensors to the host, and fsdp2 has shares of them"),
        Conflict(others=("offload-parameters",), why="offload-parameters brings whole layers to the device, and so does fsdp2"),
    )
    parameters = (
        _RANKS,
        Parameter(
            name="reshard",
            kind=ParameterKind.BOOLEAN,
            default=True,
            help="Drop a layer's gathered parameters after its forward and gather them again in backward (ZeRO-3); else keep them.",
        ),
        Parameter(
            name="compute",
            kind=ParameterKind.CHOICE,
            default="same",
            choices=("same", "bfloat16"),
            help="In which format gathered parameters are computed with; bfloat16 keeps shares, reduced gradients and state in float32.",
        ),
    )
    formula = "a rank = 1/ranks of parameters, gradients and optimizer state, and a few layers' gathered parameters and whole gradients"
    source = "Zhao et al. 2023, https://arxiv.org/abs/2304.11277; torch.distributed.fsdp.fully_shard"
    explanation = (
        "Cuts every parameter, its gradient and its optimizer state along the first dimension: each rank keeps one share. Before a layer "
        "runs its parameters are gathered, the next layer's while it runs, and dropped afterwards; whole gradients exist for a layer at a "
        "time. The embedding and the output layer belong to no layer: they stay gathered from forward to the end of backward. Activations "
        f"are not cut. The more ranks, the less each step saves further, since what is gathered stays. {_EACH}"
    )

    def shares(self, options: Mapping[str, Value]) -> Shares:
        """Return that everything is cut."""
        return Shares(*[int(options["ranks"])] * 3)

    def apply(self, setup: Setup, options: Mapping[str, Value], job: Job) -> None:
        """Cut layer after layer, then what belongs to none."""

        def sharded(model: nn.Module) -> nn.Module:
            import torch

            from profiler.optimizations.data_parallel import shard, telling_of_shards

            setup.begin_ranks(int(options["ranks"]), 0)  # which has the largest share where they are not equal
            compute = torch.bfloat16 if options["compute"] == "bfloat16" else None
            num_layers = shard(model, int(options["ranks"]), reshard=bool(options["reshard"]), compute=compute)
            if num_layers == 0:
                setup.notes.append("0 layers found: the model is gathered whole, so only what lasts between steps is cut.")
            setup.contexts.append(lambda: telling_of_shards(setup.tell))
            return model

        setup.transforms.append(sharded)


def shares_of(job: Job) -> tuple[Shares, bool]:
    """Return into how many parts a job cuts its states, and whether it has buckets beside the gradients."""
    items = {item.name: item for item in OPTIMIZATIONS}
    toggle = next((toggle for toggle in job.toggles if toggle.name in items), None)
    if toggle is None:
        return Shares(), False
    item = items[toggle.name]
    options = item.read_options(dict(toggle.options))
    return item.shares(options), item.has_buckets(options)


def fullest_rank(sizes: Sequence[int], num_ranks: int) -> tuple[int, int]:
    """Return the rank to which ``ZeroRedundancyOptimizer`` gives most, and how many numbers: the largest first, each to the emptiest.

    Args:
        sizes: numbers in each parameter, in the model's order.
        num_ranks: that they are dealt out to.
    """
    shares = [0] * num_ranks
    for size in sorted(sizes, reverse=True):
        shares[shares.index(min(shares))] += size
    return shares.index(max(shares)), max(shares)


def _replicated(model: nn.Module, setup: Setup, options: Mapping[str, Value]) -> nn.Module:
    from profiler.optimizations.data_parallel import replicate, tell_gradients

    view = bool(options["bucket_view"])
    if view:
        setup.once_built.append(lambda _, optimizer: tell_gradients(optimizer, setup.tell))
    return replicate(model, bucket_mib=int(options["bucket_mib"]), bucket_view=view)


OPTIMIZATIONS: tuple[Parallelism, ...] = (Ddp(), Zero1(), Fsdp2())
