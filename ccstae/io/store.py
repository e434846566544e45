"""Every file format: write, read, check. No other module opens an HDF5 file.

Readers refuse what does not fit, and name file, dataset and expectation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.errors import InputError
from ccstae.io.atomic import atomic
from ccstae.io.hdf5 import attribute, own, short
from ccstae.io.hdf5 import dataset as dataset
from ccstae.io.hdf5 import opened as opened
from ccstae.io.hdf5 import values as values

_LARGEST_DEFORMATION = 100.0
_LARGEST_COUNT = 2**32 - 1

CALIBRATION = (
    "energy_keV",
    "semiangle_mrad",
    "pixel_size_inv_A",
    "step_A",
    "centre_px",
    "rotational_symmetry",
)


@dataclass(frozen=True)
class Calibration:
    """What a method may know of the instrument and the specimen."""

    energy_keV: float
    semiangle_mrad: float
    pixel_size_inv_A: float
    step_A: float
    centre_px: tuple[float, float]
    """Nominal direct beam (x, y) in pixels; pixel centres are integers."""
    lattice_inv_A: NDArray[np.float64]
    """Nominal reciprocal lattice vectors of the reference material, columns, (2, 2)."""
    rotational_symmetry: int
    """Order of the lattice's rotational symmetry (6 for the node positions of a hexagonal lattice).
    """


@dataclass(frozen=True)
class Counts:
    """One noisy data set, as a method gets it."""

    counts: NDArray[Any]  # (Ry, Rx, Qy, Qx), unsigned integers
    probe: NDArray[np.float32]  # (Qy, Qx), the vacuum probe, sums to 1
    calibration: Calibration
    path: Path


@dataclass(frozen=True)
class Dislocations:
    """The dislocation lines of a scene, and what is needed to find them on its scan."""

    position: NDArray[
        np.float64
    ]  # (n, 2), column and row of the scan, in steps from its first position
    burgers_A: NDArray[np.float64]  # (n, 2), integral of F^-1 dx round the line, from x towards y
    lattice_A: NDArray[np.float64]  # (2, 2), vectors of the reference lattice, columns
    step_A: float


@dataclass(frozen=True)
class Truth:
    """Exact answers; only the scorer and the figures read them."""

    F: NDArray[np.float64]  # (Ry, Rx, 2, 2) at the point
    F_probe: NDArray[np.float64]  # (Ry, Rx, 2, 2) averaged over the probe
    label: NDArray[np.int8]  # (Ry, Rx): -1 mixed, 0 background, 1.. materials
    region: NDArray[np.int8]  # (Ry, Rx), index into regions
    regions: tuple[str, ...]
    reference: NDArray[np.bool_]  # (Ry, Rx), where every method is re-referenced
    symmetry: int
    limit: dict[
        str, NDArray[np.float64]
    ]  # level -> (Ry, Rx, 4), standard deviations of exx, eyy, exy, theta
    dislocations: Dislocations | None = None  # None where circuits need not close


@dataclass(frozen=True)
class Map:
    """A method's answer."""

    F: NDArray[np.float64]  # (Ry, Rx, 2, 2), NaN where the method gives up
    attributes: dict[str, Any]
    covariance: NDArray[np.float64] | None = None  # (Ry, Rx, 4, 4) of exx, eyy, exy, theta
    label: NDArray[np.int8] | None = None
    centre_px: NDArray[np.float64] | None = None  # (Ry, Rx, 2)
    # (entries, Ky, Kx), averaged patterns over the whole detector, however fine
    dictionary: NDArray[np.float32] | None = None
    # (Ry, Rx, 4), exx, eyy, exy, theta by a formula of the method's own
    own_strain: NDArray[np.float64] | None = None


def clean_patterns(patterns: h5py.Dataset, row: int) -> NDArray[np.float32]:
    """One row (Rx, Qy, Qx) of a scene's patterns; InputError where one is no distribution of
    electrons.
    """
    found = patterns[row]
    if not (np.isfinite(found).all() and (found >= 0).all() and (found.sum((-1, -2)) > 0).all()):
        raise InputError(
            f"{patterns.file.filename}: {patterns.name}, row {row}: expected finite numbers from 0 "
            f"up, not all 0 in any pattern"
        )
    return found


def write_calibration(file: h5py.File, calibration: Calibration, probe: NDArray[Any]) -> None:
    for name in CALIBRATION:
        file.attrs[name] = getattr(calibration, name)
    file["lattice_inv_A"] = np.asarray(calibration.lattice_inv_A, np.float64)
    file["probe"] = np.asarray(probe, np.float32)


def read_calibration(file: h5py.File) -> Calibration:
    """The calibration of a scene or counts file; InputError for what no instrument has."""
    found: dict[str, NDArray[np.float64]] = {}
    for name in CALIBRATION:
        if name not in file.attrs:
            raise InputError(
                f"{file.filename}: no attribute {name}; expected the calibration "
                f"({', '.join(CALIBRATION)})"
            )
        value, size = np.asarray(attribute(file, name)), 2 if name == "centre_px" else 1
        if (
            value.dtype.kind not in "iuf"
            or value.size != size
            or not np.isfinite(value).all()
            or (size == 1 and not value > 0)
        ):
            expected = "two finite numbers, x and y" if size == 2 else "a finite number above 0"
            raise InputError(
                f"{file.filename}: attribute {name} is {short(value.tolist())}; expected {expected}"
            )
        found[name] = value.astype(float).ravel()
    symmetry = float(found["rotational_symmetry"][0])
    if symmetry not in (2, 4, 6):
        raise InputError(
            f"{file.filename}: attribute rotational_symmetry is {symmetry:g}; expected 2, 4 or 6"
        )
    lattice = values(file, "lattice_inv_A", 2, "f", (2, 2)).astype(np.float64)
    if not np.linalg.cond(lattice) < 100:
        raise InputError(
            f"{file.filename}: /lattice_inv_A is {lattice.tolist()}; expected two vectors, as "
            f"columns, that span a lattice"
        )
    return Calibration(
        energy_keV=float(found["energy_keV"][0]),
        semiangle_mrad=float(found["semiangle_mrad"][0]),
        pixel_size_inv_A=float(found["pixel_size_inv_A"][0]),
        step_A=float(found["step_A"][0]),
        centre_px=(float(found["centre_px"][0]), float(found["centre_px"][1])),
        lattice_inv_A=lattice,
        rotational_symmetry=int(symmetry),
    )


def read_probe(file: h5py.File, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The vacuum probe on a detector of `shape`; InputError where it is no distribution of
    electrons.
    """
    probe = values(file, "probe", 2, "f", shape).astype(np.float32)
    if (probe < 0).any() or not probe.sum() > 0:
        raise InputError(
            f"{file.filename}: /probe holds negative numbers, or only 0; expected the electrons of "
            f"the vacuum probe"
        )
    return probe


def _check_detector(file: h5py.File, calibration: Calibration, shape: tuple[int, ...]) -> None:
    """InputError where direct beam and first diffracted ring cannot lie on a detector of
    `shape`."""
    x, y = calibration.centre_px
    if not (0 <= x <= shape[1] - 1 and 0 <= y <= shape[0] - 1):
        raise InputError(
            f"{file.filename}: attribute centre_px is {(x, y)}; expected a pixel of the {shape} "
            f"detector, x first"
        )
    radius = calibration.semiangle_mrad * 1e-3 / geometry.wavelength_A(calibration.energy_keV)
    nearest = float(np.linalg.norm(calibration.lattice_inv_A, axis=0).min())
    half = min(shape) / 2 * calibration.pixel_size_inv_A
    if 2 * radius >= nearest or nearest > 2 * half:
        raise InputError(
            f"{file.filename}: disks of radius {radius:.4g} 1/A, {nearest:.4g} 1/A apart, on a "
            f"detector of {2 * half:.4g} 1/A; "
            "expected disks that lie apart, and on the detector: check the calibration"
        )


def read_patterns(
    path: Path | str, positions: list[tuple[int, int]]
) -> tuple[NDArray[np.float32], Calibration]:
    """Patterns (n, Qy, Qx) of a scene at some (row, column) of its scan, with the calibration."""
    with opened(path) as file:
        patterns = dataset(file, "patterns", 4, "f")
        return np.stack(
            [clean_patterns(patterns, row)[column] for row, column in positions]
        ), read_calibration(file)


def read_counts(path: Path | str) -> Counts:
    """Read and check a counts file."""
    with opened(path) as file:
        found = dataset(file, "counts", 4, "u")
        calibration, probe = read_calibration(file), read_probe(file, found.shape[2:])
        _check_detector(file, calibration, probe.shape)
        counts = found[...]
        if counts.max() > _LARGEST_COUNT:
            raise InputError(
                f"{path}: /counts holds {counts.max()}; expected at most {_LARGEST_COUNT} in a "
                f"pixel"
            )
        return Counts(counts, probe, calibration, Path(path))


def write_map(path: Path | str, answer: Map) -> None:
    """Write a method's answer."""
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        file["F"] = np.asarray(answer.F, np.float64)
        for name in ("covariance", "label", "centre_px", "dictionary", "own_strain"):
            if getattr(answer, name) is not None:
                file[name] = getattr(answer, name)
        for key, value in answer.attributes.items():
            file.attrs[key] = json.dumps(value) if isinstance(value, dict | list) else value


def read_map(path: Path | str, shape: tuple[int, ...] | None = None, complete: bool = True) -> Map:
    """Read and check a map file; `shape` is that of the scan, where it is known. A map that is not
    `complete` may lack attributes.
    """
    with opened(path) as file:
        F = dataset(file, "F", 4, "f")
        if F.shape[2:] != (2, 2) or (shape is not None and F.shape[:2] != shape):
            scan = shape or ("Ry", "Rx")
            raise InputError(
                f"{path}: /F has shape {F.shape}; expected ({scan[0]}, {scan[1]}, 2, 2)"
            )
        scan = F.shape[:2]
        F = F[...].astype(np.float64)
        check_deformation(F, f"{path}: /F")
        extra: dict[str, Any] = {}
        for name, trailing, kinds in (
            ("covariance", (4, 4), "f"),
            ("label", (), "i"),
            ("centre_px", (2,), "f"),
            ("own_strain", (4,), "f"),
        ):
            if own(file, name):
                extra[name] = dataset(file, name, 2 + len(trailing), kinds, scan + trailing)[...]
                if np.isinf(extra[name]).any():
                    raise InputError(
                        f"{path}: /{name} holds infinities; expected finite numbers, or NaN where "
                        f"the method gives up"
                    )
        if own(file, "dictionary"):
            extra["dictionary"] = values(file, "dictionary", 3, "f")
        attributes = {name: attribute(file, name) for name in file.attrs}
        for name in ("method", "settings", "seconds", "device"):
            if complete and name not in attributes:
                raise InputError(
                    f"{path}: no attribute {name}; expected method, settings (JSON), seconds and "
                    f"device"
                )
        return Map(F, attributes, **extra)


def check_deformation(F: NDArray[np.float64], what: str) -> None:
    """InputError where an answer (Ry, Rx, 2, 2) is no deformation; NaN says that the method gives
    up.
    """
    answered = F[~np.isnan(F).any((-1, -2))]
    if (
        np.isinf(F).any()
        or (np.abs(answered) > _LARGEST_DEFORMATION).any()
        or (np.linalg.det(answered) <= 0).any()
    ):
        raise InputError(
            f"{what} holds infinities, numbers beyond {_LARGEST_DEFORMATION:g} or a reflection; "
            f"expected deformations, or NaN for no answer"
        )


def write_truth(path: Path | str, truth: Truth, extra: dict[str, Any] | None = None) -> None:
    """Write the truth file; `extra` are further datasets (nuisance parameters)."""
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        for name in ("F", "F_probe", "label", "region", "reference"):
            file[name] = getattr(truth, name)
        file["region"].attrs["regions"] = json.dumps(list(truth.regions))
        file.attrs["rotational_symmetry"] = truth.symmetry
        group = file.create_group("limit")
        for level, values in truth.limit.items():
            group[level] = values
        if truth.dislocations is not None:
            write_dislocations(file, truth.dislocations)
        for name, value in (extra or {}).items():
            file[name] = value


def read_truth(path: Path | str) -> Truth:
    """Read and check a truth file."""
    with opened(path) as file:
        label, region = values(file, "label", 2, "i"), values(file, "region", 2, "iu")
        names = read_regions(file)
        scan = label.shape
        F, F_probe = (
            values(file, name, 4, "f", (*scan, 2, 2)).astype(np.float64)
            for name in ("F", "F_probe")
        )
        check_deformation(F_probe, f"{path}: /F_probe")
        if (
            region.shape != scan
            or region.min() < 0
            or region.max() >= len(names)
            or label.min() < -1
        ):
            raise InputError(
                f"{path}: /region or /label is unfit; expected labels from -1, and indices into "
                f"{list(names)} of shape {scan}"
            )
        symmetry = attribute(file, "rotational_symmetry")
        if symmetry not in (2, 4, 6):
            raise InputError(
                f"{path}: attribute rotational_symmetry is {short(symmetry)}; expected 2, 4 or 6"
            )
        levels = file["limit"] if own(file, "limit") else {}
        return Truth(
            F=F,
            F_probe=F_probe,
            label=label,
            region=region,
            regions=names,
            reference=values(file, "reference", 2, "b", scan),
            symmetry=int(symmetry),
            # No electrons where there is no specimen: the bound is infinite there.
            limit={
                level: dataset(file, f"limit/{level}", 3, "f", (*scan, 4))[...] for level in levels
            },
            dislocations=read_dislocations(file),
        )


def write_dislocations(file: h5py.File, lines: Dislocations) -> None:
    for name in ("position", "burgers_A", "lattice_A", "step_A"):
        value = np.asarray(getattr(lines, name), np.float64)
        if value.size:  # a scene without lines has no positions
            file[f"dislocations/{name}"] = value


def read_dislocations(file: h5py.File) -> Dislocations | None:
    """The dislocation lines of a truth or optics file, None where it tells nothing of them."""
    if not own(file, "dislocations"):
        return None
    position = burgers = np.zeros((0, 2))
    if own(file, "dislocations/position"):
        position = values(file, "dislocations/position", 2, "f")
        burgers = values(file, "dislocations/burgers_A", 2, "f", position.shape)
    lattice, step_A = (
        values(file, "dislocations/lattice_A", 2, "f", (2, 2)),
        float(values(file, "dislocations/step_A", 0, "f")),
    )
    if not (step_A > 0 and np.linalg.cond(lattice) < 100):
        raise InputError(
            f"{file.filename}: /dislocations: expected lattice_A that spans a lattice and a step_A "
            f"above 0"
        )
    return Dislocations(position, burgers, lattice, step_A)


def read_regions(file: h5py.File) -> tuple[str, ...]:
    """The names of a file's regions, from the attribute of /region."""
    region = dataset(file, "region", 2, "iu")
    text = attribute(region, "regions") if "regions" in region.attrs else ""
    try:
        names = json.loads(text)
    except (TypeError, ValueError):
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"{file.filename}: attribute regions of /region is {short(text)}; expected a JSON list "
            f"of names"
        )
    return tuple(names)
