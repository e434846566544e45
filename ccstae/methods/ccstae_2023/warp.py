"""Warps of patterns: bicubic sampling at A x + t, and the mend that moves spots without stretching
them.

A matrix A takes a place x of the dictionary, in pixels from its centre, to the place A x + t of a
pattern, in pixels (x, y). A spot at reciprocal vector p of the dictionary is then seen at A p: A is
M = F^-T relative to the dictionary's lattice.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sample(images: Tensor, at: Tensor) -> Tensor:
    """Values (B, P) of images (B, H, W) at pixels `at` (B, P, 2), (x, y), by bicubic interpolation;
    the border goes on outside.
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
    """Centres of mass (B, K, 2) of K spots: values (B, K, P) above `coefficient` times their mean,
    at places `at` (B, K, P, 2).

    The middle of the window where nothing exceeds that.
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
    """Spots (B, K, P) of images warped by A, in their own shape ("revise affine").

    The warped image W(x) = I(A x + origin) stretches each spot as well. Its centre of mass c in the
    window `spots` (B, K, 2) + `coarse` (Q, 2) is kept, and the stretch undone about it: V(x) = I(A
    c + x - c + origin), sampled on `spots` + `fine` (P, 2). `origin` is (B, 2). Gradients take c
    for given, as they do where a crop is placed: each spot then moves rigidly, by A c.
    """
    B, K, _ = spots.shape
    with torch.no_grad():
        at = spots[:, :, None] + coarse
        seen = sample(images, (transform(A, at) + origin[:, None, None]).reshape(B, -1, 2)).reshape(
            B, K, -1
        )
        c = mass_centres(seen, at, coefficient)
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
