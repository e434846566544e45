"""Ellipses through the nearest disks: strain from the shape of two rings.

The nodes of a ring of the nominal lattice lie on a circle of radius r, and those of the strained
one, q = c + M g with M = F^-T, on an ellipse: (q - c)^T V^2 (q - c) = r^2 with F = V R. One conic
with one centre is fitted to the two nearest rings, twelve disks of a hexagonal lattice. Its shape
has no rotation; that comes from how far the disks, brought back to their circles, have turned. Few
disks are used, and the indices of the lattice only to place the windows.

A pattern without an answer (NaN) is one whose evidence for any lattice stays below 20 to 1, or
whose disks determine no ellipse within 12 % of where it was first seen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ccstae.io.counts import Counts
from ccstae.methods.base import Answer
from ccstae.methods.com.method import centre_of_mass
from ccstae.methods.com.settings import ComSettings
from ccstae.methods.ellipse.settings import EllipseSettings
from ccstae.methods.shared import windows
from ccstae.methods.shared.between_disks import EDGE_PX, radial_mean
from ccstae.methods.shared.filled import filler
from ccstae.methods.shared.lattice_fit import LatticeFit
from ccstae.methods.shared.lattice_sites import nodes, rings
from ccstae.methods.shared.refined_map import strain, track
from ccstae.methods.shared.sites import Located, SiteFinder

# On the rings that are used, at least: a hexagonal lattice has twelve on two rings, a square one
# eight.
_NODES = 8
# Of a pattern. A conic has five unknowns, and five disks fit it whatever they are.
MIN_DISKS = 6


def map_strain(counts: Counts, settings: EllipseSettings, device: str) -> Answer:
    """F from ellipses through the nearest Bragg disks; NaN for patterns without a lattice (module
    docstring).
    """
    finder = SiteFinder.learn(counts, device)
    hk = nodes(counts.calibration, counts.counts.shape)
    ring = rings(counts.calibration, hk)
    nearest = int((ring <= ring.sort().values[min(_NODES, len(hk)) - 1]).sum())
    hk = hk.to(device)  # sorted by length, so the nearest come first
    lattice = counts.calibration.lattice_inv_A / counts.calibration.pixel_size_inv_A
    nominal = torch.from_numpy(lattice).double().to(device)
    filled = filler(counts.good, device)

    def lattices(patterns: Tensor, rough: Located) -> LatticeFit:
        return refine(filled(patterns), rough, hk, nearest, nominal, finder.tables.radius, settings)

    return strain(counts, finder, lattices, device)


def refine(
    patterns: Tensor,
    rough: Located,
    hk: Tensor,
    nearest: int,
    nominal: Tensor,
    radius: float,
    settings: EllipseSettings,
) -> LatticeFit:
    """Lattices of patterns (B, Qy, Qx) from the centres of mass of disks of `radius` px at the
    `nearest` of the nodes `hk` (S, 2) of the `nominal` lattice (2, 2) in pixels.
    """
    window = ComSettings(window_radii=settings.window_radii, background=settings.background)
    found, lost = LatticeFit(rough.centre.double(), rough.G.double()), ~rough.has_lattice
    clean, beam = patterns, torch.zeros_like(hk[:1])
    for turn in range(settings.iterations):
        if settings.background == "radial" and turn < 2:  # as `com`
            every = found.positions(torch.cat([beam, hk])).to(patterns.dtype)
            middle = found.centre.to(patterns.dtype)
            clean = patterns - radial_mean(patterns, middle, every, radius + EDGE_PX)
        at = found.positions(hk[:nearest])
        shift, mass = centre_of_mass(clean, at.to(patterns.dtype), window, radius)
        weights = mass.clamp_min(0) if settings.weights == "intensity" else (mass > 0).double()
        weights = torch.where(windows.inside(at, radius + 1, patterns.shape), weights, 0)
        fitted = fit(at + shift, weights.double(), found.centre, hk[:nearest], nominal)
        found, lost = track(fitted, rough, lost)
    return found.without(lost)


def fit(
    measured: Tensor, weights: Tensor, centre: Tensor, hk: Tensor, nominal: Tensor
) -> LatticeFit:
    """The conic x^T A x + b x = r^2 about `centre`, and the rotation that is left.

    Equations are divided by 2 r, so that each is the distance of its disk from the ellipse.

    Args:
        measured: positions of the disks (B, S, 2) in pixels.
        weights: of the disks (B, S), not negative.
        centre: where the ellipses' centre is near, (B, 2).
        hk: nodes of the disks (S, 2).
        nominal: lattice (2, 2) in pixels, vectors as columns.

    Returns:
        Centre and lattice of each pattern, NaN where there is no ellipse.
    """
    g = hk.to(nominal.dtype) @ nominal.T  # (S, 2)
    r = g.norm(dim=1)
    q = (measured - centre[:, None]).double()
    x, y = q.unbind(-1)
    equations = torch.stack([x * x, 2 * x * y, y * y, x, y], -1) / (2 * r[:, None])
    weighted = equations.transpose(1, 2) * weights[:, None]
    right = (weighted @ (r / 2)[:, None].expand(len(q), -1, 1))[..., 0]
    solution, singular = torch.linalg.solve_ex(weighted @ equations, right)
    a, b, c = solution[:, :3].unbind(1)
    A = torch.stack([torch.stack([a, b], -1), torch.stack([b, c], -1)], -2)
    determinant = a * c - b * b
    enough = (weights > 0).sum(1) >= MIN_DISKS
    ellipse = enough & (singular == 0) & (determinant > 0) & (a + c > 0)
    A = torch.where(ellipse[:, None, None], A, torch.eye(2, dtype=A.dtype, device=A.device))
    root = torch.linalg.det(A).sqrt()
    trace = A.diagonal(dim1=1, dim2=2).sum(1) + 2 * root
    unit = torch.eye(2, dtype=A.dtype, device=A.device)
    V = (A + root[:, None, None] * unit) / trace.sqrt()[:, None, None]
    middle = centre - torch.linalg.solve(A, solution[:, 3:]) / 2
    on_circle = (measured - middle[:, None]).double() @ V  # V is symmetric
    cross = (g[:, 0] * on_circle[..., 1] - g[:, 1] * on_circle[..., 0]) * weights
    along = (g * on_circle).sum(-1) * weights
    theta = torch.atan2(cross.sum(1), along.sum(1))
    turn = torch.stack([theta.cos(), -theta.sin(), theta.sin(), theta.cos()], -1).unflatten(
        1, (2, 2)
    )
    G = torch.linalg.solve(V, turn @ nominal)
    return LatticeFit(middle, G).without(~ellipse)
