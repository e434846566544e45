"""Weighted least-squares fit of a lattice to measured disk positions, batched over patterns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

# Residuals beyond this many robust standard deviations are outliers: 1 in 500 of a Rayleigh
# distribution.
MAX_RESIDUAL_DEVIATIONS = 3.5
# A median of |r| over two Gaussian components of standard deviation s is s sqrt(2 ln 2).
MEDIAN_TO_STD = 1.17741
MIN_SITES = 3  # that determine a lattice and its centre


@dataclass(frozen=True)
class LatticeFit:
    """position = centre + G (h, k) for each pattern; NaN where the sites do not determine it."""

    centre: Float64[Tensor, "B 2"]  # direct beam, x and y in pixels
    G: Float64[Tensor, "B 2 2"]  # columns g1 and g2 in pixels

    def positions(self, hk: Tensor) -> Tensor:
        """Positions (B, S, 2) of the nodes `hk` (S, 2)."""
        return node_positions(self.centre, self.G, hk)

    def without(self, lost: Tensor) -> LatticeFit:
        """The same with NaN where `lost` (B,)."""
        return LatticeFit(
            torch.where(lost[:, None], torch.nan, self.centre),
            torch.where(lost[:, None, None], torch.nan, self.G),
        )


def node_positions(centre: Tensor, G: Tensor, hk: Tensor) -> Tensor:
    """centre + G (h, k): (B, S, 2) from (B, 2), (B, 2, 2) and (S, 2)."""
    return centre[:, None, :] + torch.einsum("bij,sj->bsi", G, hk.to(G.dtype))


def fit(
    measured: Tensor, weights: Tensor, hk: Tensor, reject: bool = False, rounds: int = 3
) -> LatticeFit:
    """Minimise sum_s w_s |measured_s - centre - G hk_s|^2 for each pattern.

    Args:
        measured: positions of the disks (B, S, 2) in pixels; one that is not finite has no weight.
        weights: w (B, S), not negative.
        hk: their nodes (S, 2), integers.
        reject: whether to leave out sites whose residual exceeds 3.5 robust standard deviations,
            and fit again.
        rounds: how often, at most.

    Returns:
        The fits in float64. Fewer than three sites, or sites on one line, give NaN.
    """
    if len(hk) == 0:
        nowhere = measured.new_full((len(measured), 3, 2), torch.nan, dtype=torch.float64)
        return LatticeFit(nowhere[:, 0], nowhere[:, 1:])
    finite = torch.isfinite(measured).all(-1) & torch.isfinite(weights)
    measured = torch.where(finite[..., None], measured, 0.0).double()
    weights = torch.where(finite, weights, 0.0).double()
    lattice = _solve(measured, weights, hk)
    for _ in range(rounds if reject else 0):
        weights = torch.where(_outliers(measured, weights, lattice, hk), 0, weights)
        lattice = _solve(measured, weights, hk)
    return lattice


def information(signal: Tensor, noise: Tensor, least: float, ring: Tensor) -> Tensor:
    """Inverse variances of positions whose variance goes as noise / signal^2, up to a factor.

    Signal and noise are averaged over the rings of each pattern, for weights that follow the noise
    of a single disk would bias the fit. Of the two factors of signal^2 one is the mean of the ring,
    the other the disk's own signal. To first order that is the square of the mean of the two, half
    way between a ring of even disks and one taken at its word.

    Args:
        signal: (B, S), such as the counts of the disks.
        noise: (B, S).
        least: least noise over signal.
        ring: one-hot table (S, R) of the rings.

    Returns:
        Weights (B, S); zero where the signal is.
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
    determined = (weights > 0).sum(-1) >= MIN_SITES
    spread = torch.linalg.eigvalsh(normal)
    determined &= spread[:, 0] > 1e-9 * spread[:, 2]
    unit = torch.eye(3, dtype=normal.dtype, device=normal.device)
    solution = torch.linalg.solve(torch.where(determined[:, None, None], normal, unit), right)
    solution = torch.where(determined[:, None, None], solution, torch.nan)
    return LatticeFit(centre=solution[:, 0], G=solution[:, 1:].mT.contiguous())


def _outliers(measured: Tensor, weights: Tensor, lattice: LatticeFit, hk: Tensor) -> Tensor:
    """Sites far from the fit, in units of its own scatter; (B, S)."""
    residual = torch.linalg.vector_norm(measured - lattice.positions(hk), dim=-1)
    used = weights > 0
    # Residuals of weaker sites are larger by right, so they are compared at the weight of a typical
    # site.
    typical = torch.where(used, weights, torch.nan).nanmedian(-1, keepdim=True).values
    residual = residual * (weights / typical).sqrt()
    median = torch.where(used, residual, torch.nan).nanmedian(-1, keepdim=True).values
    far: Tensor = residual > MAX_RESIDUAL_DEVIATIONS * (median / MEDIAN_TO_STD)
    # One site more than a lattice needs must remain to judge by.
    return used & far & (used.sum(-1, keepdim=True) > MIN_SITES + 1)
