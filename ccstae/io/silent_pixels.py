"""Pixels that read nothing although electrons reach them: dead ones, and those behind a stop or in
a gap between chips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from ccstae.io.beside import Array, Mask
from ccstae.io.stored import Patterns, slabs

# Events that a dead pixel missed at least, as its neighbours tell: Poisson counts are 0 with the
# probability exp(-30) where half as many are expected.
DEAD_EVENTS = 60.0
# ... and in each pattern: rounded expectations of less than a half are 0 in all patterns.
DEAD_EVENTS_PER_PATTERN = 1.0
# Beside a hidden region nine in ten pixels hold this many electrons in all patterns together.
# Beside what fades out most hold one or two, and beyond the soft edge of a disk, where counts fall
# by a factor of a thousand from pixel to pixel, four in ten hold more.
HIDDEN_EVENTS = 6.0
LIT_RIM = 0.9
MIN_HIDDEN_PIXELS = 9  # single ones may be noise about zero that was cut there
# A dead pixel's neighbours are no tail of a disk, which falls by more from pixel to pixel: they
# reach this share of the brightest pixel within `TAIL_PX`.
MIN_OF_DISK = 1 / 5
TAIL_PX = 3
# Pixels of a row or column without any reading, across which a disk is seen, that tell a dead line.
MIN_CROSSED = 3


@dataclass(frozen=True)
class Disks:
    """What a pattern can show between two pixels: the radius of its disks, and how far apart the
    rims of two of them are at least, in pixels.
    """

    radius: float
    gap: float

    @property
    def widest_gap(self) -> int:
        """Pixels without reading across which one disk is seen, and never two: fewer than fit in a
        disk, and fewer than lie between two, whose rims take a pixel each, under 5 % of strain.
        """
        return int(min(2 * self.radius - 2, 0.95 * self.gap - 0.1 * self.radius - 3))


def dead_pixels(patterns: Patterns, total: Array, bad: Mask, disks: Disks, event: float) -> Mask:
    """Pixels (Qy, Qx) that are 0 in every pattern although a disk lies on them.

    They lie between bright pixels in all four directions, or on a line along the rows or the
    columns, of at least half the detector's side, that no pixel of reads anything and across which
    disks are seen.

    Args:
        patterns: (P, Qy, Qx).
        total: their sum, (Qy, Qx), 0 on bad pixels.
        bad: pixels known to be bad, (Qy, Qx).
        disks: of the patterns.
        event: what one electron brings to a pixel.
    """
    dead = np.zeros_like(bad)
    widest = disks.widest_gap
    empty = total == 0
    if patterns.dtype.kind == "f" and empty.any():
        empty &= ~np.any([(patterns[rows] != 0).any(0) for rows in slabs(patterns)], 0) | bad
    if widest < 1 or not (empty & ~bad).any():
        return dead
    bright = total >= MIN_OF_DISK * scipy.ndimage.maximum_filter(total, 2 * TAIL_PX + 1)
    least = max(DEAD_EVENTS * event, DEAD_EVENTS_PER_PATTERN * len(patterns))
    seen = {}
    for step in ((0, 1), (1, 0), (1, 1), (1, -1)):
        first, second = _sides(empty, step, widest)
        crossed = (first >= 0) & (second >= 0) & ~bad
        low = np.minimum(total.flat[first], total.flat[second])
        crossed &= bright.flat[first] & bright.flat[second] & (low >= least)
        # Both sides are bright in the same patterns: the same disk, not one that moved.
        if crossed.any():
            together = np.zeros(crossed.sum())
            for rows in slabs(patterns):
                chunk = patterns[rows].reshape(-1, total.size)
                pair = np.minimum(chunk[:, first[crossed]], chunk[:, second[crossed]])
                together += np.nansum(pair, 0, dtype=np.float64)
            crossed[crossed] = together >= least
        seen[step] = crossed
    dead |= np.logical_and.reduce(list(seen.values()))
    dead |= _lines(empty, seen[1, 0])
    dead |= _lines(empty.T, seen[0, 1].T).T
    return dead & ~bad


def hidden_pixels(total: Array, bad: Mask, event: float) -> Mask:
    """Pixels (Qy, Qx) of regions that read nothing in any pattern and end abruptly: behind a beam
    stop and its arm, or in a wide gap between chips.

    What electrons make falls off smoothly: a pixel beside an empty one holds a few counts, whatever
    lies further in. Beside a region that something hides, nine in ten of the pixels hold many.

    Args:
        total: sum of the patterns, (Qy, Qx), 0 on bad pixels.
        bad: pixels known to be bad, (Qy, Qx).
        event: what one electron brings to a pixel.
    """
    label, number = scipy.ndimage.label((total == 0) & ~bad)
    lit = total >= HIDDEN_EVENTS * event
    hidden = np.zeros(number + 1, bool)
    for region, where in enumerate(scipy.ndimage.find_objects(label), start=1):
        around = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in where)
        inside = label[around] == region
        rim = scipy.ndimage.binary_dilation(inside) & ~inside & ~bad[around]
        large = inside.sum() >= MIN_HIDDEN_PIXELS
        # A detector without an electron has no rim.
        hidden[region] = large and rim.any() and lit[around][rim].mean() >= LIT_RIM
    return np.asarray(hidden[label])


def _sides(
    empty: Mask, step: tuple[int, int], widest: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Flat indices (Qy, Qx) of the nearest pixels that are not empty, on either side of each empty
    one along `step` (y, x); -1 where more than `widest` empty ones lie between.
    """
    number = np.pad(np.arange(empty.size).reshape(empty.shape), widest, constant_values=-1)
    vacant = np.pad(empty, widest, constant_values=True)
    height, width = empty.shape
    sides, away = [], []
    for sign in (-1, 1):
        nearest, distance = np.full(empty.shape, -1), np.zeros(empty.shape, int)
        for k in range(1, widest + 1):
            y, x = widest + sign * k * step[0], widest + sign * k * step[1]
            window = slice(y, y + height), slice(x, x + width)
            new = empty & (nearest < 0) & ~vacant[window]
            nearest[new], distance[new] = number[window][new], k
        sides.append(nearest)
        away.append(distance)
    far = (sides[0] < 0) | (sides[1] < 0) | (away[0] + away[1] - 1 > widest)
    return np.where(far, -1, sides[0]), np.where(far, -1, sides[1])


def _lines(empty: Mask, crossed: Mask) -> Mask:
    """Pixels (Qy, Qx) on runs of empty ones along a row, half a side long or more, of which at
    least `MIN_CROSSED` are crossed.
    """
    label, number = scipy.ndimage.label(empty, [[0, 0, 0], [1, 1, 1], [0, 0, 0]])
    index = np.arange(number + 1)
    length = np.asarray(scipy.ndimage.sum_labels(empty, label, index))
    crossings = np.asarray(scipy.ndimage.sum_labels(crossed, label, index))
    dead = (2 * length >= empty.shape[1]) & (crossings >= MIN_CROSSED)
    dead[0] = False
    return np.asarray(dead[label])
