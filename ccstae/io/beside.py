"""What lies beside a pixel: how bright the pixels round it are, and what fills it from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# A bad pixel is filled from so many of the good ones nearest to it: those of a single bad pixel
# surround it, and those in the middle of a gap of three pixels lie on both of its sides.
NEIGHBOURS = 12
# A disk with a radius of a pixel or more, wherever it lies, reaches at least three of the eight
# neighbours of each of its pixels with more than a fifth of that pixel's brightness.
HOT_RATIO = 5.0
HOT_NEIGHBOURS = 3


def brightness_beside(image: Array, bad: Mask) -> Array:
    """What the neighbours of each pixel (Qy, Qx) hold of a disk that it lies on.

    That is the third largest of all eight, or the largest, where a border or bad pixels cut the
    disk. Of a disk that is cut twice, in a corner, one pixel may be all that is seen; it is held
    against the brightest pixel.
    """
    padded = np.pad(np.where(bad, -np.inf, image), 1, constant_values=-np.inf)
    height, width = image.shape
    around = np.stack(
        [
            padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if (dy, dx) != (0, 0)
        ]
    )
    around.sort(0)
    seen = np.isfinite(around).sum(0)
    brightest = np.sort(padded, None)[-2:]
    elsewhere = np.where(image < brightest[1], brightest[1], brightest[0])
    cut = np.where(seen > 3, around[-1], elsewhere)
    return np.where(seen == 8, around[-HOT_NEIGHBOURS], cut)


def filled(patterns: NDArray[Any], good: Mask) -> NDArray[Any]:
    """A copy of patterns (..., Qy, Qx) whose bad pixels hold what `neighbours` makes of the good
    ones (Qy, Qx); the patterns themselves where all are good.
    """
    if good.all():
        return patterns
    index, weight = neighbours(good, ~good)
    whole = patterns.copy()
    for pattern in whole.reshape(-1, *good.shape):
        pattern[~good] = _as(pattern.dtype, (pattern.ravel()[index] * weight).sum(1))
    return whole


def fill(pattern: NDArray[Any], gaps: Mask, bad: Mask) -> None:
    """Give readings that a pattern (Qy, Qx) lacks, beside bad pixels, the mean of the good ones
    near by, in place.
    """
    index, weight = neighbours(~(bad | gaps), gaps)
    pattern[gaps] = _as(pattern.dtype, (pattern.ravel()[index] * weight).sum(1))


def neighbours(good: Mask, at: Mask) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The good pixels (Qy, Qx) nearest to each of the n pixels `at` (Qy, Qx).

    Returns:
        Their indices (n, k) in the flat image, and weights (n, k), which go as the inverse square
        of the distance and sum to 1.
    """
    places = np.argwhere(good)
    k = min(NEIGHBOURS, len(places))
    distance, nearest = scipy.spatial.cKDTree(places).query(np.argwhere(at), k)
    distance, nearest = (array.reshape(at.sum(), k) for array in (distance, nearest))
    weight = 1 / distance**2
    weight /= weight.sum(1, keepdims=True)
    return np.flatnonzero(good)[nearest], weight.astype(np.float32)


def _as(dtype: np.dtype[Any], numbers: Array) -> NDArray[Any]:
    """Numbers in the dtype of the counts, integers rounded."""
    return (np.rint(numbers) if dtype.kind == "u" else numbers).astype(dtype)
