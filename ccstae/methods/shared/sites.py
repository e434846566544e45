"""Where the disks of a pattern are, to a fraction of a disk radius: centre, in-plane orientation
and rough scale.

`SiteFinder.learn` looks at a sample of the scan and fits a mixture by expectation maximisation: a
pattern either holds no lattice, or the nominal lattice turned by phi and scaled by s, on a grid
over one symmetry period and +-6 %. Counts in a box of a disk's area are Poisson with mean b + I on
a site and b beside it, b and I shared by a ring of m sites that cover the share c of its
circumference. Given how many electrons the ring holds in all, m a / c with a the mean box sum round
it, the log odds of orientation k with n_k counts on its sites against none at all are

    L_k = sum_rings n_k log(1 + I / b) - (m a / c) log(1 + c I / b),

which asks where the electrons lie, not how many there are: neither vacuum nor a diffuse background
looks like a lattice.

The mixture's weights, the orientations that the scan does hold, steady the patterns that hold too
few electrons to say by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ccstae import geometry
from ccstae.io.store import Calibration, Counts
from ccstae.methods.base import Answer
from ccstae.methods.shared import windows
from ccstae.methods.shared.lattice_fit import LatticeFit

# Scales searched, as the largest change of lattice parameter; per-pattern strain rides on top,
# within a disk's reach.
SCALE_RANGE = 0.06
# Patterns that teach the mixture, evenly spread over the scan.
SAMPLE = 512
ROUNDS = 8
# log of the odds, lattice against none, below which a pattern has no answer (20 to 1: "strong"
# evidence of Jeffreys' scale).
EVIDENCE = 3.0
# A fit that ends this far from the rough lattice, relative to it, has lost the disks.
RUNAWAY = 0.12


@dataclass(frozen=True)
class Located:
    """Rough lattices of B patterns."""

    centre: Tensor  # (B, 2), direct beam, x and y in pixels, sub-pixel
    # (B, 2, 2), columns g1 and g2 in pixels, to about a quarter of a disk radius at the outermost
    # site
    G: Tensor
    found: Tensor  # (B,) bool: the evidence for a lattice exceeds 20 to 1


def disk_radius_px(calibration: Calibration) -> float:
    """Radius of the disks in pixels: semiangle / wavelength / pixel size."""
    return (
        calibration.semiangle_mrad
        * 1e-3
        / geometry.wavelength_A(calibration.energy_keV)
        / calibration.pixel_size_inv_A
    )


def nodes(calibration: Calibration, shape: tuple[int, ...]) -> Tensor:
    """Integer (h, k), (S, 2), of all nodes but (0, 0) that lie on a (Qy, Qx) detector in some
    orientation.
    """
    G = calibration.lattice_inv_A / calibration.pixel_size_inv_A
    _, farthest = border_distances_px(calibration.centre_px, shape)
    reach = math.hypot(*farthest) - disk_radius_px(calibration)
    return torch.from_numpy(geometry.lattice_nodes(G, reach)[1:])


def border_distances_px(
    centre_px: tuple[float, float], shape: tuple[int, ...]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Distances from the nominal direct beam (x, y) to the nearest and to the farthest border of a
    (..., Qy, Qx) detector, each along x and along y; both are half the side for a beam at n // 2.
    """
    x, y = (abs(at - n // 2) for at, n in zip(centre_px, (shape[-1], shape[-2]), strict=True))
    half_x, half_y = shape[-1] / 2, shape[-2] / 2
    return (half_x - x, half_y - y), (half_x + x, half_y + y)


def one_hot_rings(calibration: Calibration, hk: Tensor) -> Tensor:
    """The table (1 + S, R) of which ring each node lies on, the direct beam a ring of its own
    before the others.
    """
    ring = rings(calibration, hk.cpu())
    return (
        torch.nn.functional.one_hot(torch.cat([torch.zeros_like(ring[:1]), ring + 1]))
        .float()
        .to(hk.device)
    )


def rings(calibration: Calibration, hk: Tensor) -> Tensor:
    """Index (S,) of the ring that each node lies on: nodes of one length, shortest first."""
    length = np.linalg.norm(hk.numpy() @ calibration.lattice_inv_A.T, axis=-1)
    return torch.from_numpy(np.unique(np.round(length / length.min(), 3), return_inverse=True)[1])


def direct_beam(patterns: Tensor, sums: Tensor, radius: float, iterations: int = 3) -> Tensor:
    """Centre (B, 2) of the direct beam: the brightest of the box sums, then centre of mass in a
    round window of 1.5 radii, iterated.
    """
    row = sums.amax(-1).argmax(-1)
    column = sums[torch.arange(len(sums), device=sums.device), row].argmax(-1)
    centre = torch.stack([column, row], -1).to(patterns.dtype)
    for _ in range(iterations):
        values, dx, dy = windows.cut(patterns, centre[:, None], math.ceil(1.5 * radius) + 1)
        weight = values * (1.5 * radius + 0.5 - (dx**2 + dy**2).sqrt()).clamp(0, 1)
        mass = weight.sum((-1, -2)).clamp_min(torch.finfo(weight.dtype).tiny)
        centre = centre + torch.cat(
            [(weight * dx).sum((-1, -2)) / mass, (weight * dy).sum((-1, -2)) / mass], -1
        )
    return centre


def box_sums(patterns: Tensor, radius: float) -> Tensor:
    """Sums over the odd square box nearest in area to a disk, centred on each pixel; zero outside
    the detector; (B, Qy, Qx).
    """
    half = round((radius * math.sqrt(math.pi) - 1) / 2)
    sums = torch.nn.functional.pad(patterns, (half, half, half, half))
    for axis in (-1, -2):
        sums = _running_sums(sums, axis, 2 * half + 1)
    return sums


def _running_sums(values: Tensor, axis: int, n: int) -> Tensor:
    """Sums of n neighbours along an axis, n - 1 fewer than there were: sums of 1, 2, 4, ...
    neighbours, put together by n's binary digits.

    Differences of one cumulative sum would round.
    """
    size = values.shape[axis] - n + 1
    total, taken = None, 0
    for bit in range(n.bit_length()):
        if bit:
            step = 1 << (bit - 1)
            length = values.shape[axis] - step
            values = values.narrow(axis, 0, length) + values.narrow(axis, step, length)
        if n >> bit & 1:
            part = values.narrow(axis, taken, size)
            total = part if total is None else total + part
            taken += 1 << bit
    assert total is not None
    return total


@dataclass(frozen=True)
class SiteFinder:
    """A learned mixture of orientations and scales."""

    radius: float
    G: Tensor  # (K, 2, 2), candidate lattices in pixels
    hk: Tensor  # (S, 2), the sites that score
    ring: Tensor  # (S, R), one-hot
    scales: int  # candidates of one orientation lie together, in order of scale
    on_gain: Tensor  # (K, R), log(1 + I / b)
    ring_gain: Tensor  # (K, R), -log(1 + c I / b) / c
    log_prior: Tensor  # (K,), of the candidates, normalised

    @classmethod
    def blank(cls, calibration: Calibration, shape: tuple[int, ...], device: str) -> Self:
        """The candidates and sites of an instrument with a (Qy, Qx) detector; nothing is learned
        yet.
        """
        radius = disk_radius_px(calibration)
        hk = nodes(calibration, shape)
        nominal = torch.from_numpy(calibration.lattice_inv_A / calibration.pixel_size_inv_A).float()
        length = torch.linalg.vector_norm(hk.float() @ nominal.T, dim=-1)
        whole = (
            length + radius <= min(shape) / 2
        )  # rings that stay on the detector whichever way they turn
        hk = hk[whole] if whole.any() else hk[length < length.min() * 1.01]
        ring = torch.nn.functional.one_hot(rings(calibration, hk)).float()
        reach = float(torch.linalg.vector_norm(hk.float() @ nominal.T, dim=-1).max())
        G, scales = _candidates(nominal, calibration.rotational_symmetry, radius, reach)
        gain, prior = (
            torch.zeros(len(G), ring.shape[1], device=device),
            torch.zeros(len(G), device=device),
        )
        return cls(radius, G.to(device), hk.to(device), ring.to(device), scales, gain, gain, prior)

    @classmethod
    def learn(cls, counts: Counts, device: str) -> Self:
        """Fit the mixture to a sample of the scan's patterns."""
        shape = counts.counts.shape
        patterns = counts.counts.reshape(-1, *shape[2:])
        finder = cls.blank(counts.calibration, shape[2:], device)
        step = max(1, len(patterns) // SAMPLE)
        _, on, sites = windows.over_scan(finder._sums, patterns[::step], device)
        return finder._maximise(on, sites)

    def locate(self, patterns: Tensor) -> Located:
        """Centre and most probable lattice of patterns (B, Qy, Qx)."""
        centre, on, sites = self._sums(patterns)
        odds = self._log_odds(on, self._even(sites, self._around(on, sites)))
        # Evidence under even odds of all orientations: a mixture learned from a scan of vacuum has
        # learned its noise.
        evidence = odds.logsumexp(-1) - math.log(len(self.G))
        return Located(centre, self.G[(odds + self.log_prior).argmax(-1)], evidence > EVIDENCE)

    def _sums(self, patterns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Centres (B, 2), counts on each candidate's sites by ring (B, K, R), and how many of those
        sites are on the detector.
        """
        B, height, width = patterns.shape
        sums = windows.piecewise(lambda piece: box_sums(piece, self.radius), patterns)
        centre = direct_beam(patterns, sums, self.radius)
        offset = torch.einsum("kij,sj->isk", self.G, self.hk.to(self.G.dtype)).flatten(
            1
        )  # (2, S K)
        x = (centre[:, 0, None] + offset[0]).round_().clamp_(0, width - 1)
        y = (centre[:, 1, None] + offset[1]).round_().clamp_(0, height - 1)
        flat = y.mul_(width).add_(x).long()
        n = sums.reshape(B, -1).gather(1, flat)
        # A site whose disk leaves the detector counts neither electrons nor as a site.
        rows, columns = (
            windows.within(torch.arange(size, device=sums.device), self.radius, size)
            for size in (height, width)
        )
        whole = (rows[:, None] & columns).to(n.dtype).flatten().expand(B, -1).gather(1, flat)
        on, sites = (
            self.ring.T @ values.reshape(B, len(self.hk), -1) for values in (n * whole, whole)
        )
        return centre, on.mT, sites.mT

    def _around(self, on: Tensor, sites: Tensor) -> Tensor:
        """Mean box sum (B, scales, R) over all orientations at each scale: what lies at that
        distance from the beam.
        """
        by_scale = (len(on), -1, self.scales, on.shape[-1])
        return on.reshape(by_scale).sum(1) / sites.reshape(by_scale).sum(1).clamp_min(1)

    def _even(self, sites: Tensor, around: Tensor) -> Tensor:
        """Counts m a, (B, K, R), that the sites would hold, were the electrons spread evenly round
        each ring.
        """
        return sites * around.repeat(1, len(self.G) // self.scales, 1)

    def _log_odds(self, on: Tensor, even: Tensor) -> Tensor:
        """L_k, (B, K)."""
        return (on * self.on_gain + even * self.ring_gain).sum(-1)

    def _maximise(self, on: Tensor, sites: Tensor) -> Self:
        """Expectation maximisation over the sample: orientations held, share without lattice, I and
        b of each ring.
        """
        N, K, _ = on.shape
        around = self._around(on, sites)
        even = self._even(sites, around)
        # The share c of a ring's circumference that its disks cover, and so of I that `around`
        # holds.
        circumference = (
            2 * math.pi * torch.linalg.vector_norm(self.hk.to(self.G.dtype) @ self.G[0].T, dim=-1)
        )
        cover = ((2 * self.radius / circumference)[:, None] * self.ring).sum(0).clamp(max=0.9)
        log_prior = torch.full((K,), -math.log(K), device=on.device)
        none = 0.0  # share of patterns without a lattice; let in once I and b are roughly known
        background = around.mean(0)
        intensity = background[self.scales // 2]
        finder = self
        for turn in range(ROUNDS):
            contrast = intensity / torch.maximum(
                background, 1e-3 * intensity + torch.finfo(on.dtype).tiny
            )  # (scales, R)
            on_gain, ring_gain = torch.log1p(contrast), -torch.log1p(cover * contrast) / cover
            on_gain, ring_gain = (gain.repeat(K // self.scales, 1) for gain in (on_gain, ring_gain))
            finder = replace(self, on_gain=on_gain, ring_gain=ring_gain, log_prior=log_prior)
            odds = finder._log_odds(on, even) + log_prior
            if turn >= ROUNDS // 2:
                odds = torch.cat(
                    [odds + math.log1p(-none), odds.new_full((N, 1), math.log(none))], 1
                )
            share = odds.softmax(1)[:, :K]
            lattice = share.sum(1)
            mean = torch.einsum("n,nsr->sr", lattice, around) / lattice.sum().clamp_min(1e-6)
            above = on - sites * mean.repeat(K // self.scales, 1)
            intensity = torch.einsum("nk,nkr->r", share, above) / torch.einsum(
                "nk,nkr->r", share, sites
            ).clamp_min(1e-6)
            intensity = (intensity / (1 - cover)).clamp_min(0)
            background = (mean - cover * intensity).clamp_min(0)
            # One pattern's worth of weight is spread evenly: an orientation that the sample lacks
            # stays possible.
            prior = share.sum(0) + 1 / K
            log_prior = (prior / prior.sum()).log()
            none = min(max(1 - float(lattice.mean()), 0.01), 0.99)
        return finder


def strain(
    counts: Counts, finder: SiteFinder, refine: Callable[[Tensor, Located], LatticeFit], device: str
) -> Answer:
    """F from the lattices that refine(patterns, rough ones) finds in the patterns of a scan; NaN
    where those are NaN.
    """

    def lattices(patterns: Tensor) -> tuple[Tensor, Tensor]:
        found = refine(patterns, finder.locate(patterns))
        return found.centre, found.G

    scan = counts.counts.shape[:2]
    centre, G = (
        values.cpu().numpy() for values in windows.over_scan(lattices, counts.counts, device)
    )
    F = geometry.deformation_from_reciprocal(
        G * counts.calibration.pixel_size_inv_A, counts.calibration.lattice_inv_A
    )
    return Answer(F=F.reshape(*scan, 2, 2), centre_px=centre.reshape(*scan, 2))


def track(found: LatticeFit, rough: Located, lost: Tensor) -> tuple[LatticeFit, Tensor]:
    """Bring fits that have lost their disks back to the rough lattice, and say which have: no
    solution, or 12 % from where they began.
    """
    away = (found.G - rough.G).norm(dim=(-2, -1)) / rough.G.norm(dim=(-2, -1))
    lost = lost | ~(away < RUNAWAY)
    return LatticeFit(
        torch.where(lost[:, None], rough.centre.double(), found.centre),
        torch.where(lost[:, None, None], rough.G.double(), found.G),
    ), lost


def _candidates(nominal: Tensor, symmetry: int, radius: float, reach: float) -> tuple[Tensor, int]:
    """Lattices (K, 2, 2) and how many scales each turn has; the outermost site moves by a quarter
    of a radius from one to the next.
    """
    step = radius / 4 / reach
    turns = max(1, round(2 * math.pi / symmetry / step))
    scales = 2 * max(1, math.ceil(SCALE_RANGE / step)) + 1
    phi = (torch.arange(turns) - turns // 2) * (2 * math.pi / symmetry / turns)
    scale = 1 / (1 + torch.linspace(-SCALE_RANGE, SCALE_RANGE, scales))
    turn = torch.from_numpy(geometry.rotation_matrix(phi.numpy())).float()
    return (turn[:, None] * scale[None, :, None, None] @ nominal).reshape(-1, 2, 2), scales
