"""Readings that are none: marks of a dtype, NaN, and negative numbers that an unsigned dtype
wrapped round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from ccstae.errors import InputError
from ccstae.io.beside import HOT_RATIO, Array, Mask, brightness_beside
from ccstae.io.stored import Correction, Patterns, slabs

# Noise of readout wraps pixels all over the detector; fewer that do so now and then may be damaged.
MIN_WRAPPED_PIXELS = 0.05
# A pixel that gives no reading in a larger share of the patterns is bad in all of them; in fewer,
# its readings are filled from the pixels around it in the same pattern.
MAX_FILLED_SHARE = 0.1
# With fewer good pixels, disks in two directions are not seen whole, or the mask is inverted.
MIN_GOOD_SHARE = 0.25
# Numbers that mark a pixel also where the dtype is wider than the detector's.
MARKS = (2**16 - 1, 2**32 - 1)
# Wrapped negative numbers fill this share of a dtype's range below its largest number: the noise of
# readout reaches down to -1000 at most in 16 bits.
WRAPPED_SHARE = 1 / 64
# Median of the pixels around marked ones, as a share of the mark. A disk of ten times the
# brightness at which the detector saturates has an edge, smeared by half a pixel or more, whose
# first unsaturated pixels hold 0.05 of that and more. A few saturated pixels are the top of a disk,
# and are held against what hot pixels are.
MAX_RIM = 1 / 50
FEW_PIXELS = 4


def unwrapping(patterns: Patterns) -> tuple[Correction | None, dict[str, int]]:
    """What brings back readings below 0 that an unsigned dtype wrapped round.

    Noise of readout about 0 wraps pixels in some patterns and leaves them near 0 in others, all
    over the detector. No mask does either.

    Args:
        patterns: (P, Qy, Qx).

    Returns:
        The correction, to float32, and how many readings were wrapped; None where no twentieth of
        the pixels is so.
    """
    if patterns.dtype.kind != "u":
        return None, {}
    tops = _tops(patterns.dtype)
    wrapped, small = np.zeros((2, len(tops), *patterns.shape[1:]), int)
    for rows in slabs(patterns):
        slab = patterns[rows]
        largest = slab.max()
        for index, top in enumerate(tops):
            if largest >= _lowest_mark(top):
                wrapped[index] += ((slab >= _lowest_mark(top)) & (slab <= top)).sum(0)
                small[index] += (slab <= top - _lowest_mark(top)).sum(0)
    for index, top in enumerate(tops):
        share = wrapped[index] / len(patterns)
        now_and_then = (share > MAX_FILLED_SHARE) & (share < 1 - MAX_FILLED_SHARE)
        noisy = now_and_then & (wrapped[index] + small[index] == len(patterns))
        if noisy.mean() > MIN_WRAPPED_PIXELS:
            return (
                _unwrap(top, share < 1),
                {"negative readings, wrapped": int(wrapped[index][share < 1].sum())},
            )
    return None, {}


def _unwrap(top: int, now_and_then: Mask) -> Correction:
    """What brings back readings just below `top`, of pixels (Qy, Qx) that wrap now and then."""

    def correct(patterns: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
        floats = patterns.astype(np.float32)
        below = (patterns >= _lowest_mark(top)) & (patterns <= top) & now_and_then
        floats[below] -= np.float32(top + 1)
        return floats

    return correct


@dataclass(frozen=True)
class Gaps:
    """Readings that are missing in P patterns."""

    missing: NDArray[np.int64]  # (Qy, Qx), in how many patterns a pixel gives no reading
    total: Array  # (Qy, Qx), sum of the readings; 0 on bad pixels
    some: Mask  # (P,), patterns that lack a few
    lost: Mask  # (P,), patterns that lack so many that they count as empty, and not as missing

    @property
    def read(self) -> int:
        """Number of patterns that are not lost."""
        return int((~self.lost).sum())


def gaps(patterns: Patterns, bad: Mask, where: str) -> Gaps:
    """What is missing in patterns (P, Qy, Qx) beside pixels known to be bad (Qy, Qx).

    InputError for infinities.
    """
    missing, total = np.zeros(bad.shape, np.int64), np.zeros(bad.shape)
    some, lost = np.zeros((2, len(patterns)), bool)
    for rows in slabs(patterns):
        chunk = patterns[rows]
        if not _marks(chunk).any():
            total += chunk.sum(0, dtype=np.float64)
            continue
        if chunk.dtype.kind == "f" and np.isinf(chunk[:, ~bad]).any():
            raise InputError(
                f"{where}: /counts holds infinities, or numbers beyond those of float32; expected "
                f"electrons, or NaN where a pixel gives no reading"
            )
        for index, pattern in enumerate(chunk, rows.start):
            gaps = missing_in(pattern, bad)
            lost[index] = gaps.sum() > (1 - MIN_GOOD_SHARE) * (~bad).sum()
            if not lost[index]:
                some[index] = gaps.any()
                missing += gaps
                total += np.where(gaps | bad, 0, pattern)
    if lost.all():
        raise InputError(
            f"{where}: more than {1 - MIN_GOOD_SHARE:.0%} of the pixels give no reading in any "
            f"pattern; expected electrons"
        )
    return Gaps(missing, np.where(bad, 0, total), some, lost)


def narrow_marks(patterns: Patterns, total: Array) -> Mask:
    """Pixels (Qy, Qx) that hold the largest number of a narrower dtype in every pattern."""
    found = np.zeros(total.shape, bool)
    kind = patterns.dtype
    for number in _tops(kind):
        mark = float(kind.type(number))
        always = total == mark * len(patterns)
        if always.any():
            held = [(patterns[rows][:, always] == mark).all(0) for rows in slabs(patterns)]
            always[always] = np.logical_and.reduce(held)
        found |= _standing_out(always, total / len(patterns), found, mark)
    return found


def missing_in(pattern: NDArray[Any], bad: Mask) -> Mask:
    """Where a pattern (Qy, Qx) gives no reading, pixels left out that are bad anyway."""
    missing = ~np.isfinite(pattern)
    for top in _tops(pattern.dtype):
        marks = (pattern >= _lowest_mark(top)) & (pattern <= top)
        if not marks.any():
            continue
        if pattern.dtype.kind == "u" and top == np.iinfo(pattern.dtype).max:
            missing |= _standing_out(marks, pattern, bad, top)
        else:  # may be counts, which never rise so high above their neighbours
            image = np.where(missing, 0, pattern).astype(np.float64)
            missing |= marks & (image > HOT_RATIO * brightness_beside(image, bad | missing))
    return missing & ~bad


def _standing_out(marks: Mask, image: Array, bad: Mask, top: float) -> Mask:
    """Those of the marked pixels (Qy, Qx) whose neighbours in the image hold far less."""
    label, number = scipy.ndimage.label(marks, np.ones((3, 3)))
    if number == 0:
        return marks
    index = np.arange(1, number + 1)
    rim = np.where(marks | bad, 0, scipy.ndimage.grey_dilation(label, (3, 3)))
    around = np.nan_to_num(np.asarray(scipy.ndimage.median(image, rim, index), float))
    beside = np.asarray(scipy.ndimage.maximum(brightness_beside(image, marks | bad), label, index))
    few = np.asarray(scipy.ndimage.sum_labels(marks, label, index)) <= FEW_PIXELS
    alone = np.where(few, beside < top / HOT_RATIO, around < top * MAX_RIM)
    return np.concatenate([[False], alone])[label]


def _marks(readings: NDArray[Any]) -> Mask:
    """Readings that may be none: not finite, or next to the largest number of a dtype."""
    marks = np.zeros(readings.shape, bool)
    if readings.dtype.kind == "f":
        marks = ~np.isfinite(readings)
    for top in _tops(readings.dtype):
        marks |= (readings >= _lowest_mark(top)) & (readings <= top)
    return marks


def _tops(dtype: np.dtype[Any]) -> list[int]:
    """The largest number of an unsigned dtype and of those that are narrower; for floats, of those
    that detectors have.
    """
    widest = int(np.iinfo(dtype).max) if dtype.kind == "u" else max(MARKS)
    return sorted({number for number in (*MARKS, widest) if number <= widest})


def _lowest_mark(top: int) -> int:
    return top - int(top * WRAPPED_SHARE)
