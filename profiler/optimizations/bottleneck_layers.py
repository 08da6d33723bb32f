"""Sublayers of a transformer -> the same with a bottleneck behind them. Needs torch; for workers."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from profiler.errors import SpecError

_ENDS = (
    *(".o_proj", ".out_proj", ".out_lin", ".attn.c_proj", ".SelfAttention.o", ".EncDecAttention.o"),  # of attention
    *(".down_proj", ".mlp.c_proj", ".fc2", ".lin2", ".wo", ".dense_4h_to_h"),  # of the feed-forward
    *(".output.dense", ".attention.dense", ".self_attention.dense"),  # of both in BERT, of attention in Falcon and GPT-NeoX
)
"""How model families call the last linear layer of attention and of the feed-forward."""


class Bottleneck(nn.Module):
    """A layer whose result passes through two small linear layers, beside itself.

    Args:
        layer: is kept as it is; its results are ``size`` wide.
        size: of the results.
        width: of the bottleneck.
    """

    def __init__(self, layer: nn.Module, size: int, width: int) -> None:
        super().__init__()
        weight = layer.get_parameter("weight")
        self.layer = layer
        self.down = nn.Linear(size, width, device=weight.device, dtype=weight.dtype)
        self.up = nn.Linear(width, size, device=weight.device, dtype=weight.dtype)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    @property
    def weight(self) -> Tensor:
        """The layer's own, for models that ask for its dtype."""
        return self.layer.get_parameter("weight")

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's result plus what the bottleneck makes of it; at first that is zero."""
        result: Tensor = self.layer(input)
        added: Tensor = self.up(functional.gelu(self.down(result)))
        return result + added


def add_bottlenecks(model: nn.Module, width: int) -> nn.Module:
    """Freeze a model and put a bottleneck behind each attention and each feed-forward, in place.

    Raises:
        SpecError: no such sublayer was found.
    """
    model.requires_grad_(False)
    names = [name for name, module in model.named_modules() if f".{name}".endswith(_ENDS) and "weight" in module._parameters]
    if not names:
        raise SpecError(f"{type(model).__name__} names its sublayers in no known way. Use lora:targets=all-linear.")
    for name in names:
        layer = model.get_submodule(name)
        size = layer.out_features if isinstance(layer, nn.Linear) else layer.get_parameter("weight").shape[1]
        model.set_submodule(name, Bottleneck(layer, size, width))
    return model
