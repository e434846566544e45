"""What the authors set by eye or took from another program, found from the counts without labels.

* The centre of each pattern is the direct beam's centre of mass.
* Orientation and scale of each pattern are those of the site finder, rough and modulo the lattice's
  symmetry; the authors took initial orientations from py4DSTEM and rotation offsets by hand.
* The ring is the one that says most of strain: brightest in intensity times squared radius among
  those that fit on the detector. The dictionary's spots stand there at the nominal orientation and
  the scan's mean scale.
* Brightness is counted in units of the spots' mean, so that thresholds need no change from one
  noise level to the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ccstae import geometry
from ccstae.io.store import Counts
from ccstae.methods.ccstae_2023.network import rotation
from ccstae.methods.shared import sites, windows

_TURNS = 12  # orientations tried for what lies between the spots


@dataclass(frozen=True)
class Masks:
    """The masks, and what is known of each of N patterns beforehand."""

    centre: Tensor  # (N, 2), direct beam, pixels
    angle: Tensor  # (N,), rough orientation from the nominal lattice, radians
    found: Tensor  # (N,), bool: there is a lattice
    scale: float  # of the dictionary's lattice over the nominal one, in reciprocal space
    spots: Tensor  # (K, 2), pixels from the centre
    radius: float  # of a disk, pixels
    unit: float  # counts per pixel of a mean spot


def find(counts: Counts, side: int, device: str) -> Masks:
    """Masks for the counts of a scan and a dictionary of `side` pixels; no spots where no pattern
    holds a lattice.
    """
    calibration, shape = counts.calibration, counts.counts.shape
    finder = sites.SiteFinder.learn(counts, device)

    def located(patterns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rough = finder.locate(patterns)
        return rough.centre, rough.G, rough.found

    centre, G, found = windows.over_scan(located, counts.counts, device)
    nominal = calibration.lattice_inv_A / calibration.pixel_size_inv_A
    M = G.double().cpu().numpy() @ np.linalg.inv(nominal)
    angle = torch.from_numpy(geometry.polar(M)[1]).float().to(device)
    radius = sites.disk_radius_px(calibration)
    if not found.any():
        return Masks(centre, angle, found, 1.0, centre.new_zeros(0, 2), radius, 1.0)
    scale = float(np.sqrt(np.linalg.det(M[found.cpu().numpy()])).mean())
    nearest, _ = sites.border_distances_px(calibration.centre_px, shape)
    hk, unit = _brightest_ring(counts, centre, G, found, min(*nearest, side / 2))
    spots = torch.from_numpy(scale * hk.numpy() @ nominal.T).float().to(device)
    return Masks(centre, angle, found, scale, spots, radius, unit)


def _brightest_ring(
    counts: Counts, centre: Tensor, G: Tensor, found: Tensor, reach: float
) -> tuple[Tensor, float]:
    """Nodes (K, 2) of the ring with the largest intensity times squared radius, and counts per
    pixel of its spots; of rings within `reach` pixels of the beam.
    """
    calibration, shape = counts.calibration, counts.counts.shape
    patterns = counts.counts.reshape(-1, *shape[2:])
    radius = sites.disk_radius_px(calibration)
    hk = sites.nodes(calibration, shape)
    ring = sites.rings(calibration, hk)
    length = (
        np.linalg.norm(hk.numpy() @ calibration.lattice_inv_A.T, axis=1)
        / calibration.pixel_size_inv_A
    )
    turns = torch.arange(_TURNS, device=G.device) * (
        2 * math.pi / calibration.rotational_symmetry / _TURNS
    )
    total = torch.zeros(_TURNS, len(hk), device=G.device)
    for where, chunk in windows.chunks(patterns, str(G.device)):
        keep = found[where]
        sums = sites.box_sums(chunk[keep], radius).flatten(1)
        at = centre[where][keep][:, None, None] + torch.einsum(
            "tij,bjk,sk->btsi", rotation(turns), G[where][keep], hk.to(G)
        )
        at = at.round().long()
        index = at[..., 1].clamp(0, shape[2] - 1) * shape[3] + at[..., 0].clamp(0, shape[3] - 1)
        total += sums.gather(1, index.flatten(1)).reshape(index.shape).sum(0)
    best, most, brightness = hk[ring == 0], -math.inf, 0.0
    area = float((2 * round((radius * math.sqrt(math.pi) - 1) / 2) + 1) ** 2)
    for k in range(int(ring.max()) + 1):
        on = ring == k
        r = float(length[on.numpy()].mean())
        if k > 0 and r + radius > reach:
            continue
        by_turn = total[:, on.to(total.device)].mean(1) / int(found.sum())
        above = float(by_turn[0] - by_turn.min()) / area
        if above * r**2 > most:
            best, most, brightness = hk[on], above * r**2, above
    return best, max(brightness, 1e-9)
