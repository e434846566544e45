"""The published network: encoder, sparse code, dictionary and localisation head.

Shapes: B patterns, E entries, C channels; the encoder's input is (B, 1, H, H), the dictionary's
pictures are (E, D, D).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

SIDE_OF_ENTRY = 5
"""Side of the map that the decoder starts from."""


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Residual(nn.Module):
    """x + norm((ReLU conv)^3 x), (B, C, H, H) to the same; the layer norm is over the H x H pixels
    of a channel.
    """

    def __init__(self, channels: int, side: int):
        super().__init__()
        self.convs = nn.ModuleList(_conv(channels, channels) for _ in range(3))
        self.norm = nn.LayerNorm([side, side])

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in self.convs:
            y = torch.relu(conv(y))
        return x + self.norm(y)


class Plain(nn.Module):
    """ReLU(norm(conv x)), (B, C, H, H) to the same."""

    def __init__(self, channels: int, side: int):
        super().__init__()
        self.conv = _conv(channels, channels)
        self.norm = nn.LayerNorm([side, side])

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))


class PublishedEncoder(nn.Module):
    """Patterns (B, 1, H, H) -> vectors (B, V).

    It has a convolution, a (residual, plain, max pool) stage for each pool, a convolution to one
    channel, and a linear map.
    """

    def __init__(self, side: int, pools: tuple[int, ...], channels: int, vector: int):
        super().__init__()
        stages: list[nn.Module] = [_conv(1, channels)]
        for pool in pools:
            stages += [Residual(channels, side), Plain(channels, side), nn.MaxPool2d(pool)]
            side //= pool
        self.stages = nn.Sequential(
            *stages, _conv(channels, 1), nn.Flatten(), nn.Linear(side * side, vector)
        )

    def forward(self, patterns: Tensor) -> Tensor:
        return self.stages(patterns)


class SparseCode(nn.Module):
    """Vectors (B, V) -> one-hot codes (B, E): linear map, layer norm, softmax, largest value.

    Values are one-hot; gradients are those of the softmax ("straight through").
    """

    def __init__(self, vector: int, entries: int):
        super().__init__()
        self.score = nn.Sequential(nn.Linear(vector, entries), nn.LayerNorm(entries))

    def forward(self, vectors: Tensor) -> Tensor:
        soft = self.score(vectors).softmax(-1)
        hard = nn.functional.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
        return hard + soft - soft.detach()


class PublishedDictionary(nn.Module):
    """The decoder: codes (E, E) -> averaged patterns (E, D, D).

    It has a linear map to 5 x 5 pixels, bilinear upsamplings with a (residual, plain) stage after
    each, a convolution to one channel, and a leaky ReLU. A one-hot code has E values, so the
    pictures are made once for all patterns of a batch.
    """

    def __init__(
        self, entries: int, factors: tuple[int, ...], channels: int, side: int = SIDE_OF_ENTRY
    ):
        super().__init__()
        self.side = side
        self.start = nn.Linear(entries, side * side)
        stages: list[nn.Module] = [_conv(1, channels)]
        for factor in factors:
            side *= factor
            stages += [
                nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False),
                Residual(channels, side),
                Plain(channels, side),
            ]
        last = _conv(channels, 1)
        assert last.bias is not None
        with torch.no_grad():
            last.bias.fill_(1.0)  # open: where the leaky ReLU starts closed, a picture forms slowly
        self.stages = nn.Sequential(*stages, last, nn.LeakyReLU())

    def forward(self, codes: Tensor) -> Tensor:
        return self.stages(self.start(codes).reshape(-1, 1, self.side, self.side))[:, 0]


class LocalisationHead(nn.Module):
    """(Vectors, codes) -> raw parameters (B, 6): two scales, shear, angle, translation."""

    def __init__(self, vector: int, entries: int):
        super().__init__()
        self.linear = nn.Linear(vector + entries, 6)

    def forward(self, vectors: Tensor, codes: Tensor) -> Tensor:
        return self.linear(torch.cat([vectors, codes], -1))


@dataclass(frozen=True)
class Limits:
    """Bounds of the deformation's parameters."""

    scale: float
    shear: float
    rotation_rad: float
    translation_px: float


def stretch(raw: Tensor, limits: Limits) -> Tensor:
    """S = [[s1, h], [h, s2]] (B, 2, 2) with s = 1 + scale tanh(raw), h = shear tanh(raw), from raw
    (B, >= 3).
    """
    s1 = 1 + limits.scale * torch.tanh(raw[:, 0])
    s2 = 1 + limits.scale * torch.tanh(raw[:, 1])
    h = limits.shear * torch.tanh(raw[:, 2])
    return torch.stack([torch.stack([s1, h], -1), torch.stack([h, s2], -1)], -2)


def rotation(angle: Tensor) -> Tensor:
    """R (B, 2, 2) of angles (B,) in radians, turning x towards y."""
    c, s = torch.cos(angle), torch.sin(angle)
    return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)


def angle(raw: Tensor, limits: Limits, base: Tensor | None) -> Tensor:
    """Angle (B,) in radians, from raw (B, >= 4): ReLU(raw), unbounded, without a base; base + limit
    tanh(raw) with one.
    """
    if base is None:
        return torch.relu(raw[:, 3])
    return base + limits.rotation_rad * torch.tanh(raw[:, 3])
