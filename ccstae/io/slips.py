"""Calibrations that no detector can have, and the slip of units that each looks like.

A calibration is refused where geometry says that its patterns hold no disks from which a lattice
could be told. One quantity in another unit is the usual reason. Each slip of `SLIPS` is undone in
turn, and named where the calibration then becomes plausible.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import h5py
import numpy as np

from ccstae import geometry
from ccstae.errors import InputError
from ccstae.io.calibration import Calibration, disk_radius_px

# Energies of transmission electron microscopes, as in a config.
MIN_ENERGY_KEV, MAX_ENERGY_KEV = 10.0, 1000.0
# A disk smaller than a pixel has no place to a fraction of its radius.
MIN_RADIUS_PX = 1.0
# A detector with more orders of reflections than this, from its middle to its border, has disks of
# at least `MIN_RADIUS_MANY_ORDERS_PX`: a pixel size ten times too large has smaller ones.
MANY_ORDERS = 16.0
MIN_RADIUS_MANY_ORDERS_PX = 2.0
# A step from one position of the probe to the next, against the diffraction limit of the probe,
# wavelength / semiangle, and the width of a field of view.
MIN_STEP_PROBES = 0.001
MAX_STEP_A = 1e6
# What a corrected calibration must have for its slip to be named.
PLAUSIBLE_RADIUS_PX = 1.5
PLAUSIBLE_ORDERS = 12.0
PLAUSIBLE_SPACING_RADII = 2.5
_ORIENTATIONS = 360
_SHORT = 12  # largest index of the shortest node, for a basis that is not reduced


@dataclass(frozen=True)
class Slip:
    """One quantity given in another unit."""

    name: str  # of the quantity
    unit: str  # what it looks to be given in
    undo: Callable[[Calibration], Calibration]


def _times(name: str, unit: str, factor: float) -> Slip:
    """The slip that multiplying by `factor` undoes."""
    return Slip(name, unit, lambda c: replace(c, **{name: getattr(c, name) * factor}))


def _pixel_from_mrad(calibration: Calibration) -> Calibration:
    wavelength_A = geometry.wavelength_A(calibration.energy_keV)
    pixel_size_inv_A = calibration.pixel_size_inv_A * 1e-3 / wavelength_A
    return replace(calibration, pixel_size_inv_A=pixel_size_inv_A)


SLIPS = (
    _times("semiangle_mrad", "rad", 1e3),
    _times("semiangle_mrad", "microrad", 1e-3),
    _times("energy_keV", "eV", 1e-3),
    _times("energy_keV", "MeV", 1e3),
    _times("pixel_size_inv_A", "1/nm", 0.1),
    _times("pixel_size_inv_A", "1/Angstrom, but divided by 10 as if it were in 1/nm", 10.0),
    Slip("pixel_size_inv_A", "mrad", _pixel_from_mrad),
    _times("lattice_inv_A", "1/Angstrom with 2 pi", 1 / (2 * math.pi)),
    _times("lattice_inv_A", "1/nm", 0.1),
    Slip(
        "lattice_inv_A",
        "Angstrom, in real space",
        lambda c: replace(c, lattice_inv_A=geometry.reciprocal(c.lattice_inv_A)),
    ),
    Slip("centre_px", "(row, column)", lambda c: replace(c, centre_px=c.centre_px[::-1])),
    _times("step_A", "nm", 10.0),
    _times("step_A", "m", 1e10),
)


def check_detector(file: h5py.File, calibration: Calibration, shape: tuple[int, ...]) -> None:
    """Check that a detector of `shape` (Qy, Qx) can show the disks of a calibration.

    Raises:
        InputError: where it cannot, with the slip of units that this looks like.
    """
    with np.errstate(all="ignore"):  # what overflows is at fault, and is told so
        wrong = fault(calibration, shape)
        if wrong is not None:
            raise InputError(f"{file.filename}: {wrong}{looks_like(calibration, shape)}")


def fault(calibration: Calibration, shape: tuple[int, ...]) -> str | None:
    """What a detector of `shape` (Qy, Qx) cannot have of a calibration, with what was expected;
    None where all is well.
    """
    energy, (x, y) = calibration.energy_keV, calibration.centre_px
    if not MIN_ENERGY_KEV <= energy <= MAX_ENERGY_KEV:
        return (
            f"attribute energy_keV is {energy:g}; expected {MIN_ENERGY_KEV:g} to "
            f"{MAX_ENERGY_KEV:g} keV"
        )
    if not (0 <= x <= shape[1] - 1 and 0 <= y <= shape[0] - 1):
        return (
            f"attribute centre_px is {(x, y)}; expected a pixel of the {tuple(shape)} detector, x "
            f"first"
        )
    radius, nearest = disk_radius_px(calibration), nearest_px(calibration)
    given = (
        f"disks of radius {radius:.4g} px, {nearest:.4g} px apart (semiangle_mrad "
        f"{calibration.semiangle_mrad:g}, energy_keV {energy:g}, pixel_size_inv_A "
        f"{calibration.pixel_size_inv_A:g}, shortest vector of /lattice_inv_A "
        f"{nearest * calibration.pixel_size_inv_A:.4g})"
    )
    if not radius >= MIN_RADIUS_PX:
        return f"{given}; expected a radius of at least {MIN_RADIUS_PX:g} px"
    if not 2 * radius < nearest:
        return f"{given}; expected disks that lie apart"
    if radius < MIN_RADIUS_MANY_ORDERS_PX and _orders(calibration, shape) > MANY_ORDERS:
        return (
            f"{given}; expected a radius of at least {MIN_RADIUS_MANY_ORDERS_PX:g} px on a "
            f"detector that takes in more than {MANY_ORDERS:g} orders"
        )
    if not _lattice_fits(calibration, shape):
        return (
            f"{given}; expected disks in two directions whole on the detector: check the "
            f"calibration"
        )
    probe_A = geometry.wavelength_A(energy) / (calibration.semiangle_mrad * 1e-3)
    if not MIN_STEP_PROBES * probe_A <= calibration.step_A <= MAX_STEP_A:
        return (
            f"attribute step_A is {calibration.step_A:g}; expected {MIN_STEP_PROBES * probe_A:.2g} "
            f"to {MAX_STEP_A:g} Angstrom"
        )
    return None


def looks_like(calibration: Calibration, shape: tuple[int, ...]) -> str:
    """ "; looks like semiangle_mrad given in rad", for a calibration that is at fault.

    Where no slip of units explains a ring off the detector, a pixel size that is too small does.
    Empty where nothing explains it.
    """
    slips: dict[str, list[str]] = {}
    for slip in SLIPS:
        try:
            explains = _plausible(slip.undo(calibration), shape)
        except (ArithmeticError, np.linalg.LinAlgError):  # so far from any unit
            continue
        if explains:
            slips.setdefault(slip.name, []).append(slip.unit)
    if not slips:
        large = disk_radius_px(calibration) >= PLAUSIBLE_RADIUS_PX
        off = large and 2 * nearest_px(calibration) > min(shape)
        return (
            f"; looks like a pixel_size_inv_A that is too small: the first ring is off the "
            f"{tuple(shape)} detector"
            if off
            else ""
        )
    named = [f"{name} given in {' or in '.join(units)}" for name, units in slips.items()]
    return "; looks like " + ", or ".join(named)


def nearest_px(calibration: Calibration) -> float:
    """Distance of the nearest two disks in pixels."""
    index = np.arange(-_SHORT, _SHORT + 1)
    hk = np.stack(np.meshgrid(index, index), -1).reshape(-1, 2)
    length_inv_A = np.linalg.norm(hk @ calibration.lattice_inv_A.T, axis=-1)
    return float(length_inv_A[hk.any(-1)].min()) / calibration.pixel_size_inv_A


def _orders(calibration: Calibration, shape: tuple[int, ...]) -> float:
    return min(shape) / 2 / nearest_px(calibration)


def _plausible(calibration: Calibration, shape: tuple[int, ...]) -> bool:
    """Whether a calibration is without fault, its disks are large enough to measure and lie well
    apart, and its first ring but few others fit on the detector.
    """
    return (
        fault(calibration, shape) is None
        and disk_radius_px(calibration) >= PLAUSIBLE_RADIUS_PX
        and nearest_px(calibration) >= PLAUSIBLE_SPACING_RADII * disk_radius_px(calibration)
        and 1 <= _orders(calibration, shape) <= PLAUSIBLE_ORDERS
    )


def _lattice_fits(calibration: Calibration, shape: tuple[int, ...]) -> bool:
    """Whether, in some orientation, disks of two directions beside the direct beam lie whole on the
    detector.
    """
    height, width = shape
    radius = disk_radius_px(calibration)
    g = calibration.lattice_inv_A / calibration.pixel_size_inv_A
    hk = geometry.lattice_nodes(g, math.hypot(height, width))[1:]
    turn = geometry.rotation_matrix(np.linspace(0, 2 * np.pi, _ORIENTATIONS, endpoint=False))
    x, y = np.moveaxis(turn @ (g @ hk.T) + np.array(calibration.centre_px)[:, None], 1, 0)
    whole_x = (x >= radius) & (x <= width - 1 - radius)
    whole_y = (y >= radius) & (y <= height - 1 - radius)
    whole = (whole_x & whole_y).astype(float)
    h, k = hk.T.astype(float)
    # Nodes span a lattice where their second moments do.
    determinant = (whole @ h**2) * (whole @ k**2) - (whole @ (h * k)) ** 2
    return bool((determinant > 0.5).any())
