"""A vision transformer as published programs train it, on a device or on none."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_IMAGE = 224


class VisionTransformer(nn.Module):
    """A ViT for images of 224 x 224; by default ViT-L/16 for 1,000 classes: 304,326,632 parameters."""

    def __init__(self, width: int = 1024, depth: int = 24, num_heads: int = 16, patch: int = 16, num_classes: int = 1000) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, kernel_size=patch, stride=patch)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, (_IMAGE // patch) ** 2 + 1, width))
        self.layers = nn.Sequential(*(_Layer(width, num_heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(images), -1, -1), patches], 1) + self.positions
        scores: Tensor = self.head(self.norm(self.layers(x))[:, 0])
        return scores


class _Layer(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.0), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norms[0](x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        result: Tensor = x + self.feed_forward(self.norms[1](x))
        return result
