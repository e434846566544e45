"""Where the disks of a pattern are, to a fraction of a disk radius: centre, in-plane orientation
and rough scale.

`SiteFinder.learn` takes a sample of the scan and fits a mixture to it by expectation maximisation.
A pattern either holds no lattice, or the nominal lattice turned by phi and scaled by s, on a grid
over one symmetry period and +-6 %. Counts in a box of a disk's area are Poisson with mean b + I on
a site and b beside it. A ring of m sites shares b and I, and covers the share c of its
circumference. The ring holds m a / c electrons in all, with a the mean box sum round it. Given that
number, the log odds of orientation k, with n_k counts on its sites, against no lattice are

    L_k = sum_rings n_k log(1 + I / b) - (m a / c) log(1 + c I / b).

They ask where the electrons lie, not how many there are, so neither vacuum nor a diffuse background
looks like a lattice.

The weights of the mixture are the orientations that the scan does hold. They steady the patterns
that hold too few electrons to say by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ccstae import geometry
from ccstae.errors import InputError
from ccstae.io.calibration import Calibration, disk_radius_px
from ccstae.io.counts import Counts
from ccstae.machine.device import at_a_time
from ccstae.methods.base import Answer
from ccstae.methods.shared import windows
from ccstae.methods.shared.lattice_fit import LatticeFit

# Largest change of the lattice parameter that is searched, as a scale of the whole scan; the strain
# of single patterns rides on top, within the reach of a disk.
MAX_SCALE_CHANGE = 0.06
# Patterns that teach the mixture, evenly spread over the scan; fewer than twice as many.
SAMPLE = 512
ROUNDS = 8
# Log of the odds, lattice against none, below which a pattern has no answer: 20 to 1, "strong"
# evidence (H. Jeffreys, Theory of Probability (1961)).
MIN_EVIDENCE = 3.0
# Memory, on a CPU, of what is worked out for all sites of all candidates of some patterns at a
# time. A scan whose disks are tiny against its detector learns from fewer patterns, and from the
# inner rings alone, so that one pattern takes at most `MAX_PATTERN_BYTES`.
MAX_BYTES = 256 * 2**20
MAX_PATTERN_BYTES = 64 * 2**20
MAX_SAMPLE_BYTES = 2**30
BYTES_PER_SITE = 24  # of a candidate: four float32 and one index
BYTES_PER_RING = 20  # of a candidate: counts, sites, even spread and two temporaries, float32
# The outermost disk that is used lies at least at this share of the detector's reach, so that a
# rough lattice predicts any disk to its radius.
MIN_REACH_SHARE = 0.25
# A fit that ends this far from the rough lattice, relative to it, has lost the disks.
MAX_RELATIVE_DRIFT = 0.12


@dataclass(frozen=True)
class Located:
    """Rough lattices of B patterns."""

    centre: Float[Tensor, "B 2"]  # direct beam, x and y in pixels, sub-pixel
    # columns g1 and g2 in pixels, to about a quarter of a disk radius at the outermost site
    G: Float[Tensor, "B 2 2"]
    has_lattice: Bool[Tensor, " B"]  # the evidence for a lattice exceeds 20 to 1


def nodes(calibration: Calibration, shape: tuple[int, ...]) -> Tensor:
    """Integer (h, k), (S, 2), of all nodes but (0, 0) that lie on a (..., Qy, Qx) detector in some
    orientation.
    """
    G = calibration.lattice_inv_A / calibration.pixel_size_inv_A
    _, farthest = border_distances_px(calibration.centre_px, shape)
    reach = math.hypot(*farthest) - disk_radius_px(calibration)
    return torch.from_numpy(geometry.lattice_nodes(G, reach)[1:])


def border_distances_px(
    centre_px: tuple[float, float], shape: tuple[int, ...]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """How far the borders of the detector are from the nominal direct beam.

    Args:
        centre_px: nominal direct beam (x, y) in pixels.
        shape: of the detector, (..., Qy, Qx).

    Returns:
        Distances (along x, along y) to the nearest and to the farthest border, in pixels. Both are
        half the side for a beam at n // 2.
    """
    height, width = shape[-2:]
    x, y = abs(centre_px[0] - width // 2), abs(centre_px[1] - height // 2)
    return (width / 2 - x, height / 2 - y), (width / 2 + x, height / 2 + y)


def rings(calibration: Calibration, hk: Tensor) -> Tensor:
    """Index (S,) of the ring that each node of `hk` (S, 2) lies on: nodes of one length, shortest
    first.
    """
    length = np.linalg.norm(hk.numpy() @ calibration.lattice_inv_A.T, axis=-1)
    return torch.from_numpy(np.unique(np.round(length / length.min(), 3), return_inverse=True)[1])


def one_hot_rings(calibration: Calibration, hk: Tensor) -> Tensor:
    """The table (1 + S, R) of which ring each node of `hk` (S, 2) lies on; the direct beam is a
    ring of its own before the others.
    """
    ring = rings(calibration, hk.cpu())
    with_beam = torch.cat([torch.zeros_like(ring[:1]), ring + 1])
    return torch.nn.functional.one_hot(with_beam).float().to(hk.device)


def direct_beam(patterns: Tensor, sums: Tensor, radius: float, iterations: int = 3) -> Tensor:
    """Centre of the direct beam: the largest of the box sums, then the centre of mass in a round
    window of 1.5 radii, iterated.

    Args:
        patterns: counts (B, Qy, Qx).
        sums: their box sums (B, Qy, Qx).
        radius: of a disk, pixels.
        iterations: how often the window follows the centre of mass.

    Returns:
        Centres (B, 2), x and y in pixels.
    """
    row = sums.amax(-1).argmax(-1)
    column = sums[torch.arange(len(sums), device=sums.device), row].argmax(-1)
    centre = torch.stack([column, row], -1).to(patterns.dtype)
    for _ in range(iterations):
        values, dx, dy = windows.cut(patterns, centre[:, None], math.ceil(1.5 * radius) + 1)
        weight = values * (1.5 * radius + 0.5 - (dx**2 + dy**2).sqrt()).clamp(0, 1)
        mass = weight.sum((-1, -2)).clamp_min(torch.finfo(weight.dtype).tiny)
        step_x, step_y = (weight * dx).sum((-1, -2)) / mass, (weight * dy).sum((-1, -2)) / mass
        centre = centre + torch.cat([step_x, step_y], -1)
    return centre


def box_sums(patterns: Tensor, radius: float) -> Tensor:
    """Sums (B, Qy, Qx) of patterns over the odd square box nearest in area to a disk, centred on
    each pixel; the pattern is zero outside the detector.
    """
    half = round((radius * math.sqrt(math.pi) - 1) / 2)
    sums = torch.nn.functional.pad(patterns, (half, half, half, half))
    for axis in (-1, -2):
        sums = _running_sums(sums, axis, 2 * half + 1)
    return sums


def _running_sums(values: Tensor, axis: int, n: int) -> Tensor:
    """Sums of n neighbours along an axis, n - 1 fewer than there were values.

    Sums of 1, 2, 4, ... neighbours are put together by the binary digits of n. Differences of one
    cumulative sum would round.
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

    radius: float  # of a disk, pixels
    G: Float[Tensor, "K 2 2"]  # candidate lattices in pixels
    hk: Int64[Tensor, "S 2"]  # the sites that score
    ring: Float[Tensor, "S R"]  # one-hot
    scales: int  # candidates of one orientation lie together, in order of scale
    on_gain: Float[Tensor, "K R"]  # log(1 + I / b)
    ring_gain: Float[Tensor, "K R"]  # -log(1 + c I / b) / c
    log_prior: Float[Tensor, " K"]  # of the candidates, normalised

    @classmethod
    def blank(cls, calibration: Calibration, shape: tuple[int, ...], device: str) -> Self:
        """The candidates and sites of an instrument; nothing is learned yet.

        Args:
            calibration: of the instrument, with the nominal lattice.
            shape: of the detector, (Qy, Qx).
            device: "cpu" or "cuda".

        Raises:
            InputError: where no node can lie on the detector, or the disks are so small against it
                that their candidates would take more than `MAX_PATTERN_BYTES` for a pattern.
        """
        radius = disk_radius_px(calibration)
        hk = nodes(calibration, shape)
        if len(hk) == 0:
            raise InputError(
                f"the detector of {tuple(shape)} pixels shows no disk of the nominal lattice "
                f"beside the direct beam; expected the first ring on it: check the calibration"
            )
        nominal = torch.from_numpy(calibration.lattice_inv_A / calibration.pixel_size_inv_A).float()
        length = torch.linalg.vector_norm(hk.float() @ nominal.T, dim=-1)
        # Rings that stay on the detector whichever way they turn, for a beam in its middle. A beam
        # beside it puts some sites off the detector; `_sums` leaves these out.
        whole = length + radius <= min(shape) / 2
        hk = hk[whole] if whole.any() else hk[length < length.min() * 1.01]
        hk = _within_memory(hk, nominal, calibration.rotational_symmetry, radius)
        ring = torch.nn.functional.one_hot(rings(calibration, hk)).float()
        reach = float(torch.linalg.vector_norm(hk.float() @ nominal.T, dim=-1).max())
        G, scales = _candidates(nominal, calibration.rotational_symmetry, radius, reach)
        gain = torch.zeros(len(G), ring.shape[1], device=device)
        prior = torch.zeros(len(G), device=device)
        return cls(radius, G.to(device), hk.to(device), ring.to(device), scales, gain, gain, prior)

    @classmethod
    def learn(cls, counts: Counts, device: str) -> Self:
        """Fit the mixture to a sample of the scan.

        Args:
            counts: patterns (Ry, Rx, Qy, Qx) and calibration.
            device: "cpu" or "cuda".

        Returns:
            A finder for the patterns of this scan, and of others in the same instrument.
        """
        shape = counts.counts.shape
        patterns = counts.counts.reshape(-1, *shape[2:])
        finder = cls.blank(counts.calibration, shape[2:], device)
        bytes_per_pattern = BYTES_PER_RING * finder.on_gain.numel()
        sample = max(1, min(SAMPLE, MAX_SAMPLE_BYTES // (2 * bytes_per_pattern)))
        step = max(1, len(patterns) // sample)
        _, on, sites = windows.over_scan(finder._sums, patterns[::step], device)
        return finder._maximise(on, sites)

    def locate(self, patterns: Tensor) -> Located:
        """Direct beam and most probable lattice of each pattern.

        Args:
            patterns: counts (B, Qy, Qx), float32.

        Returns:
            Rough lattices, and whether there is one: the evidence exceeds `MIN_EVIDENCE`.
        """
        size = self._patterns_at_a_time()
        if len(patterns) > size:
            parts = [self.locate(part) for part in patterns.split(size)]
            return Located(
                torch.cat([part.centre for part in parts]),
                torch.cat([part.G for part in parts]),
                torch.cat([part.has_lattice for part in parts]),
            )
        centre, on, sites = self._sums(patterns)
        odds = self._log_odds(on, self._even(sites, self._around(on, sites)))
        # The evidence takes all orientations for equally likely, since a mixture learned from a
        # scan of vacuum has learned its noise.
        evidence = odds.logsumexp(-1) - math.log(len(self.G))
        likeliest = (odds + self.log_prior).argmax(-1)
        return Located(centre, self.G[likeliest], evidence > MIN_EVIDENCE)

    def _sums(self, patterns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Centres (B, 2), counts on the sites of each candidate by ring (B, K, R), and how many of
        those sites are on the detector (B, K, R).
        """
        size = self._patterns_at_a_time()
        if len(patterns) > size:
            parts = [self._sums(part) for part in patterns.split(size)]
            centre, on, sites = (torch.cat(values) for values in zip(*parts, strict=True))
            return centre, on, sites
        B, height, width = patterns.shape
        sums = windows.piecewise(lambda piece: box_sums(piece, self.radius), patterns)
        centre = direct_beam(patterns, sums, self.radius)
        offset = torch.einsum("kij,sj->isk", self.G, self.hk.to(self.G.dtype))
        offset = offset.flatten(1)  # (2, S K)
        x = (centre[:, 0, None] + offset[0]).round_().clamp_(0, width - 1)
        y = (centre[:, 1, None] + offset[1]).round_().clamp_(0, height - 1)
        flat = y.mul_(width).add_(x).long()
        n = sums.reshape(B, -1).gather(1, flat)
        # A site whose disk leaves the detector counts neither electrons nor as a site.
        rows = windows.within(torch.arange(height, device=sums.device), self.radius, height)
        columns = windows.within(torch.arange(width, device=sums.device), self.radius, width)
        whole = (rows[:, None] & columns).to(n.dtype).flatten().expand(B, -1).gather(1, flat)
        by_site = (B, len(self.hk), -1)
        on, sites = self.ring.T @ (n * whole).reshape(by_site), self.ring.T @ whole.reshape(by_site)
        return centre, on.mT, sites.mT

    def _patterns_at_a_time(self) -> int:
        """How many patterns `MAX_BYTES`, or a share of a GPU's memory, have room for."""
        sites = len(self.G) * len(self.hk)
        each = BYTES_PER_SITE * sites + BYTES_PER_RING * self.on_gain.numel()
        return at_a_time(MAX_BYTES // each, each, self.G.device.type)

    def _around(self, on: Tensor, sites: Tensor) -> Tensor:
        """Mean box sum (B, scales, R) over all orientations at each scale: what lies at that
        distance from the beam.
        """
        by_scale = (len(on), -1, self.scales, on.shape[-1])
        return on.reshape(by_scale).sum(1) / sites.reshape(by_scale).sum(1).clamp_min(1)

    def _even(self, sites: Tensor, around: Tensor) -> Tensor:
        """Counts m a, (B, K, R), that the sites would hold if the electrons were spread evenly
        round each ring.
        """
        return sites * around.repeat(1, len(self.G) // self.scales, 1)

    def _log_odds(self, on: Tensor, even: Tensor) -> Tensor:
        """L_k, (B, K)."""
        return (on * self.on_gain + even * self.ring_gain).sum(-1)

    def _maximise(self, on: Tensor, sites: Tensor) -> Self:
        """Expectation maximisation over the sample (N patterns, from `_sums`): orientations held,
        share without lattice, I and b of each ring.
        """
        N, K, _ = on.shape
        turns = K // self.scales
        around = self._around(on, sites)
        even = self._even(sites, around)
        # The share c of a ring's circumference that its disks cover, and so of I that `around`
        # holds.
        length = torch.linalg.vector_norm(self.hk.to(self.G.dtype) @ self.G[0].T, dim=-1)
        of_site = 2 * self.radius / (2 * math.pi * length)
        cover = (of_site[:, None] * self.ring).sum(0).clamp(max=0.9)
        log_prior = torch.full((K,), -math.log(K), device=on.device)
        no_lattice = 0.0  # share of such patterns; let in once I and b are roughly known
        background = around.mean(0)  # b, (scales, R)
        intensity = background[self.scales // 2]  # I, (R,)
        finder = self
        for turn in range(ROUNDS):
            floor = 1e-3 * intensity + torch.finfo(on.dtype).tiny
            contrast = intensity / torch.maximum(background, floor)  # (scales, R)
            on_gain, ring_gain = torch.log1p(contrast), -torch.log1p(cover * contrast) / cover
            finder = replace(
                self,
                on_gain=on_gain.repeat(turns, 1),
                ring_gain=ring_gain.repeat(turns, 1),
                log_prior=log_prior,
            )
            odds = finder._log_odds(on, even) + log_prior
            if turn >= ROUNDS // 2:
                without = odds.new_full((N, 1), math.log(no_lattice))
                odds = torch.cat([odds + math.log1p(-no_lattice), without], 1)
            share = odds.softmax(1)[:, :K]
            lattice = share.sum(1)
            mean = torch.einsum("n,nsr->sr", lattice, around) / lattice.sum().clamp_min(1e-6)
            above = on - sites * mean.repeat(turns, 1)
            number = torch.einsum("nk,nkr->r", share, sites).clamp_min(1e-6)
            intensity = torch.einsum("nk,nkr->r", share, above) / number
            intensity = (intensity / (1 - cover)).clamp_min(0)
            background = (mean - cover * intensity).clamp_min(0)
            # One pattern's worth of weight is spread evenly, so that an orientation that the sample
            # lacks stays possible.
            prior = share.sum(0) + 1 / K
            log_prior = (prior / prior.sum()).log()
            no_lattice = min(max(1 - float(lattice.mean()), 0.01), 0.99)
        return finder


def strain(
    counts: Counts, finder: SiteFinder, refine: Callable[[Tensor, Located], LatticeFit], device: str
) -> Answer:
    """Map a scan with a method that refines rough lattices.

    Args:
        counts: patterns (Ry, Rx, Qy, Qx) and calibration.
        finder: gives the rough lattices.
        refine: takes patterns (B, Qy, Qx) and their rough lattices, and gives the lattices.
        device: "cpu" or "cuda".

    Returns:
        F against the nominal lattice, and the direct beams; NaN where `refine` gives NaN.
    """

    def lattices(patterns: Tensor) -> tuple[Tensor, Tensor]:
        lattice = refine(patterns, finder.locate(patterns))
        return lattice.centre, lattice.G

    scan = counts.counts.shape[:2]
    centre, G = windows.over_scan(lattices, counts.counts, device)
    F = geometry.deformation_from_reciprocal(
        G.cpu().numpy() * counts.calibration.pixel_size_inv_A, counts.calibration.lattice_inv_A
    )
    return Answer(F=F.reshape(*scan, 2, 2), centre_px=centre.cpu().numpy().reshape(*scan, 2))


def track(fitted: LatticeFit, rough: Located, lost: Tensor) -> tuple[LatticeFit, Tensor]:
    """Bring fits that have lost their disks back to the rough lattice.

    Args:
        fitted: lattices of B patterns.
        rough: where they began.
        lost: which were lost before, (B,).

    Returns:
        The lattices, and which are lost now: those that were before, those without a solution, and
        those 12 % from where they began.
    """
    drift = (fitted.G - rough.G).norm(dim=(-2, -1)) / rough.G.norm(dim=(-2, -1))
    lost = lost | ~(drift < MAX_RELATIVE_DRIFT)
    back = LatticeFit(
        torch.where(lost[:, None], rough.centre.double(), fitted.centre),
        torch.where(lost[:, None, None], rough.G.double(), fitted.G),
    )
    return back, lost


def _within_memory(hk: Tensor, nominal: Tensor, symmetry: int, radius: float) -> Tensor:
    """The sites of `hk` (S, 2), on inner rings, whose candidates fit into `MAX_PATTERN_BYTES`."""
    length = torch.linalg.vector_norm(hk.float() @ nominal.T, dim=-1)
    reach = float(length.max())
    for limit in length.unique().flip(0).tolist():
        inner = hk[length <= limit]
        turns, scales = _grid(symmetry, radius, limit)
        size = BYTES_PER_SITE * turns * scales * len(inner)
        if size <= MAX_PATTERN_BYTES:
            if limit < MIN_REACH_SHARE * reach or _on_one_line(inner) > _on_one_line(hk):
                break
            return inner
    raise InputError(
        f"disks of radius {radius:.3g} px are too small against a lattice that reaches "
        f"{reach:.4g} px over the detector: the table of their sites takes {size / 2**20:.0f} MiB "
        f"for a pattern; expected at most {MAX_PATTERN_BYTES / 2**20:.0f} MiB: bin or crop the "
        f"patterns, or check the calibration"
    )


def _on_one_line(hk: Tensor) -> bool:
    """Whether all nodes (S, 2) are multiples of one."""
    return bool((hk[:, 0] * hk[0, 1] == hk[:, 1] * hk[0, 0]).all())


def _grid(symmetry: int, radius: float, reach: float) -> tuple[int, int]:
    """How many turns and how many scales the candidates have."""
    step = radius / 4 / reach
    turns = max(1, round(2 * math.pi / symmetry / step))
    scales = 2 * max(1, math.ceil(MAX_SCALE_CHANGE / step)) + 1
    return turns, scales


def _candidates(nominal: Tensor, symmetry: int, radius: float, reach: float) -> tuple[Tensor, int]:
    """Lattices (K, 2, 2) and how many scales each turn has. The outermost site, at `reach` pixels,
    moves by a quarter of a radius from one to the next.
    """
    turns, scales = _grid(symmetry, radius, reach)
    phi = (torch.arange(turns) - turns // 2) * (2 * math.pi / symmetry / turns)
    scale = 1 / (1 + torch.linspace(-MAX_SCALE_CHANGE, MAX_SCALE_CHANGE, scales))
    turn = torch.from_numpy(geometry.rotation_matrix(phi.numpy())).float()
    return (turn[:, None] * scale[None, :, None, None] @ nominal).reshape(-1, 2, 2), scales
