"""Truth files: exact answers, which only scorer and figures read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ccstae.errors import InputError
from ccstae.io.hdf5 import attribute, created, dataset, holds, opened, short, values
from ccstae.io.maps import check_deformation


@dataclass(frozen=True)
class DislocationLines:
    """The dislocation lines of a scene, and what is needed to find them on its scan."""

    # (n, 2), column and row of the scan, in steps from its first position
    position: NDArray[np.float64]
    burgers_A: NDArray[np.float64]  # (n, 2), integral of F^-1 dx round the line, from x towards y
    lattice_A: NDArray[np.float64]  # (2, 2), vectors of the reference lattice, columns
    step_A: float


@dataclass(frozen=True)
class StrainWaves:
    """The strain waves of a scene that measures resolution."""

    length_steps: NDArray[np.float64]  # (n,), wavelengths in scan steps, rising
    band: NDArray[np.int8]  # (Ry, Rx), index of the wave that a position shows alone, or -1


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
    # Cramer-Rao bound by the name of the noise level, /limit/<level> in the file: (Ry, Rx, 4),
    # standard deviations of exx, eyy, exy, theta
    bound: dict[str, NDArray[np.float64]]
    dislocations: DislocationLines | None = None  # None where circuits need not close
    # (Ry, Rx), signed distance from the interface in scan steps; None where there is none
    interface_steps: NDArray[np.float64] | None = None
    waves: StrainWaves | None = None  # None where the scene has none


def write_truth(path: Path | str, truth: Truth, extra: dict[str, Any] | None = None) -> None:
    """Write a truth file, whole or not at all.

    Args:
        path: where it goes.
        truth: of the scene.
        extra: further datasets by name, such as the nuisance parameters.

    Raises:
        InputError: where the system takes no more of it.
    """
    with created(path) as file:
        for name in ("F", "F_probe", "label", "region", "reference"):
            file[name] = getattr(truth, name)
        file["region"].attrs["regions"] = json.dumps(list(truth.regions))
        file.attrs["rotational_symmetry"] = truth.symmetry
        group = file.create_group("limit")
        for level, bound in truth.bound.items():
            group[level] = bound
        if truth.dislocations is not None:
            write_dislocations(file, truth.dislocations)
        if truth.interface_steps is not None:
            file["interface_steps"] = truth.interface_steps
        if truth.waves is not None:
            file["wave/length_steps"] = truth.waves.length_steps
            file["wave/band"] = truth.waves.band
        for name, value in (extra or {}).items():
            file[name] = value


def read_truth(path: Path | str) -> Truth:
    """Read and check a truth file.

    Raises:
        InputError: where it is missing or damaged, lacks something, or does not fit together.
    """
    with opened(path) as file:
        label, region = values(file, "label", 2, "i"), values(file, "region", 2, "iu")
        names = read_regions(file)
        scan = label.shape
        F = values(file, "F", 4, "f", (*scan, 2, 2)).astype(np.float64)
        F_probe = values(file, "F_probe", 4, "f", (*scan, 2, 2)).astype(np.float64)
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
        levels = file["limit"] if holds(file, "limit") else {}
        return Truth(
            F=F,
            F_probe=F_probe,
            label=label,
            region=region,
            regions=names,
            reference=values(file, "reference", 2, "b", scan),
            symmetry=int(symmetry),
            # No electrons where there is no specimen: the bound is infinite there.
            bound={
                level: dataset(file, f"limit/{level}", 3, "f", (*scan, 4))[...] for level in levels
            },
            dislocations=read_dislocations(file),
            interface_steps=read_interface(file, scan),
            waves=read_waves(file, scan),
        )


def read_interface(file: h5py.File, scan: tuple[int, ...]) -> NDArray[np.float64] | None:
    """Signed distance (Ry, Rx) from the scene's interface in scan steps, from its open file of what
    is exact, or of its truth; None where it has none.
    """
    if not holds(file, "interface_steps"):
        return None
    return values(file, "interface_steps", 2, "f", scan).astype(np.float64)


def read_waves(file: h5py.File, scan: tuple[int, ...]) -> StrainWaves | None:
    """The strain waves of a scene, from its open file of what is exact, or of its truth; None where
    it has none.

    Raises:
        InputError: where a dataset is missing or unfit.
    """
    if not holds(file, "wave"):
        return None
    length = values(file, "wave/length_steps", 1, "f").astype(np.float64)
    band = values(file, "wave/band", 2, "i", scan).astype(np.int8)
    if not (length > 0).all() or (np.diff(length) <= 0).any() or band.max() >= len(length):
        raise InputError(
            f"{file.filename}: /wave: expected length_steps that rise, and in band an index of "
            f"them, or -1"
        )
    return StrainWaves(length, band)


def write_dislocations(file: h5py.File, lines: DislocationLines) -> None:
    """Write the lines of a scene into its open file of what is exact, or of its truth."""
    for name in ("position", "burgers_A", "lattice_A", "step_A"):
        value = np.asarray(getattr(lines, name), np.float64)
        if value.size:  # a scene without lines has no positions
            file[f"dislocations/{name}"] = value


def read_dislocations(file: h5py.File) -> DislocationLines | None:
    """The dislocation lines of a scene, from its open file of what is exact, or of its truth.

    Returns:
        The lines, none among them where the scene has none; None where circuits need not close and
        the file tells nothing of them.

    Raises:
        InputError: where a dataset is missing or unfit.
    """
    if not holds(file, "dislocations"):
        return None
    position = burgers = np.zeros((0, 2))
    if holds(file, "dislocations/position"):
        position = values(file, "dislocations/position", 2, "f")
        burgers = values(file, "dislocations/burgers_A", 2, "f", position.shape)
    lattice = values(file, "dislocations/lattice_A", 2, "f", (2, 2))
    step_A = float(values(file, "dislocations/step_A", 0, "f"))
    if not (step_A > 0 and np.linalg.cond(lattice) < 100):
        raise InputError(
            f"{file.filename}: /dislocations: expected lattice_A that spans a lattice and a step_A "
            f"above 0"
        )
    return DislocationLines(position, burgers, lattice, step_A)


def read_regions(file: h5py.File) -> tuple[str, ...]:
    """The names of a file's regions, in the order of their indices, from the attribute of /region.

    Raises:
        InputError: where the attribute is missing or no JSON list of names.
    """
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
