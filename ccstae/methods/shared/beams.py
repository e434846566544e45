"""Where the direct beam of each pattern is.

The direct beam is most often the brightest box of a pattern, and moves smoothly over a scan, as
descan does. So the brightest boxes of a sample of the scan are fitted with a plane over the scan by
least absolute distances, and a beam is looked for near that plane alone. What is brighter
elsewhere, such as a diffracted disk, is not taken for it. Which plane is right (of the brightest
boxes, or through the calibration's centre) is for the lattice to say: `SiteFinder` asks about which
of them a lattice is seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from ccstae.io.calibration import Calibration, disk_radius_px
from ccstae.io.counts import Counts
from ccstae.io.slips import nearest_px
from ccstae.methods.shared import windows

# A box with a smaller share of good pixels says nothing.
MIN_GOOD_SHARE = 0.5
# Patterns below which their beams do not give a plane of three numbers, nor do the brightest boxes
# of most say where the others' beams are.
MIN_PATTERNS = 12
# Share of the brightest boxes that must lie near one plane for it to be a plane of beams.
MIN_AGREEING = 0.5
_ROUNDS = 30  # of the reweighted fit of the plane; it is still to a hundredth of a pixel by then

Rows = slice | NDArray[np.int64]


@dataclass(frozen=True)
class Beams:
    """Where beams are expected over a scan, and which boxes of the detector tell something."""

    radius: float  # of a disk, pixels
    expected: Float[Tensor, "N 2"]  # beam of each pattern in scan order, x and y in pixels
    # how near to it a beam is looked for; infinite where the scan does not say, zero behind a stop
    reach_px: float
    good: Bool[Tensor, "Qy Qx"]  # pixels that tell something
    # Share of good pixels in the box at each pixel; 0 below a half, and where a disk there would
    # leave the detector.
    share: Float[Tensor, "Qy Qx"]

    @classmethod
    def anywhere(cls, calibration: Calibration, good: Tensor, patterns: int) -> Self:
        """The calibration's centre for every pattern of a scan, as a hint and no more.

        Args:
            calibration: of the instrument.
            good: pixels (Qy, Qx) that tell something, bool.
            patterns: how many the scan has.
        """
        radius = disk_radius_px(calibration)
        height, width = good.shape
        share = good_share(good, radius)
        rows = windows.within(torch.arange(height, device=good.device), radius, height)
        columns = windows.within(torch.arange(width, device=good.device), radius, width)
        nominal = torch.tensor(calibration.centre_px, device=good.device).float()
        return cls(
            radius,
            nominal.expand(patterns, 2),
            math.inf,
            good,
            torch.where((rows[:, None] & columns) & (share >= MIN_GOOD_SHARE), share, 0),
        )

    def near(self, expected: Tensor, reach_px: float) -> Self:
        """The same, to be looked for within `reach_px` of `expected` (N, 2)."""
        return replace(self, expected=expected, reach_px=reach_px)

    def brightest(self, sums: Tensor, rows: Rows, free: bool = False) -> tuple[Tensor, Tensor]:
        """The brightest box of each pattern that lies within reach of where its beam is expected.

        Args:
            sums: box sums (B, Qy, Qx) of the patterns.
            rows: their places in the scan, in scan order.
            free: whether any box will do.

        Returns:
            Pixels (B, 2), x and y, and their box sums (B,). A pattern that holds nothing within
            reach has its beam where it is expected.
        """
        if not self.good.all():
            share = good_share(self.good, self.radius)
            sums = torch.where(share >= MIN_GOOD_SHARE, sums / share.clamp_min(MIN_GOOD_SHARE), 0)
        pixel, value = _largest(sums)
        if free or math.isinf(self.reach_px):
            return pixel, value
        expected = self.expected[rows]
        away = (torch.linalg.vector_norm(pixel - expected, dim=-1) > self.reach_px).nonzero()[:, 0]
        if len(away):
            height, width = sums.shape[-2:]
            dx = torch.arange(width, device=sums.device) - expected[away, 0, None]
            dy = torch.arange(height, device=sums.device) - expected[away, 1, None]
            far = dx[:, None, :] ** 2 + dy[:, :, None] ** 2 > self.reach_px**2
            inside, most = _largest(sums[away].masked_fill(far, 0))
            pixel[away] = torch.where(most[:, None] > 0, inside, expected[away])
            value[away] = most
        return pixel, value

    def centres(self, patterns: Tensor, pixel: Tensor, iterations: int = 3) -> Tensor:
        """Centre of mass in a round window of 1.5 radii that follows it.

        Args:
            patterns: counts (B, Qy, Qx).
            pixel: where the windows begin, (B, 2).
            iterations: how often the window follows the centre of mass.

        Returns:
            Centres (B, 2), x and y in pixels. A bad pixel takes the value of the one opposite. A
            beam that is looked for nowhere else stays where it is expected.
        """
        centre = pixel.to(patterns.dtype)
        if self.reach_px == 0:
            return centre
        reach = 1.5 * self.radius
        half = math.ceil(reach) + 1
        whole = bool(self.good.all())
        for _ in range(iterations):
            values, dx, dy = windows.cut(patterns, centre[:, None], half)
            if not whole:
                good = self.good.to(patterns.dtype).expand(len(patterns), -1, -1)
                told, _, _ = windows.cut(good, centre[:, None], half)
                values = torch.where(told > 0, values, values.flip((-1, -2)))
            weight = values * (reach + 0.5 - (dx**2 + dy**2).sqrt()).clamp(0, 1)
            mass = weight.sum((-1, -2)).clamp_min(torch.finfo(weight.dtype).tiny)
            step_x, step_y = (weight * dx).sum((-1, -2)) / mass, (weight * dy).sum((-1, -2)) / mass
            centre = centre + torch.cat([step_x, step_y], -1)
        return centre


def direct_beam(patterns: Tensor, sums: Tensor, radius: float) -> Tensor:
    """Centres (B, 2) of the brightest boxes of patterns (B, Qy, Qx), whose box sums are `sums`."""
    good = torch.ones(patterns.shape[1:], dtype=torch.bool, device=patterns.device)
    beams = Beams(radius, torch.zeros(len(patterns), 2), math.inf, good, good.to(patterns.dtype))
    return beams.centres(patterns, beams.brightest(sums, slice(None))[0])


def reach_px(calibration: Calibration) -> float:
    """How far a beam may be from where it is expected: half the way to the nearest node, so that no
    other disk is nearer.
    """
    return max(nearest_px(calibration) / 2, disk_radius_px(calibration))


def plane(counts: Counts, rows: NDArray[np.int64], places: Tensor) -> Tensor:
    """The plane over a scan that has the least absolute distances from beams of some patterns.

    Args:
        counts: the scan.
        rows: those patterns, in scan order.
        places: their beams (n, 2).

    Returns:
        Beams (N, 2) of all patterns on the plane; the same for all where few patterns teach it.
    """
    scan = counts.scan
    at = np.stack(np.unravel_index(np.arange(scan[0] * scan[1]), scan), -1) / np.array(scan) - 0.5
    design = np.concatenate([np.ones((len(at), 1)), at], 1)
    design = design if len(rows) >= MIN_PATTERNS else design[:, :1]
    beams = places.cpu().double().numpy()
    fitted = np.broadcast_to(np.median(beams, 0), beams.shape)
    coefficients = np.zeros((design.shape[1], 2))
    coefficients[0] = fitted[0]
    for _ in range(_ROUNDS if design.shape[1] > 1 else 0):
        distance = np.linalg.norm(beams - fitted, axis=1)
        weight = np.sqrt(1 / np.maximum(distance, 0.1))[:, None]
        coefficients = np.linalg.lstsq(design[rows] * weight, beams * weight, rcond=None)[0]
        fitted = design[rows] @ coefficients
    return torch.from_numpy(design @ coefficients).float().to(places.device)


def good_share(good: Tensor, radius: float) -> Tensor:
    """Share (Qy, Qx) of good pixels in the box at each pixel, of those on the detector."""
    pixels = torch.stack([good, torch.ones_like(good)]).float()
    inside, all_of_them = box_sums(pixels, radius)
    return inside / all_of_them


def half_box(radius: float) -> int:
    """Pixels to either side of the middle one of the box nearest in area to a disk of `radius`."""
    return round((radius * math.sqrt(math.pi) - 1) / 2)


def box_sums(patterns: Tensor, radius: float) -> Tensor:
    """Sums (B, Qy, Qx) of patterns over the odd square box nearest in area to a disk, centred on
    each pixel; the pattern is zero outside the detector.
    """
    half = half_box(radius)
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


def _largest(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel (B, 2), x and y, of the largest of sums (B, Qy, Qx), and its value (B,)."""
    row = sums.amax(-1).argmax(-1)
    along = sums[torch.arange(len(sums), device=sums.device), row]
    column = along.argmax(-1)
    return torch.stack([column, row], -1).float(), along.amax(-1)
