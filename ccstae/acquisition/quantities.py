"""What a person gives to a calibration, and what it finds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.acquisition import lattice
from ccstae.config.materials import of_the_package
from ccstae.errors import InputError, unknown
from ccstae.io.calibration import Calibration
from ccstae.specimen.crystal import crystal

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


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


def nominal_lattice(given: Given) -> Nominal | None:
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
