"""What lies between the disks of one pattern: masks of disks, and the background under them."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from ccstae.methods.shared import windows

# Soft edge of a disk, outside its radius, that is kept out of the background.
EDGE_PX = 2.5
_BINS_PER_PX = 2  # of a radial profile: finer than any disk
_BLOCKS_PER_DISK = 6  # pixels that are summed for a profile are smaller than disks by this


def radial_mean(patterns: Tensor, centre: Tensor, sites: Tensor, exclude: float) -> Tensor:
    """Background (B, Qy, Qx) of each pattern; arguments as of `radial_profile`."""
    profile = radial_profile(patterns, centre, sites, exclude)
    return windows.piecewise(at_pixels, patterns, centre, profile)


def radial_profile(
    patterns: Tensor, centre: Tensor, sites: Tensor, exclude: float, gap_px: float = math.inf
) -> Tensor:
    """The background of each pattern: the mean at each distance from the centre, between the disks.

    The profile is smooth over half a disk's radius, and as steep as the pattern shows it to be. A
    one-way analysis of variance, by rings as wide as a disk's radius, gives F; the profile goes
    1 - 1 / F of the way from the flat mean to the mean at each distance (James and Stein, Proc.
    Fourth Berkeley Symp. 1, 361 (1961)). The noise of a ring's mean moves all disks on it alike,
    which is too high a price for a background that is flat, or not there.

    Args:
        patterns: counts (B, Qy, Qx).
        centre: direct beams (B, 2), x and y in pixels.
        sites: centres of the disks (B, S, 2) in pixels; they may lie off the detector.
        exclude: distance in pixels from a site within which a pixel does not count.
        gap_px: radius of the gaps between disks, where they are narrower than these.

    Returns:
        Counts a pixel (B, n), every half pixel from the centre on. A distance without a free pixel
        takes the mean of the nearest on either side that have one.
    """
    width_px = max(exclude - EDGE_PX, 1 / _BINS_PER_PX)  # of a ring
    rings = math.ceil(math.hypot(*patterns.shape[1:]) / width_px)
    blocks, pitch = patterns, 1
    while min(exclude, gap_px) >= _BLOCKS_PER_DISK * pitch:
        blocks, pitch = _halved(blocks), 2 * pitch
    of_blocks = partial(_profile, exclude=exclude, pitch=pitch, width_px=width_px, rings=rings)
    return windows.piecewise(of_blocks, blocks, centre, sites.to(patterns.dtype)) / pitch**2


def at_pixels(patterns: Tensor, centre: Tensor, profile: Tensor) -> Tensor:
    """A profile (B, n) about `centre` (B, 2) at the pixels of patterns (B, Qy, Qx)."""
    bins = _bins(patterns, centre, 1, profile.shape[1])
    return profile.gather(1, bins).reshape(patterns.shape)


def _profile(
    blocks: Tensor,
    centre: Tensor,
    sites: Tensor,
    *,
    exclude: float,
    pitch: int,
    width_px: float,
    rings: int,
) -> Tensor:
    """The profile of sums over blocks of `pitch` px, for so many rings; (B, n)."""
    B, rows, columns = blocks.shape
    corner = (pitch - 1) / 2
    # No pixel of a block that counts is nearer than `exclude`.
    apart = (exclude + math.sqrt(2) * corner) / pitch
    free = (~disk_mask((sites - corner) / pitch, apart, rows, columns)).reshape(B, -1)
    free = free.to(blocks.dtype)
    between = free * blocks.reshape(B, -1)
    bins_per_ring = round(_BINS_PER_PX * width_px)
    n = bins_per_ring * (rings + 1)
    bins = _bins(blocks, centre, pitch, n)
    sums = blocks.new_zeros(2, B, n)  # of counts, and of blocks
    sums[0].scatter_add_(1, bins, between)
    sums[1].scatter_add_(1, bins, free)
    place = torch.arange(n).to(blocks) / (bins_per_ring / 2)
    # Numbers below exp(-40) are slow, and say nothing.
    near = torch.exp(-0.5 * (place[:, None] - place).square().clamp_max(80))
    area = sums[1] @ near
    profile = _filled_mean(sums[0] @ near, area)
    # A smooth mean flattens what is bent; that of the residuals gives it back (J. W. Tukey,
    # Exploratory Data Analysis (1977), "twicing").
    profile = profile + _filled_mean((sums[0] - sums[1] * profile) @ near, area)
    level, certain = _certainty(between, *sums.reshape(2, B, -1, bins_per_ring).sum(-1))
    return torch.lerp(level, profile, certain)


def _bins(blocks: Tensor, centre: Tensor, pitch: int, n: int) -> Tensor:
    """In which of n bins of a profile about `centre` (B, 2) each of the blocks (B, Qy, Qx) of
    `pitch` px lies, (B, Qy Qx); the last is for all that is beyond.
    """
    y, x = (torch.arange(size).to(blocks) * pitch + (pitch - 1) / 2 for size in blocks.shape[1:])
    dx2 = (x - centre[:, 0, None]).square()[:, None, :]
    dy2 = (y - centre[:, 1, None]).square()[:, :, None]
    r = (dx2 + dy2).sqrt_()
    return r.mul_(_BINS_PER_PX).clamp_(max=n - 1).long().reshape(len(blocks), -1)


def _halved(patterns: Tensor) -> Tensor:
    """Sums (B, Qy // 2, Qx // 2) of 2 x 2 pixels; what is left at an odd border is cut off."""
    height, width = (n // 2 * 2 for n in patterns.shape[1:])
    pairs = patterns[:, 0:height:2] + patterns[:, 1:height:2]
    return pairs[..., 0:width:2] + pairs[..., 1:width:2]


def _certainty(values: Tensor, total: Tensor, area: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (B, 1) of values (B, P), whose sums over classes are `total` (B, K) with `area` of
    them, and 1 - 1 / F (B, 1), not below 0.
    """
    number, classes = area.sum(1, keepdim=True), (area > 0).sum(1, keepdim=True)
    mean = total.sum(1, keepdim=True) / number.clamp_min(1)
    of_classes = total.square() / area.clamp_min(1)
    between = (of_classes.sum(1, keepdim=True) - number * mean.square()).clamp_min(0)
    squares = torch.linalg.vector_norm(values, dim=1, keepdim=True).square()
    within = (squares - of_classes.sum(1, keepdim=True)).clamp_min(0)
    spread = within / (number - classes).clamp_min(1) * (classes - 1)
    return mean, torch.where(between > spread, 1 - spread / between, 0)


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
    x, y = sites[..., 0, None], sites[..., 1, None]
    row = y.round().long() + torch.arange(-half, half + 1, device=sites.device)
    across2 = radius**2 - (row - y).square()
    across = across2.clamp_min(0).sqrt()
    # Each row of a disk is a run of pixels: 1 more where it begins, 1 less after its end.
    begins = (x - across).ceil().long().clamp(0, width)
    ends = ((x + across).floor().long() + 1).clamp(0, width)
    there = ((across2 >= 0) & (row >= 0) & (row < height)).to(sites.dtype).reshape(B, -1)
    first = row.clamp(0, height - 1) * width
    changes = torch.zeros(B, height * width + 1, device=sites.device, dtype=sites.dtype)
    changes.scatter_add_(1, (first + begins).reshape(B, -1), there)
    changes.scatter_add_(1, (first + ends).reshape(B, -1), -there)
    return (changes.cumsum(-1)[:, :-1] > 0.5).reshape(B, height, width)


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
