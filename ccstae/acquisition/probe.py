"""The vacuum probe of a scan: recorded by itself, or the mean of what the scan shows of vacuum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ccstae.acquisition import beams, lattice
from ccstae.acquisition.quantities import Given
from ccstae.errors import InputError
from ccstae.io import beside
from ccstae.io.detector.files import open_file
from ccstae.io.detector.scan import arrange
from ccstae.io.probe import even_disk
from ccstae.io.scan import StoredScan

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Patterns of the vacuum: what lies outside the direct beam is this much of the way from the least
# to the median of the scan, and nodes hold this share of what they hold in the mean pattern.
VACUUM_SHARE, MAX_NODES_IN_VACUUM = 0.15, 0.05
MAX_VACUUM_PATTERNS = 256
MIN_VACUUM_PATTERNS = 3


def vacuum_probe(
    scan: StoredScan,
    given: Given,
    beam: Array,
    bright: Array,
    dark: Array,
    radius: float,
    good: Mask,
    seen: lattice.Found,
) -> tuple[Array, Mask, list[str]]:
    """The vacuum probe (Qy, Qx), centred, of unit sum; the patterns that gave it; and what to say
    of it.
    """
    shape, none = scan.shape[2:], np.zeros(scan.shape[:2], bool)
    if given.probe is not None:
        return _centred(_recorded_probe(given.probe, shape), radius), none, []
    share = np.where(bright > 0, dark / np.maximum(bright + dark, 1e-300), np.inf)
    lowest, middle = np.quantile(share[np.isfinite(share)], (0.005, 0.5))
    limit = lowest + VACUUM_SHARE * (middle - lowest)
    places = np.argwhere(share <= limit)
    order = np.argsort(share[tuple(places.T)])[:MAX_VACUUM_PATTERNS]
    places = places[order]
    if len(places) >= MIN_VACUUM_PATTERNS:
        # Beams that lie alike on their pixels: whole pixels then bring them together.
        part = beam[tuple(places.T)] % 1
        mode = np.exp(2j * np.pi * part).mean(0)
        away = np.abs((part - np.angle(mode) / (2 * np.pi) + 0.5) % 1 - 0.5).max(1)
        alike = places[away < 0.25] if (away < 0.25).sum() >= 16 else places
        patterns = np.stack([readings(scan.counts[row, column], good) for row, column in alike])
        patterns = beside.filled(patterns, good)
        mean = beams.aligned_mean(patterns, beam[tuple(alike.T)], (shape[1] // 2, shape[0] // 2))
        if _node_share(mean, np.array(shape[::-1]) // 2, seen, radius) < MAX_NODES_IN_VACUUM:
            chosen = none.copy()
            chosen[tuple(alike.T)] = True
            said = f"probe: mean of {len(alike)} patterns of vacuum in the scan"
            return _centred(mean, radius), chosen, [said]
    said = (
        "probe: the scan shows no vacuum; taken: an even disk of the radius that its disks have, "
        "which --probe FILE changes"
    )
    return even_disk(shape, radius), none, [said]


def _node_share(image: Array, middle: Array, seen: lattice.Found, radius: float) -> float:
    """What the first nodes of a lattice hold above what lies between them, of what they hold in the
    direct beam's own pattern: as a share of the beam in units of a hundredth.
    """
    y, x = np.indices(image.shape)

    def excess(at: Array) -> float:
        away = np.hypot(x - at[0], y - at[1])
        ring = image[(away > radius + 1.5) & (away < radius + 4)]
        return float(image[away <= radius].mean() - np.median(ring))

    vectors = [seen.G[:, 0], seen.G[:, 1], -seen.G[:, 0], -seen.G[:, 1]]
    beam = excess(middle.astype(float))
    held = float(np.mean([excess(middle + vector) for vector in vectors]))
    return 20 * held / max(beam, 1e-300)


def _recorded_probe(path: Path, shape: tuple[int, ...]) -> Array:
    """A probe that was recorded by itself: a pattern, or the mean of a scan of vacuum."""
    source = open_file(path)
    arranged = arrange(source, scan=None if source.axes[0] != "R" else f"1x{source.shape[0]}")
    if arranged.shape[2:] != shape:
        raise InputError(
            f"--probe {path}: patterns of {arranged.shape[2:]} pixels; expected {shape}, those of "
            f"the scan"
        )
    total = np.zeros(shape)
    for rows, columns in arranged.slabs():
        values = arranged.read(rows, columns).astype(np.float64)
        total += np.where(np.isfinite(values), values, 0).sum((0, 1))
    if not total.max() > 0:
        raise InputError(f"--probe {path}: holds no electrons; expected the vacuum probe")
    return total


def _centred(image: Array, radius: float) -> Array:
    """A probe whose centre of mass lies on the middle pixel, without what surrounds it, of unit
    sum.
    """
    height, width = image.shape
    peak = beams.brightest(image, radius, None, 0)
    at = beams.centroid(image, peak, radius, 8)
    y, x = np.indices(image.shape)
    away = np.hypot(x - at[0], y - at[1])
    floor = float(np.median(image[(away > 2 * radius + 3) & (away < 2 * radius + 8)]))
    alone = np.where(away < 2 * radius + 3, image - floor, 0)
    moved = ndimage.shift(alone, (height // 2 - at[1], width // 2 - at[0]), order=3)
    moved = moved.clip(0)
    return np.asarray(moved / moved.sum())


def readings(patterns: NDArray[Any], good: Mask) -> Array:
    """Patterns as numbers, no reading and bad pixels filled by 0."""
    values = patterns.astype(np.float64)
    values[~np.isfinite(values)] = 0
    values[..., ~good] = 0
    return values
