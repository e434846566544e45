"""Gain and pedestal of a detector, from a scan of any specimen.

A pixel that N electrons reach reads u = p + N / k + noise: p is the pedestal in units of the file,
k the electrons per unit. N obeys Poisson's law, so that over the pixels of a detector

    var u = sigma^2 + (mean u - p) / k.

The variance is that of second differences along the rows of the scan, (u1 - 2 u2 + u3)^2 / 6: what
changes evenly from position to position does not count. What changes faster, as at the rim of a
disk that moves, adds the square of a change, which goes as the square of the signal. So a square
term is fitted beside the straight line, and pixels above it are left out.

The line tells p but for sigma^2 k. Pixels that most often get no electron tell it by themselves:
half of their readings and more lie in one peak, at p.

Janesick, Photon Transfer, SPIE Press (2007). Where electrons are shared by neighbouring pixels,
these are not independent, and k is told too large.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]

# Second differences of a pixel: with fewer, its variance is known to less than a sixth.
MIN_DIFFERENCES = 100
MIN_PIXELS = 200  # that nothing but noise moves
# The brightest of these pixels vary by so many times what the darkest do: readout alone has no
# slope.
MIN_RISE = 1.5
# Variances above this many standard deviations are of pixels that more than noise moves. None is
# left out below, so that a line that begins too high comes down.
MAX_DEVIATIONS = 3.0
# ... which says little of a pixel that fewer electrons reach: its variance is so skew that leaving
# out the largest would change the mean.
MIN_EVENTS = 200.0
_ROUNDS = 12
_BINS = 24
_DARKEST = 0.02  # share of the pixels that may most often get no electron
# Of the peak at the pedestal, in electrons: it is told from that of one electron below this.
MAX_PEAK_WIDTH = 0.25
# What the peak leaves must be what Poisson's law leaves, to this share of the readings.
PEAK_TOLERANCE = 0.08
# A unit that is so nearly an electron is one, of a detector that counts.
COUNTING_TOLERANCE = 0.1


@dataclass(frozen=True)
class DetectorGain:
    """Of a detector, as photon transfer tells them."""

    electrons_per_unit: float
    pedestal: float  # in units of the file
    pixels: int  # that told it
    peak: bool  # whether the pedestal is seen, and not only the line's crossing

    @property
    def counting(self) -> bool:
        """Whether a unit is an electron, and none stand for no electron."""
        return (
            abs(self.electrons_per_unit - 1) < COUNTING_TOLERANCE
            and abs(self.pedestal) < COUNTING_TOLERANCE
        )


def measure(lines: Iterable[NDArray[Any]]) -> DetectorGain | str:
    """Gain and pedestal.

    Args:
        lines: readings (positions, Qy, Qx) at consecutive positions of a row; NaN for none. Each is
            a row of the scan, or part of one.

    Returns:
        What was found, or why nothing could be.
    """
    mean, variance, number, dark = _statistics(lines)
    used = (number >= MIN_DIFFERENCES) & (variance > 0)
    if used.sum() < MIN_PIXELS:
        return (
            f"{int(used.sum())} pixels vary over {MIN_DIFFERENCES} positions or more; "
            f"{MIN_PIXELS} would tell"
        )
    mean, variance, number = mean[used], variance[used], number[used]
    lowest = float(np.quantile(mean, 0.02))
    (floor, slope, _), good = _line(mean - lowest, variance, number)
    if good.sum() < MIN_PIXELS:
        return "more than noise moves nearly all pixels"
    top = float(np.quantile(mean[good] - lowest, 0.98))
    if slope <= 0 or floor + slope * top < MIN_RISE * floor:
        return "bright pixels vary no more than dark ones, which is no law of electrons"
    k = 1 / slope
    pedestal = lowest - floor * k
    peak = _peak(dark, slope)
    if peak is not None:
        pedestal = peak
    return DetectorGain(k, pedestal, int(good.sum()), peak is not None)


def _statistics(lines: Iterable[NDArray[Any]]) -> tuple[Array, Array, Array, Array]:
    """Mean, variance and number of differences of each pixel (all flat), and readings of the
    darkest pixels.
    """
    total = squares = number = read = None
    kept: list[NDArray[np.float32]] = []
    for line in lines:
        flat = line.reshape(len(line), -1).astype(np.float32)
        if total is None:
            total, squares, number, read = np.zeros((4, flat.shape[1]))
        seen = np.isfinite(flat)
        total += np.where(seen, flat, 0).sum(0, dtype=np.float64)
        read += seen.sum(0)
        if len(flat) >= 3:
            second = flat[:-2] - 2 * flat[1:-1] + flat[2:]
            whole = np.isfinite(second)
            squares += (np.where(whole, second, 0).astype(np.float64) ** 2).sum(0) / 6
            number += whole.sum(0)
        kept.append(flat[:: max(1, len(flat) // 16)])
    if total is None or squares is None or number is None or read is None:
        return (np.zeros(0),) * 4
    mean = total / np.maximum(read, 1)
    # The median of means is not pulled up by disks.
    order = np.argsort(mean)[: max(1, round(_DARKEST * len(mean)))]
    dark = np.concatenate([part[:, order].ravel() for part in kept]).astype(np.float64)
    return mean, squares / np.maximum(number, 1), number, dark[np.isfinite(dark)]


def _line(signal: Array, variance: Array, number: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Coefficients (3,) of variance over 1, signal and its square, and the pixels that they fit."""
    edges = np.unique(np.quantile(signal, np.linspace(0, 1, _BINS + 1)))
    bins = np.clip(np.searchsorted(edges, signal, side="right") - 1, 0, max(len(edges) - 2, 0))
    start = np.array(
        [(signal[bins == b].mean(), variance[bins == b].mean()) for b in np.unique(bins)]
    )
    coefficients = _fit(start[:, 0], start[:, 1], 1 / start[:, 1])
    good = np.ones(len(signal), bool)
    for _ in range(_ROUNDS):
        slope = coefficients[1]
        # One electron in all is the least that is expected of a pixel.
        expected = np.maximum(_design(signal) @ coefficients, slope**2 / number)
        # Of second differences, which overlap, and of Poisson's law, whose fourth cumulant is its
        # mean.
        deviation = np.sqrt(np.maximum(3.9 * expected**2 + slope**2 * expected, 1e-300) / number)
        few = number * expected < MIN_EVENTS * slope**2
        good = few | (variance - expected < MAX_DEVIATIONS * deviation)
        if good.sum() < MIN_PIXELS:
            break
        coefficients = _fit(signal[good], variance[good], 1 / deviation[good])
    return coefficients, good


def _design(signal: Array) -> Array:
    return np.stack([np.ones_like(signal), signal, signal * np.abs(signal)], 1)


def _fit(signal: Array, variance: Array, weight: Array) -> Array:
    """Coefficients, none below 0, by weighted least squares."""
    design = _design(signal)
    scale = np.maximum(np.abs(design).max(0), 1e-300)
    solution, _ = nnls(design / scale * weight[:, None], variance * weight)
    return np.asarray(solution / scale)


def _peak(dark: Array, unit: float) -> float | None:
    """Where the readings of dark pixels pile up; None where no peak is that of no electron.

    Args:
        dark: readings.
        unit: what an electron brings.
    """
    at = float(np.median(dark)) if len(dark) else math.nan
    for _ in range(4):
        near = dark[np.abs(dark - at) < unit / 2]
        if not len(near):
            return None
        at = float(near.mean())
    below = dark[dark < at]
    width = float(np.sqrt(np.mean((below - at) ** 2))) if len(below) else 0.0
    electrons = (float(dark.mean()) - at) / unit
    silent = float(np.mean(dark < at + unit / 2))
    lawful = abs(silent - math.exp(-max(electrons, 0))) < PEAK_TOLERANCE
    return at if lawful and electrons > -0.1 and width < MAX_PEAK_WIDTH * unit else None
