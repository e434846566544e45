"""What lies between the disks of one pattern: masks of disks, and the background under them."""

from __future__ import annotations

import torch
from torch import Tensor

# Soft edge of a disk, outside its radius, that is kept out of the background.
EDGE_PX = 2.5


def radial_mean(patterns: Tensor, centre: Tensor, sites: Tensor, exclude: float) -> Tensor:
    """Background of each pattern: the mean at each distance from the centre, between the disks.

    The profile is linear between whole pixels, to which the pixels on either side contribute by
    their distance. A radius without a free pixel takes the mean of the nearest radii on either side
    that have one.

    Args:
        patterns: counts (B, Qy, Qx).
        centre: direct beams (B, 2), x and y in pixels.
        sites: centres of the disks (B, S, 2) in pixels; they may lie off the detector.
        exclude: distance in pixels from a site within which a pixel does not count.

    Returns:
        Background (B, Qy, Qx).
    """
    B, height, width = patterns.shape
    device, dtype = patterns.device, patterns.dtype
    x = torch.arange(width, device=device, dtype=dtype)
    y = torch.arange(height, device=device, dtype=dtype)
    free = ~disk_mask(sites.to(dtype), exclude, height, width)
    dx2 = (x - centre[:, 0, None]).square()[:, None, :]
    dy2 = (y - centre[:, 1, None]).square()[:, :, None]
    r = (dx2 + dy2).sqrt().reshape(B, -1)
    n = int((height**2 + width**2) ** 0.5) + 2
    low = r.long().clamp(max=n - 2)
    part = (r - low).clamp(0, 1)
    free = free.reshape(B, -1).to(dtype)
    total, area = torch.zeros(2, B, n, device=device, dtype=dtype)
    for index, share in ((low, free * (1 - part)), (low + 1, free * part)):
        total.scatter_add_(1, index, share * patterns.reshape(B, -1))
        area.scatter_add_(1, index, share)
    profile = _filled_mean(total, area)
    at_pixels = torch.lerp(profile.gather(1, low), profile.gather(1, low + 1), part)
    return at_pixels.reshape(patterns.shape)


def without_beam(patterns: Tensor, centre: Tensor, radius: float) -> Tensor:
    """Patterns (B, Qy, Qx) with the mean of a 2 px ring in place of what lies within `radius` px of
    `centre` (B, 2).
    """
    beam = disk_mask(centre[:, None], radius, *patterns.shape[1:])
    ring = disk_mask(centre[:, None], radius + 2, *patterns.shape[1:]) & ~beam
    mean = torch.where(ring, patterns, 0).sum((-1, -2)) / ring.sum((-1, -2)).clamp_min(1)
    return torch.where(beam, mean[:, None, None], patterns)


def disk_mask(sites: Tensor, radius: float, height: int, width: int) -> Tensor:
    """Pixels (B, Qy, Qx), bool, within `radius` px of any of the sites (B, S, 2)."""
    B = len(sites)
    half = int(radius) + 1
    offset = torch.arange(-half, half + 1, device=sites.device)
    nearest = sites.round().long()
    # A border one pixel wide takes what lies off the detector, and is cut off in the end.
    x = (nearest[..., 0, None] + offset).clamp(-1, width)
    y = (nearest[..., 1, None] + offset).clamp(-1, height)
    dx2 = (x - sites[..., 0, None]).square()[..., None, :]
    dy2 = (y - sites[..., 1, None]).square()[..., :, None]
    close = (dx2 + dy2) <= radius**2
    mask = torch.zeros(B, (height + 2) * (width + 2), device=sites.device)
    flat = (y + 1)[..., :, None] * (width + 2) + (x + 1)[..., None, :]
    mask.scatter_reduce_(1, flat.reshape(B, -1), close.reshape(B, -1).float(), "amax")
    return mask.reshape(B, height + 2, width + 2)[:, 1:-1, 1:-1] > 0


def _filled_mean(total: Tensor, area: Tensor) -> Tensor:
    """total / area (B, n), with gaps of area filled from the nearest radii on either side."""
    empty = area < 0.5
    value = torch.where(empty, 0, total / area.clamp_min(0.5))
    n = value.shape[1]
    index = torch.arange(n, device=value.device).expand_as(value)
    left = torch.where(empty, -1, index).cummax(1).values
    right = torch.where(empty, n, index).flip(1).cummin(1).values.flip(1)
    nowhere = (left < 0) & (right >= n)
    left, right = torch.where(left < 0, right, left), torch.where(right >= n, left, right)
    filled = 0.5 * (value.gather(1, left.clamp(0, n - 1)) + value.gather(1, right.clamp(0, n - 1)))
    return torch.where(nowhere, 0, torch.where(empty, filled, value))
