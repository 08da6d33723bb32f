"""LoRA over layers with 4-bit weights: what peft does where the base is bitsandbytes'. Needs torch and peft; for workers."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig
from peft.tuners import lora
from torch import Tensor

from profiler.optimizations.nf4 import Nf4Linear


class Nf4Lora(lora.Linear):  # type: ignore[misc]
    """An adapter beside an `Nf4Linear`; copies the base's result, since backward through a view of it could fail (peft lora/bnb.py, 0.21)."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the base's result plus the adapters'."""
        result: Tensor = self.base_layer(x).clone()
        for adapter in self.active_adapters:
            lora_a, lora_b = self.lora_A[adapter], self.lora_B[adapter]
            dtype = result.dtype
            x = self._cast_input_dtype(x, lora_a.weight.dtype)
            output = lora_b(lora_a(self.lora_dropout[adapter](x))) * self.scaling[adapter]
            result = result + output.to(dtype)
        return result


def teach(config: LoraConfig) -> LoraConfig:
    """Let a configuration adapt layers with 4-bit weights."""
    config._register_custom_module({Nf4Linear: Nf4Lora})
    return config
