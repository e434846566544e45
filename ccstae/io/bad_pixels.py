"""Bad pixels: those that tell nothing of the electrons that reach them, found or told.

A file may mark bad pixels itself, in `/mask` or as NaN. The commonest ones are found without that:

* **Marks.** Detectors write the largest number of their dtype into gaps and masked pixels, and
  negative numbers that are cast to an unsigned dtype wrap round to just below it. Such a number is
  a mark and no reading where its neighbours hold far less. Beside a saturated pixel they do not: a
  disk, smeared by the detector, falls off over pixels.
* **Wrapped noise.** Where pixels all over the detector wrap in some patterns and are near 0 in
  others, the negative numbers are brought back: they are readings.
* **Hot pixels** are brighter than the spread of a disk over pixels allows.
* **Dead pixels** are 0 in every pattern although the same disk is bright on both sides of them.
* **EMPAD's rows.** Frames of 130 x 128 pixels hold numbers of the camera in their last two rows.

Every test asks for what no disk of a radius of a pixel or more can look like, at a significance
that leaves less than one false alarm in a million scans. What is not so sure stays good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from ccstae.errors import InputError
from ccstae.io.stored import Correction, Patterns, slabs

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Noise of readout wraps pixels all over the detector; fewer that do so now and then may be damaged.
MIN_WRAPPED_PIXELS = 0.05
# A pixel that gives no reading in a larger share of the patterns is bad in all of them; in fewer,
# its readings are filled from the pixels around it in the same pattern.
MAX_FILLED_SHARE = 0.1
# With fewer good pixels, disks in two directions are not seen whole, or the mask is inverted.
MIN_GOOD_SHARE = 0.25
# A bad pixel is filled from so many of the good ones nearest to it: those of a single bad pixel
# surround it, and those in the middle of a gap of three pixels lie on both of its sides.
NEIGHBOURS = 12
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
# A disk with a radius of a pixel or more, wherever it lies, reaches at least three of the eight
# neighbours of each of its pixels with more than a fifth of that pixel's brightness.
HOT_RATIO = 5.0
HOT_NEIGHBOURS = 3
# Standard deviations by which a hot pixel exceeds that: for Gaussian noise, one false alarm in
# 1e9 pixels.
HOT_SIGNIFICANCE = 6.0
# Events that a dead pixel missed at least, as its neighbours tell: Poisson counts are 0 with the
# probability exp(-30) where half as many are expected.
DEAD_EVENTS = 60.0
# Beside a hidden region nine in ten pixels hold this many electrons in all patterns together.
# Beside what fades out most hold one or two, and beyond the soft edge of a disk, where counts fall
# by a factor of a thousand from pixel to pixel, four in ten hold more.
HIDDEN_EVENTS = 6.0
LIT_RIM = 0.9
MIN_HIDDEN_PIXELS = 9  # single ones may be noise about zero that was cut there
# ... and in each pattern: rounded expectations of less than a half are 0 in all patterns.
DEAD_EVENTS_PER_PATTERN = 1.0
# A dead pixel's neighbours are no tail of a disk, which falls by more from pixel to pixel: they
# reach this share of the brightest pixel within `TAIL_PX`.
MIN_OF_DISK = 1 / 5
TAIL_PX = 3
# Pixels of a row or column without any reading, across which a disk is seen, that tell a dead line.
MIN_CROSSED = 3
EMPAD_SHAPE, EMPAD_ROWS = (130, 128), 128
MEDIAN_OF_CHI2 = 0.455  # of one degree of freedom


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


@dataclass(frozen=True)
class BadPixels:
    """What of a scan of P patterns tells nothing."""

    good: Mask  # (Qy, Qx), where a pixel tells something
    numbers: dict[str, int]  # of bad pixels by what they were found by, and of readings filled
    some: Mask  # (P,), patterns that lack a few readings
    lost: Mask  # (P,), patterns that lack so many that they count as empty

    def taken_out(self, patterns: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
        """Patterns (n, Qy, Qx) at these places of the scan (n,), in place: 0 on bad pixels, missing
        readings filled from the pixels around.
        """
        patterns[self.lost[places]] = 0
        for index in np.flatnonzero(self.some[places]):
            _fill_gaps(patterns[index], ~self.good)
        if not self.good.all():
            patterns[:, ~self.good] = 0
        return patterns


def find(patterns: Patterns, masked: Mask, disks: Disks, where: str) -> BadPixels:
    """Find the bad pixels of a scan (module docstring).

    A pixel that gives no reading, NaN or a mark, in more than a tenth of the patterns is bad. Fewer
    missing readings are to be filled from the pixels around in the same pattern. A pattern in which
    more than three quarters are missing is empty.

    Args:
        patterns: (P, Qy, Qx), unsigned integers or float32 with NaN for no reading.
        masked: pixels known to be bad, (Qy, Qx).
        disks: of the patterns.
        where: names the file in messages.

    Raises:
        InputError: for infinities, and where less than a quarter of the pixels is good.
    """
    found = {"masked": masked}
    if masked.shape == EMPAD_SHAPE:
        found["rows of EMPAD's metadata"] = np.indices(masked.shape)[0] >= EMPAD_ROWS
    gaps = _gaps(patterns, _any(found), where)
    found["without a reading"] = gaps.missing > MAX_FILLED_SHARE * gaps.read
    found["holding the largest number of a narrower dtype"] = _narrow_marks(patterns, gaps.total)
    bad = _any(found)
    total = np.where(bad, 0, gaps.total * len(patterns) / (gaps.read - gaps.missing).clip(1))
    event, noise = _event_and_noise(patterns, bad | (gaps.missing > 0))
    found["dead"] = dead_pixels(patterns, total, bad, disks, event)
    found["behind a stop or in a gap"] = hidden_pixels(total, _any(found), event)
    found["hot"] = hot_pixels(total, _any(found), event, noise * len(patterns) ** 0.5)
    bad, numbers = _any(found), _numbers(found)
    if np.mean(~bad) < MIN_GOOD_SHARE:
        raise InputError(
            f"{where}: {np.mean(bad):.0%} of the pixels are bad ({words(numbers)}); expected at "
            f"most {1 - MIN_GOOD_SHARE:.0%}: /mask is nonzero on bad pixels"
        )
    filled = sum(
        int(_missing(pattern, bad).sum())
        for index in np.flatnonzero(gaps.some)
        for pattern in patterns[index : index + 1]
    )
    more = {"readings filled": filled, "patterns without readings": int(gaps.lost.sum())}
    numbers |= {name: number for name, number in more.items() if number}
    return BadPixels(~bad, numbers, gaps.some, gaps.lost)


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


def words(found: dict[str, int]) -> str:
    """What was found, for a message: "12 masked, 1 hot"."""
    return ", ".join(f"{number} {name}" for name, number in found.items())


def _any(found: dict[str, Mask]) -> Mask:
    return np.logical_or.reduce(list(found.values()))


def _numbers(found: dict[str, Mask]) -> dict[str, int]:
    """Pixels by what they were found by first."""
    numbers, before = {}, np.zeros_like(found["masked"])
    for name, pixels in found.items():
        numbers[name] = int((pixels & ~before).sum())
        before |= pixels
    return {name: number for name, number in numbers.items() if number}


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


def _gaps(patterns: Patterns, bad: Mask, where: str) -> Gaps:
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
            gaps = _missing(pattern, bad)
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


def _missing(pattern: NDArray[Any], bad: Mask) -> Mask:
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


def _narrow_marks(patterns: Patterns, total: Array) -> Mask:
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


def _standing_out(marks: Mask, image: Array, bad: Mask, top: float) -> Mask:
    """Those of the marked pixels (Qy, Qx) whose neighbours in the image hold far less."""
    label, number = ndimage.label(marks, np.ones((3, 3)))
    if number == 0:
        return marks
    index = np.arange(1, number + 1)
    rim = np.where(marks | bad, 0, ndimage.grey_dilation(label, (3, 3)))
    around = np.nan_to_num(np.asarray(ndimage.median(image, rim, index), float))
    beside = np.asarray(ndimage.maximum(brightness_beside(image, marks | bad), label, index))
    few = np.asarray(ndimage.sum_labels(marks, label, index)) <= FEW_PIXELS
    alone = np.where(few, beside < top / HOT_RATIO, around < top * MAX_RIM)
    return np.concatenate([[False], alone])[label]


def _event_and_noise(patterns: Patterns, bad: Mask) -> tuple[float, float]:
    """What one electron brings to a pixel, and the noise of a reading without electrons.

    The first is the variance over the mean of neighbouring pixels, and at least 1: of readings a
    and b, (a - b)^2 / (a + b) has the median of chi^2. The second is the root mean square of the
    negative readings.
    """
    sample = patterns[:: max(1, len(patterns) // 16)].astype(np.float64)
    pairs = ~(bad[:, 1:] | bad[:, :-1])
    a, b = sample[:, :, 1:][:, pairs], sample[:, :, :-1][:, pairs]
    counted = a + b > 0
    dispersion = (a - b)[counted] ** 2 / (a + b)[counted]
    event = float(np.median(dispersion)) / MEDIAN_OF_CHI2 if dispersion.size else 1.0
    negative = sample[:, ~bad]
    negative = negative[negative < 0]
    return max(1.0, event), float(np.sqrt(np.mean(negative**2))) if negative.size else 0.0


def hot_pixels(total: Array, bad: Mask, event: float, noise: float) -> Mask:
    """Pixels (Qy, Qx) that are brighter than their neighbours allow.

    Args:
        total: sum over the scan, (Qy, Qx).
        bad: pixels known to be bad, (Qy, Qx).
        event: what one electron brings to a pixel.
        noise: standard deviation of the sum without electrons.
    """
    hot = np.zeros_like(bad)
    while True:
        beside = brightness_beside(total, bad | hot)
        limit = HOT_RATIO * np.maximum(beside, _largest_beside_silence(total, bad | hot))
        variance = event * (total.clip(0) + HOT_RATIO * limit) + (1 + HOT_RATIO**2) * noise**2
        beyond = total - limit - HOT_SIGNIFICANCE * np.sqrt(variance)
        # Few events are no Gaussian.
        new = (beyond > HOT_SIGNIFICANCE**2 * event) & ~bad & ~hot
        if not new.any():
            return hot
        hot |= new


def _largest_beside_silence(total: Array, bad: Mask) -> Array:
    """The largest neighbour of each pixel (Qy, Qx) of which one side, and only one, counts nothing;
    0 for the others. A wide gap cuts disks there, and what is left may be one row of pixels.
    """
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    silent = np.zeros(total.shape, int)
    for turns in range(4):
        side = np.rot90(np.array([[1, 1, 1], [0, 0, 0], [0, 0, 0]], bool), turns)
        silent += ~ndimage.maximum_filter(total != 0, footprint=side)
    largest = ndimage.maximum_filter(np.where(bad, 0, total), footprint=ring)
    return np.where(silent == 1, largest, 0)


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
    bright = total >= MIN_OF_DISK * ndimage.maximum_filter(total, 2 * TAIL_PX + 1)
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
    label, number = ndimage.label((total == 0) & ~bad)
    lit = total >= HIDDEN_EVENTS * event
    hidden = np.zeros(number + 1, bool)
    for region, where in enumerate(ndimage.find_objects(label), start=1):
        around = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in where)
        inside = label[around] == region
        rim = ndimage.binary_dilation(inside) & ~inside & ~bad[around]
        large = inside.sum() >= MIN_HIDDEN_PIXELS
        hidden[region] = large and lit[around][rim].mean() >= LIT_RIM
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
    label, number = ndimage.label(empty, [[0, 0, 0], [1, 1, 1], [0, 0, 0]])
    index = np.arange(number + 1)
    length = np.asarray(ndimage.sum_labels(empty, label, index))
    crossings = np.asarray(ndimage.sum_labels(crossed, label, index))
    dead = (2 * length >= empty.shape[1]) & (crossings >= MIN_CROSSED)
    dead[0] = False
    return np.asarray(dead[label])


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


def _fill_gaps(pattern: NDArray[Any], bad: Mask) -> None:
    """Give readings that a pattern (Qy, Qx) lacks, beside bad pixels, the mean of the good ones
    near by, in place.
    """
    gaps = _missing(pattern, bad)
    index, weight = neighbours(~(bad | gaps), gaps)
    pattern[gaps] = _as(pattern.dtype, (pattern.ravel()[index] * weight).sum(1))


def _as(dtype: np.dtype[Any], numbers: Array) -> NDArray[Any]:
    """Numbers in the dtype of the counts, integers rounded."""
    return (np.rint(numbers) if dtype.kind == "u" else numbers).astype(dtype)


def neighbours(good: Mask, at: Mask) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The good pixels (Qy, Qx) nearest to each of the n pixels `at` (Qy, Qx).

    Returns:
        Their indices (n, k) in the flat image, and weights (n, k), which go as the inverse square
        of the distance and sum to 1.
    """
    places = np.argwhere(good)
    k = min(NEIGHBOURS, len(places))
    distance, nearest = cKDTree(places).query(np.argwhere(at), k)
    distance, nearest = (array.reshape(at.sum(), k) for array in (distance, nearest))
    weight = 1 / distance**2
    weight /= weight.sum(1, keepdims=True)
    return np.flatnonzero(good)[nearest], weight.astype(np.float32)
