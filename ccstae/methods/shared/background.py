"""Background under the disks: what is left of a pattern between them."""

from __future__ import annotations

import torch
from torch import Tensor

# Soft edge of a disk, outside its radius, that is kept out of the background.
EDGE_PX = 2.5


def radial(patterns: Tensor, centre: Tensor, sites: Tensor, exclude: float) -> Tensor:
    """Background (B, Qy, Qx): the mean at each distance from `centre` (B, 2), over pixels further
    than `exclude` px from every site.

    The profile is linear between whole pixels, among which pixels share their counts; radii without
    a free pixel take the mean of the nearest that have one on either side. `sites` (B, S, 2) may
    lie off the detector.
    """
    B, height, width = patterns.shape
    device, to = patterns.device, patterns.dtype
    x = torch.arange(width, device=device, dtype=to)
    y = torch.arange(height, device=device, dtype=to)
    free = ~near(sites.to(to), exclude, height, width)
    r = (
        (
            (x - centre[:, 0, None]).square()[:, None, :]
            + (y - centre[:, 1, None]).square()[:, :, None]
        )
        .sqrt()
        .reshape(B, -1)
    )
    n = int((height**2 + width**2) ** 0.5) + 2
    low = r.long().clamp(max=n - 2)
    part = (r - low).clamp(0, 1)
    free = free.reshape(B, -1).to(to)
    total, area = torch.zeros(2, B, n, device=device, dtype=to)
    for index, share in ((low, free * (1 - part)), (low + 1, free * part)):
        total.scatter_add_(1, index, share * patterns.reshape(B, -1))
        area.scatter_add_(1, index, share)
    profile = _fill(total, area)
    return torch.lerp(profile.gather(1, low), profile.gather(1, low + 1), part).reshape(
        patterns.shape
    )


def without_beam(patterns: Tensor, centre: Tensor, radius: float) -> Tensor:
    """Patterns (B, Qy, Qx) with the mean of a 2 px ring in place of what lies within `radius` px of
    `centre` (B, 2).
    """
    beam = near(centre[:, None], radius, *patterns.shape[1:])
    ring = near(centre[:, None], radius + 2, *patterns.shape[1:]) & ~beam
    level = torch.where(ring, patterns, 0).sum((-1, -2)) / ring.sum((-1, -2)).clamp_min(1)
    return torch.where(beam, level[:, None, None], patterns)


def near(sites: Tensor, radius: float, height: int, width: int) -> Tensor:
    """Pixels (B, Qy, Qx) within `radius` of any site."""
    B = len(sites)
    half = int(radius) + 1
    offset = torch.arange(-half, half + 1, device=sites.device)
    nearest = sites.round().long()
    # A border of half + 1 px takes what lies off the detector.
    x = (nearest[..., 0, None] + offset).clamp(-1, width)
    y = (nearest[..., 1, None] + offset).clamp(-1, height)
    close = (
        (x - sites[..., 0, None]).square()[..., None, :]
        + (y - sites[..., 1, None]).square()[..., :, None]
    ) <= radius**2
    mask = torch.zeros(B, (height + 2) * (width + 2), device=sites.device)
    flat = (y + 1)[..., :, None] * (width + 2) + (x + 1)[..., None, :]
    mask.scatter_reduce_(1, flat.reshape(B, -1), close.reshape(B, -1).float(), "amax")
    return mask.reshape(B, height + 2, width + 2)[:, 1:-1, 1:-1] > 0


def _fill(total: Tensor, area: Tensor) -> Tensor:
    """total / area with gaps of area filled from the nearest radii on either side."""
    empty = area < 0.5
    value = torch.where(empty, 0, total / area.clamp_min(0.5))
    n = value.shape[1]
    index = torch.arange(n, device=value.device).expand_as(value)
    left = torch.where(empty, -1, index).cummax(1).values
    right = torch.where(empty, n, index).flip(1).cummin(1).values.flip(1)
    none = (left < 0) & (right >= n)
    left, right = torch.where(left < 0, right, left), torch.where(right >= n, left, right)
    filled = 0.5 * (value.gather(1, left.clamp(0, n - 1)) + value.gather(1, right.clamp(0, n - 1)))
    return torch.where(none, 0, torch.where(empty, filled, value))
