"""The published losses: squared errors of two cycles under masks, and the regularisers.

Forward: a pattern, warped by A, against the picture of its code. Backward: the picture, warped by
A^-1, against the pattern. The first stage compares them on a ring, the second on six spots sampled
finer than the detector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ccstae.methods.ccstae_2023 import warp


@dataclass(frozen=True)
class Warped:
    """What the model says of B patterns."""

    A: Tensor  # (B, 2, 2), dictionary to pattern
    origin: Tensor  # (B, 2), the dictionary's centre in the pattern, pixels
    code: Tensor  # (B, E)
    pictures: Tensor  # (E, D, D), pixels of the detector

    @property
    def middle(self) -> Tensor:
        """Centre (2,) of a picture: the pixel of index D // 2 along either axis."""
        return self.A.new_tensor([self.pictures.shape[2] // 2, self.pictures.shape[1] // 2])

    @property
    def chosen(self) -> Tensor:
        """The picture of each pattern's code, (B, D, D)."""
        return (self.code @ self.pictures.flatten(1)).unflatten(1, self.pictures.shape[1:])

    def expected(self, at: Tensor) -> Tensor:
        """The pictures of the patterns' codes at places (P, 2) of the dictionary, (B, P)."""
        return self.code @ warp.sample(
            self.pictures, (at + self.middle).expand(len(self.pictures), -1, -1)
        )


def ring_cycles(patterns: Tensor, w: Warped, ring: Tensor) -> Tensor:
    """Sum of both cycles' mean squared errors on the places `ring` (P, 2), for patterns (B,
    H, W)."""
    inverse = torch.linalg.inv(w.A)
    at = ring.expand(len(patterns), -1, -1)
    warped = warp.sample(patterns, warp.transform(w.A, at) + w.origin[:, None])
    forward = (warped - w.expected(ring)).square().mean()
    back = warp.sample(w.chosen, warp.transform(inverse, at) + w.middle)
    return forward + (back - warp.sample(patterns, at + w.origin.detach()[:, None])).square().mean()


def spot_cycles(
    patterns: Tensor, w: Warped, spots: Tensor, coarse: Tensor, fine: Tensor, coefficient: float
) -> Tensor:
    """Sum of both cycles' mean squared errors in windows `fine` (P, 2) round `spots` (K, 2), for
    patterns (B, H, W).

    Forward, the windows stay on the dictionary's spots; backward, they follow the spots to A p (as
    masks: without gradients). Spots keep their shape (`warp.revised`, which takes `coarse` and
    `coefficient`).
    """
    B, (K, _) = len(patterns), spots.shape
    inverse = torch.linalg.inv(w.A)
    here = spots.expand(B, -1, -1)
    there = warp.transform(w.A.detach(), here)
    expected = w.expected((spots[:, None] + fine).reshape(-1, 2)).reshape(B, K, -1)
    forward = (
        (warp.revised(patterns, w.A, w.origin, here, coarse, fine, coefficient) - expected)
        .square()
        .mean()
    )
    at = (there + w.origin.detach()[:, None])[:, :, None] + fine
    seen = warp.sample(patterns, at.reshape(B, -1, 2)).reshape(B, K, -1)
    back = warp.revised(w.chosen, inverse, w.middle.expand(B, -1), there, coarse, fine, coefficient)
    return forward + (back - seen).square().mean()


def excess(values: Tensor, limit: float) -> Tensor:
    """Mean of what |values| exceed `limit` by."""
    return (values.abs() - limit).clamp_min(0).mean()


def orientation(angle: Tensor, found: Tensor, weight: Tensor, symmetry: int) -> Tensor:
    """Mean of (1 - cos n (angle - found)) / n^2, angles (B,) in radians; for small ones half the
    squared difference modulo 2 pi / n.
    """
    return (weight * (1 - torch.cos(symmetry * (angle - found)))).sum() / (
        symmetry**2 * weight.sum().clamp_min(1)
    )


def gauge(stretch: Tensor, found: Tensor) -> Tensor:
    """|mean S - I|^2 over the patterns that hold a lattice, S (B, 2, 2), found (B,) 0 or 1.

    A common stretch of all patterns and the inverse one of the dictionary's lattice are one and the
    same.
    """
    mean = (found[:, None, None] * stretch).sum(0) / found.sum().clamp_min(1)
    return (found.sum() > 0) * (mean - torch.eye(2).to(mean)).square().sum()
