"""Quantization by the libraries of the field, applied to a subject's linear layers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from profiler.compression.layers import replace_module
from profiler.compression.packed import PackedLinear
from profiler.compression.subject import Subject
from profiler.optimizations.nf4 import Nf4Linear

_WHAT = "linear layers, which this library quantizes"
_INT4_OUTPUTS = 16
"""The product of four-bit weights works on so many outputs at a time."""


@contextmanager
def _quietly() -> Iterator[None]:
    """Leave out what the libraries say about their own future."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def to_bfloat16(subject: Subject) -> None:
    """Keep every number in bfloat16."""
    subject.model.to(torch.bfloat16)


def to_float16(subject: Subject) -> None:
    """Keep every number in float16."""
    subject.model.to(torch.float16)


def int8_weight_only(subject: Subject) -> None:
    """Quantize weights to int8, one scale a row."""
    from torchao.quantization import Int8WeightOnlyConfig

    _torchao(subject, Int8WeightOnlyConfig())


def int8_activations(subject: Subject) -> None:
    """Quantize weights to int8 and activations by token."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig

    _torchao(subject, Int8DynamicActivationInt8WeightConfig())


def float8_weight_only(subject: Subject) -> None:
    """Quantize weights to float8."""
    from torchao.quantization import Float8WeightOnlyConfig

    _torchao(subject, Float8WeightOnlyConfig())


def intx_weight_only(subject: Subject, bits: str, group: str) -> None:
    """Quantize weights to a few bits, each in a byte."""
    from torchao.quantization import IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerGroup

    config = IntxWeightOnlyConfig(weight_dtype=getattr(torch, f"int{bits}"), granularity=PerGroup(int(group)))
    _torchao(subject, config, group=int(group))


def int4_weight_only(subject: Subject, group: str, dtype: str) -> None:
    """Pack weights into four bits for torch's own product of such weights; layers that it does not take stay as they are.

    Args:
        subject: is changed.
        group: weights that share a scale.
        dtype: of all other numbers, scales among them.
    """
    from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

    subject.model.to(getattr(torch, dtype))
    config = PrototypeInt4WeightOnlyConfig(group_size=int(group), set_inductor_config=False)
    what = f"linear layers of a multiple of {_INT4_OUTPUTS} outputs and of {group} inputs"
    _torchao(subject, config, group=int(group), outputs=_INT4_OUTPUTS, what=what)


def packed(subject: Subject, bits: str, group: str) -> None:
    """Pack weights, several a byte; layers whose rows are no multiple of the group stay as they are."""
    untie(subject)
    fitting = {name: layer for name, layer in subject.linears().items() if layer.in_features % int(group) == 0}
    for name, layer in fitting.items():
        bias = None if layer.bias is None else layer.bias.detach()
        replace_module(subject.model, name, PackedLinear(layer.weight.detach(), bias, int(bits), int(group)))
    subject.note_changed(len(fitting), f"linear layers with rows of a multiple of {group}")


def nf4(subject: Subject) -> None:
    """Pack weights of linear layers but the output layer as NF4, as bitsandbytes does."""
    fitting = {name: layer for name, layer in subject.linears().items() if name != subject.task.head}
    for name, layer in fitting.items():
        replace_module(subject.model, name, Nf4Linear(layer, torch.device("cpu"), torch.float32))
    subject.note_changed(len(fitting), "linear layers beside the output layer")


def dynamic_int8(subject: Subject, engine: str) -> None:
    """Quantize linear and LSTM layers with torch.ao, activations by tensor at each call."""
    if engine not in torch.backends.quantized.supported_engines:
        listed = ", ".join(name for name in torch.backends.quantized.supported_engines if name != "none")
        raise ValueError(f"engine={engine} is not in this build of torch. It has {listed}.")
    torch.backends.quantized.engine = engine
    _torch_ao(subject, torch.qint8)


def dynamic_float16(subject: Subject) -> None:
    """Pack the weights of linear and LSTM layers as float16."""
    _torch_ao(subject, torch.float16)
    subject.notes.append(
        "The weights are packed outside of what Python sees: held bytes are those of an unpacked copy; look at the resident set."
    )


def static_int8(subject: Subject, batches: int) -> None:
    """Export the model, observe the ranges of activations, and convert: weights are int8, and their originals stay beside them."""
    with _quietly():
        from torchao.quantization.pt2e import quantize_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    task = subject.task
    shapes = {batch.inputs.shape for batch in task.held_out()}
    example = torch.zeros(min(shapes), dtype=torch.int64)
    with _quietly(), torch.no_grad():
        graph = torch.export.export(_Logits(subject), (example,)).module()
        prepared = quantize_pt2e.prepare_pt2e(
            graph, x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
        )
        training = task.training(subject.seed)
        for _ in range(batches):
            prepared(_shaped(next(training).inputs, example))
        subject.model = quantize_pt2e.convert_pt2e(prepared)
    subject.forward = subject.model
    operators: Any = subject.model.graph
    subject.note_changed(sum("dequantize_per_channel" in str(node.target) for node in operators.nodes), _WHAT)


def untie(subject: Subject) -> None:
    """Say that layers which shared a weight will have one each: quantizing one of them makes the model larger than it looks."""
    owners: dict[int, list[str]] = {}
    for name, module in subject.model.named_modules():
        if isinstance(weight := getattr(module, "weight", None), nn.Parameter):
            owners.setdefault(id(weight), []).append(name)
    for names in owners.values():
        if len(names) > 1 and any(isinstance(subject.model.get_submodule(name), nn.Linear) for name in names):
            subject.notes.append(f"{' and '.join(names)} shared a weight: the linear layer now has one of its own beside the other.")


class _Logits(nn.Module):
    """A subject's model, called with inputs alone."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self._task, self.model = subject.task, subject.model

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._task.logits(self.model, inputs)


def _torchao(subject: Subject, config: Any, *, group: int = 1, outputs: int = 1, what: str = _WHAT) -> None:
    with _quietly():
        from torchao.quantization import quantize_

    untie(subject)
    fitting = [layer for layer in subject.linears().values() if layer.in_features % group == 0 and layer.out_features % outputs == 0]
    chosen = set(map(id, fitting))
    with _quietly():
        quantize_(subject.model, config, filter_fn=lambda module, name: id(module) in chosen)
    subject.note_changed(len(fitting), what)


def _torch_ao(subject: Subject, dtype: torch.dtype) -> None:
    untie(subject)
    kinds = {nn.Linear, nn.LSTM, nn.GRU}
    num_layers = sum(type(module) in kinds for module in subject.model.modules())
    with _quietly():
        torch.ao.quantization.quantize_dynamic(subject.model, kinds, dtype=dtype, inplace=True)  # type: ignore[no-untyped-call]
    subject.note_changed(num_layers, "linear or recurrent layers, which this library quantizes")


def _shaped(inputs: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
    """Return inputs in the shape that the graph was exported for, repeated or cut."""
    count = example.numel()
    return inputs.reshape(-1).repeat(-(-count // inputs.numel()))[:count].view_as(example)
