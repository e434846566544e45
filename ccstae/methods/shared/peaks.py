"""Maxima of correlation maps, to a fraction of a pixel."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ccstae.methods.shared import windows

# Half width of the neighbourhood that the band-limited interpolation reads, and the shape of its
# Kaiser window. Its ripples are 1e-5, and its pass band reaches 0.25 cycles per pixel, where
# correlation with a disk has its power. Ripples must be small against the gentle bend of a peak:
# with beta 6 they are 7e-4, and positions are wrong by 0.03 px. A Fourier series of the whole map
# would add the ringing of the direct beam, a thousand times as high as a disk.
TAPS = 6
KAISER_BETA = 10.0


def near(maps: Tensor, at: Tensor, reach: float) -> Tensor:
    """The largest value of each map near given places.

    Args:
        maps: (B, Qy, Qx).
        at: places (B, S, 2), x and y in pixels.
        reach: how far from them to look, pixels.

    Returns:
        Its pixel (B, S, 2), always on the map.
    """
    values, dx, dy = windows.cut(maps, at, math.floor(reach + 0.5))
    dx2 = _distance2(at[..., 0, None, None], dx, maps.shape[-1])
    dy2 = _distance2(at[..., 1, None, None], dy, maps.shape[-2])
    r2 = dx2 + dy2
    best = values.masked_fill(r2 > reach**2, -torch.inf).flatten(-2).argmax(-1)
    n = values.shape[-1]
    nearest = at.round().long() - (n // 2)
    x, y = nearest[..., 0] + best % n, nearest[..., 1] + best // n
    return torch.stack([x.clamp(0, maps.shape[-1] - 1), y.clamp(0, maps.shape[-2] - 1)], -1)


def _distance2(at: Tensor, offset: Tensor, size: int) -> Tensor:
    """Squared distance along one axis; infinite off the map."""
    place = at + offset
    return torch.where((place > -0.5) & (place < size - 0.5), offset**2, torch.inf)


def everywhere(maps: Tensor, spacing: float, number: int) -> Tensor:
    """Pixels (B, number, 2) of the highest local maxima of maps (B, Qy, Qx), highest first; each is
    the highest within `spacing` px in x and y.
    """
    B, _, width = maps.shape
    half = max(1, int(spacing))
    highest = torch.nn.functional.max_pool2d(maps[:, None], 2 * half + 1, stride=1, padding=half)[
        :, 0
    ]
    flat = torch.where(maps == highest, maps, -torch.inf).reshape(B, -1).topk(number, -1).indices
    return torch.stack([flat % width, flat // width], -1)


def subpixel(
    maps: Tensor, peak: Tensor, how: Literal["none", "parabolic", "dft"], upsample: int
) -> tuple[Tensor, Tensor]:
    """Maxima to a fraction of a pixel.

    "parabolic" puts a parabola through three values along each axis. "dft" reads the band-limited
    map on a grid of 1 / `upsample` px within 0.8 px of the pixel, as an upsampled DFT would, and
    puts a parabola on that grid. It takes two matrix products over the neighbourhood of the pixel.

    Args:
        maps: (B, Qy, Qx).
        peak: pixels (B, S, 2) next to the maxima, x and y.
        how: "none" leaves the pixels.
        upsample: grid points a pixel for "dft".

    Returns:
        Positions (B, S, 2) in pixels, and heights (B, S).
    """
    if how == "none":
        values, _, _ = windows.cut(maps, peak, 0)
        return peak.to(maps.dtype), values[..., 0, 0]
    values, _, _ = windows.cut(maps, peak, 1 if how == "parabolic" else TAPS)
    if how == "parabolic":
        step, height = _parabola(values)
        return peak + step, height
    weights = _interpolation_matrix(upsample, maps)
    step, height = maximum(weights @ values @ weights.T)
    return peak + step / upsample, height


def maximum(grid: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum of a grid, by a parabola through the largest value and its neighbours.

    Args:
        grid: values (..., n, n), rows y, n odd.

    Returns:
        Position (..., 2), x first, in steps from the middle, and height (...).
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
    along_x = values[..., 1, 0], values[..., 1, 2]
    along_y = values[..., 0, 1], values[..., 2, 1]
    for low, high in (along_x, along_y):
        slope, bend = (high - low) / 2, 2 * middle - low - high
        step = torch.where(bend > 0, slope / torch.where(bend > 0, bend, 1), 0).clamp(-1, 1)
        height = height + slope * step / 2
        steps.append(step)
    return torch.stack(steps, -1), height


def _interpolation_matrix(upsample: int, like: Tensor) -> Tensor:
    """The matrix (n, 2 TAPS + 1) that reads a map every 1 / `upsample` px within 0.8 px: sinc under
    a Kaiser window.
    """
    reach = math.ceil(0.8 * upsample)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64) / upsample
    return interpolation_weights(offsets).to(like)


def interpolation_weights(offsets: Tensor) -> Tensor:
    """Weights (..., 2 TAPS + 1) of the pixels round a middle one that read a map at offsets (...)
    from it, in pixels.
    """
    distance = offsets[..., None] - torch.arange(-TAPS, TAPS + 1, device=offsets.device)
    window = torch.special.i0(KAISER_BETA * (1 - (distance / (TAPS + 1)) ** 2).clamp_min(0).sqrt())
    weights = torch.sinc(distance) * window
    return weights / weights.sum(-1, keepdim=True)
