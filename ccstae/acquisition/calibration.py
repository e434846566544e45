"""What a scan tells of itself: direct beams, descan, disks, probe, lattice, ellipse and pixel size.

Quantities that neither the scan nor its file nor a person tells, and on which strain does not
depend, are assumed, and said to be: the energy, the step, and the pixel size where no material is
named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ccstae import geometry
from ccstae.acquisition import beams, lattice, rings
from ccstae.config.materials import of_the_package
from ccstae.errors import InputError, unknown
from ccstae.io import bad_pixels, beside, missing
from ccstae.io.calibration import Calibration
from ccstae.io.detector.files import open_file
from ccstae.io.detector.scan import arrange
from ccstae.io.probe import even_disk
from ccstae.io.scan import StoredScan, opened_scan, write_calibrated
from ccstae.io.silent_pixels import Disks
from ccstae.io.slips import MAX_ENERGY_KEV, MIN_ENERGY_KEV, fault, looks_like
from ccstae.machine.progress import progress
from ccstae.specimen.crystal import crystal

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Patterns, spread over the scan, that tell disks and lattice.
SAMPLE_PATTERNS = 512
SAMPLE_BYTES = 192 * 2**20
SLAB_BYTES = 32 * 2**20
# Taken where nothing tells them, and strain does not depend on them.
ASSUMED_ENERGY_KEV, ASSUMED_STEP_A, ASSUMED_PIXEL_INV_A = 200.0, 10.0, 0.01
# Ellipses of detectors and projection systems stay below this, as the ratio of their axes less 1.
MAX_DISTORTION = 0.12
# A lattice that fits so much worse than its mirror image is mirrored.
MAX_MIRROR_RATIO = 0.5
# What is given, and what the scan tells, are the same to this.
AGREEMENT = 0.15
# Patterns of the vacuum: what lies outside the direct beam is this much of the way from the least
# to the median of the scan, and nodes hold this share of what they hold in the mean pattern.
VACUUM_SHARE, MAX_NODES_IN_VACUUM = 0.15, 0.05
MAX_VACUUM_PATTERNS = 256
MIN_VACUUM_PATTERNS = 3
_DISKS = 16  # the brightest that tell the radius of all


@dataclass(frozen=True)
class Given:
    """What a person gives; None where the scan shall tell."""

    energy_keV: float | None = None
    semiangle_mrad: float | None = None
    pixel_size_inv_A: float | None = None
    step_A: float | None = None
    scan_rotation_deg: float | None = None
    material: str | None = None
    lattice: str | None = None
    """Two lengths in Angstrom and their angle in degrees: 3.15,3.15,120."""
    rings: tuple[Path, str] | None = None
    """A file, and the lattice parameter of its powder in Angstrom: a=4.078."""
    probe: Path | None = None


@dataclass(frozen=True)
class Calibrated:
    """What was found."""

    calibration: Calibration
    probe: Array  # (Qy, Qx), sums to 1
    found: lattice.Found
    mean: Array  # (Qy, Qx), of patterns whose beams were brought together
    beam_px: Array  # (Ry, Rx, 2), NaN where a pattern holds nothing
    descan_px: Array  # (Ry, Rx, 2), the surface through them
    bright: Array  # (Ry, Rx), electrons in the direct beam
    dark: Array  # (Ry, Rx), electrons elsewhere
    vacuum: Mask  # (Ry, Rx), patterns that gave the probe
    radius_px: float
    said: list[str] = field(default_factory=list)  # what a person should hear

    @property
    def distortion(self) -> Array:
        """E (2, 2), symmetric, of determinant 1."""
        return self.calibration.distortion


@dataclass(frozen=True)
class Nominal:
    """A lattice that the specimen is said to have."""

    name: str
    reciprocal: Array  # (2, 2), columns, 1/Angstrom
    symmetry: int


def calibrate(path: Path, given: Given) -> Calibrated:
    """Calibrate a scan.

    Args:
        path: a scan file, as `ccstae import` writes it.
        given: what is not to be found.

    Raises:
        InputError: where the scan shows no beam or no lattice, the lattice is not the one that was
            named or is its mirror image, or numbers that were given are not what the scan shows.
    """
    nominal = _nominal(given)
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
        probe, vacuum, said = _probe(scan, given, beam_px, bright, dark, radius, good, seen)
    peak = np.array(np.unravel_index(ndimage.gaussian_filter(probe, 1).argmax(), probe.shape))
    centre = beams.centroid(probe, peak[::-1].astype(float), radius)
    edge = beams.edge_radius(probe, centre, radius) if vacuum.any() or given.probe else radius
    return _put_together(
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


def _unset(shape: tuple[int, ...]) -> Calibration:
    return Calibration(math.nan, math.nan, math.nan, math.nan, (math.nan,) * 2, np.eye(2), 2)


def _nominal(given: Given) -> Nominal | None:
    """The lattice that a person names."""
    if given.material is not None and given.lattice is not None:
        raise InputError("--material and --lattice: expected one of them")
    if given.material is not None:
        materials = of_the_package()
        if given.material not in materials:
            raise InputError(unknown("material", given.material, materials))
        cell = crystal(given.material, materials[given.material])
        return Nominal(given.material, cell.reciprocal, cell.lattice_symmetry)
    if given.lattice is None:
        return None
    try:
        a, b, gamma = (float(part) for part in given.lattice.split(","))
    except ValueError:
        a = b = gamma = math.nan
    if not (0.5 < a < 100 and 0.5 < b < 100 and 10 < gamma < 170):
        raise InputError(
            f"--lattice {given.lattice!r}: expected a,b,gamma in Angstrom and degrees, such as "
            f"3.153,3.153,120"
        )
    angle = math.radians(gamma)
    cell_A = np.array([[a, b * math.cos(angle)], [0, b * math.sin(angle)]])
    reciprocal = geometry.reciprocal(cell_A)
    return Nominal(f"a lattice of {given.lattice}", reciprocal, _exact_symmetry(reciprocal))


def _exact_symmetry(G: Array) -> int:
    """6, 4 or 2: order of rotation that takes a lattice onto itself."""
    for order in (6, 4):
        turn = geometry.rotation_matrix(2 * np.pi / order)
        turned = np.linalg.inv(G) @ turn @ G
        if np.allclose(turned, np.rint(turned), atol=1e-3):
            return order
    return 2


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


def _readings(patterns: NDArray[Any], good: Mask) -> Array:
    """Patterns as numbers, no reading and bad pixels filled by 0."""
    values = patterns.astype(np.float64)
    values[~np.isfinite(values)] = 0
    values[..., ~good] = 0
    return values


def _every_beam(
    scan: StoredScan, surface: Array, radius: float, reach: float, good: Mask
) -> tuple[Array, Array, Array]:
    """Direct beam (Ry, Rx, 2) of every pattern, and the electrons in it and elsewhere (Ry, Rx)."""
    shape = scan.shape[:2]
    beam, bright, total = np.full((*shape, 2), np.nan), np.zeros(shape), np.zeros(shape)
    slabs = list(_slabs(scan))
    for rows in progress(slabs, label=f"calibrate {scan.path.name} (slabs)"):
        values = _readings(scan.counts[rows], good)
        total[rows] = values.sum((-1, -2))
        for row in range(values.shape[0]):
            for column in range(shape[1]):
                pattern, near = values[row, column], surface[rows.start + row, column]
                if not total[rows.start + row, column]:
                    continue
                pixel = beams.brightest(pattern, radius, near, reach)
                here = beams.centroid(pattern, pixel, radius)
                beam[rows.start + row, column] = here
                bright[rows.start + row, column] = beams.disk_sum(pattern, here, radius + 1.5)
    return beam, bright, total - bright


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


def _probe(
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
        patterns = np.stack([_readings(scan.counts[row, column], good) for row, column in alike])
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


def _put_together(
    path: Path, told: dict[str, float], given: Given, nominal: Nominal | None, found: Calibrated
) -> Calibrated:
    """Ellipse, units and lattice of what was found."""
    said = list(found.said)
    energy = _told("energy_keV", given.energy_keV, told, ASSUMED_ENERGY_KEV, "keV", said)
    _check_energy(path, energy)
    step = _told("step_A", given.step_A, told, ASSUMED_STEP_A, "Angstrom", said)
    distortion, pixel = _ellipse(path, given, nominal, found, said)
    wavelength = geometry.wavelength_A(energy)
    if pixel is None:
        pixel = _pixel_size(given, told, found.radius_px, wavelength, said)
    elif given.pixel_size_inv_A is not None:
        _same(path, "pixel_size_inv_A", given.pixel_size_inv_A, pixel, _PIXEL_SLIPS)
        pixel = given.pixel_size_inv_A
    elif "pixel_size_inv_A" in told:
        ratio = told["pixel_size_inv_A"] / pixel
        if abs(ratio - 1) > 0.02:
            said.append(
                f"the detector's file has a pixel size of {told['pixel_size_inv_A']:.5g} "
                f"1/Angstrom, {ratio:.3g} times what the lattice says; the lattice's is taken"
            )
    semiangle = found.radius_px * pixel * wavelength * 1e3
    if given.semiangle_mrad is not None:
        _same(path, "semiangle_mrad", given.semiangle_mrad, semiangle, _ANGLE_SLIPS)
        semiangle = given.semiangle_mrad
    symmetry, G = found.found.symmetry, found.found.G
    lattice_inv_A = pixel * G
    if nominal is not None:
        symmetry = nominal.symmetry
        D, _ = lattice.match(np.linalg.inv(distortion) @ G, nominal.reciprocal)
        basis = np.linalg.inv(D) @ np.linalg.inv(distortion) @ G
        turn = geometry.rotation_matrix(geometry.polar(D)[1])
        lattice_inv_A = distortion @ turn @ basis
    centre = np.nanmedian(found.beam_px.reshape(-1, 2), axis=0)
    rotation = given.scan_rotation_deg
    if rotation is None:
        rotation = told.get("scan_rotation_deg")
    calibration = Calibration(
        energy_keV=energy,
        semiangle_mrad=semiangle,
        pixel_size_inv_A=pixel,
        step_A=step,
        centre_px=(float(centre[0]), float(centre[1])),
        lattice_inv_A=lattice_inv_A,
        rotational_symmetry=symmetry,
        distortion=distortion,
        scan_rotation_deg=rotation,
    )
    wrong = fault(calibration, found.mean.shape)
    if wrong is not None:
        raise InputError(f"{path}: {wrong}{looks_like(calibration, found.mean.shape)}")
    said += _summary(found, calibration)
    return replace(found, calibration=calibration, said=said)


_PIXEL_SLIPS = {10.0: "1/nm", 0.1: "1/Angstrom, but divided by 10", 2 * math.pi: "2 pi / Angstrom"}
_ANGLE_SLIPS = {1e-3: "rad", 1e3: "microrad", 2.0: "the full angle"}


def _same(path: Path, name: str, given: float, seen: float, slips: dict[float, str]) -> None:
    """InputError where a number that was given is not what the scan shows."""
    ratio = given / seen
    if abs(ratio - 1) <= AGREEMENT:
        return
    units = [unit for factor, unit in slips.items() if abs(ratio / factor - 1) < AGREEMENT]
    looks = f": looks like {units[0]}" if units else ""
    raise InputError(
        f"{path}: {name} is given as {given:g}, and the scan shows {seen:.4g}; expected them to "
        f"agree to {AGREEMENT:.0%}{looks}"
    )


def _check_energy(path: Path, energy_keV: float) -> None:
    if MIN_ENERGY_KEV <= energy_keV <= MAX_ENERGY_KEV:
        return
    looks = ""
    for unit, factor in (("eV", 1e-3), ("MeV", 1e3)):
        if MIN_ENERGY_KEV <= energy_keV * factor <= MAX_ENERGY_KEV:
            looks = f": looks like energy_keV given in {unit}"
    raise InputError(
        f"{path}: energy_keV is {energy_keV:g}; expected {MIN_ENERGY_KEV:g} to "
        f"{MAX_ENERGY_KEV:g} keV{looks}"
    )


def _told(
    name: str,
    given: float | None,
    told: dict[str, float],
    assumed: float,
    unit: str,
    said: list[str],
) -> float:
    """A number that is given, told by the file, or assumed."""
    if given is not None:
        return given
    if name in told:
        return told[name]
    said.append(f"{name} is not known; taken: {assumed:g} {unit}, on which strain does not depend")
    return assumed


def _pixel_size(
    given: Given, told: dict[str, float], radius: float, wavelength: float, said: list[str]
) -> float:
    """Where no lattice and no rings tell it."""
    if given.pixel_size_inv_A is not None:
        return given.pixel_size_inv_A
    if given.semiangle_mrad is not None:
        return given.semiangle_mrad * 1e-3 / wavelength / radius
    if "pixel_size_inv_A" in told:
        return told["pixel_size_inv_A"]
    said.append(
        f"pixel_size_inv_A is not known; taken: {ASSUMED_PIXEL_INV_A:g} 1/Angstrom, on which "
        f"strain does not depend: --material, --lattice, --rings or --semiangle-mrad tell it"
    )
    return ASSUMED_PIXEL_INV_A


def _ellipse(
    path: Path, given: Given, nominal: Nominal | None, found: Calibrated, said: list[str]
) -> tuple[Array, float | None]:
    """How the detector shows a circle, and the pixel size where rings or a lattice tell it."""
    E, pixel = np.eye(2), None
    if given.rings is not None:
        measured = _rings(given.rings, found.mean.shape)
        E, pixel = measured.distortion, measured.pixel_size_inv_A
        said.append(f"ellipse: {_words(E)}, from the rings of {given.rings[0].name}")
    seen = np.linalg.inv(E) @ found.found.G
    if nominal is not None:
        D, ratio = lattice.match(seen, nominal.reciprocal)
        _, mirrored_ratio = lattice.match(seen, nominal.reciprocal, mirrored=True)
        error = found.found.error_px / float(np.linalg.norm(found.found.G[:, 0]))
        if ratio > 0.01 + 6 * error and mirrored_ratio < MAX_MIRROR_RATIO * ratio:
            raise InputError(
                f"{path}: the lattice is the mirror image of {nominal.name}: mirrored it fits to "
                f"{mirrored_ratio:.1%}, as it is to {ratio:.1%}; expected it as it is: import the "
                f'detector\'s file again with an axis turned round, such as --axes "Ry Rx Qy -Qx"'
            )
        if ratio > MAX_DISTORTION:
            raise InputError(
                f"{path}: the lattice that is seen ({_lattice_words(found.found.G)}) is not that "
                f"of {nominal.name}: the ellipse that would make it so is {ratio:.0%}; expected "
                f"less than {MAX_DISTORTION:.0%}"
            )
        size = 1 / math.sqrt(float(np.linalg.det(D)))
        if given.rings is None:
            V, _ = geometry.polar(D)
            E, pixel = V * size, size
            said.append(
                f"ellipse: {_words(E)}, from the lattice of {nominal.name}; a strain that all of "
                f"the scan has in common cannot be told from it"
            )
        elif pixel is not None:
            said.append(
                f"mean lattice: {pixel / size - 1:+.2%} in size and {_words(D * size)} against "
                f"{nominal.name}, by the rings"
            )
        return E, pixel
    if given.rings is None and found.found.symmetry > 2:
        ideal = {
            6: np.array([[1.0, 0.5], [0.0, math.sqrt(0.75)]]),
            4: np.eye(2),
        }[found.found.symmetry]
        D, _ = lattice.match(seen, ideal)
        E = geometry.polar(D)[0] / math.sqrt(float(np.linalg.det(D)))
        name = {6: "hexagonal", 4: "square"}[found.found.symmetry]
        said.append(
            f"ellipse: {_words(E)}, taking the lattice for a {name} one; a strain that all of the "
            f"scan has in common cannot be told from it"
        )
    elif given.rings is None:
        said.append(
            "ellipse: cannot be told from a lattice that is neither hexagonal nor square without "
            "--material, --lattice or --rings; taken: none"
        )
    return E, pixel


def _rings(given: tuple[Path, str], shape: tuple[int, ...]) -> rings.Rings:
    path, words = given
    name, _, value = words.partition("=")
    try:
        a_A = float(value)
    except ValueError:
        a_A = math.nan
    if name != "a" or not 1 < a_A < 20:
        raise InputError(f"--rings {path} {words}: expected a=4.078, in Angstrom, or the like")
    source = open_file(path)
    arranged = arrange(source, scan=None if source.axes[0] != "R" else f"1x{source.shape[0]}")
    image = np.zeros(arranged.shape[2:])
    for rows, columns in arranged.slabs():
        image += np.nan_to_num(arranged.read(rows, columns).astype(np.float64)).sum((0, 1))
    measured = rings.measure(image, a_A, str(path))
    # A scan that was binned shows the same field of view with fewer pixels.
    factor = image.shape[0] / shape[0]
    if factor != image.shape[1] / shape[1] or factor != round(factor):
        raise InputError(
            f"--rings {path}: {image.shape} pixels, and the scan has {shape}; expected the same "
            f"detector, whole or binned"
        )
    return replace(measured, pixel_size_inv_A=measured.pixel_size_inv_A * factor)


def _words(E: Array) -> str:
    """An ellipse in words."""
    values, vectors = np.linalg.eigh(0.5 * (E + E.T))
    angle = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1])) % 180
    return f"{values[1] / values[0] - 1:.2%}, its long axis {angle:.0f} degrees from x towards y"


def _lattice_words(G: Array) -> str:
    a, b = np.linalg.norm(G, axis=0)
    angle = math.degrees(math.acos(float(G[:, 0] @ G[:, 1]) / (a * b)))
    return f"{a:.2f} px, {b:.2f} px and {angle:.2f} degrees"


def _summary(found: Calibrated, calibration: Calibration) -> list[str]:
    G, rotation = found.found.G, calibration.scan_rotation_deg
    name = {6: "hexagonal", 4: "square", 2: "oblique or rectangular"}
    return [
        f"lattice: g = ({G[0, 0]:.3f}, {G[1, 0]:.3f}) and ({G[0, 1]:.3f}, {G[1, 1]:.3f}) px, "
        f"{_lattice_words(G)}, {name[calibration.rotational_symmetry]}; {len(found.found.nodes)} "
        f"disks within {found.found.rms_px:.2f} px",
        f"disks: radius {found.radius_px:.3f} px, semiangle {calibration.semiangle_mrad:.4g} mrad "
        f"at {calibration.energy_keV:g} keV and {calibration.pixel_size_inv_A:.5g} 1/Angstrom a "
        f"pixel",
        "scan rotation: "
        + (
            "not known; strain is along the detector's axes"
            if rotation is None
            else f"{rotation:g} degrees"
        ),
    ]
