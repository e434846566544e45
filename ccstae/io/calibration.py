"""What a method may know of instrument and specimen, as scene and counts files hold it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.errors import InputError
from ccstae.io.hdf5 import attribute, holds, short, values

CALIBRATION = (
    "energy_keV",
    "semiangle_mrad",
    "pixel_size_inv_A",
    "step_A",
    "centre_px",
    "rotational_symmetry",
)
# Ratio of the axes of a detector's ellipse: projection systems stay below 1.1, beyond this it is
# some other matrix.
MAX_ELLIPSE_RATIO = 1.5


@dataclass(frozen=True)
class Calibration:
    """What a method may know of the instrument and the specimen."""

    energy_keV: float
    semiangle_mrad: float
    """Convergence semiangle of the probe."""
    pixel_size_inv_A: float
    step_A: float
    centre_px: tuple[float, float]
    """Nominal direct beam (x, y) in pixels; pixel centres are integers."""
    lattice_inv_A: NDArray[np.float64]
    """Nominal reciprocal lattice vectors of the reference material, columns, (2, 2), as the
    detector shows them.
    """
    rotational_symmetry: int
    """Order of the lattice's rotational symmetry (6 for the node positions of a hexagonal lattice).
    """
    distortion: NDArray[np.float64] = field(default_factory=lambda: np.eye(2))
    """E (2, 2), of determinant 1: the detector shows a reciprocal vector g as E g."""
    scan_rotation_deg: float | None = None
    """Angle of the scan's x axis from the detector's, positive from x towards y; None where nobody
    knows it.
    """


def disk_radius_px(calibration: Calibration) -> float:
    """Radius of the disks in pixels: semiangle / wavelength / pixel size."""
    radius_inv_A = geometry.disk_radius_inv_A(calibration.semiangle_mrad, calibration.energy_keV)
    return radius_inv_A / calibration.pixel_size_inv_A


def write_calibration(file: h5py.File, calibration: Calibration, probe: NDArray[Any]) -> None:
    """Write the calibration and the vacuum probe (Qy, Qx) into an open scene or counts file."""
    for name in CALIBRATION:
        file.attrs[name] = getattr(calibration, name)
    file["lattice_inv_A"] = np.asarray(calibration.lattice_inv_A, np.float64)
    file["probe"] = np.asarray(probe, np.float32)
    if not np.array_equal(calibration.distortion, np.eye(2)):
        file["distortion"] = np.asarray(calibration.distortion, np.float64)
    if calibration.scan_rotation_deg is not None:
        file.attrs["scan_rotation_deg"] = float(calibration.scan_rotation_deg)


def read_calibration(file: h5py.File) -> Calibration:
    """The calibration of an open scene or counts file.

    Raises:
        InputError: where an attribute or the lattice is missing, or is what no instrument has.
    """
    numbers: dict[str, NDArray[np.float64]] = {}
    for name in CALIBRATION:
        if name not in file.attrs:
            raise InputError(
                f"{file.filename}: no attribute {name}; expected the calibration "
                f"({', '.join(CALIBRATION)}), which `ccstae calibrate` finds of a scan"
            )
        value = np.asarray(attribute(file, name))
        size = 2 if name == "centre_px" else 1
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
        numbers[name] = value.astype(float).ravel()
    symmetry = float(numbers["rotational_symmetry"][0])
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
        energy_keV=float(numbers["energy_keV"][0]),
        semiangle_mrad=float(numbers["semiangle_mrad"][0]),
        pixel_size_inv_A=float(numbers["pixel_size_inv_A"][0]),
        step_A=float(numbers["step_A"][0]),
        centre_px=(float(numbers["centre_px"][0]), float(numbers["centre_px"][1])),
        lattice_inv_A=lattice,
        rotational_symmetry=int(symmetry),
        distortion=_read_distortion(file),
        scan_rotation_deg=_read_scan_rotation(file),
    )


def _read_distortion(file: h5py.File) -> NDArray[np.float64]:
    """E of an open file; the unit matrix where it has none."""
    if not holds(file, "distortion"):
        return np.eye(2)
    E = values(file, "distortion", 2, "f", (2, 2)).astype(np.float64)
    if not (np.linalg.det(E) > 0 and np.linalg.cond(E) <= MAX_ELLIPSE_RATIO):
        raise InputError(
            f"{file.filename}: /distortion is {E.tolist()}; expected a matrix of determinant 1, "
            f"near the unit matrix"
        )
    return E


def _read_scan_rotation(file: h5py.File) -> float | None:
    if "scan_rotation_deg" not in file.attrs:
        return None
    value = np.asarray(attribute(file, "scan_rotation_deg"))
    if value.dtype.kind not in "iuf" or value.size != 1 or not np.isfinite(value).all():
        raise InputError(
            f"{file.filename}: attribute scan_rotation_deg is {short(value.tolist())}; expected "
            f"an angle in degrees"
        )
    return float(value.ravel()[0])


def read_probe(file: h5py.File, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The vacuum probe of an open scene or counts file.

    Args:
        file: opened for reading.
        shape: (Qy, Qx) of the detector, which the probe must have.

    Returns:
        The probe, shape (Qy, Qx), as it is stored.

    Raises:
        InputError: where it is missing or no distribution of electrons.
    """
    with np.errstate(over="ignore"):
        probe = values(file, "probe", 2, "f", shape).astype(np.float32)
    if not np.isfinite(probe).all():
        raise InputError(
            f"{file.filename}: /probe holds numbers beyond those of float32; expected the "
            f"electrons of the vacuum probe"
        )
    if (probe < 0).any() or not probe.any():
        raise InputError(
            f"{file.filename}: /probe holds negative numbers, or only 0; expected the electrons of "
            f"the vacuum probe"
        )
    return probe
