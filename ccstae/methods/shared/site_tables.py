"""Where the disks of a pattern may be, and what it holds there: the candidates, sites and gaps of
an instrument, which no scan changes.

The candidates are the nominal lattice turned by phi and scaled by s, on a grid over one symmetry
period and +-6 %. Their sites are the nodes of the rings that stay on the detector. A ring is what
lies at one distance from the beam.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ccstae.errors import InputError
from ccstae.io.calibration import Calibration, disk_radius_px
from ccstae.methods.shared import lattice_sites, second_lattice, windows
from ccstae.methods.shared.beams import Beams, box_sums

# Boxes farther than this from every node hold nothing of a disk: a box and a disk that touch are
# 2.25 radii apart at most.
BARE_RADII = 2.4
# Disks that cover more of the first ring nearly touch: the gaps between them, which small boxes
# fit, tell more of the lattice than they do.
TOUCHING_COVER = 0.8
GAP_BOXES = 3.0
SOFT_PX = 1.0  # the soft edge of a disk, and what a box is off its place, which is a whole pixel


@dataclass(frozen=True)
class SiteTables:
    """Candidates, sites and gaps of an instrument."""

    radius: float  # of a disk, pixels
    G: Float[Tensor, "K 2 2"]  # candidate lattices in pixels
    box_radius: float  # of a disk of the area of the boxes on the sites
    hk: Int64[Tensor, "N 2"]  # the nodes that score
    sites: Float[Tensor, "S 2"]  # these, and gaps too where disks nearly touch, in units of g1, g2
    ring: Float[Tensor, "S R"]  # one-hot
    dark: Bool[Tensor, " R"]  # rings of gaps, which hold less than what is round them
    line: Float[Tensor, "S L"]  # one-hot: the line of nodes through the direct beam
    bare: Float[Tensor, "S T"]  # 1 where a site, turned so far, is clear of all disks
    peak: Float[Tensor, "T P"]  # share of disks in the boxes on a ring's sites, turned so far
    strange: Float[Tensor, "T P"]  # the same of disks of other rings alone
    gap_radius: float  # of a disk of the area of the boxes between disks
    gaps: Float[Tensor, "P 2"]  # places between disks, in units of g1 and g2
    gap_ring: Float[Tensor, "P Q"]  # one-hot: those at one distance from the beam
    scales: int  # candidates of one orientation lie together, in order of scale

    @classmethod
    def of(cls, calibration: Calibration, shape: tuple[int, ...], device: str) -> Self:
        """The tables of an instrument.

        Args:
            calibration: of the instrument, with the nominal lattice.
            shape: of the detector, (Qy, Qx).
            device: "cpu" or "cuda".

        Raises:
            InputError: where no node can lie on the detector, or the disks are so small against it
                that their candidates would take more than `lattice_sites.MAX_PATTERN_BYTES` for a
                pattern.
        """
        radius = disk_radius_px(calibration)
        hk = lattice_sites.nodes(calibration, shape)
        if len(hk) == 0:
            raise InputError(
                f"the detector of {tuple(shape)} pixels shows no disk of the nominal lattice "
                f"beside the direct beam; expected the first ring on it: check the calibration"
            )
        nominal = torch.from_numpy(calibration.lattice_inv_A / calibration.pixel_size_inv_A).float()
        length = torch.linalg.vector_norm(hk.float() @ nominal.T, dim=-1)
        # Rings that stay on the detector towards its farther borders, whichever way they turn;
        # `at_sites` leaves out the sites that are off the detector.
        _, farthest = lattice_sites.border_distances_px(calibration.centre_px, shape)
        whole = length + radius <= min(farthest)
        hk = hk[whole] if whole.any() else hk[length < length.min() * 1.01]
        hk = lattice_sites.within_memory(hk, nominal, calibration.rotational_symmetry, radius)
        reach = float(torch.linalg.vector_norm(hk.float() @ nominal.T, dim=-1).max())
        ring = torch.nn.functional.one_hot(lattice_sites.rings(calibration, hk)).float()
        covered = float(ring[:, 0].sum()) * radius / (math.pi * float(length.min()))
        touching = covered > TOUCHING_COVER
        box_radius, between, of_between = lattice_sites.gaps(nominal, radius, reach, 0.0)
        # A candidate must meet what tells of it: a disk, or a gap as wide as two boxes or so.
        G, scales = lattice_sites.candidates(
            nominal,
            calibration.rotational_symmetry,
            GAP_BOXES * box_radius if touching else radius,
            reach,
        )
        turns = len(G) // scales
        step = 2 * math.pi / calibration.rotational_symmetry / turns
        gap_radius, gaps, gap_ring = lattice_sites.gaps(nominal, radius, reach, SOFT_PX)
        sites, line = hk.float(), lattice_sites.one_hot_lines(hk)
        dark = torch.zeros(ring.shape[1], dtype=torch.bool)
        own, other = lattice_sites.nearest_nodes(nominal, hk, step, turns)
        peak, strange = (
            second_lattice.overlap(away, radius).T @ ring / ring.sum(0)
            for away in (torch.minimum(own, other), other)
        )
        if touching:
            sites = torch.cat([sites, between])
            line = torch.nn.functional.pad(line, (0, 0, 0, len(between)))
            ring = torch.block_diag(ring, of_between)
            dark = torch.arange(ring.shape[1]) >= len(dark)
        else:
            box_radius = radius
        return cls(
            radius,
            G.to(device),
            box_radius,
            hk.to(device),
            sites.to(device),
            ring.to(device),
            dark.to(device),
            line.to(device),
            (torch.minimum(own, other) > BARE_RADII * radius).float().to(device),
            peak.to(device),
            strange.to(device),
            gap_radius,
            gaps.to(device),
            gap_ring.to(device),
            scales,
        )

    @property
    def turns(self) -> int:
        """How many turns the candidates have."""
        return len(self.G) // self.scales

    @property
    def step(self) -> float:
        """Angle in radians from one turn to the next."""
        turned = self.G[self.scales] @ torch.linalg.inv(self.G[0])
        return math.atan2(float(turned[1, 0]), float(turned[0, 0]))

    def other_boxes(self, patterns: Tensor, sums: Tensor, radius: float) -> Tensor:
        """`boxes` of a radius, which is `sums` where these are over the boxes of a disk."""
        return sums if radius == self.radius else boxes(patterns, radius)

    def count(self, beams: Beams, sums: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
        """Counts on the sites of each candidate about `centre` (B, 2) by ring (B, K, R), and how
        many of those sites tell something (B, K, R).
        """
        n, whole = at_sites(beams, sums, centre, self.G[None], self.sites)
        return (self.ring.T @ n).mT, (self.ring.T @ whole).mT

    def in_gaps(
        self, beams: Beams, sums: Tensor, centre: Tensor, G: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Box sums (B, P) in the gaps of lattices G (B, 2, 2) about `centre` (B, 2), and the share
        of each that tells something.
        """
        n, share = at_sites(beams, sums, centre, G[:, None], self.gaps)
        return n[..., 0], share[..., 0]

    def at_every_turn(self, on: Tensor, sites: Tensor, likeliest: Tensor) -> tuple[Tensor, Tensor]:
        """Of `on` and `sites` (B, K, R), those (B, T, R) at the scale of a candidate (B,)."""
        by_turn = (len(on), -1, self.scales, on.shape[-1])
        row, scale = torch.arange(len(on), device=on.device), likeliest % self.scales
        return on.reshape(by_turn)[row, :, scale], sites.reshape(by_turn)[row, :, scale]

    def around(self, on: Tensor, sites: Tensor) -> Tensor:
        """Mean box sum (B, scales, R) over all orientations at each scale: what lies at that
        distance from the beam.
        """
        by_scale = (len(on), -1, self.scales, on.shape[-1])
        return on.reshape(by_scale).sum(1) / sites.reshape(by_scale).sum(1).clamp_min(1)

    def even(self, sites: Tensor, around: Tensor) -> Tensor:
        """Counts m a, (B, K, R), that the sites would hold if the electrons were spread evenly
        round each ring.
        """
        return sites * around.repeat(1, self.turns, 1)

    def between(self, on: Tensor, sites: Tensor, likeliest: Tensor) -> Tensor:
        """Mean box sum (B, R) of each ring between the disks of the candidate `likeliest` (B,); the
        least mean over its orientations where disks leave no room.
        """
        R = on.shape[-1]
        on, sites = self.at_every_turn(on, sites, likeliest)
        turn = (likeliest // self.scales)[:, None] + torch.arange(on.shape[1], device=on.device)
        turn = (turn % on.shape[1])[..., None].expand(-1, -1, R)
        on, sites = on.gather(1, turn), sites.gather(1, turn)
        bare = torch.stack([self.bare[self.ring[:, r] > 0].amin(0) for r in range(R)], 1)
        free = (on * bare).sum(1) / (sites * bare).sum(1).clamp_min(1)
        least = torch.where(sites > 0, on / sites.clamp_min(0.5), torch.inf).amin(1)
        least = torch.where(least.isfinite(), least, 0)
        return torch.where((sites * bare).sum(1) > 0, free, least)


def boxes(patterns: Tensor, radius: float) -> Tensor:
    """Sums (B, Qy, Qx) over boxes of the area of a disk of `radius`."""
    return windows.piecewise(lambda piece: box_sums(piece, radius), patterns)


def box_at(sums: Tensor, at: Tensor) -> Tensor:
    """Box sums (B,) of `sums` (B, Qy, Qx) at places (B, 2)."""
    B, height, width = sums.shape
    x, y = at.round().long().unbind(-1)
    return sums[torch.arange(B, device=sums.device), y.clamp(0, height - 1), x.clamp(0, width - 1)]


def at_sites(
    beams: Beams, sums: Tensor, centre: Tensor, G: Tensor, hk: Tensor
) -> tuple[Tensor, Tensor]:
    """Box sums (B, S, K) at sites `hk` (S, 2) of lattices G (B or 1, K, 2, 2) about `centre`
    (B, 2), and the share of each that tells something.

    A site whose disk leaves the detector, or that is mostly bad, counts neither electrons nor as a
    site; one that is bad in part counts for the rest.
    """
    B, height, width = sums.shape
    offset = torch.einsum("bkij,sj->bisk", G, hk.to(G.dtype)).flatten(2)  # (B, 2, S K)
    x = (centre[:, 0, None] + offset[:, 0]).round_().clamp_(0, width - 1)
    y = (centre[:, 1, None] + offset[:, 1]).round_().clamp_(0, height - 1)
    flat = y.mul_(width).add_(x).long()
    n = sums.reshape(B, -1).gather(1, flat)
    whole = beams.share.flatten().expand(B, -1).gather(1, flat)
    by_site = (B, len(hk), -1)
    return (n * (whole > 0)).reshape(by_site), whole.reshape(by_site)
