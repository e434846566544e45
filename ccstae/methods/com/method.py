"""Centre of mass: the oldest way to find a disk, in round windows that follow the lattice.

For each pattern: direct beam, rough lattice (`sites`), then, a few times over, the centre of mass
of every disk inside a round window, background taken off, and a weighted fit of a lattice to those
positions, which also places the next windows.

A pattern without an answer (NaN) is one whose evidence for any lattice stays below 20 to 1
(`sites.MIN_EVIDENCE`), or whose disks do not determine a lattice within 12 % of where it was first
seen.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ccstae.io.counts import Counts
from ccstae.methods.base import Answer
from ccstae.methods.com.settings import ComSettings
from ccstae.methods.shared import lattice_fit, windows
from ccstae.methods.shared.between_disks import EDGE_PX, radial_mean
from ccstae.methods.shared.filled import filler
from ccstae.methods.shared.lattice_fit import LatticeFit
from ccstae.methods.shared.lattice_sites import nodes, one_hot_rings
from ccstae.methods.shared.refined_map import strain, track
from ccstae.methods.shared.sites import Located, SiteFinder

# Half width of the ring, outside the window, that background "ring" and "median" use.
RING_PX = 2.0


def map_strain(counts: Counts, settings: ComSettings, device: str) -> Answer:
    """F from the centres of mass of the Bragg disks; NaN for patterns without a lattice (module
    docstring).
    """
    finder = SiteFinder.learn(counts, device)
    hk = nodes(counts.calibration, counts.detector).to(device)
    ring = one_hot_rings(counts.calibration, hk)
    filled = filler(counts.good, device)
    return strain(
        counts,
        finder,
        lambda patterns, rough: refine(
            filled(patterns), rough, hk, ring, finder.tables.radius, settings
        ),
        device,
    )


def refine(
    patterns: Tensor, rough: Located, hk: Tensor, ring: Tensor, radius: float, settings: ComSettings
) -> LatticeFit:
    """Lattices of patterns (B, Qy, Qx) from the centres of mass of disks of `radius` px at the
    nodes `hk` (S, 2) on `ring` (1 + S, R).
    """
    hk = torch.cat(
        [torch.zeros_like(hk[:1]), hk]
    )  # the direct beam is a node too; it carries the centre
    found, lost = LatticeFit(rough.centre.double(), rough.G.double()), ~rough.has_lattice
    clean = patterns
    for turn in range(settings.iterations):
        at = found.positions(hk)
        if (
            settings.background == "radial" and turn < 2
        ):  # once between the rough sites, once between the fitted ones
            middle = found.centre.to(patterns.dtype)
            clean = patterns - radial_mean(patterns, middle, at, radius + EDGE_PX)
        shift, mass = centre_of_mass(clean, at.to(patterns.dtype), settings, radius)
        mass = torch.where(windows.inside(at, radius + 1, patterns.shape), mass.clamp_min(0), 0)
        weights = mass
        if settings.weights == "information":
            weights = lattice_fit.information(
                mass,
                _noise(patterns, at.to(patterns.dtype), settings.window_radii * radius),
                radius**2 / 4,
                ring,
            )
        found, lost = track(
            lattice_fit.fit(at + shift, weights, hk, settings.reject_outliers), rough, lost
        )
    return found.without(lost)


def centre_of_mass(
    patterns: Tensor, at: Tensor, settings: ComSettings, radius: float
) -> tuple[Tensor, Tensor]:
    """Centres of mass of patterns (B, Qy, Qx) in windows of `settings`, for disks of `radius` px.

    Returns:
        Centre of mass relative to `at` (B, S, 2), and mass (B, S).
    """
    reach = settings.window_radii * radius
    ring = settings.background in ("ring", "median")
    values, dx, dy = windows.cut(patterns, at, math.ceil(reach + (RING_PX if ring else 0.5)) + 1)
    r = (dx**2 + dy**2).sqrt()
    window = _window(r, reach)
    if ring:
        rim = (r > reach + 0.5) & (r <= reach + 0.5 + RING_PX)
        masked = torch.where(rim, values, torch.nan).flatten(-2)
        level = masked.nanmean(-1) if settings.background == "ring" else masked.nanmedian(-1).values
        values = values - level[..., None, None]
    if settings.threshold > 0:
        values = torch.where(
            values < settings.threshold * values.amax((-1, -2), keepdim=True), 0, values
        )
    weight = values * window
    mass = weight.sum((-1, -2))
    safe = torch.where(mass > 0, mass, torch.inf)
    shift = torch.stack(
        [(weight * dx).sum((-1, -2)) / safe, (weight * dy).sum((-1, -2)) / safe], -1
    )
    # Noise can put the ratio of two small sums anywhere; a disk's centre lies inside its window.
    return shift.clamp(-reach, reach), mass


def _noise(patterns: Tensor, at: Tensor, reach: float) -> Tensor:
    """Poisson variance (B, S) of sum_q n (q - at) along either axis, over the window: that of the
    centre of mass times its mass squared.
    """
    values, dx, dy = windows.cut(patterns, at, math.ceil(reach + 0.5) + 1)
    squared = dx**2 + dy**2
    return (values * _window(squared.sqrt(), reach) ** 2 * squared).sum((-1, -2)) / 2


def _window(r: Tensor, reach: float) -> Tensor:
    """A soft rim, one pixel wide, does not jump when the window's centre moves by a fraction of a
    pixel.
    """
    return (reach + 0.5 - r).clamp(0, 1)
