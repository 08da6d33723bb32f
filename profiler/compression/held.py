"""A model -> the storages that it holds, each once, seen through tensor subclasses, sparse tensors and torch.ao's packed weights.

`sys.getsizeof` sees the object alone, `parameters()` misses indices, scales and packed weights, and `nbytes` counts a view of a long buffer
as short: a CSR tensor of torch holds column indices twice as long as it shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

_SPARSE_PARTS: dict[torch.layout, tuple[str, ...]] = {
    torch.sparse_coo: ("_indices", "_values"),
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
}

_REGISTERED = frozenset(("_parameters", "_buffers", "_modules"))


def held_bytes(model: nn.Module) -> int:
    """Return the bytes of all storages that a model holds, each counted once and in full."""
    return sum(part.untyped_storage().nbytes() for part in unique_storages(tensors_of(model)))


def tensors_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every plain dense tensor that a model holds, with a name: parameters, buffers, their parts, and what is packed.

    A packed weight of torch.ao is unpacked, so that its bytes can be counted: the same bytes for int8, twice as many for float16.
    """
    for name, tensor in (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)):
        yield from plain_parts(name, tensor)
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute not in _REGISTERED:
                for index, tensor in enumerate(inside(value)):
                    yield from plain_parts(f"{name}.{attribute}.{index}", tensor)


def plain_parts(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the dense tensors that a tensor consists of: of a subclass its inner ones, of a sparse one indices and values.

    The integers of a quantized tensor are a copy: hold on to what is yielded as long as storages are compared.
    """
    if isinstance(tensor, nn.Parameter):
        tensor = tensor.data if type(tensor) is nn.Parameter else tensor
    if hasattr(tensor, "__tensor_flatten__"):
        for inner in tensor.__tensor_flatten__()[0]:
            yield from plain_parts(f"{name}.{inner}", getattr(tensor, inner))
    elif tensor.layout in _SPARSE_PARTS:
        for part in _SPARSE_PARTS[tensor.layout]:
            yield f"{name}.{part}", getattr(tensor, part)()
    elif tensor.layout is not torch.strided:
        raise NotImplementedError(f"{name} has the layout {tensor.layout}, whose parts are not counted here.")
    elif tensor.is_quantized:
        yield from _quantized_parts(name, tensor)
    else:
        yield name, tensor


def inside(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in plain containers and in packed weights of torch.ao."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from chain.from_iterable(map(inside, value.values()))
    elif isinstance(value, list | tuple):
        yield from chain.from_iterable(map(inside, value))
    elif isinstance(value, torch.ScriptObject):
        yield from inside(value.unpack() if hasattr(value, "unpack") else value.__getstate__())


def unique_storages(tensors: Iterable[tuple[str, Tensor]]) -> list[Tensor]:
    """Return one tensor of each storage."""
    first: dict[int, Tensor] = {}
    for _, tensor in tensors:
        if tensor.device.type != "meta" and tensor.untyped_storage().nbytes():
            first.setdefault(tensor.untyped_storage().data_ptr(), tensor)
    return list(first.values())


def _quantized_parts(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the integers of a quantized tensor of torch, and scales and zero points: one each, or one a row."""
    yield f"{name}.integers", tensor.int_repr()
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        yield f"{name}.scale", torch.tensor(tensor.q_scale(), dtype=torch.float64)
        yield f"{name}.zero_point", torch.tensor(tensor.q_zero_point(), dtype=torch.int64)
    else:
        yield f"{name}.scales", tensor.q_per_channel_scales()
        yield f"{name}.zero_points", tensor.q_per_channel_zero_points()
