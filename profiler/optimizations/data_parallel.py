"""A model -> one that several ranks train, by torch's own classes, which here also say what their tensors are for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.distributed import device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.fsdp._fully_shard import _fsdp_collectives
from torch.distributed.fsdp._fully_shard._fsdp_param import FSDPParam
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from profiler.recording import Role

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, of its TorchScript
    from torch.distributed.optim import ZeroRedundancyOptimizer

Tell = Callable[[Sequence[Tensor], Role], None]


def replicate(model: nn.Module, *, bucket_mib: int, bucket_view: bool) -> nn.Module:
    """Put DDP around what a model does, and not around the model, whose modules keep their names."""
    ddp: Any = DistributedDataParallel(model, bucket_cap_mb=bucket_mib, gradient_as_bucket_view=bucket_view)
    model.register_forward_pre_hook(lambda module, args, kwargs: ddp._pre_forward(*args, **kwargs), with_kwargs=True)
    model.register_forward_hook(lambda module, args, output: ddp._post_forward(output))
    return model


def tell_gradients(optimizer: Optimizer, tell: Tell) -> None:
    """Say before every step which tensors are gradients: with views of buckets, other ones than backward made."""

    def before_step(*_: Any) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        tell([parameter.grad for parameter in parameters if parameter.grad is not None], Role.GRADIENT)

    optimizer.register_step_pre_hook(before_step)


def cut_optimizer(parameters: Iterable[nn.Parameter], make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]) -> Optimizer:
    """Make an optimizer of this rank's parameters, which sends them to the others after its step.

    Args:
        parameters: of the whole model.
        make_optimizer: given parameters, makes the optimizer of a rank.
    """

    def make_own(groups: list[dict[str, Any]]) -> Optimizer:
        return make_optimizer([parameter for group in groups for parameter in group["params"]])

    kind: Any = make_own  # it is called as a class would be, and nothing more
    return ZeroRedundancyOptimizer(parameters, kind)


def shard(model: nn.Module, num_ranks: int, *, reshard: bool, compute: torch.dtype | None) -> int:
    """Shard a model's layers one by one, then what belongs to none, and return how many layers there were.

    Args:
        model: on its device.
        num_ranks: that share it.
        reshard: drop a layer's gathered parameters after its forward.
        compute: dtype of gathered parameters; gradients are then reduced in float32. None for the parameters' own, for both.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    mesh = device_mesh.init_device_mesh(next(model.parameters()).device.type, (num_ranks,))
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=None if compute is None else torch.float32)
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=reshard, mp_policy=policy)
    fully_shard(model, mesh=mesh, reshard_after_forward=None if reshard else False, mp_policy=policy)
    return len(layers)


@contextmanager
def telling_of_shards(tell: Tell) -> Iterator[None]:
    """Say in the block which tensors are gathered parameters, and which are whole gradients before each rank keeps its share."""
    gather, copy_in = FSDPParam.alloc_all_gather_outputs, _fsdp_collectives.foreach_reduce_scatter_copy_in

    def alloc_all_gather_outputs(parameter: FSDPParam) -> None:
        gather(parameter)
        tell(parameter.all_gather_outputs, Role.COMMUNICATION)

    def foreach_reduce_scatter_copy_in(gradients: list[Tensor], *args: Any) -> None:
        tell(gradients, Role.GRADIENT)
        copy_in(gradients, *args)

    with (
        warnings.catch_warnings(),
        patch.object(FSDPParam, "alloc_all_gather_outputs", alloc_all_gather_outputs),
        patch.object(_fsdp_collectives, "foreach_reduce_scatter_copy_in", foreach_reduce_scatter_copy_in),
    ):
        warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)  # of views that it returns; nobody here writes to them
        yield
