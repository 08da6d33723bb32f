"""Watches a program through torch's public hooks and notes which tensors are parameters, gradients, saved for backward and so on.

Nothing of the program is changed: hooks return what they were given, and every one is removed at the end.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules import module as module_hooks
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from profiler.recording import Role
from profiler.tracing.notes import Label, Note, Notebook, plain_tensors, tensors_in
from profiler.tracing.raw import Structure


class Hooks:
    """All hooks of one recording.

    Args:
        notebook: where observations are written.
        before_forward: called when a model's outermost forward is about to begin; a good moment to end a window.
    """

    def __init__(self, notebook: Notebook, before_forward: Callable[[], None]) -> None:
        self._notebook = notebook
        self.label = notebook.label
        self._before_forward = before_forward
        self._running = _Running()
        self._paths: weakref.WeakKeyDictionary[torch.nn.Module, str] = weakref.WeakKeyDictionary()
        self._models: weakref.WeakKeyDictionary[torch.nn.Module, _Model] = weakref.WeakKeyDictionary()
        self.layers: dict[str, list[str]] = {}
        """By the class of each model, which stands for the model's own path: the names of its outermost modules."""
        self._parameter_names: dict[int, str] = {}
        self._output_layers: set[str] = set()
        self._leaves: set[str] = set()
        self._watched: dict[int, weakref.ref[Any]] = {}
        self._cleanup = contextlib.ExitStack()
        self.optimizer_stepped = False
        """Set by every optimizer's step, for the recorder to read and reset."""

    def install(self, *, saved_tensors: bool) -> None:
        """Put all hooks in place; those on tensors saved for backward only if ``saved_tensors``."""
        add = self._cleanup.callback
        add(module_hooks.register_module_forward_pre_hook(self._enter).remove)
        add(module_hooks.register_module_forward_hook(self._leave, always_call=True).remove)
        add(register_optimizer_step_post_hook(self._after_step).remove)
        if saved_tensors:
            self._cleanup.enter_context(saved_tensors_hooks(self._saved, _same))
            self._cleanup.enter_context(_watch_inner_saved_hooks(self._saved_by_inner))

    def remove(self) -> None:
        """Take all hooks away."""
        self._cleanup.close()
        self._watched.clear()
        for model in list(self._models.values()):
            model.remove()

    def add_model(self, model: torch.nn.Module) -> None:
        """Note a model's parameters, buffers and gradients, and learn its modules' paths."""
        known = self._models.get(model)
        if known is None:
            known = self._models[model] = _Model(model, self)
            self.layers.setdefault(type(model).__name__, [name for name, _ in model.named_children()])
            for path, module in model.named_modules():
                self._paths.setdefault(module, path)
                if next(module.parameters(recurse=False), None) is not None:
                    self._leaves.add(path)
            self._output_layers |= output_layer_path(model)
        known.refresh()
        self._parameter_names |= known.names

    def add_optimizer(self, optimizer: Optimizer) -> None:
        """Note what an optimizer holds: its state, and master copies that are not the model's."""
        labels = []
        for parameter in _parameters(optimizer):
            name = self._parameter_names.get(id(parameter))
            if name is None and self._models:
                labels += self.label(parameter, Role.MASTER_PARAMETER)
                labels += [] if parameter.grad is None else self.label(parameter.grad, Role.GRADIENT)
            for key, value in optimizer.state.get(parameter, {}).items():
                for tensor in tensors_in(value):
                    labels += self.label(tensor, Role.OPTIMIZER_STATE, f"{name}.{key}" if name else key)
        for group in optimizer.param_groups:
            for key, value in group.items():
                if key != "params" and isinstance(value, torch.Tensor):  # a learning rate may be one
                    labels += self.label(value, Role.OPTIMIZER_STATE, key)
        self.write(labels)

    def note_inputs(self, value: Any) -> None:
        """Note the tensors of a batch; those from foreign memory are watched, since torch will not report their end."""
        for tensor in tensors_in(value):
            if not tensor.requires_grad:
                self.write(self.label(tensor, Role.INPUT))
                self.watch(tensor)

    def watch(self, tensor: torch.Tensor) -> None:
        """Note the moment at which the tensor's memory is let go."""
        for inner in plain_tensors(tensor):
            storage, pointer = self._notebook.place_of(inner)
            if storage is not None and pointer not in self._watched:
                self._watched[pointer] = weakref.ref(storage, partial(self._gone, pointer))

    def _gone(self, pointer: int, _: object) -> None:
        self._watched.pop(pointer, None)
        self._notebook.write(Note("gone", pointer=pointer))

    @property
    def structure(self) -> Structure:
        """What is known of the models' layers, also of models that are gone by now."""
        return Structure(frozenset(self._output_layers), frozenset(self._leaves))

    def write(self, labels: list[Label]) -> None:
        """Note labels at this moment; none is no note."""
        if labels:
            self._notebook.write(Note("labels", labels=labels))

    def _enter(self, module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        outermost = not self._running.modules and not _in_backward()
        if outermost:
            self._before_forward()
            if module in self._models or module not in self._paths:
                first = module not in self._models
                self.add_model(module)
                if first:  # its own hook, which also sees keyword arguments, is called from the next time on
                    self.note_inputs(args)
        note = Note("module", self._paths.get(module) or type(module).__name__)
        self._running.modules.append((note, self._notebook.open(note)))

    def _leave(self, module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not self._running.modules:
            return
        note, interval = self._running.modules.pop()
        for tensor in tensors_in(output):
            note.labels += self.label(tensor, Role.NONE)
        if not self._running.modules and not _in_backward():
            note.labels += [found for tensor in cache_tensors(output) for found in self.label(tensor, Role.KV_CACHE)]
        interval.__exit__(None, None, None)

    def _saved(self, tensor: torch.Tensor) -> torch.Tensor:
        self.write(self.label(tensor, Role.SAVED))
        return tensor.detach()  # an operator's own output would hold the node that holds it: a cycle that nothing frees

    def _saved_by_inner(self, tensor: torch.Tensor, packed: Any) -> None:
        labels = self.label(tensor, Role.SAVED_BY_HOOK)
        for kept in tensors_in(packed):
            elsewhere = self._notebook.place_of(kept)[1] != self._notebook.place_of(tensor)[1]
            labels += self.label(kept, Role.OFFLOADED if elsewhere else Role.SAVED)
        self.write(labels)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.add_optimizer(optimizer)
        self.optimizer_stepped = True


class _Running(threading.local):
    """The modules whose forward runs on this thread: backward on a GPU recomputes in a thread of its own, on several GPUs in several."""

    def __init__(self) -> None:
        self.modules: list[tuple[Note, Any]] = []


class _Model:
    """One model that is watched: the names of its tensors, and a hook on every parameter that is trained."""

    def __init__(self, model: torch.nn.Module, hooks: Hooks) -> None:
        self._model = weakref.ref(model)
        self._hooks = hooks
        self._pointers: tuple[int, ...] = ()
        self._handles: dict[int, Any] = {-1: model.register_forward_pre_hook(self._inputs, with_kwargs=True)}
        self.names: dict[int, str] = {}

    def refresh(self) -> None:
        """Note parameters and buffers again if one of them moved, since ``.to()`` and ``.data =`` do that."""
        model = self._model()
        if model is None:
            return
        named: list[tuple[str, torch.Tensor, Role]] = [(name, parameter, Role.PARAMETER) for name, parameter in model.named_parameters()]
        named += [(name, buffer, Role.BUFFER) for name, buffer in model.named_buffers()]
        labels = [found for name, tensor, role in named for found in self._hooks.label(tensor, role, name)]
        pointers = tuple(found.pointer for found in labels)
        if pointers == self._pointers:
            return
        self._pointers = pointers
        for name, parameter in model.named_parameters():
            self.names[id(parameter)] = name
            if parameter.grad is not None:
                labels += self._hooks.label(parameter.grad, Role.GRADIENT, f"{name}.grad")
            if parameter.requires_grad and parameter.is_leaf and id(parameter) not in self._handles:
                register = parameter.register_post_accumulate_grad_hook
                self._handles[id(parameter)] = register(self._accumulated)  # type: ignore[no-untyped-call]
        self._hooks.write(labels)

    def _inputs(self, model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._hooks.note_inputs([args, kwargs])

    def _accumulated(self, parameter: torch.Tensor) -> None:
        gradient = parameter.grad
        if gradient is None:
            return
        self._hooks.write(self._hooks.label(gradient, Role.GRADIENT, f"{self.names.get(id(parameter), 'parameter')}.grad"))

    def remove(self) -> None:
        """Take the hooks off the parameters."""
        for handle in self._handles.values():
            handle.remove()


def output_layer_path(model: torch.nn.Module) -> set[str]:
    """Return the path of the layer that makes the logits, where the model tells it (``get_output_embeddings``); else nothing."""
    tell = getattr(model, "get_output_embeddings", None)
    layer = tell() if callable(tell) else None
    return {path for path, module in model.named_modules() if module is layer}


_CACHED = ("keys", "values", "_quantized_keys", "_quantized_values")
"""Where transformers' cache layers keep theirs."""


def cache_tensors(output: Any) -> Iterator[torch.Tensor]:
    """Yield the keys and values in a model's output: transformers' Cache objects, or tuples of tensors."""
    cache = output.get("past_key_values") if isinstance(output, dict) else getattr(output, "past_key_values", None)
    parts = [getattr(cache, name, None) for name in ("self_attention_cache", "cross_attention_cache")]
    for part in [cache, *parts]:
        for layer in getattr(part, "layers", None) or ():
            yield from tensors_in([getattr(layer, name, None) for name in _CACHED])
    yield from tensors_in(cache)


def _parameters(optimizer: Optimizer) -> Iterable[torch.Tensor]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def _in_backward() -> bool:
    return bool(torch._C._current_graph_task_id() != -1)


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


@contextlib.contextmanager
def _watch_inner_saved_hooks(seen: Callable[[torch.Tensor, Any], None]) -> Iterator[None]:
    """Tell ``seen`` of every tensor that hooks nested in ours take, and of what they keep for it.

    Only the innermost pair of hooks is called, so a program's own pair (checkpointing, offload) would hide its tensors from us.
    """
    enter = saved_tensors_hooks.__enter__

    def entered(hooks: saved_tensors_hooks) -> None:
        pack = hooks.pack_hook

        def watched(tensor: torch.Tensor) -> Any:
            packed = pack(tensor)
            seen(tensor, packed)
            return packed

        hooks.pack_hook = watched
        try:
            enter(hooks)
        finally:
            hooks.pack_hook = pack

    saved_tensors_hooks.__enter__ = entered  # type: ignore[method-assign]
    try:
        yield
    finally:
        saved_tensors_hooks.__enter__ = enter  # type: ignore[method-assign]
