"""Weighted least-squares fit of a lattice to measured disk positions, batched over patterns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Residuals beyond this many robust standard deviations are outliers (3.5: 1 in 500 of a Rayleigh
# distribution).
OUTLIER = 3.5
# A median of |r| over two Gaussian components of standard deviation s is s sqrt(2 ln 2).
MEDIAN_TO_STD = 1.17741


@dataclass(frozen=True)
class LatticeFit:
    """position = centre + G (h, k) for each pattern; NaN where the sites do not determine it."""

    centre: Tensor  # (B, 2), x, y in pixels
    G: Tensor  # (B, 2, 2), columns g1 and g2 in pixels

    def positions(self, hk: Tensor) -> Tensor:
        """Positions (B, S, 2) of the nodes `hk` (S, 2)."""
        return positions(self.centre, self.G, hk)

    def without(self, lost: Tensor) -> LatticeFit:
        """The same with NaN where `lost` (B,)."""
        return LatticeFit(
            torch.where(lost[:, None], torch.nan, self.centre),
            torch.where(lost[:, None, None], torch.nan, self.G),
        )


def positions(centre: Tensor, G: Tensor, hk: Tensor) -> Tensor:
    """centre + G (h, k): (B, S, 2) from (B, 2), (B, 2, 2) and (S, 2)."""
    return centre[:, None, :] + torch.einsum("bij,sj->bsi", G, hk.to(G.dtype))


def fit(
    measured: Tensor, weights: Tensor, hk: Tensor, reject: bool = False, rounds: int = 3
) -> LatticeFit:
    """Minimise sum_s w_s |measured_s - centre - G hk_s|^2 for each pattern.

    `measured` (B, S, 2), `weights` (B, S) non-negative, `hk` (S, 2) integers. With `reject`, sites
    whose residual exceeds 3.5 robust standard deviations are left out and the fit repeated,
    `rounds` times at most. A site whose position is not finite has no weight. Fewer than three
    sites, or sites on one line, give NaN.
    """
    finite = torch.isfinite(measured).all(-1) & torch.isfinite(weights)
    measured = torch.where(finite[..., None], measured, 0.0).double()
    weights = torch.where(finite, weights, 0.0).double()
    found = _solve(measured, weights, hk)
    for _ in range(rounds if reject else 0):
        weights = torch.where(_outliers(measured, weights, found, hk), 0, weights)
        found = _solve(measured, weights, hk)
    return found


def information(signal: Tensor, noise: Tensor, least: float, ring: Tensor) -> Tensor:
    """Inverse variances (B, S), up to a factor, of positions whose variance goes as noise /
    signal^2; zero where `signal` (B, S) is.

    Signal and noise are averaged over each pattern's rings, of which `ring` (S, R) is the one-hot
    table, and noise is no less than `least` times the signal: weights that follow the noise of a
    single disk would bias the fit. Of signal^2 one factor is the disk's own: to first order that is
    the square of the mean of its own signal and its ring's, half way between a ring of even disks
    and one taken at its word.
    """
    used = (signal > 0).to(signal.dtype)
    number = (used @ ring).clamp_min(1)
    mean = (signal @ ring) / number
    noise = torch.maximum((used * noise) @ ring / number, least * mean).clamp_min(
        torch.finfo(noise.dtype).tiny
    )
    return signal * ((mean / noise) @ ring.T)


def _solve(measured: Tensor, weights: Tensor, hk: Tensor) -> LatticeFit:
    design = torch.cat([torch.ones_like(hk[:, :1]), hk], 1).double()  # (S, 3)
    # Weights relative to the largest: the condition of the normal matrix then tells of the sites
    # alone.
    scaled = weights / weights.amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    normal = torch.einsum("bs,si,sj->bij", scaled, design, design)
    right = torch.einsum("bs,si,bsx->bix", scaled, design, measured)
    enough = (weights > 0).sum(-1) >= 3
    spread = torch.linalg.eigvalsh(normal)
    enough &= spread[:, 0] > 1e-9 * spread[:, 2]
    solution = torch.linalg.solve(
        torch.where(
            enough[:, None, None], normal, torch.eye(3, dtype=normal.dtype, device=normal.device)
        ),
        right,
    )
    solution = torch.where(enough[:, None, None], solution, torch.nan)
    return LatticeFit(centre=solution[:, 0], G=solution[:, 1:].mT.contiguous())


def _outliers(measured: Tensor, weights: Tensor, found: LatticeFit, hk: Tensor) -> Tensor:
    """Sites far from the fit, in units of its own scatter; (B, S)."""
    residual = torch.linalg.vector_norm(measured - found.positions(hk), dim=-1)
    used = weights > 0
    # Residuals of weaker sites are larger by right: compare them at the weight of a typical site.
    typical = torch.where(used, weights, torch.nan).nanmedian(-1, keepdim=True).values
    residual = residual * (weights / typical).sqrt()
    scale = (
        torch.where(used, residual, torch.nan).nanmedian(-1, keepdim=True).values / MEDIAN_TO_STD
    )
    far: Tensor = residual > OUTLIER * scale
    return used & far & (used.sum(-1, keepdim=True) > 4)
