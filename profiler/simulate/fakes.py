"""A `FakeTensorMode` that remembers what an operator's result looks like, at a fraction of what torch's own memory of it costs.

A model's layers are alike, so nearly every call was seen before: the same operator on tensors laid out in the same way. Torch recognises
such calls too, by all that it could ever want to know about a tensor. Here a call is recognised by what decides the result for plain
tensors (shape, strides, offset, dtype, device and the values beside them), and whatever is not plain goes to torch. Results are remembered
in those forms only that can be made again for certain: an argument that was written to, new tensors, views of the first argument, and no
result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

Key = tuple[Any, ...]
"""Of a call: what decides its result, and so its cost."""
Recipe = Callable[[Sequence[Any]], Any]
"""Makes an operator's result again, given its positional arguments."""

_DECIDED_BY_VALUES = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.inplace_view)
_DECIDED_BY_STORAGE = frozenset(f"aten::{name}" for name in ("as_strided", "set_", "resize_", "lift", "lift_fresh", "lift_fresh_copy"))
"""Operators that look at the size of a storage, or at tensors that are not fake yet."""
_META = torch.device("meta")
_VALUES = (int, float, bool, type(None))
_ELEMENTWISE = frozenset(
    ("abs", "add", "addcdiv", "addcmul", "div", "lerp", "maximum", "mul", "neg", "reciprocal", "sign", "sqrt", "sub", "zero")
)
"""Operators on lists of tensors, without ``_foreach_``, whose result is laid out as the lists are."""


class LeanFakeTensorMode(FakeTensorMode):  # type: ignore[no-untyped-call]
    """Runs operators on fake tensors; those it has seen before, quickly."""

    def __init__(self) -> None:
        super().__init__()
        self.cache_enabled = False  # torch's forgets which results of one operator share a storage
        self.recipes: dict[Key, Recipe] = {}
        """Of the calls that were seen before."""
        self._attributes: dict[torch.device, dict[str, Any]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the wrapper that guards against it costs time

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        key = self.key_of(func, args, kwargs)
        if key is None:
            return self.dispatch(func, types, args, kwargs)
        recipe = self.recipes.get(key)
        if recipe is not None:
            return recipe(args)
        recipe = self._recipe_of_lists(func, args) if _is_elementwise(func) else None
        if recipe is not None:
            self.recipes[key] = recipe
            return recipe(args)
        result = self.dispatch(func, types, args, kwargs)
        recipe = self._recipe(args, kwargs, result)
        if recipe is not None:
            self.recipes[key] = recipe
        return result

    def made(self, recipe: Recipe, args: Sequence[Any]) -> Any:
        """Return what a known call gives, in a mode above this one; the way through the dispatcher is spared."""
        with torch._C._DisableTorchDispatch():
            return recipe(args)

    def key_of(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Key | None:
        """Return what decides a call's result; None where not everything is plain."""
        if not _is_plain(func):
            return None
        parts: list[Any] = [id(func), torch.get_default_dtype()]  # operators live as long as torch, and take their time to hash
        if not self._describe(args, parts, any_float=_is_foreach(func)):
            return None
        if kwargs:
            parts += kwargs
            if not self._describe(tuple(kwargs.values()), parts):
                return None
        return tuple(parts)

    def _describe(self, values: Sequence[Any], parts: list[Any], *, any_float: bool = False) -> bool:
        """Add what decides a result to ``parts`` and return whether all is plain; the value of a float may not matter."""
        for value in values:
            kind = type(value)
            if kind is FakeTensor:
                dtype = value.dtype
                if value.constant is not None or value.fake_mode is not self or value.layout is not torch.strided or dtype.is_complex:
                    return False
                parts += (value.shape, value.stride(), value.storage_offset(), dtype, value._fake_device)
            elif kind is list or kind is tuple:
                parts += (kind, len(value))
                if not self._describe(value, parts, any_float=any_float):
                    return False
            elif any_float and kind is float:
                parts.append(kind)
            elif isinstance(value, torch.Tensor) or kind.__hash__ is None:
                return False
            else:
                parts += (kind, value)  # the kind too: 1, 1.0 and True are equal, and give other results
        return True

    def _recipe_of_lists(self, func: Any, args: Sequence[Any]) -> Recipe | None:
        """Return how to make what an operator makes of lists, element by element; None where the elements are not alike.

        Torch works it out anew for every parameter of a model, which for an optimizer's first step takes longer than a forward.
        """
        lists = [[_Look.of(tensor) for tensor in arg] for arg in args if type(arg) in (list, tuple) and arg and type(arg[0]) is FakeTensor]
        if not lists or type(args[0]) not in (list, tuple) or any(type(arg) is FakeTensor and arg.dim() for arg in args):
            return None
        first = lists[0]
        if any(len(looks) != len(first) or not all(map(_Look.is_like, looks, first)) for looks in lists[1:]):
            return None
        if not all(look.dtype.is_floating_point and tensor.is_contiguous() for look, tensor in zip(first, args[0], strict=True)):
            return None
        return partial(_value, None) if func._schema.is_mutable else partial(_several, list, self._new, first)

    def _recipe(self, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Recipe | None:
        """Return how to make such a result; None where no form fits."""
        if type(result) in _VALUES:
            return partial(_value, result)
        for index, value in enumerate(args):
            if value is result:
                return partial(_argument, index)
        kind = type(result)
        parts = list(result) if kind in (list, tuple) else [result]
        made = [part for part in parts if type(part) not in _VALUES]
        if not all(_is_plain_fake(part) for part in made):
            return None
        taken = {_storage_of(tensor) for tensor in _fakes_in([*args, *kwargs.values()])}
        new = [_storage_of(tensor) for tensor in made]
        if not taken.intersection(new) and len(set(new)) == len(new):
            make = self._new
        elif args and type(args[0]) is FakeTensor and set(new) == {_storage_of(args[0])}:
            make = self._view
        else:
            return None
        looks = [part if type(part) in _VALUES else _Look.of(part) for part in parts]
        again = [make(look, args) if isinstance(look, _Look) else look for look in looks]
        if not all(_are_alike(part, other) for part, other in zip(parts, again, strict=True)):
            return None
        return partial(_several, kind, make, looks) if kind in (list, tuple) else partial(make, looks[0])

    def _new(self, look: _Look, args: Sequence[Any]) -> FakeTensor:
        empty = torch.empty_strided(look.shape, look.stride, dtype=look.dtype, device=_META)
        return self._fake(empty, look.device)

    def _view(self, look: _Look, args: Sequence[Any]) -> FakeTensor:
        empty = torch.empty(0, dtype=look.dtype, device=_META)
        empty.set_(args[0].untyped_storage(), look.offset, look.shape, look.stride)
        return self._fake(empty, look.device)

    def _fake(self, meta: torch.Tensor, device: torch.device) -> FakeTensor:
        """Return what ``FakeTensor(self, meta, device)`` returns, whose other attributes are equal for all tensors of a device."""
        attributes = self._attributes.get(device)
        if attributes is None:
            attributes = self._attributes[device] = dict(FakeTensor(self, meta, device).__dict__)
        made: FakeTensor = torch.Tensor._make_subclass(FakeTensor, meta, False, dispatch_device=True, device_for_backend_keys=device)
        torch._C._set_throw_on_mutable_data_ptr(made)
        made.__dict__.update(attributes)
        return made


class _Look(NamedTuple):
    """What a new tensor or a view is made from."""

    shape: torch.Size
    stride: tuple[int, ...]
    offset: int | torch.SymInt
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: FakeTensor) -> _Look:
        return cls(tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype, tensor.fake_device)

    def is_like(self, other: _Look) -> bool:
        """Tell whether two tensors are laid out alike, wherever they begin."""
        return self._replace(offset=0) == other._replace(offset=0)


def _value(value: Any, args: Sequence[Any]) -> Any:
    return value


def _argument(index: int, args: Sequence[Any]) -> Any:
    return args[index]


def _several(kind: type, make: Callable[[_Look, Sequence[Any]], FakeTensor], looks: list[Any], args: Sequence[Any]) -> Any:
    return kind([make(look, args) if isinstance(look, _Look) else look for look in looks])


@cache
def _is_plain(func: Any) -> bool:
    """Tell whether an operator's result is decided by how its arguments are laid out."""
    if not isinstance(func, torch._ops.OpOverload) or func.namespace not in ("aten", "prims"):
        return False
    return func._schema.name not in _DECIDED_BY_STORAGE and not any(tag in func.tags for tag in _DECIDED_BY_VALUES)


@cache
def _is_foreach(func: Any) -> bool:
    """Tell whether an operator takes lists of tensors; its numbers change from step to step and decide no shape."""
    return bool(func._schema.name.startswith("aten::_foreach_"))


@cache
def _is_elementwise(func: Any) -> bool:
    """Tell whether an operator takes lists of tensors, and makes of their elements what is laid out as they are."""
    name: str = func._schema.name.removeprefix("aten::_foreach_").removesuffix("_")
    return _is_foreach(func) and name in _ELEMENTWISE


def _is_plain_fake(value: Any) -> bool:
    return type(value) is FakeTensor and value.constant is None and value.layout is torch.strided and not value.is_quantized


def _storage_of(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _fakes_in(values: Iterable[Any]) -> Iterator[FakeTensor]:
    for value in values:
        if isinstance(value, FakeTensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _fakes_in(value)


def _are_alike(one: Any, other: Any) -> bool:
    """Tell whether nothing that the dispatcher or the tracker looks at tells two results apart."""
    if not isinstance(one, FakeTensor):
        return one is other
    same_keys = torch._C._dispatch_key_set(one) == torch._C._dispatch_key_set(other)
    same_bytes = one.untyped_storage().nbytes() == other.untyped_storage().nbytes()
    return same_keys and same_bytes and _Look.of(one) == _Look.of(other)
