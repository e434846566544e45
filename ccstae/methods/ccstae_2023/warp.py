"""Warps of patterns: bicubic sampling at A x + t, and the revision that moves spots without
stretching them.

A matrix A takes a place x of the dictionary, in pixels from its centre, to the place A x + t of a
pattern, in pixels (x, y). A spot at reciprocal vector p of the dictionary is then seen at A p: A is
M = F^-T relative to the dictionary's lattice.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sample(images: Tensor, at: Tensor) -> Tensor:
    """Values (B, P) of images (B, H, W) at pixels `at` (B, P, 2), (x, y), by bicubic interpolation;
    outside, the border goes on.
    """
    height, width = images.shape[-2:]
    grid = at * at.new_tensor([2 / (width - 1), 2 / (height - 1)]) - 1
    return torch.nn.functional.grid_sample(
        images[:, None], grid[:, None], "bicubic", "border", align_corners=True
    )[:, 0, 0]


def transform(A: Tensor, at: Tensor) -> Tensor:
    """A x: (B, ..., 2) from (B, 2, 2) and (B, ..., 2)."""
    return torch.einsum("bij,b...j->b...i", A, at)


def mass_centres(values: Tensor, at: Tensor, coefficient: float) -> Tensor:
    """Centres of mass (B, K, 2) of what exceeds `coefficient` times the mean of each of K spots;
    the middle of the window where nothing does.

    Args:
        values: of the spots, (B, K, P).
        at: their places (B, K, P, 2).
        coefficient: threshold, over the mean of a spot.
    """
    mass = (values - coefficient * values.mean(-1, keepdim=True)).clamp_min(0)
    total = mass.sum(-1, keepdim=True)
    centre = (mass[..., None] * at).sum(-2) / total.clamp_min(torch.finfo(values.dtype).tiny)
    return torch.where(total > 0, centre, at.mean(-2))


def revised(
    images: Tensor,
    A: Tensor,
    origin: Tensor,
    spots: Tensor,
    coarse: Tensor,
    fine: Tensor,
    coefficient: float,
) -> Tensor:
    """Spots of images warped by A, in their own shape ("revise affine" of the paper).

    The warped image W(x) = I(A x + origin) stretches each spot as well. The centre of mass c of a
    spot stays, and the stretch is undone about it: V(x) = I(A c + x - c + origin). Gradients take c
    as given, as they do where a crop is placed, so each spot moves rigidly, by A c.

    Args:
        images: I (B, H, W).
        A: (B, 2, 2).
        origin: (B, 2), pixels.
        spots: places (B, K, 2) of the spots in W.
        coarse: window (Q, 2) round each, in which its centre of mass is sought.
        fine: window (P, 2) round each, in which V is sampled.
        coefficient: threshold of the centre of mass, over the mean of the window.

    Returns:
        V (B, K, P).
    """
    B, K, _ = spots.shape
    with torch.no_grad():
        at = spots[:, :, None] + coarse
        places = transform(A, at) + origin[:, None, None]
        warped = sample(images, places.reshape(B, -1, 2)).reshape(B, K, -1)
        c = mass_centres(warped, at, coefficient)
    at = (transform(A, c) - c + spots + origin[:, None])[:, :, None] + fine
    return sample(images, at.reshape(B, -1, 2)).reshape(B, K, -1)


def disk(radius: float, step: float, like: Tensor) -> Tensor:
    """Grid points (P, 2) within `radius` of 0, `step` apart; symmetric about 0."""
    n = int(radius / step)
    axis = step * torch.arange(-n, n + 1, dtype=like.dtype, device=like.device)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(-1, 2)
    return grid[grid.norm(dim=-1) <= radius]


def ring(inner: float, outer: float, like: Tensor) -> Tensor:
    """Whole-pixel points (P, 2) at distances from `inner` to `outer` of 0."""
    grid = disk(outer, 1.0, like)
    return grid[grid.norm(dim=-1) >= inner]
