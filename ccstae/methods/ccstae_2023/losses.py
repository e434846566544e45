"""The published losses: squared errors of two cycles under masks, and the regularisers.

Forward, a pattern warped by A is compared with the picture of its code. Backward, the picture
warped by A^-1 is compared with the pattern. The first stage compares them on a ring, the second on
six spots sampled finer than the detector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ccstae.methods.ccstae_2023 import warp


@dataclass(frozen=True)
class Warped:
    """What the model says of B patterns."""

    A: Float[Tensor, "B 2 2"]  # dictionary to pattern
    origin: Float[Tensor, "B 2"]  # the dictionary's centre in the pattern, pixels
    code: Float[Tensor, "B E"]
    pictures: Float[Tensor, "E D D"]  # pixels of the detector

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
        places = (at + self.middle).expand(len(self.pictures), -1, -1)
        return self.code @ warp.sample(self.pictures, places)


def ring_cycles(patterns: Tensor, w: Warped, ring: Tensor) -> Tensor:
    """Loss of the first stage: the sum of both cycles' mean squared errors on a ring.

    Args:
        patterns: brightness (B, H, W).
        w: what the model says of them.
        ring: places (P, 2) in pixels from the centre of the dictionary.
    """
    inverse = torch.linalg.inv(w.A)
    at = ring.expand(len(patterns), -1, -1)
    warped = warp.sample(patterns, warp.transform(w.A, at) + w.origin[:, None])
    forward = (warped - w.expected(ring)).square().mean()
    back = warp.sample(w.chosen, warp.transform(inverse, at) + w.middle)
    observed = warp.sample(patterns, at + w.origin.detach()[:, None])
    return forward + (back - observed).square().mean()


def spot_cycles(
    patterns: Tensor, w: Warped, spots: Tensor, coarse: Tensor, fine: Tensor, coefficient: float
) -> Tensor:
    """Loss of the second stage: the sum of both cycles' mean squared errors in windows round spots.

    Forward, the windows stay on the spots of the dictionary. Backward, they follow the spots to A p
    (as masks: without gradients). Spots keep their shape (`warp.revised`).

    Args:
        patterns: brightness (B, H, W).
        w: what the model says of them.
        spots: places p (K, 2) in pixels from the centre of the dictionary.
        coarse: window (Q, 2) in which a spot's centre of mass is sought.
        fine: window (P, 2) in which spots are compared.
        coefficient: threshold of the centre of mass, over the mean of the window.
    """
    B, K = len(patterns), len(spots)
    inverse = torch.linalg.inv(w.A)
    here = spots.expand(B, -1, -1)
    there = warp.transform(w.A.detach(), here)
    expected = w.expected((spots[:, None] + fine).reshape(-1, 2)).reshape(B, K, -1)
    warped = warp.revised(patterns, w.A, w.origin, here, coarse, fine, coefficient)
    forward = (warped - expected).square().mean()
    at = (there + w.origin.detach()[:, None])[:, :, None] + fine
    observed = warp.sample(patterns, at.reshape(B, -1, 2)).reshape(B, K, -1)
    back = warp.revised(w.chosen, inverse, w.middle.expand(B, -1), there, coarse, fine, coefficient)
    return forward + (back - observed).square().mean()


def mean_excess(values: Tensor, limit: float) -> Tensor:
    """Mean of what |values| exceed `limit` by."""
    return (values.abs() - limit).clamp_min(0).mean()


def orientation(angle: Tensor, rough: Tensor, weight: Tensor, symmetry: int) -> Tensor:
    """Weighted mean of (1 - cos n (angle - rough)) / n^2, for angles (B,) in radians and n-fold
    symmetry. Small differences give half their square, modulo 2 pi / n.
    """
    deviation = 1 - torch.cos(symmetry * (angle - rough))
    return (weight * deviation).sum() / (symmetry**2 * weight.sum().clamp_min(1))


def gauge(stretch: Tensor, has_lattice: Tensor) -> Tensor:
    """|mean S - I|^2 over the patterns that hold a lattice, for S (B, 2, 2) and `has_lattice` (B,),
    0 or 1.

    A common stretch of all patterns cannot be told from the inverse stretch of the dictionary's
    lattice.
    """
    number = has_lattice.sum()
    mean = (has_lattice[:, None, None] * stretch).sum(0) / number.clamp_min(1)
    return (number > 0) * (mean - torch.eye(2).to(mean)).square().sum()
