"""What the authors set by eye or took from another program, here found from the counts without
labels.

* The centre of each pattern is the direct beam's centre of mass.
* Orientation and scale of each pattern are those of the site finder, rough and modulo the symmetry
  of the lattice. The authors took initial orientations from py4DSTEM and rotation offsets by hand.
* The ring is the one that says most of strain: the brightest in intensity times squared radius
  among those that fit on the detector. The dictionary's spots stand there, at the nominal
  orientation and the mean scale of the scan.
* Brightness is counted in units of the spots' mean, so that thresholds need no change from one
  noise level to the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ccstae import geometry
from ccstae.io.calibration import disk_radius_px
from ccstae.io.counts import Counts
from ccstae.methods.ccstae_2023.network import rotation
from ccstae.methods.shared import beams, lattice_sites, sites, windows
from ccstae.methods.shared.filled import filler

_TURNS = 12  # orientations tried for what lies between the spots


@dataclass(frozen=True)
class Masks:
    """The masks, and what is known of each of N patterns beforehand."""

    centre: Float[Tensor, "N 2"]  # direct beam, pixels
    angle: Float[Tensor, " N"]  # rough orientation from the nominal lattice, radians
    has_lattice: Bool[Tensor, " N"]
    scale: float  # of the dictionary's lattice over the nominal one, in reciprocal space
    spots: Float[Tensor, "K 2"]  # pixels from the centre
    radius: float  # of a disk, pixels
    unit: float  # counts per pixel of a mean spot


def find_masks(counts: Counts, side: int, device: str) -> Masks:
    """Masks for a scan.

    Args:
        counts: patterns (Ry, Rx, Qy, Qx) and calibration.
        side: of the dictionary's pictures, pixels.
        device: "cpu" or "cuda".

    Returns:
        The masks; without spots where no pattern holds a lattice.
    """
    calibration, shape = counts.calibration, counts.detector
    finder = sites.SiteFinder.learn(counts, device)

    def locate(patterns: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        rough = finder.locate(patterns, rows)
        return rough.centre, rough.G, rough.has_lattice

    centre, G, has_lattice = windows.over_scan(locate, counts.patterns, device)
    nominal = calibration.lattice_inv_A / calibration.pixel_size_inv_A
    M = G.double().cpu().numpy() @ np.linalg.inv(nominal)
    angle = torch.from_numpy(geometry.polar(M)[1]).float().to(device)
    radius = disk_radius_px(calibration)
    if not has_lattice.any():
        return Masks(centre, angle, has_lattice, 1.0, centre.new_zeros(0, 2), radius, 1.0)
    scale = float(np.sqrt(np.linalg.det(M[has_lattice.cpu().numpy()])).mean())
    nearest, _ = lattice_sites.border_distances_px(calibration.centre_px, shape)
    reach = min(*nearest, side / 2)
    hk, unit = _brightest_ring(counts, centre, G, has_lattice, reach)
    spots = torch.from_numpy(scale * hk.numpy() @ nominal.T).float().to(device)
    return Masks(centre, angle, has_lattice, scale, spots, radius, unit)


def _brightest_ring(
    counts: Counts, centre: Tensor, G: Tensor, has_lattice: Tensor, reach: float
) -> tuple[Tensor, float]:
    """The ring with the largest intensity times squared radius.

    Args:
        counts: the scan.
        centre: direct beams (N, 2) of its patterns.
        G: rough lattices (N, 2, 2).
        has_lattice: which patterns have one, (N,), bool; the others take no part.
        reach: distance from the beam in which a ring and its disks must lie, pixels. The first ring
            need not.

    Returns:
        Nodes (K, 2) of the ring, and counts per pixel of its spots.
    """
    calibration, (height, width) = counts.calibration, counts.detector
    filled = filler(counts.good, str(G.device))
    radius = disk_radius_px(calibration)
    hk = lattice_sites.nodes(calibration, counts.detector)
    ring = lattice_sites.rings(calibration, hk)
    length_inv_A = np.linalg.norm(hk.numpy() @ calibration.lattice_inv_A.T, axis=1)
    length = length_inv_A / calibration.pixel_size_inv_A
    period = 2 * math.pi / calibration.rotational_symmetry
    turns = rotation(torch.arange(_TURNS, device=G.device) * (period / _TURNS))
    total = torch.zeros(_TURNS, len(hk), device=G.device)
    for rows, chunk in windows.chunks(counts.patterns, G.device.type):
        use = has_lattice[rows]
        sums = beams.box_sums(filled(chunk[use]), radius).flatten(1)
        offset = torch.einsum("tij,bjk,sk->btsi", turns, G[rows][use], hk.to(G))
        at = (centre[rows][use][:, None, None] + offset).round().long()
        index = at[..., 1].clamp(0, height - 1) * width + at[..., 0].clamp(0, width - 1)
        total += sums.gather(1, index.flatten(1)).reshape(index.shape).sum(0)
    best, most, brightness = hk[ring == 0], -math.inf, 0.0
    box_area = float((2 * round((radius * math.sqrt(math.pi) - 1) / 2) + 1) ** 2)
    for k in range(int(ring.max()) + 1):
        on_ring = ring == k
        r = float(length[on_ring.numpy()].mean())
        if k > 0 and r + radius > reach:
            continue
        by_turn = total[:, on_ring.to(total.device)].mean(1) / int(has_lattice.sum())
        above = float(by_turn[0] - by_turn.min()) / box_area
        if above * r**2 > most:
            best, most, brightness = hk[on_ring], above * r**2, above
    return best, max(brightness, 1e-9)
