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
import scipy
from numpy.typing import NDArray

from ccstae.errors import InputError
from ccstae.io import missing, silent_pixels
from ccstae.io.beside import HOT_RATIO, Array, Mask, brightness_beside, fill
from ccstae.io.stored import Patterns
from ccstae.machine.device import spread_over

# Standard deviations by which a hot pixel exceeds `HOT_RATIO` times what lies beside it: for
# Gaussian noise, one false alarm in 1e9 pixels.
HOT_SIGNIFICANCE = 6.0
EMPAD_SHAPE, EMPAD_ROWS = (130, 128), 128
MEDIAN_OF_CHI2 = 0.455  # of one degree of freedom


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
            fill(patterns[index], missing.missing_in(patterns[index], ~self.good), ~self.good)
        if not self.good.all():
            patterns[:, ~self.good] = 0
        return patterns


def find(patterns: Patterns, masked: Mask, disks: silent_pixels.Disks, where: str) -> BadPixels:
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
    gaps = missing.gaps(patterns, _any(found), where)
    found["without a reading"] = gaps.missing > missing.MAX_FILLED_SHARE * gaps.read
    found["holding the largest number of a narrower dtype"] = missing.narrow_marks(
        patterns, gaps.total
    )
    bad = _any(found)
    total = np.where(bad, 0, gaps.total * len(patterns) / (gaps.read - gaps.missing).clip(1))
    event, noise = _event_and_noise(patterns, bad | (gaps.missing > 0))
    found["dead"] = silent_pixels.dead_pixels(patterns, total, bad, disks, event)
    found["behind a stop or in a gap"] = silent_pixels.hidden_pixels(total, _any(found), event)
    found["hot"] = hot_pixels(total, _any(found), event, noise * len(patterns) ** 0.5)
    bad, numbers = _any(found), _numbers(found)
    if np.mean(~bad) < missing.MIN_GOOD_SHARE:
        raise InputError(
            f"{where}: {np.mean(bad):.0%} of the pixels are bad ({words(numbers)}); expected at "
            f"most {1 - missing.MIN_GOOD_SHARE:.0%}: /mask is nonzero on bad pixels"
        )
    filled = sum(
        int(missing.missing_in(pattern, bad).sum())
        for index in np.flatnonzero(gaps.some)
        for pattern in patterns[index : index + 1]
    )
    more = {"readings filled": filled, "patterns without readings": int(gaps.lost.sum())}
    numbers |= {name: number for name, number in more.items() if number}
    return BadPixels(~bad, numbers, gaps.some, gaps.lost)


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


def _event_and_noise(patterns: Patterns, bad: Mask) -> tuple[float, float]:
    """What one electron brings to a pixel, and the noise of a reading without electrons.

    The first is the variance over the mean of neighbouring pixels, and at least 1: of readings a
    and b, (a - b)^2 / (a + b) has the median of chi^2. The second is the root mean square of the
    negative readings.
    """
    sample = patterns[spread_over(len(patterns), 16)].astype(np.float64)
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
        silent += ~scipy.ndimage.maximum_filter(total != 0, footprint=side)
    largest = scipy.ndimage.maximum_filter(np.where(bad, 0, total), footprint=ring)
    return np.where(silent == 1, largest, 0)
