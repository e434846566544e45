"""Bad pixels: those that tell nothing of the electrons that reach them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ccstae.errors import InputError

# A pixel that gives no reading in a larger share of the patterns is bad in all of them; in fewer,
# its readings are filled from the pixels around it in the same pattern.
MAX_FILLED_SHARE = 0.1
# With fewer good pixels, disks in two directions are not seen whole, or the mask is inverted.
MIN_GOOD_SHARE = 0.25
# A bad pixel is filled from so many of the good ones nearest to it: those of a single bad pixel
# surround it, and those in the middle of a gap of three pixels lie on both of its sides.
NEIGHBOURS = 12


def take_out(
    counts: NDArray[Any], masked: NDArray[np.bool_], where: str
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Find the bad pixels of a scan and set them to 0, in place.

    A pixel is bad where it is masked, or gives no reading (NaN) in more than a tenth of the
    patterns. Fewer missing readings are filled, in place, from the pixels around in the same
    pattern.

    Args:
        counts: patterns (Ry, Rx, Qy, Qx), unsigned integers or float32 with NaN for no reading.
        masked: pixels known to be bad, (Qy, Qx).
        where: names the file in messages.

    Returns:
        Where a pixel tells something, (Qy, Qx), and how many pixels are bad by what they were found
        by.

    Raises:
        InputError: for infinities, and where less than a quarter of the pixels is good.
    """
    patterns = counts.reshape(-1, *counts.shape[2:])
    missing = np.zeros(masked.shape, int)
    if patterns.dtype.kind == "f":
        for pattern in patterns:
            if np.isinf(pattern).any():
                raise InputError(
                    f"{where}: /counts holds infinities, or numbers beyond those of float32; "
                    f"expected electrons, or NaN where a pixel gives no reading"
                )
            missing += np.isnan(pattern)
    bad = masked | (missing > MAX_FILLED_SHARE * len(patterns))
    if np.mean(~bad) < MIN_GOOD_SHARE:
        raise InputError(
            f"{where}: {np.mean(bad):.0%} of the pixels are bad (marked in /mask, or without a "
            f"reading); expected at most {1 - MIN_GOOD_SHARE:.0%}: /mask is nonzero on bad pixels"
        )
    found = {
        "masked": int(masked.sum()),
        "no reading": int((bad & ~masked).sum()),
        "readings filled": int(missing[~bad].sum()),
    }
    if bad.any():
        patterns[:, bad] = 0
    if found["readings filled"]:
        for pattern in patterns:
            gaps = np.isnan(pattern)
            if gaps.any():
                fill(pattern, ~(bad | gaps), gaps)
    return ~bad, {name: number for name, number in found.items() if number}


def fill(image: NDArray[Any], good: NDArray[np.bool_], at: NDArray[np.bool_]) -> None:
    """Give the pixels `at` of an image (Qy, Qx) the mean of the good ones near by, in place."""
    index, weight = neighbours(good, at)
    filled = (image.ravel()[index] * weight).sum(1)
    image[at] = np.rint(filled) if image.dtype.kind == "u" else filled


def neighbours(
    good: NDArray[np.bool_], at: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The good pixels (Qy, Qx) nearest to each of the n pixels `at` (Qy, Qx).

    Returns:
        Their indices (n, k) in the flat image, and weights (n, k), which go as the inverse square
        of the distance and sum to 1.
    """
    places = np.argwhere(good)
    distance, nearest = cKDTree(places).query(np.argwhere(at), min(NEIGHBOURS, len(places)))
    distance, nearest = distance.reshape(at.sum(), -1), nearest.reshape(at.sum(), -1)
    weight = 1 / distance**2
    weight /= weight.sum(1, keepdims=True)
    return np.flatnonzero(good)[nearest], weight.astype(np.float32)
