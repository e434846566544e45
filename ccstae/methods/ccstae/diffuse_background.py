"""The diffuse background of a scan: what lies between the disks at each distance from the direct
beam, and its cusp under that beam.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from ccstae.methods.ccstae import transformer

_RIM_PX = 3.0  # what lies this far outside a disk is background
MIN_RING_COUNTS = 100  # a ring with fewer borrows from its neighbours,
MAX_HALF_WINDOW = 9  # at most this many on either side


def ring_sums(
    counts: Tensor, position: Tensor, radius_px: float, centre: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Counts and pixels outside every disk, by whole-pixel distance from the centre.

    Args:
        counts: patterns (n, Qy, Qx).
        position: places of the disks (n, K, 2) in pixels.
        radius_px: radius of a disk.
        centre: nominal direct beam (x, y) in pixels.

    Returns:
        Sums over all patterns of the counts and of the pixels, each (rings,).
    """
    n, height, width = counts.shape
    offsets = transformer.square(2 * math.ceil(radius_px + _RIM_PX) + 1, counts.device)
    patch = transformer.patches(position, offsets, (height, width))
    on_disk = (offsets - patch.shift(position)[:, :, None]).norm(dim=-1) < radius_px + _RIM_PX
    off_disk = 1.0 - (on_disk & (patch.inside > 0)).reshape(n, -1).to(counts.dtype)
    free = torch.ones(n, height * width, device=counts.device, dtype=counts.dtype)
    # Several patches may share a clamped index; any that lies on a disk wins.
    free.scatter_reduce_(1, patch.index.reshape(n, -1), off_disk, "amin")
    ring = distance(height, width, centre, counts.device).reshape(-1).long()
    rings = int(ring.max()) + 1
    total = torch.zeros(rings, device=counts.device, dtype=counts.dtype)
    area = torch.zeros(rings, device=counts.device, dtype=counts.dtype)
    total.index_add_(0, ring, (free * counts.reshape(n, -1)).sum(0))
    area.index_add_(0, ring, free.sum(0))
    return total, area


def distance(height: int, width: int, centre: tuple[float, float], device: torch.device) -> Tensor:
    """Distance of each pixel from the centre (x, y), (Qy, Qx)."""
    y = torch.arange(height, device=device) - float(centre[1])
    x = torch.arange(width, device=device) - float(centre[0])
    return torch.hypot(y[:, None], x[None, :])


def estimate(
    counts: Tensor,
    position: Tensor,
    radius_px: float,
    centre: tuple[float, float],
    probe: Tensor,
    cusp: bool = True,
) -> Tensor:
    """Diffuse counts of a mean pattern: the radial profile of what lies between the disks, fixed to
    the detector.

    The rate of a ring is (counts + 1/2) / pixels, the posterior mean under Jeffreys' prior. Between
    rings the logarithm of the rate is interpolated. A ring with few counts borrows from its
    neighbours: the window widens until it holds 100 counts or reaches 9 rings either way. The
    direct beam never leaves its pixels bare, and there the profile goes on as `under_direct_beam`
    finds it.

    Args:
        counts: patterns (n, Qy, Qx).
        position: places of the disks (n, K, 2) in pixels.
        radius_px: radius of a disk.
        centre: nominal direct beam (x, y) in pixels.
        probe: vacuum probe (Qy, Qx).
        cusp: False keeps the profile flat under the direct beam.

    Returns:
        Counts per pixel (Qy, Qx).
    """
    n, height, width = counts.shape
    total, area = ring_sums(counts, position, radius_px, centre)
    rate = _ring_rates(total, area)
    known = rate.isfinite().nonzero()[:, 0]
    rate = torch.nan_to_num(rate, nan=float(rate[known[-1]]) if len(known) else 0.5 / n)
    r = distance(height, width, centre, total.device)
    # Ring r gathers distances r to r + 1, so its rate stands at r + 1/2.
    ring = (r - 0.5).floor().long()
    last = len(total) - 1
    inner, outer = rate[ring.clamp(0, last)], rate[(ring + 1).clamp(0, last)]
    outside = torch.exp(torch.lerp(inner.log(), outer.log(), (r - 0.5 - ring).clamp(0, 1)))
    bare = math.ceil(radius_px + _RIM_PX)
    inside = under_direct_beam(counts.sum(0), total, area, n, r, bare, probe) if cusp else outside
    return torch.where(r < bare + 1, inside, outside)


def _ring_rates(total: Tensor, area: Tensor) -> Tensor:
    """Counts per pixel of each ring, (rings,); NaN where its widest window has no pixel."""
    rate = torch.zeros_like(total)
    for ring in range(len(total)):
        for half in range(1, MAX_HALF_WINDOW + 1):
            low, high = max(0, ring - half), ring + half + 1
            counts, pixels = total[low:high].sum(), area[low:high].sum()
            if counts >= MIN_RING_COUNTS:
                break
        # Half a count where none fell: the rate is small, not zero.
        rate[ring] = (counts + 0.5) / pixels.clamp_min(1.0) if pixels > 0 else torch.nan
    return rate


def under_direct_beam(
    summed: Tensor, total: Tensor, area: Tensor, n: int, r: Tensor, bare: int, probe: Tensor
) -> Tensor:
    """Diffuse counts near the centre: b / (1 + (r / r0)^2)^p beside A times the vacuum probe, by
    Poisson likelihood.

    The rings under the direct beam hold both terms. The rings out to three times as far, without
    their disks, hold the diffuse term alone. The exponent p = 1 is the Lorentzian of the published
    noise. Simplex search: J. A. Nelder and R. Mead, Comput. J. 7, 308 (1965).

    Args:
        summed: sum of the n patterns, (Qy, Qx).
        total: counts of each ring, from `ring_sums`.
        area: pixels of each ring, from `ring_sums`.
        n: number of patterns.
        r: distance of each pixel from the centre, (Qy, Qx).
        bare: first ring outside the direct beam.
        probe: vacuum probe (Qy, Qx).

    Returns:
        Counts per pixel of a mean pattern, (Qy, Qx).
    """
    reach = min(3 * bare, len(total))  # a small detector ends before
    distances = _array(r)
    ring = distances.astype(int)
    near, far = ring < bare, (ring >= bare) & (ring < reach)
    inner_counts = np.bincount(ring[near], _array(summed)[near], bare)
    inner_probe = np.bincount(ring[near], _array(probe)[near], bare)
    outer_counts, outer_area = _array(total)[bare:reach], _array(area)[bare:reach]
    pixels = np.bincount(ring[far], minlength=reach)[bare:reach]
    electrons = inner_counts.sum()

    def profile(z: NDArray[np.float64]) -> NDArray[np.float64]:
        """The diffuse term, with z = log b, log r0, log p and the logit of A's share."""
        return np.asarray(np.exp(z[0]) / (1 + (distances / np.exp(z[1])) ** 2) ** np.exp(z[2]))

    def cost(z: NDArray[np.float64]) -> float:
        """Minus the log likelihood, per electron."""
        diffuse = profile(z)
        inner = (
            n * np.bincount(ring[near], diffuse[near], bare)
            + electrons / (1 + np.exp(-z[3])) * inner_probe
            + 1e-12 * electrons
        )
        ring_mean = np.bincount(ring[far], diffuse[far], reach)[bare:reach] / np.maximum(pixels, 1)
        outer = outer_area * ring_mean + 1e-12 * electrons
        return float(
            (inner - inner_counts * np.log(inner)).sum()
            + (outer - outer_counts * np.log(outer)).sum()
        ) / max(electrons, 1.0)

    outer_log_rate = np.log((outer_counts.sum() + 0.5) / max(outer_area.sum(), 1.0))
    broad = np.array([outer_log_rate + 0.5, np.log(30.0), 0.0, 2.0])
    narrow = np.array([outer_log_rate + 4.0, np.log(2.0), 0.0, 2.0])
    options = {"maxiter": 2000, "xatol": 1e-4, "fatol": 1e-12}
    fits = [minimize(cost, z, method="Nelder-Mead", options=options) for z in (broad, narrow)]
    best = min(fits, key=lambda fit: fit.fun)
    return torch.from_numpy(profile(best.x)).to(r)


def _array(values: Tensor) -> NDArray[np.float64]:
    return values.double().cpu().numpy()
