"""Relative intensities of the disks of many patterns, and the clusters that they form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

MAX_ENTRIES = 4
MIN_ENTRY_SHARE = 0.02  # of the patterns
MIN_PATTERNS_PER_ENTRY = 20
SHARE_TOLERANCE = 1e-3  # change of the patterns' shares in the entries that ends the learning
# Relative spread within an entry: what strain, place and neighbours do to the intensities.
CLUSTER_SPREAD = 0.1


@dataclass(frozen=True)
class Relative:
    """Relative intensities of n patterns, and the variance of clusters of them: that of the
    expected counts, plus a relative spread.
    """

    x: Float64[Tensor, "n K"]
    background: Float64[Tensor, "n K"]  # the background's part of their variance
    total: Float[Tensor, "n 1"]  # counts in all disks

    @staticmethod
    def of(intensity: Tensor, variance: Tensor) -> Relative:
        """From counts in the disks (n, K) and their variances."""
        total = intensity.sum(1, keepdim=True).clamp_min(1e-9)
        background = background_variance(intensity, variance) / total**2
        return Relative((intensity / total).double(), background.double(), total)

    def precision(self, centre: Tensor) -> Tensor:
        """One over the variances of the patterns about centres (E, K), (n, E, K)."""
        at_least = centre.clamp_min(0.2 * centre.mean())
        return 1 / (
            self.background[:, None]
            + at_least / self.total[:, None]
            + (CLUSTER_SPREAD * at_least) ** 2
        )

    def means(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """Centres (E, K) of clusters in which the patterns have shares (n, E), and the information
        that they rest on.
        """
        centre = self.x.mean(0).expand(share.shape[1], -1)
        for _ in range(2):
            weighted = share[..., None] * self.precision(centre)
            information = weighted.sum(0).clamp_min(1e-30)
            centre = (weighted * self.x[:, None]).sum(0) / information
        return centre, information

    def log_density(self, centre: Tensor) -> Tensor:
        """Of the patterns about centres (E, K), (n, E). A Student law is bounded: one odd disk must
        not decide.
        """
        precision = self.precision(centre)
        z2 = (self.x[:, None] - centre) ** 2 * precision
        return -0.5 * (9 * torch.log1p(z2 / 9)).sum(2) + 0.5 * precision.log().sum(2)

    def main_axis(self) -> Tensor:
        """Projection (n,) of whitened intensities on their first principal axis, along which
        clusters lie apart if any do.
        """
        v = self.background + self.x.mean(0) / self.total
        white = (self.x - self.x.mean(0)) / (v.mean(0) + 1e-12).sqrt()
        white = white.nan_to_num(0.0, 0.0, 0.0)  # fits that diverged lie apart from none
        return white @ torch.linalg.eigh(white.T @ white)[1][:, -1]


def cluster(measured: Relative, max_entries: int = MAX_ENTRIES) -> tuple[Tensor, Tensor]:
    """Sparse code over disk intensities.

    A mixture of E normal clusters of relative intensities is fitted by expectation maximisation,
    for E = 1, 2, ... The variance in a cluster is that of the expected counts plus a relative
    spread. The number of clusters is the one with the lowest Bayesian information criterion (G.
    Schwarz, Ann. Stat. 6, 461 (1978)).

    Args:
        measured: relative intensities of n patterns in K disks.
        max_entries: largest E.

    Returns:
        The entries' relative intensities (E, K), and the log odds of each for each pattern (n, E).
    """
    n, K = measured.x.shape
    best, lowest = None, float("inf")
    order = torch.argsort(measured.main_axis())
    for E in range(1, max_entries + 1):
        if E > 1 and n < MIN_PATTERNS_PER_ENTRY * E:
            break
        share = measured.x.new_zeros(n, E)
        share[order, torch.arange(n, device=share.device) * E // n] = 1.0
        for _ in range(60):
            weight = share.sum(0).clamp_min(1e-9)
            centre, _ = measured.means(share)
            logp = measured.log_density(centre) + (weight / n).log()
            new_share = logp.softmax(1)
            if (new_share - share).abs().max() < SHARE_TOLERANCE:
                break
            share = new_share
        if weight.min() < MIN_ENTRY_SHARE * n:
            continue
        log_n = float(torch.tensor(float(n)).log())
        bic = -2 * float(logp.logsumexp(1).sum()) + (E * K + E - 1) * log_n
        if bic < lowest:
            lowest, best = bic, (centre, logp)
    assert best is not None
    return best


def background_variance(intensity: Tensor, variance: Tensor) -> Tensor:
    """The background's part of the variance of intensities, (n, K).

    The other part is Poisson's, the counts of the disk itself. For it an entry's expected counts
    are used: measured counts would state a small variance where they are few by chance.
    """
    return (variance - intensity).clamp_min(0)
