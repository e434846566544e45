"""The sparse code: how many entries the dictionary has, and which one a pattern belongs to.

An entry is a set of disk intensities. Which one a pattern belongs to is read from its intensities
and from the size of its cell, since materials differ in both; entries are counted by intensities
alone, so that grains of different strain are no different materials.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.refine import State

LARGEST_ENTRIES = 4
# relative spread within an entry: what strain, place and neighbours do to the intensities
_CLUSTER_SPREAD = 0.1
_SMALLEST_ENTRY = 0.02  # share of the patterns
_LEAST_AREA = 1e-3  # deviation of log det M within an entry, at least
_LEAST_SPREAD = 0.02  # relative; what strain alone does to the intensities


def cluster(
    intensity: Tensor, variance: Tensor, most: int = LARGEST_ENTRIES
) -> tuple[Tensor, Tensor]:
    """Sparse code over disk intensities (n, K) with variances (n, K): entries (E, K) and log odds
    (n, E) of each for each pattern.

    A mixture of E normal clusters of relative intensities, whose variance is that of the expected
    counts plus a relative spread, is fitted by expectation maximisation for E = 1, 2, ...; the
    number with the lowest Bayesian information criterion is taken (G. Schwarz, Ann. Stat. 6, 461
    (1978)).
    """
    total = intensity.sum(1, keepdim=True).clamp_min(1e-9)
    x, v = (intensity / total).double(), (beneath(intensity, variance) / total**2).double()
    n, K = x.shape
    best, score = None, float("inf")
    order = torch.argsort(_main_axis(x, v + x.mean(0) / total))
    for E in range(1, most + 1):
        if E > 1 and n < 20 * E:
            break
        share = torch.zeros(n, E, dtype=x.dtype, device=x.device)
        share[order, torch.arange(n, device=x.device) * E // n] = 1.0
        for _ in range(60):
            weight = share.sum(0).clamp_min(1e-9)
            centre = x.mean(0).expand(E, K)
            for _ in range(2):
                at_least = centre.clamp_min(0.2 * centre.mean())
                precision = 1 / (
                    v[:, None] + at_least / total[:, None] + (_CLUSTER_SPREAD * at_least) ** 2
                )  # (n, E, K)
                centre = (share[..., None] * precision * x[:, None]).sum(0) / (
                    share[..., None] * precision
                ).sum(0).clamp_min(1e-30)
            z2 = (x[:, None] - centre) ** 2 * precision
            # Bounded: one odd disk must not decide.
            logp = (
                -0.5 * (9 * torch.log1p(z2 / 9)).sum(2)
                + 0.5 * precision.log().sum(2)
                + (weight / n).log()
            )
            new = logp.softmax(1)
            if (new - share).abs().max() < 1e-3:
                break
            share = new
        if weight.min() < _SMALLEST_ENTRY * n:
            continue
        bic = -2 * float(logp.logsumexp(1).sum()) + (E * K + E - 1) * float(
            torch.tensor(float(n)).log()
        )
        if bic < score:
            score, best = bic, (centre.to(intensity.dtype), logp)
    assert best is not None
    return best


def beneath(intensity: Tensor, variance: Tensor) -> Tensor:
    """The background's part of the variance of intensities (n, K). The other, Poisson's, is the
    disk's own counts: those that an entry expects, for the ones seen say a small variance where
    they are few by chance.
    """
    return (variance - intensity).clamp_min(0)


def _main_axis(x: Tensor, v: Tensor) -> Tensor:
    """Projection (n,) of whitened intensities on their first principal axis: where clusters lie
    apart, if any do.
    """
    white = (x - x.mean(0)) / (v.mean(0) + 1e-12).sqrt()
    return white @ torch.linalg.eigh(white.T @ white)[1][:, -1]


def log_area(M: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """log det M, the size of the reciprocal cell against the nominal one, and its variance, (n,),
    from M (n, 2, 2) and its covariance.

    d log det M = tr(M^-1 dM).
    """
    M = M.double()
    slope = torch.linalg.inv(M).transpose(1, 2).reshape(-1, 4)
    return torch.linalg.det(M).clamp_min(1e-6).log(), torch.einsum(
        "na,nab,nb->n", slope, covariance, slope
    )


def area_odds(area: Tensor, found: tuple[Tensor, Tensor]) -> Tensor:
    """Log odds (n, E) of entries whose patterns have log areas of mean and deviation `area` (E, 2),
    for `found` of `log_area`.
    """
    variance = area[:, 1] ** 2 + found[1][:, None]
    return -0.5 * (
        9 * torch.log1p((found[0][:, None] - area[:, 0]) ** 2 / variance / 9) + variance.log()
    )


def likeliest(odds: Tensor, area: Tensor, found: tuple[Tensor, Tensor]) -> Tensor:
    """The entry (n,) that intensities, by their log odds (n, E), and the size of the cell speak for
    together.
    """
    return (odds + area_odds(area, found)).argmax(1)


def areas(odds: Tensor, found: tuple[Tensor, Tensor]) -> Tensor:
    """Mean and deviation (E, 2) of the log area of each entry's patterns, by expectation
    maximisation from the intensities' odds (n, E).

    Materials differ in their lattice as well as in their intensities. Where they do not, the
    deviations are alike and nothing is added.
    """
    x, v = found
    area = torch.stack([x.mean(), x.std().clamp_min(_LEAST_AREA)]).expand(odds.shape[1], 2)
    for _ in range(30):
        share = (odds + area_odds(area, found)).softmax(1)
        weight = share / (area[:, 1] ** 2 + v[:, None])
        mean = (weight * x[:, None]).sum(0) / weight.sum(0)
        beyond = (share * ((x[:, None] - mean) ** 2 - v[:, None])).sum(0) / share.sum(0)
        area = torch.stack([mean, beyond.clamp_min(_LEAST_AREA**2).sqrt()], 1)
    return area


def expected(dictionary: Dictionary, state: State, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Intensities (n, E, K - 1) that each entry expects at the pattern's counts, and the entries'
    log odds (n, E) from the intensities.

    Entry e expects a_k = (sum of the pattern's diffracted intensities) x (the disk's share of them
    in e); the log odds are those of normal laws, -1/2 sum_k ((A_k - a_k)^2 / v_k + log v_k), with
    v_k = a_k + the background's part of the `variance` (n, K) of A_k + the square of the spread
    learned.
    """
    total = state.intensity[:, 1:].sum(1, keepdim=True)
    shares = dictionary.intensity[:, 1:] / dictionary.intensity[:, 1:].sum(1, keepdim=True)
    value = total[:, None] * shares
    spread = (
        value
        + beneath(state.intensity, variance)[:, None, 1:].float()
        + (dictionary.spread[1:] * value) ** 2
    )
    return value, -0.5 * ((state.intensity[:, None, 1:] - value) ** 2 / spread + spread.log()).sum(
        -1
    )


def code(
    dictionary: Dictionary, state: State, variance: Tensor, covariance: Tensor, most: int
) -> tuple[Dictionary, State]:
    """Learn at most so many entries, and the spread about them; the dictionary, and the states with
    what their entries expect as prior.

    `variance` (n, K) is that of the states' intensities, `covariance` (n, 4, 4) that of M. The
    spread of a disk is 1.5 times the robust relative deviation from its entry beyond the counts'
    own, sqrt(median((A / a - 1)^2 - v / a^2)), from 3 % to 75 %.
    """
    centre, odds = cluster(state.intensity[:, 1:], variance[:, 1:], most)
    found = log_area(state.M, covariance)
    area = areas(odds, found)
    label = likeliest(odds, area, found)
    # An entry that its own patterns leave for another is none.
    kept = (torch.bincount(label, minlength=len(centre)) > 0).nonzero()[:, 0]
    centre, area, label = centre[kept], area[kept], torch.searchsorted(kept, label)
    total = state.intensity[:, 1:].sum(1, keepdim=True)
    prior = torch.cat([state.intensity[:, :1], total * centre[label]], 1)
    relative = (state.intensity / prior.clamp_min(1e-6) - 1) ** 2 - variance / prior.clamp_min(
        1e-6
    ) ** 2
    spread = relative.median(0).values.clamp_min(_LEAST_SPREAD**2).sqrt().clamp_max(0.5) * 1.5
    spread[0] = 0.5
    mean = torch.stack([(state.intensity[label == e]).mean(0) for e in range(len(centre))])
    return replace(dictionary, intensity=mean, spread=spread, area=area), replace(
        state, prior=prior
    )
