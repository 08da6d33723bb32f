"""LoRA over layers with 4-bit weights: what peft does where the base is bitsandbytes'. Needs torch and peft; for workers."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig
from peft.tuners import lora
from torch import Tensor

from profiler.optimizations.nf4 import Nf4Linear


class Nf4Lora(lora.Linear):
    """An adapter beside an `Nf4Linear`; copies the base's result, lest backward through a view of it fail (peft 0.21, lora/bnb.py)."""

    def adapter_dtype(self, adapter: str) -> torch.dtype:
        """Return the dtype in which an adapter computes."""
        weight: Tensor = self.lora_A[adapter].get_parameter("weight")
        return weight.dtype

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the base's result plus the adapters'."""
        result: Tensor = self.base_layer(x).clone()
        for adapter in self.active_adapters:
            lora_a, lora_b = self.lora_A[adapter], self.lora_B[adapter]
            dtype = result.dtype
            x = self._cast_input_dtype(x, self.adapter_dtype(adapter))
            output = lora_b(lora_a(self.lora_dropout[adapter](x))) * self.scaling[adapter]
            result = result + output.to(dtype)
        return result


def teach(config: LoraConfig) -> LoraConfig:
    """Let a configuration adapt layers with 4-bit weights."""
    config._register_custom_module({Nf4Linear: Nf4Lora})
    return config
