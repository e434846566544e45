"""Energy, step, pixel size and semiangle of a scan: given, told by the detector's file, seen in the
scan, or assumed where strain does not depend on them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from ccstae import geometry
from ccstae.acquisition import lattice
from ccstae.acquisition.ellipse import ellipse_and_pixel_size, lattice_words
from ccstae.acquisition.quantities import Calibrated, Given, Nominal
from ccstae.errors import InputError
from ccstae.io.calibration import Calibration
from ccstae.io.slips import MAX_ENERGY_KEV, MIN_ENERGY_KEV, fault, looks_like

# Taken where nothing tells them, and strain does not depend on them.
ASSUMED_ENERGY_KEV, ASSUMED_STEP_A, ASSUMED_PIXEL_INV_A = 200.0, 10.0, 0.01
# What is given, and what the scan tells, are the same to this.
AGREEMENT = 0.15


def with_units(
    path: Path, told: dict[str, float], given: Given, nominal: Nominal | None, found: Calibrated
) -> Calibrated:
    """Ellipse, units and lattice of what was found."""
    said = list(found.said)
    energy = _told("energy_keV", given.energy_keV, told, ASSUMED_ENERGY_KEV, "keV", said)
    _check_energy(path, energy)
    step = _told("step_A", given.step_A, told, ASSUMED_STEP_A, "Angstrom", said)
    distortion, pixel = ellipse_and_pixel_size(path, given, nominal, found, said)
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


def _summary(found: Calibrated, calibration: Calibration) -> list[str]:
    G, rotation = found.found.G, calibration.scan_rotation_deg
    name = {6: "hexagonal", 4: "square", 2: "oblique or rectangular"}
    return [
        f"lattice: g = ({G[0, 0]:.3f}, {G[1, 0]:.3f}) and ({G[0, 1]:.3f}, {G[1, 1]:.3f}) px, "
        f"{lattice_words(G)}, {name[calibration.rotational_symmetry]}; {len(found.found.nodes)} "
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
