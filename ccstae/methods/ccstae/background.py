"""The diffuse background of a scan: what lies between the disks, by distance from the centre, and
its cusp under the direct beam.
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


def diffuse(
    counts: Tensor, position: Tensor, radius_px: float, centre: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Sums over patterns (n, Qy, Qx) of counts and of pixels outside every disk, each (rings,), by
    whole-pixel distance from the centre.

    `position` (n, K, 2) is that of the disks and `centre` the nominal one, x and y in pixels.
    """
    n, height, width = counts.shape
    offsets = transformer.square(2 * math.ceil(radius_px + _RIM_PX) + 1, counts.device)
    patch = transformer.patches(position, offsets, (height, width))
    near = (offsets - patch.shift(position)[:, :, None]).norm(dim=-1) < radius_px + _RIM_PX
    keep = torch.ones(n, height * width, device=counts.device)
    # Several patches may share a clamped index; any that is near wins.
    keep.scatter_reduce_(
        1,
        patch.index.reshape(n, -1),
        1.0 - (near & (patch.inside > 0)).reshape(n, -1).to(keep.dtype),
        "amin",
    )
    ring = distance(height, width, centre, counts.device).reshape(-1).long()
    rings = int(ring.max()) + 1
    total = torch.zeros(rings, device=counts.device).index_add_(
        0, ring, (keep * counts.reshape(n, -1)).sum(0)
    )
    area = torch.zeros(rings, device=counts.device).index_add_(0, ring, keep.sum(0))
    return total, area


def distance(height: int, width: int, centre: tuple[float, float], device: torch.device) -> Tensor:
    """Distance of each pixel from the centre (x, y), (Qy, Qx)."""
    y = torch.arange(height, device=device) - float(centre[1])
    x = torch.arange(width, device=device) - float(centre[0])
    return torch.hypot(y[:, None], x[None, :])


def radial(
    counts: Tensor,
    position: Tensor,
    radius_px: float,
    centre: tuple[float, float],
    probe: Tensor,
    cusp: bool = True,
) -> Tensor:
    """Diffuse counts of a mean pattern, (Qy, Qx), fixed to the detector: the radial profile of what
    lies between the disks.

    From patterns (n, Qy, Qx), the disks' positions (n, K, 2) and radius in pixels, the nominal
    centre (x, y) and the vacuum probe (Qy, Qx). A ring's rate is (counts + 1/2) / pixels, the mean
    of the posterior under Jeffreys' prior; between rings its logarithm is interpolated. A ring with
    few counts borrows from its neighbours: the window widens until it holds 100 counts or 9 rings.
    Under the direct beam, which is never bare, the profile goes on as `under_direct_beam` finds it.
    """
    n, shape = len(counts), (counts.shape[1], counts.shape[2])
    total, area = diffuse(counts, position, radius_px, centre)
    rings = len(total)
    value = total.new_zeros(rings)
    for ring in range(rings):
        for half in range(1, 10):
            low, high = max(0, ring - half), ring + half + 1
            held, pixels = total[low:high].sum(), area[low:high].sum()
            if held >= 100 or half == 9:
                break
        # Half a count where none fell: the rate is small, not zero.
        value[ring] = (held + 0.5) / pixels.clamp_min(1.0) if pixels > 0 else torch.nan
    bare = math.ceil(radius_px + _RIM_PX)
    known = value.isfinite().nonzero()[:, 0]
    value = torch.nan_to_num(value, nan=float(value[known[-1]]) if len(known) else 0.5 / n)
    r = distance(*shape, centre, total.device)
    # Ring r gathers distances r to r + 1.
    index = (r - 0.5).floor().long()
    a, b = value[index.clamp(0, rings - 1)], value[(index + 1).clamp(0, rings - 1)]
    outside = torch.exp(torch.lerp(a.log(), b.log(), (r - 0.5 - index).clamp(0, 1)))
    inside = under_direct_beam(counts.sum(0), total, area, n, r, bare, probe) if cusp else outside
    return torch.where(r < bare + 1, inside, outside)


def under_direct_beam(
    summed: Tensor, total: Tensor, area: Tensor, n: int, r: Tensor, bare: int, probe: Tensor
) -> Tensor:
    """Diffuse counts (Qy, Qx) near the centre: b / (1 + (r / r0)^2)^p beside A times the vacuum
    probe, by Poisson likelihood.

    The rings under the direct beam hold both; rings out to three times as far, bare of disks, hold
    the diffuse part alone. `summed` (Qy, Qx) is the sum of n patterns, `total` and `area` are those
    of `diffuse`, `r` (Qy, Qx) is the distance from the centre and `bare` that of the first ring
    outside the direct beam, in pixels. p = 1 is the Lorentzian of the published noise. Simplex
    search: J. A. Nelder and R. Mead, Comput. J. 7, 308 (1965).
    """
    reach = 3 * bare
    distances = r.double().cpu().numpy()
    ring = distances.astype(int)
    near, far = ring < bare, (ring >= bare) & (ring < reach)
    order = [
        np.bincount(ring[near], v[near], bare)
        for v in (summed.double().cpu().numpy(), probe.double().cpu().numpy())
    ]
    inner_counts, inner_probe = order
    outer_counts, outer_area = (v.double().cpu().numpy()[bare:reach] for v in (total, area))
    pixels = np.bincount(ring[far], minlength=reach)[bare:reach]
    electrons = inner_counts.sum()

    def profile(z: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.exp(z[0]) / (1 + (distances / np.exp(z[1])) ** 2) ** np.exp(z[2]))

    def cost(z: NDArray[np.float64]) -> float:
        B = profile(z)
        inner = (
            n * np.bincount(ring[near], B[near], bare)
            + electrons / (1 + np.exp(-z[3])) * inner_probe
            + 1e-12 * electrons
        )
        outer = (
            outer_area * np.bincount(ring[far], B[far], reach)[bare:reach] / np.maximum(pixels, 1)
            + 1e-12 * electrons
        )
        return float(
            (inner - inner_counts * np.log(inner)).sum()
            + (outer - outer_counts * np.log(outer)).sum()
        ) / max(electrons, 1.0)

    level = np.log((outer_counts.sum() + 0.5) / max(outer_area.sum(), 1.0))
    starts = [
        np.array([level + lift, np.log(width), 0.0, 2.0])
        for lift, width in ((0.5, 30.0), (4.0, 2.0))
    ]
    found = min(
        (
            minimize(
                cost,
                z,
                method="Nelder-Mead",
                options={"maxiter": 2000, "xatol": 1e-4, "fatol": 1e-12},
            )
            for z in starts
        ),
        key=lambda f: f.fun,
    )
    return torch.from_numpy(profile(found.x)).to(r)
