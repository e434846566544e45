"""What a scan tells of itself: direct beams, descan, disks, probe, lattice, ellipse and pixel size.

Quantities that neither the scan nor its file nor a person tells, and on which strain does not
depend, are assumed, and said to be: the energy, the step, and the pixel size where no material is
named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ccstae.acquisition import beams, lattice
from ccstae.acquisition.probe import readings, vacuum_probe
from ccstae.acquisition.quantities import Calibrated as Calibrated
from ccstae.acquisition.quantities import Given as Given
from ccstae.acquisition.quantities import nominal_lattice
from ccstae.acquisition.units import with_units
from ccstae.errors import InputError
from ccstae.io import bad_pixels, beside, missing
from ccstae.io.calibration import Calibration
from ccstae.io.scan import StoredScan, opened_scan, write_calibrated
from ccstae.io.silent_pixels import Disks
from ccstae.machine.progress import progress

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Patterns, spread over the scan, that tell disks and lattice.
SAMPLE_PATTERNS = 512
SAMPLE_BYTES = 192 * 2**20
SLAB_BYTES = 32 * 2**20
_DISKS = 16  # the brightest that tell the radius of all


def calibrate(path: Path, given: Given) -> Calibrated:
    """Calibrate a scan.

    Args:
        path: a scan file, as `ccstae import` writes it.
        given: what is not to be found.

    Raises:
        InputError: where the scan shows no beam or no lattice, the lattice is not the one that was
            named or is its mirror image, or numbers that were given are not what the scan shows.
    """
    nominal = nominal_lattice(given)
    with opened_scan(path) as scan:
        sample, places, good = _sample(scan)
        lit = sample.any((1, 2))
        if not lit.any():
            raise InputError(
                f"{path}: no pattern holds an electron; expected a direct beam: looks like dark "
                f"frames, or a scan that was never recorded"
            )
        sample, places = sample[lit], places[lit]
        tried = [_seen(sample, places, scan.shape, r, good) for r in _radii(sample, places, scan)]
        found = [(each, each.lattice) for each in tried if not isinstance(each.lattice, str)]
        if not found:
            raise InputError(f"{path}: no lattice: {tried[0].lattice}")
        best, seen = max(found, key=lambda pair: len(pair[1].nodes))
        radius, mean, surface = best.radius, best.mean, best.surface
        reach = max(float(np.linalg.norm(seen.G[:, 0])) / 2, radius)
        beam_px, bright, dark = _every_beam(scan, surface, radius, reach, good)
        descan, curved = _descan(beam_px, bright)
        radius = _radius(mean, seen, radius)
        again = lattice.of_image(mean, seen.origin, radius, good)
        if not isinstance(again, str) and again.error_px < seen.error_px:
            seen = again
        probe, vacuum, said = vacuum_probe(scan, given, beam_px, bright, dark, radius, good, seen)
    peak = np.array(np.unravel_index(ndimage.gaussian_filter(probe, 1).argmax(), probe.shape))
    centre = beams.centroid(probe, peak[::-1].astype(float), radius)
    edge = beams.edge_radius(probe, centre, radius) if vacuum.any() or given.probe else radius
    return with_units(
        path,
        scan.told,
        given,
        nominal,
        Calibrated(
            calibration=_unset(mean.shape),
            probe=probe,
            found=seen,
            mean=mean,
            beam_px=beam_px,
            descan_px=descan,
            bright=bright,
            dark=dark,
            vacuum=vacuum,
            radius_px=edge,
            said=[_descan_said(beam_px, descan, curved), *said],
        ),
    )


def write(path: Path, found: Calibrated) -> None:
    """Write a calibration into its scan file, which is then a counts file."""
    write_calibrated(path, found.calibration, found.probe, found.beam_px)


def _sample(scan: StoredScan) -> tuple[Array, NDArray[np.int64], Mask]:
    """Patterns (n, Qy, Qx) spread over the scan, bad pixels filled; their places (n, 2), row and
    column; and the good pixels.
    """
    ry, rx, qy, qx = scan.shape
    number = max(1, min(SAMPLE_PATTERNS, ry * rx, SAMPLE_BYTES // (qy * qx * 8)))
    # Rows and columns both change from pattern to pattern.
    index = np.unique(np.linspace(0, ry * rx - 1, number).round().astype(int))
    places = np.stack(np.unravel_index(index, (ry, rx)), -1)
    patterns = np.stack([scan.counts[row, column] for row, column in places])
    if patterns.dtype.kind == "f":
        patterns = patterns.astype(np.float32)
    unwrap, _ = missing.unwrapping(patterns)
    if unwrap is not None:
        patterns = unwrap(patterns, index)
    found = bad_pixels.find(patterns, scan.mask, Disks(1.0, 0.0), str(scan.path))
    patterns = found.taken_out(patterns, np.arange(len(patterns)))
    return beside.filled(patterns.astype(np.float64), found.good), places, found.good


@dataclass(frozen=True)
class _Seen:
    """A sample of a scan, looked at with disks of one radius."""

    radius: float
    mean: Array  # (Qy, Qx), beams brought together
    surface: Array  # (Ry, Rx, 2), through the beams
    lattice: lattice.Found | str


def _radii(sample: Array, places: NDArray[np.int64], scan: StoredScan) -> list[float]:
    """Radii that the disks may have: of single patterns first, then of their mean, where faint
    disks are seen too.
    """
    first = beams.disk_radii(sample)
    mean, _, _ = _mean(sample, places, scan.shape, first[-1])
    found = sorted({*first, *beams.disk_radii(mean[None])})
    # On a halo the one is too small and the other too large.
    between = math.sqrt(found[0] * found[-1])
    return sorted({*found, between})


def _seen(
    sample: Array, places: NDArray[np.int64], shape: tuple[int, ...], radius: float, good: Mask
) -> _Seen:
    mean, middle, surface = _mean(sample, places, shape, radius)
    return _Seen(radius, mean, surface, lattice.of_image(mean, middle, radius, good))


def _mean(
    sample: Array, places: NDArray[np.int64], shape: tuple[int, ...], radius: float
) -> tuple[Array, Array, Array]:
    """Mean of patterns (n, Qy, Qx) whose beams are brought together, where the beam then lies, and
    the surface (Ry, Rx, 2) through the beams.
    """
    at = [
        beams.centroid(pattern, beams.brightest(pattern, radius, None, 0), radius)
        for pattern in sample
    ]
    surface, _ = beams.surface(places, np.array(at), (shape[0], shape[1]))
    expected = surface[tuple(places.T)]
    middle = np.rint(np.median(expected, 0))
    mean = beams.aligned_mean(sample, expected, (int(middle[0]), int(middle[1])))
    return mean, middle, surface


def _slabs(scan: StoredScan) -> Iterator[slice]:
    """Rows of the scan, a few at a time."""
    ry, rx, qy, qx = scan.shape
    rows = max(1, SLAB_BYTES // (rx * qy * qx * 8))
    return (slice(row, min(row + rows, ry)) for row in range(0, ry, rows))


def _every_beam(
    scan: StoredScan, surface: Array, radius: float, reach: float, good: Mask
) -> tuple[Array, Array, Array]:
    """Direct beam (Ry, Rx, 2) of every pattern, and the electrons in it and elsewhere (Ry, Rx)."""
    shape = scan.shape[:2]
    beam, bright, dark = np.full((*shape, 2), np.nan), np.zeros(shape), np.zeros(shape)
    slabs = list(_slabs(scan))
    for rows in progress(slabs, label=f"calibrate {scan.path.name} (slabs)"):
        values = readings(scan.counts[rows], good)
        for row, patterns in enumerate(values, rows.start):
            for column in np.flatnonzero(patterns.sum((-1, -2))):
                pattern = patterns[column]
                pixel = beams.brightest(pattern, radius, surface[row, column], reach)
                beam[row, column] = beams.centroid(pattern, pixel, radius)
            bright[row], dark[row] = beams.bright_and_dark(patterns, beam[row], radius + 1.5)
    return beam, bright, dark


def _descan(beam: Array, bright: Array) -> tuple[Array, bool]:
    """The surface through the beams, and whether it is curved."""
    known = np.argwhere(np.isfinite(beam).all(-1))
    return beams.surface(known, beam[tuple(known.T)], beam.shape[:2])


def _descan_said(beam: Array, descan: Array, curved: bool) -> str:
    span = np.ptp(descan.reshape(-1, 2), axis=0)
    left = np.nanstd(beam - descan)
    form = "a curved surface" if curved else "a plane"
    return (
        f"descan: {span[0]:.2f} px along x and {span[1]:.2f} px along y over the scan, {form}; "
        f"beams scatter by {left:.2f} px about it"
    )


def _radius(mean: Array, seen: lattice.Found, radius: float) -> float:
    """Radius of the disks, of the mean of the brightest: one alone may be saturated, or lit on one
    side.
    """
    half = math.ceil(radius + 7)
    y, x = np.indices((2 * half + 1, 2 * half + 1), float) - half
    total = np.zeros(x.shape)
    for h, k in seen.nodes[:_DISKS]:
        at = seen.origin + seen.G @ (h, k)
        disk = ndimage.map_coordinates(mean, [y + at[1], x + at[0]], order=1, mode="nearest")
        away = np.hypot(x, y)
        disk = disk - np.median(disk[(away > radius + 2) & (away < radius + 6)])
        total += disk / max(float(disk[away <= radius].mean()), 1e-300)
    return beams.edge_radius(total, np.array([half, half], float), radius)


def _unset(shape: tuple[int, ...]) -> Calibration:
    return Calibration(math.nan, math.nan, math.nan, math.nan, (math.nan,) * 2, np.eye(2), 2)
