"""The size of the reciprocal cell of patterns, which tells the entries of materials apart where it
differs, and says in noise whose intensities to compare.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from ccstae.methods.ccstae.intensities import (
    CLUSTER_SPREAD,
    MIN_ENTRY_SHARE,
    MIN_PATTERNS_PER_ENTRY,
    Relative,
)

MAX_SIZE_OFF = 6.0  # median distances from the median size, 4 deviations of a normal law
MAX_TURNS_APART_RAD = math.radians(15)  # half of what permutes the disks of a hexagonal lattice
MIN_SIGNIFICANCE = 5.0  # deviations of chi^2, by which the intensities of two entries differ
MIN_AREA_DEVIATION = 1e-3  # deviation of log det M within an entry


@dataclass(frozen=True)
class LogArea:
    """log det M of n patterns, the size of the reciprocal cell against the nominal one."""

    value: Float64[Tensor, " n"]
    variance: Float64[Tensor, " n"]


def log_area(M: Tensor, covariance: Tensor) -> LogArea:
    """log det M and its variance, from M (n, 2, 2) and its covariance (n, 4, 4); d log det M =
    tr(M^-1 dM).
    """
    M = M.double()
    slope = torch.linalg.inv(M).transpose(1, 2).reshape(-1, 4)
    variance = torch.einsum("na,nab,nb->n", slope, covariance, slope)
    return LogArea(torch.linalg.det(M).clamp_min(1e-6).log(), variance)


def area_odds(area: Tensor, measured: LogArea) -> Tensor:
    """Log odds (n, E) of entries whose patterns have log areas of mean and deviation `area` (E, 2),
    from the log areas measured.
    """
    variance = area[:, 1] ** 2 + measured.variance[:, None]
    z2 = (measured.value[:, None] - area[:, 0]) ** 2 / variance
    return -0.5 * (9 * torch.log1p(z2 / 9) + variance.log())


def areas(odds: Tensor, measured: LogArea) -> Tensor:
    """Mean and deviation (E, 2) of the log area of the patterns of each entry, by expectation
    maximisation from the log odds of the intensities (n, E).

    Materials differ in their lattice as well as in their intensities. Where they do not, the
    deviations are alike and the areas decide nothing.
    """
    x, v = measured.value, measured.variance
    # One pattern alone has no deviation.
    deviation = x.std() if len(x) > 1 else torch.zeros_like(x.sum())
    area = torch.stack([x.mean(), deviation.clamp_min(MIN_AREA_DEVIATION)])
    area = area.expand(odds.shape[1], 2)
    for _ in range(30):
        share = (odds + area_odds(area, measured)).softmax(1)
        weight = share / (area[:, 1] ** 2 + v[:, None])
        area = _area(share, measured, weight)
    return area


def told_apart_by_area(
    relative: Relative, measured: LogArea
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Two entries where the intensities differ with the size of the cell.

    The size of the cell says nothing of the counts in the disks, so it may choose whose intensities
    are compared. One chi^2 then judges the difference. A mixture of intensities must also find out
    which pattern is of which entry: in noise it needs several times as many patterns. The sizes are
    taken for a mixture of two. With the shares s of the patterns in these, the intensities of the
    entries are the weighted regression of the patterns' on s, free of the patterns that the sizes
    put wrong.

    Args:
        relative: intensities of n patterns.
        measured: size of their cells.

    Returns:
        Entries and odds as `cluster` gives them, and the log areas of the entries, (2, 2). None
        where there is one set of intensities. Those of the two, a and b, must differ by 5
        deviations of chi^2, and by sum_k (a_k - b_k)^2 / x_k > 0.1^2 beyond noise, with x the mean
        of all patterns. Strain does not reach that.
    """
    share = _two_sizes(measured)
    n, K = relative.x.shape
    if share.sum(0).min() < max(MIN_PATTERNS_PER_ENTRY, MIN_ENTRY_SHARE * n):
        return None
    precision = relative.precision(relative.x.mean(0, keepdim=True))[:, 0]
    information = torch.einsum("ne,nk,nf->kef", share, precision, share)
    weighted = torch.einsum("ne,nk,nk->ke", share, precision, relative.x)
    covariance, singular = torch.linalg.inv_ex(information)
    if singular.any():  # one size
        return None
    centre = (covariance @ weighted[..., None])[..., 0].T
    variance = (covariance * covariance.new_tensor([[1, -1], [-1, 1]])).sum((1, 2))
    squares = (centre[0] - centre[1]) ** 2
    mean = relative.x.mean(0).clamp_min(1e-9)
    chi2, difference, noise = (
        float(each.sum()) for each in (squares / variance, squares / mean, variance / mean)
    )
    differ = (
        chi2 > K + MIN_SIGNIFICANCE * (2 * K) ** 0.5
        and noise < CLUSTER_SPREAD**2
        and difference - noise > CLUSTER_SPREAD**2
    )
    if not differ:
        return None
    return centre, relative.log_density(centre) + share.mean(0).log(), _area(share, measured)


def is_of_one_orientation(M: Tensor) -> bool:
    """Whether all but a few of the lattices (n, 2, 2) are turned alike. A grain that is turned by
    more than half the angle of the lattice's symmetry shows its intensities permuted: where there
    are such grains, each of a strain of its own, intensities differ with the size of the cell in
    one material too.
    """
    turn = torch.atan2(M[:, 1, 0] - M[:, 0, 1], M[:, 0, 0] + M[:, 1, 1]).double()
    low, high = turn.quantile(turn.new_tensor([MIN_ENTRY_SHARE, 1 - MIN_ENTRY_SHARE]))
    return float(high - low) < MAX_TURNS_APART_RAD


def _two_sizes(measured: LogArea) -> Tensor:
    """Shares (n, 2) of the patterns in a mixture of two normal laws of the size of the cell, of one
    deviation, by expectation maximisation from its smaller and its larger half. Patterns far from
    all others have no share.
    """
    x = measured.value
    n = len(x)
    off = (x - x.median()).abs()
    within = (off <= MAX_SIZE_OFF * off.median()).double()[:, None]
    share = x.new_zeros(n, 2)
    share[torch.argsort(x), torch.arange(n, device=x.device) * 2 // n] = 1.0
    share *= within
    for _ in range(60):
        mean, deviation = _area(share, measured).T
        # Two deviations would let one law cover both sizes.
        variance = (share.mean(0) * deviation**2).sum() + measured.variance[:, None]
        z2 = (x[:, None] - mean) ** 2 / variance
        share = (share.mean(0).log() - 0.5 * z2).softmax(1) * within
    return share


def _area(share: Tensor, measured: LogArea, weight: Tensor | None = None) -> Tensor:
    """Mean and deviation (E, 2) of the log area of entries in which the patterns have shares
    (n, E); the mean by other weights where given.
    """
    x, v = measured.value[:, None], measured.variance[:, None]
    weight = share if weight is None else weight
    mean = (weight * x).sum(0) / weight.sum(0)
    beyond = (share * ((x - mean) ** 2 - v)).sum(0) / share.sum(0)
    return torch.stack([mean, beyond.clamp_min(MIN_AREA_DEVIATION**2).sqrt()], 1)
