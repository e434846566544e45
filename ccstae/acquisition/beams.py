"""The direct beam of every pattern, and its descan over the scan.

Nothing is known beforehand. The size of the disks is that of the rim, bright inside and dark
outside, that stands out most at a few places of a pattern. The direct beam is the brightest box of
that size in most patterns, near a plane over the scan that has the least absolute distances.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

Array = NDArray[np.float64]

MIN_RADIUS_PX = 1.0
# A disk is at most this share of the detector's side, or there is no room for others.
MAX_RADIUS_SHARE = 1 / 6
_SCALES_PER_OCTAVE = 4
_LOOKED_AT = 4  # patterns that tell the size of the disks
# Disks of a pattern that tell it: a halo is one, however bright.
_DISKS = 7
_RIM_PX = 2.0  # width of the rings on either side of a rim
_ROUNDS = 30  # of the reweighted fit of a surface
# A curved surface is taken for a plane where it leaves this share of the residuals or more.
MIN_GAIN_OF_CURVATURE = 0.8
MIN_POSITIONS_OF_CURVATURE = 64


def disk_radii(patterns: Array) -> list[float]:
    """Radii that the disks of patterns (n, Qy, Qx) may have, in pixels, of the brightest of them.

    Returns:
        Where rims stand out most from white noise, where from what else is in a pattern, such as
        the gradient of a halo, and where the brightest rim does. The first is right for disks that
        fill the detector, the second for small ones on a halo, the third where a single pattern
        shows little but the direct beam; a lattice tells which.
    """
    order = np.argsort(-patterns.sum((1, 2)))
    # Of Poisson's law the root has even noise: bright disks are no rougher than faint ones.
    chosen = np.sqrt(patterns[order[:_LOOKED_AT]].clip(0))
    largest = min(patterns.shape[1:]) * MAX_RADIUS_SHARE
    octaves = math.log2(max(largest, 2 * MIN_RADIUS_PX) / MIN_RADIUS_PX)
    radii = MIN_RADIUS_PX * 2 ** np.arange(0, octaves, 1 / _SCALES_PER_OCTAVE)
    strength = np.zeros((3, len(chosen), len(radii)))
    for k, radius in enumerate(radii):
        template = _template(float(radius))
        for index, pattern in enumerate(chosen):
            response = signal.fftconvolve(pattern, template, mode="same")
            scatter = float(np.median(np.abs(response - np.median(response))))
            strength[0, index, k] = np.sqrt(_highest(response, float(radius))).sum()
            strength[1, index, k] = strength[0, index, k] / math.sqrt(max(scatter, 1e-12))
            strength[2, index, k] = response.max()
    return sorted({float(np.median(radii[each.argmax(1)])) for each in strength})


def _highest(response: Array, radius: float) -> Array:
    """The highest maxima of a response (Qy, Qx), none within two radii of another."""
    side = 2 * math.ceil(2 * radius) + 1
    peaks = response[(ndimage.maximum_filter(response, side) == response) & (response > 0)]
    return np.sort(peaks)[-_DISKS:]


def _template(radius: float) -> Array:
    """A rim: the ring inside a radius less the ring outside it, whose response to white noise is
    the same for every radius.
    """
    half = math.ceil(radius + _RIM_PX + 1)
    y, x = np.indices((2 * half + 1, 2 * half + 1)) - half
    away = np.hypot(x, y)
    inside = np.clip(radius + 0.5 - away, 0, 1) * np.clip(away - radius + _RIM_PX + 0.5, 0, 1)
    outside = np.clip(away - radius, 0, 1) * np.clip(radius + _RIM_PX + 1 - away, 0, 1)
    template = inside / inside.sum() - outside / outside.sum()
    return np.asarray(template / np.sqrt((template**2).sum()))


def box_sums(images: Array, radius: float) -> Array:
    """Means (..., Qy, Qx) over the square nearest in area to a disk."""
    side = 2 * round((radius * math.sqrt(math.pi) - 1) / 2) + 1
    size = (1,) * (images.ndim - 2) + (side, side)
    return np.asarray(ndimage.uniform_filter(images, size, mode="constant"))


def brightest(pattern: Array, radius: float, near: Array | None, reach: float) -> Array:
    """The brightest box of a pattern (Qy, Qx), within `reach` of a place where one is given: its
    pixel (x, y).
    """
    top = left = 0
    if near is not None:
        half = math.ceil(reach + 2 * radius)
        x, y = np.rint(near).astype(int)
        top, left = max(y - half, 0), max(x - half, 0)
        pattern = pattern[top : y + half + 1, left : x + half + 1]
        if not pattern.size:
            return near
    sums = box_sums(pattern, radius)
    if near is not None:
        rows, columns = _from(sums.shape, top, left, near)
        sums[rows**2 + columns**2 > reach**2] = -np.inf
    row, column = np.unravel_index(sums.argmax(), sums.shape)
    return np.array([column + left, row + top], float)


def centroid(pattern: Array, at: Array, radius: float, rounds: int = 4) -> Array:
    """Centre of mass (x, y) in a round window of 1.5 radii that follows it."""
    half = math.ceil(1.5 * radius) + 1
    height, width = pattern.shape
    for _ in range(rounds):
        x, y = (round(float(value)) for value in at)
        top, left = max(y - half, 0), max(x - half, 0)
        part = pattern[top : min(y + half + 1, height), left : min(x + half + 1, width)]
        if not part.size:
            return at
        rows, columns = _from(part.shape, top, left, at)
        window = 1.5 * radius + 0.5 - np.sqrt(rows**2 + columns**2)
        weight = np.maximum(part, 0) * np.minimum(np.maximum(window, 0), 1)
        along_x, along_y = weight.sum(0), weight.sum(1)
        mass = along_x.sum()
        if mass <= 0:
            return at
        at = at + np.array([along_x @ columns, along_y @ rows[:, 0]]) / mass
    return at


def disk_sum(pattern: Array, at: Array, radius: float) -> float:
    """Sum of a pattern (Qy, Qx) within a radius of a place (x, y)."""
    x, y = np.rint(at).astype(int)
    half = math.ceil(radius) + 1
    top, left = max(y - half, 0), max(x - half, 0)
    part = pattern[top : y + half + 1, left : x + half + 1]
    rows, columns = _from(part.shape, top, left, at)
    return float(part[rows**2 + columns**2 <= radius**2].sum())


def bright_and_dark(patterns: NDArray[Any], at: Array, radius: float) -> tuple[Array, Array]:
    """Sums of patterns (n, Qy, Qx) within a radius of their direct beams, and beside it.

    Args:
        patterns: without NaN; bad pixels hold what the caller takes them for.
        at: beams (n, 2), x and y in pixels; NaN of a pattern without one, whose sum is all beside.
        radius: pixels.

    Returns:
        Both (n,).
    """
    total = patterns.sum((1, 2), dtype=np.float64)
    bright = np.zeros(len(patterns))
    for k in np.flatnonzero(np.isfinite(at).all(-1)):
        bright[k] = disk_sum(patterns[k], at[k], radius)
    return bright, total - bright


def _from(shape: tuple[int, ...], top: int, left: int, place: Array) -> tuple[Array, Array]:
    """Rows (h, 1) and columns (w,) of a part of a pattern, counted from a place (x, y)."""
    rows, columns = np.arange(top, top + shape[0]), np.arange(left, left + shape[1])
    return rows[:, None] - place[1], columns - place[0]


def surface(places: NDArray[np.int64], beams: Array, scan: tuple[int, int]) -> tuple[Array, bool]:
    """The plane, or the surface of second order, over a scan that has the least absolute distances
    from beams.

    Args:
        places: (row, column) of n patterns.
        beams: theirs, (n, 2).
        scan: (Ry, Rx).

    Returns:
        Beams (Ry, Rx, 2) on it, and whether it is curved.
    """
    grid = np.argwhere(np.ones(scan, bool))
    orders = 1 if len(places) >= 12 else 0
    fitted, distance = _fitted(places, beams, grid, scan, orders)
    if orders == 0 or len(places) < MIN_POSITIONS_OF_CURVATURE:
        return fitted, False
    curved, less = _fitted(places, beams, grid, scan, 2)
    if less < MIN_GAIN_OF_CURVATURE * distance:
        return curved, True
    return fitted, False


def _fitted(
    places: NDArray[np.int64],
    beams: Array,
    grid: NDArray[np.int64],
    scan: tuple[int, int],
    order: int,
) -> tuple[Array, float]:
    design, everywhere = _terms(places, scan, order), _terms(grid, scan, order)
    fitted = np.broadcast_to(np.median(beams, 0), beams.shape)
    coefficients = np.zeros((design.shape[1], 2))
    coefficients[0] = fitted[0]
    for _ in range(_ROUNDS if order else 0):
        distance = np.linalg.norm(beams - fitted, axis=1)
        weight = np.sqrt(1 / np.maximum(distance, 0.05))[:, None]
        coefficients = np.linalg.lstsq(design * weight, beams * weight, rcond=None)[0]
        fitted = design @ coefficients
    left = float(np.median(np.linalg.norm(beams - fitted, axis=1)))
    return (everywhere @ coefficients).reshape(*scan, 2), left


def _terms(places: NDArray[np.int64], scan: tuple[int, int], order: int) -> Array:
    y, x = (places / np.array(scan) - 0.5).T
    terms = [np.ones_like(x)]
    if order >= 1:
        terms += [x, y]
    if order >= 2:
        terms += [x * x, x * y, y * y]
    return np.stack(terms, 1)


def aligned_mean(patterns: Array, beams: Array, middle: tuple[int, int]) -> Array:
    """Mean of patterns (n, Qy, Qx), each moved by whole pixels so that its beam lies at `middle`
    (x, y); pixels that none reach are 0.
    """
    height, width = patterns.shape[1:]
    total, number = np.zeros((2, height, width))
    for pattern, beam in zip(patterns, beams, strict=True):
        dx, dy = np.rint(np.array(middle) - beam).astype(int)
        if abs(dx) >= width or abs(dy) >= height:
            continue
        to = slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0))
        of = slice(max(-dy, 0), height + min(-dy, 0)), slice(max(-dx, 0), width + min(-dx, 0))
        total[to] += pattern[of]
        number[to] += 1
    return total / np.maximum(number, 1)


def edge_radius(image: Array, at: Array, radius: float) -> float:
    """Where the disk at a place of an image falls to half of what it holds inside, in pixels; the
    guess where it never does.
    """
    y, x = np.indices(image.shape)
    away = np.hypot(x - at[0], y - at[1])
    beside = image[(away > radius + 2.5) & (away < radius + 5.5)]
    floor = float(np.median(beside)) if beside.size else 0.0
    # Brightness integrated over the angle and a pixel's width, every tenth of a pixel.
    centres = np.arange(0.5 * radius, 1.6 * radius + 1.5, 0.1)
    profile = np.array([image[np.abs(away - centre) < 0.6].mean() for centre in centres])
    # Disks may have bright sides and dark middles.
    plateau = float(np.median(image[away <= radius])) - floor
    start = int(np.searchsorted(centres, 0.8 * radius))
    below = np.flatnonzero((profile - floor < plateau / 2) & (np.arange(len(profile)) > start))
    if plateau <= 0 or not below.size:
        return radius
    k = below[0]
    high, low = profile[k - 1] - floor, profile[k] - floor
    share = (high - plateau / 2) / max(high - low, 1e-300)
    return float(centres[k - 1] + 0.1 * np.clip(share, 0, 1))
