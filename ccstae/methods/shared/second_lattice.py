"""Two lattices in one pattern, turned against each other: a bilayer, or two grains under the probe.

Turned round the beam, a lattice's sites meet its disks once in a symmetry period. The mean box sum
on the sites of a ring, as a function of the turn, is the background plus this peak for each lattice
that is there,

    n(t) = b + A_1 T(t - t_1) + A_2 T(t - t_2).

T, the share of a disk in a box, follows from geometry. For each pair of turns b, A_1 and A_2 of
each ring solve a linear least-squares problem.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

# The weaker lattice has this share of the stronger one's counts, so that what a strained or moved
# lattice leaves beside its peak is none.
MIN_STRENGTH = 0.25
# Two peaks leave less than this share of what one leaves of the variance, and are closer by this
# log likelihood.
MAX_REST_SHARE = 1 / 3
MIN_GAIN = 20.0
MAX_STRANGE = 0.02  # share of another ring's disk in a box that is no part of the peak
# Disks of two lattices this many radii apart on the first ring do not overlap.
APART_RADII = 2.0


@dataclass(frozen=True)
class Pair:
    """What n patterns show of two lattices."""

    turn: Int64[Tensor, "n 2"]  # of both, in steps of the candidates; the stronger first
    seen: Bool[Tensor, " n"]  # whether there are two


def overlap(distance: Tensor, radius: float) -> Tensor:
    """Share of a disk that lies in a square box of its area, the mean over directions.

    Args:
        distance: of their centres (...), in pixels.
        radius: of the disk, pixels.
    """
    steps = (torch.arange(15) + 0.5) / 15 * 2 - 1
    disk = torch.cartesian_prod(steps, steps)
    disk = disk[disk.norm(dim=1) < 1]
    angle = (torch.arange(5) + 0.5) / 5 * math.pi / 4
    towards = torch.stack([angle.cos(), angle.sin()], -1)
    per_radius = 24
    far = torch.arange(3 * per_radius) / per_radius  # in radii; nothing overlaps beyond 2.25
    at = (disk + (towards * far[:, None, None])[:, :, None]).abs()  # (far, 5, points, 2)
    share = (at < math.sqrt(math.pi) / 2).all(-1).float().mean((-1, -2))
    return share[(distance / radius * per_radius).round().clamp(max=len(far) - 1).long()]


def pairs(profile: Tensor, precision: Tensor, peak: Tensor, strange: Tensor, least: int) -> Pair:
    """The likeliest two lattices of each pattern.

    Args:
        profile: mean box sums (n, T, R) on the sites of each ring at each turn.
        precision: inverse variances (n, R) of these.
        peak: T (T, R), the peak of a lattice at turn 0.
        strange: (T, R), the share of disks of other rings in the boxes of a ring, likewise.
        least: turns by which two lattices differ at least.

    Returns:
        The turns of both, and whether there are two.
    """
    n, turns, _ = profile.shape
    gaps = torch.arange(least, turns // 2 + 1, device=peak.device)
    if not len(gaps):
        nothing = torch.zeros(n, 2, dtype=torch.long, device=peak.device)
        return Pair(nothing, nothing[:, 0] > 0)
    index = torch.arange(turns, device=peak.device)
    along = peak[(index - index[:, None]) % turns]  # (t1, t, R): the peak at t1
    total, level = profile.sum(1), peak.sum(0)
    variance = (profile**2).sum(1) - total**2 / turns
    spread = ((peak**2).sum(0) - level**2 / turns).clamp_min(1e-9)
    this = torch.einsum("ntr,str->nsr", profile, along) - (total * level / turns)[:, None]
    alone = this.clamp_min(0) ** 2 / spread  # what one peak explains of the variance, (n, T, R)
    both = torch.stack([(peak * peak.roll(int(gap), 0)).sum(0) for gap in gaps]) - level**2 / turns
    other = torch.stack([this.roll(-int(gap), 1) for gap in gaps], 2)  # (n, T, D, R)
    this = this[:, :, None]
    determinant = (spread**2 - both**2).clamp_min(1e-9)
    A1 = ((spread * this - both * other) / determinant).clamp_min(0)
    A2 = ((spread * other - both * this) / determinant).clamp_min(0)
    explained = 2 * (A1 * this + A2 * other) - spread * (A1**2 + A2**2) - 2 * both * A1 * A2
    score = explained * precision[:, None, None]
    best = score.sum(-1).flatten(1).argmax(1)
    # Where the second lattice would put its disks on those of another ring of the first, a ring
    # says nothing of it.
    tells = (strange[gaps] < MAX_STRANGE) & (strange[-gaps] < MAX_STRANGE)  # (D, R)
    row, first, gap = torch.arange(n, device=peak.device), best // len(gaps), best % len(gaps)
    weight = precision * tells[gap]
    rest_of_two = ((variance - explained[row, first, gap]) * weight).sum(1)
    rest_of_one = ((variance[:, None] - alone) * weight[:, None]).sum(-1).amin(1)
    strength = torch.stack([(A[row, first, gap] * weight.sqrt()).sum(1) for A in (A1, A2)], 1)
    seen = strength.amin(1) > MIN_STRENGTH * strength.amax(1)
    seen &= rest_of_two < MAX_REST_SHARE * rest_of_one
    seen &= rest_of_one - rest_of_two > 2 * MIN_GAIN
    turn = torch.stack([first, (first + gaps[gap]) % turns], 1)
    swap = strength[:, :1] < strength[:, 1:]
    return Pair(torch.where(swap, turn.flip(1), turn), seen)
