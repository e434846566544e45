"""The diffuse background of a scan: what lies between the disks at each distance from the direct
beam, and its cusp under that beam.

It belongs to the beam and not to the detector: where the beam of a pattern lies elsewhere, by
descan or because the vacuum was recorded on another day, the background went with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from ccstae.methods.ccstae import spline, transformer

STEP_PX = 0.25
"""Between the distances at which a profile is tabulated. Between them it is linear."""
# What lies this far outside a disk is background; nearer where disks leave less room.
MIN_RIM_PX, MAX_RIM_PX = 1.0, 3.0
_AT_A_TIME = {"cpu": 16, "cuda": 2**16}  # patterns; on a CPU as many as its caches hold
MIN_RING_COUNTS = 100  # a ring with fewer borrows from its neighbours,
# One with as many stands alone. Disks leave its neighbours other shares of their pixels, which
# would pull the mean of a steep profile by more than the noise of these counts.
MIN_SOLE_RING_COUNTS = 10_000
MAX_HALF_WINDOW = 9  # at most this many on either side


@dataclass(frozen=True)
class Rings:
    """What whole-pixel rings about the direct beams of n patterns hold, summed over the patterns.

    A pattern of another dose has as many times the background, so its pixels count as often.
    """

    total: Float[Tensor, " rings"]  # counts outside every disk
    area: Float[Tensor, " rings"]  # pixels outside every disk, times the dose
    all_counts: Float[Tensor, " rings"]  # counts of all pixels
    # pixels of all kinds, times the dose, by distance in steps of `STEP_PX`
    all_area: Float[Tensor, " steps"]


def ring_sums(
    counts: Tensor,
    position: Tensor,
    clear_px: float,
    dose: Tensor,
    good: Tensor | None = None,
) -> Rings:
    """Counts and pixels by distance from the direct beam of each pattern.

    Args:
        counts: patterns (n, Qy, Qx).
        position: places of the disks (n, K, 2) in pixels, the direct beam first.
        clear_px: distance from the centre of a disk beyond which there is nothing of it.
        dose: of each pattern, against that of the mean one, (n,).
        good: True where a pixel tells something, (Qy, Qx); None where all do.
    """
    height, width = counts.shape[1:]
    last = torch.tensor([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]])
    dx, dy = (last.to(position) - position[:, :1]).unbind(-1)
    rings = int(torch.hypot(dy, dx).max()) + 1
    offsets = transformer.square(2 * math.ceil(clear_px) + 1, counts.device)
    usable = torch.ones(height * width, device=counts.device, dtype=counts.dtype)
    if good is not None:
        usable = good.reshape(-1).to(counts.dtype)
    total, area, all_counts = torch.zeros(3, rings, device=counts.device, dtype=torch.float64)
    steps = math.ceil(rings / STEP_PX)
    all_area = torch.zeros(steps, device=counts.device, dtype=torch.float64)
    for part in torch.arange(len(counts), device=counts.device).split(
        _AT_A_TIME[counts.device.type]
    ):
        at, flat = position[part], counts[part].reshape(len(part), -1)
        patch = transformer.patches(at, offsets, (height, width))
        on_disk = (offsets - patch.shift(at)[:, :, None]).norm(dim=-1) < clear_px
        off_disk = 1.0 - (on_disk & (patch.inside > 0)).reshape(len(part), -1).to(counts.dtype)
        # Several patches may share a clamped index; any that lies on a disk wins.
        free = usable.repeat(len(part), 1).scatter_reduce(
            1, patch.index.reshape(len(part), -1), off_disk, "amin"
        )
        r = distance(at[:, 0], (height, width)).reshape(len(part), -1)
        ring = r.long()
        of_dose = dose[part, None].to(counts.dtype)
        for sums, index, values in (
            (total, ring, free * flat),
            (area, ring, free * of_dose),
            (all_counts, ring, usable * flat),
            (all_area, (r / STEP_PX).long(), usable * of_dose),
        ):
            sums.index_add_(0, index.reshape(-1), values.reshape(-1).double())
    return Rings(*(sums.to(counts.dtype) for sums in (total, area, all_counts, all_area)))


def distance(centre: Tensor, shape: tuple[int, int]) -> Tensor:
    """Distance of each pixel from the centres (n, 2), (n, Qy, Qx)."""
    height, width = shape
    y = torch.arange(height, device=centre.device) - centre[:, 1:]
    x = torch.arange(width, device=centre.device) - centre[:, :1]
    return (y[:, :, None] ** 2 + x[:, None, :] ** 2).sqrt_()  # far faster than torch.hypot


def render(profile: Tensor, centre: Tensor, shape: tuple[int, int]) -> Tensor:
    """The profile about the direct beam of each pattern, (n, Qy, Qx).

    Args:
        profile: counts per pixel at distances of whole `STEP_PX`, (R,); beyond, the last one.
        centre: direct beams (n, 2), x and y in pixels.
        shape: of the detector, (Qy, Qx).
    """
    slope = profile.diff(append=profile[-1:])

    def render_some(centre: Tensor) -> Tensor:
        at = distance(centre, shape).div_(STEP_PX).clamp_max_(len(profile) - 1)
        whole = at.floor()
        index = whole.long().reshape(-1)
        value, change = (
            table.index_select(0, index).reshape(at.shape) for table in (profile, slope)
        )
        return value.addcmul_(at.sub_(whole), change)

    size = _AT_A_TIME[centre.device.type]
    return torch.cat([render_some(some) for some in centre.split(size)])


def at_distance(profile: Tensor, r: Tensor) -> Tensor:
    """The profile (R,) at distances r in pixels, of any shape."""
    return profile[(r / STEP_PX).round().long().clamp(0, len(profile) - 1)]


def estimate(
    counts: Tensor,
    position: Tensor,
    clear_px: float,
    direct: Tensor,
    dose: Tensor,
    good: Tensor | None = None,
    cusp: bool = True,
) -> Tensor:
    """Diffuse counts of a mean pattern: the radial profile of what lies between the disks.

    The rate of a ring is (counts + 1/2) / pixels, the posterior mean under Jeffreys' prior. Between
    rings the logarithm of the rate is interpolated. A ring of fewer than 10,000 counts borrows
    from its neighbours: the window widens until it holds 100 counts or reaches 9 rings either way.
    The direct beam never leaves its pixels bare, and there the profile goes on as
    `under_direct_beam` finds it.

    Args:
        counts: patterns (n, Qy, Qx).
        position: places of the disks (n, K, 2) in pixels, the direct beam first.
        clear_px: distance from the centre of a disk beyond which there is nothing of it, `clear`.
        direct: profile of the direct beam (S, S), as the dictionary has it.
        dose: of each pattern, against that of the mean one, (n,).
        good: True where a pixel tells something, (Qy, Qx); None where all do.
        cusp: False keeps the profile flat under the direct beam.

    Returns:
        Counts per pixel at distances of 0, `STEP_PX`, 2 `STEP_PX`, ... pixels, (R,).
    """
    rings = ring_sums(counts, position, clear_px, dose, good)
    rate = _filled(_ring_rates(rings.total, rings.area), 0.5 / len(counts))
    r = torch.arange(len(rings.all_area) + 1, device=counts.device) * STEP_PX
    # Ring r gathers distances r to r + 1, so its rate stands at r + 1/2.
    ring = (r - 0.5).floor().long()
    last = len(rate) - 1
    inner, outer = rate[ring.clamp(0, last)], rate[(ring + 1).clamp(0, last)]
    outside = torch.exp(torch.lerp(inner.log(), outer.log(), (r - 0.5 - ring).clamp(0, 1)))
    if not cusp:
        return outside
    bare = math.ceil(clear_px)
    beam = _beam_by_ring(direct, position[:, :1], dose, bare, counts, good)
    inside = under_direct_beam(rings, beam, r)
    return torch.where(r < bare + 1, inside, outside)


def clear(radius_px: float, spacing_px: float) -> float:
    """Distance in pixels from the centre of a disk beyond which there is nothing of it, where the
    next disk is `spacing_px` away.
    """
    room = spacing_px / 2 - radius_px
    return radius_px + min(max(room, MIN_RIM_PX), MAX_RIM_PX)


def _filled(rate: Tensor, without: float) -> Tensor:
    """Rates (rings,) with those of the nearest known rings where they are NaN; `without` where none
    is known.
    """
    known = rate.isfinite().nonzero()[:, 0]
    if len(known) == 0:
        return torch.full_like(rate, without)
    index = torch.arange(len(rate), device=rate.device)
    return rate[known[(index[:, None] - known).abs().argmin(1)]]


def _ring_rates(total: Tensor, area: Tensor) -> Tensor:
    """Counts per pixel of each ring, (rings,); NaN where its widest window has no pixel."""
    rate = torch.zeros_like(total)
    for ring in range(len(total)):
        for half in range(MAX_HALF_WINDOW + 1):
            low, high = max(0, ring - half), ring + half + 1
            counts, pixels = total[low:high].sum(), area[low:high].sum()
            if counts >= (MIN_RING_COUNTS if half else MIN_SOLE_RING_COUNTS):
                break
        # Half a count where none fell, or readings below zero prevail: the rate is small, not zero.
        counts = counts.clamp_min(0)
        rate[ring] = (counts + 0.5) / pixels.clamp_min(1.0) if pixels > 0 else torch.nan
    return rate


def _beam_by_ring(
    direct: Tensor,
    position: Tensor,
    dose: Tensor,
    rings: int,
    counts: Tensor,
    good: Tensor | None,
) -> Tensor:
    """Share of the direct beams at `position` (n, 1, 2) in each of the first rings about them, on
    usable pixels, weighted by dose: (rings,).
    """
    pixels = spline.pixels_of(direct)
    offsets = transformer.square(pixels, counts.device)
    patch = transformer.patches(position, offsets, (counts.shape[1], counts.shape[2]), good)
    shift = patch.shift(position)
    unit = spline.render(direct, shift[:, 0], pixels).reshape(len(position), -1)
    ring = (offsets - shift).norm(dim=-1).long().clamp_max(rings - 1)
    weight = (unit * patch.inside[:, 0] * dose[:, None]).double()
    share = torch.zeros(rings, device=counts.device, dtype=torch.float64)
    return share.index_add_(0, ring.reshape(-1), weight.reshape(-1)) / dose.sum()


def under_direct_beam(rings: Rings, beam: Tensor, r: Tensor) -> Tensor:
    """Diffuse counts near the centre: b / (1 + (r / r0)^2)^p beside A times the direct beam, by
    Poisson likelihood.

    The rings under the direct beam hold both terms. The rings out to three times as far, without
    their disks, hold the diffuse term alone. The exponent p = 1 is the Lorentzian of the published
    noise. Simplex search: J. A. Nelder and R. Mead, Comput. J. 7, 308 (1965).

    Args:
        rings: sums of the n patterns.
        beam: share of the direct beam in each ring that it reaches, (bare,).
        r: distances (R,) in pixels, whole steps of `STEP_PX`.

    Returns:
        Counts per pixel of a mean pattern at these distances, (R,).
    """
    bare = len(beam)
    reach = min(3 * bare, len(rings.total))  # a small detector ends before
    per_ring = round(1 / STEP_PX)
    area = _array(rings.all_area)[: reach * per_ring]
    # A step gathers distances r to r + STEP_PX.
    distances: NDArray[np.float64] = (np.arange(len(area), dtype=np.float64) + 0.5) * STEP_PX
    of_ring = np.arange(len(area)) // per_ring
    pixels = np.bincount(of_ring, area, reach)
    inner_counts, inner_beam = _array(rings.all_counts)[:bare], _array(beam)
    outer_counts, outer_area = _array(rings.total)[bare:reach], _array(rings.area)[bare:reach]
    electrons = inner_counts.sum()

    def profile(z: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
        """The diffuse term, with z = log b, log r0, log p and the logit of A's share."""
        return np.asarray(np.exp(z[0]) / (1 + (at / np.exp(z[1])) ** 2) ** np.exp(z[2]))

    def cost(z: NDArray[np.float64]) -> float:
        """Minus the log likelihood, per electron."""
        diffuse = np.bincount(of_ring, area * profile(z, distances), reach)
        inner = (
            diffuse[:bare]
            + electrons / (1 + np.exp(-z[3])) * inner_beam
            + 1e-12 * max(electrons, 1.0)
        )
        outer = outer_area * diffuse[bare:] / np.maximum(pixels[bare:], 1e-9)
        outer = outer + 1e-12 * max(electrons, 1.0)
        return float(
            (inner - inner_counts * np.log(inner)).sum()
            + (outer - outer_counts * np.log(outer)).sum()
        ) / max(electrons, 1.0)

    outer_log_rate = np.log((max(outer_counts.sum(), 0.0) + 0.5) / max(outer_area.sum(), 1.0))
    broad = np.array([outer_log_rate + 0.5, np.log(30.0), 0.0, 2.0])
    narrow = np.array([outer_log_rate + 4.0, np.log(2.0), 0.0, 2.0])
    options = {"maxiter": 2000, "xatol": 1e-4, "fatol": 1e-12}
    # Far beyond what counts can tell, and within what floats hold.
    log_rates = (outer_log_rate - 40, outer_log_rate + 40)
    bounds = [log_rates, (math.log(1e-4), math.log(1e6)), (-3, 3), (-30, 30)]
    fits = [
        minimize(cost, z, method="Nelder-Mead", bounds=bounds, options=options)
        for z in (broad, narrow)
    ]
    best = min(fits, key=lambda fit: fit.fun)
    # A cusp that the counts do not show may have no width, and then no value in its middle.
    at = np.maximum(_array(r), 0.5 * STEP_PX)
    return torch.from_numpy(profile(best.x, at)).to(r)


def _array(values: Tensor) -> NDArray[np.float64]:
    return values.double().cpu().numpy()
