"""Maxima of correlation maps, to a fraction of a pixel."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ccstae.methods.shared import windows

# Half width of the neighbourhood that the band-limited interpolation reads, and the shape of its
# Kaiser window: ripples of 1e-5 and a pass band up to 0.25 cycles per pixel, where correlation with
# a disk has its power. Ripples must be small against the peak's gentle bend: with beta 6 (7e-4)
# positions are wrong by 0.03 px. What the whole map's Fourier series adds is the ringing of the
# direct beam, a thousand times as high as a disk.
TAPS = 6
KAISER_BETA = 10.0


def near(maps: Tensor, at: Tensor, reach: float) -> Tensor:
    """Pixel (B, S, 2) of the largest value within `reach` px of each `at` (B, S, 2); always on the
    map.
    """
    values, dx, dy = windows.cut(maps, at, math.floor(reach + 0.5))
    r2 = _distance2(at[..., 0, None, None], dx, maps.shape[-1]) + _distance2(
        at[..., 1, None, None], dy, maps.shape[-2]
    )
    best = values.masked_fill(r2 > reach**2, -torch.inf).flatten(-2).argmax(-1)
    n = values.shape[-1]
    nearest = at.round().long() - (n // 2)
    peak = torch.stack([nearest[..., 0] + best % n, nearest[..., 1] + best // n], -1)
    return torch.minimum(
        peak.clamp_min(0),
        torch.tensor([maps.shape[-1] - 1, maps.shape[-2] - 1], device=maps.device),
    )


def _distance2(at: Tensor, offset: Tensor, size: int) -> Tensor:
    """Squared distance along one axis; infinite off the map."""
    place = at + offset
    return torch.where((place > -0.5) & (place < size - 0.5), offset**2, torch.inf)


def everywhere(maps: Tensor, spacing: float, most: int) -> Tensor:
    """Pixels (B, most, 2) of the highest local maxima, each the highest within `spacing` px in x
    and y, highest first.
    """
    B, _, width = maps.shape
    half = max(1, int(spacing))
    highest = torch.nn.functional.max_pool2d(maps[:, None], 2 * half + 1, stride=1, padding=half)[
        :, 0
    ]
    flat = torch.where(maps == highest, maps, -torch.inf).reshape(B, -1).topk(most, -1).indices
    return torch.stack([flat % width, flat // width], -1)


def subpixel(
    maps: Tensor, peak: Tensor, how: Literal["none", "parabolic", "dft"], upsample: int
) -> tuple[Tensor, Tensor]:
    """Positions (B, S, 2) in pixels and heights (B, S) of the maxima next to the pixels `peak` (B,
    S, 2).

    "parabolic" puts a parabola through three values along each axis. "dft" reads the band-limited
    map, as an upsampled DFT would, on a grid of 1 / `upsample` px within 0.8 px of the pixel, as
    two matrix products over its neighbourhood, then a parabola on that grid.
    """
    if how == "none":
        values, _, _ = windows.cut(maps, peak, 0)
        return peak.to(maps.dtype), values[..., 0, 0]
    values, _, _ = windows.cut(maps, peak, 1 if how == "parabolic" else TAPS)
    if how == "parabolic":
        step, height = _parabola(values)
        return peak + step, height
    weights = _interpolation(upsample, maps)
    step, height = maximum(weights @ values @ weights.T)
    return peak + step / upsample, height


def maximum(grid: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum of a grid (..., n, n), n odd, by a parabola there: position (..., 2), x first, in
    steps from the middle, and height.
    """
    n = grid.shape[-1]
    best = grid.flatten(-2).argmax(-1)
    iy, ix = (best // n).clamp(1, n - 2), (best % n).clamp(1, n - 2)
    span = torch.arange(-1, 2, device=grid.device)
    flat = (iy[..., None, None] + span[:, None]) * n + ix[..., None, None] + span
    step, height = _parabola(grid.flatten(-2).gather(-1, flat.flatten(-2)).reshape(flat.shape))
    return torch.stack([ix, iy], -1) - n // 2 + step, height


def _parabola(values: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum (..., 2) in pixels from the middle, within one pixel, and its height, of (...,
    3, 3)."""
    middle = values[..., 1, 1]
    height, steps = middle, []
    for low, high in (
        (values[..., 1, 0], values[..., 1, 2]),
        (values[..., 0, 1], values[..., 2, 1]),
    ):
        slope, bend = (high - low) / 2, 2 * middle - low - high
        step = torch.where(bend > 0, slope / torch.where(bend > 0, bend, 1), 0).clamp(-1, 1)
        height = height + slope * step / 2
        steps.append(step)
    return torch.stack(steps, -1), height


def _interpolation(upsample: int, like: Tensor) -> Tensor:
    """The matrix (n, 2 TAPS + 1) that reads a map every 1 / `upsample` px within 0.8 px: sinc under
    a Kaiser window.
    """
    reach = math.ceil(0.8 * upsample)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64) / upsample
    distance = offsets[:, None] - torch.arange(-TAPS, TAPS + 1)
    window = torch.special.i0(KAISER_BETA * (1 - (distance / (TAPS + 1)) ** 2).clamp_min(0).sqrt())
    weights = torch.sinc(distance) * window
    return (weights / weights.sum(1, keepdim=True)).to(like)
