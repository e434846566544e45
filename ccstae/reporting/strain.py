"""What is behind a map of strain: displacements and dislocations, as a file and a figure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.errors import InputError
from ccstae.evaluation.displacement import displacement
from ccstae.io.displacement import write_displacement
from ccstae.io.maps import Map, read_map
from ccstae.reporting.figures import displacement as figure
from ccstae.reporting.figures import style


def write(map_path: Path, out: Path, step_A: float | None = None) -> None:
    """Write displacements and curl of a map to an HDF5 file, and a figure of them beside it.

    Args:
        map_path: a map; one of `ccstae-pooled` has the least noise, and lies on one branch of the
            lattice's symmetry.
        out: the HDF5 file; the figure has its name, with .png and .pdf.
        step_A: of the scan; what the map says where left out.

    Raises:
        InputError: for a map that cannot be read or has no answer, and for a scan of which nothing
            says the step.
    """
    answer = read_map(map_path, complete=False)
    if step_A is None:
        if "step_A" not in answer.attributes:
            raise InputError(f"{map_path}: no attribute step_A; expected one, or --step-A")
        step_A = float(answer.attributes["step_A"])
    if not np.isfinite(answer.F).all((-1, -2)).any() or min(answer.F.shape[:2]) < 2:
        raise InputError(
            f"{map_path}: expected answers at positions side by side in two directions"
        )
    found = displacement(answer.F, step_A, scan_steps(answer))
    write_displacement(out, found)
    with style.styled():
        style.save(figure.draw(found), out.with_suffix(""))


def scan_steps(answer: Map) -> NDArray[np.float64]:
    """The scan's steps along x and y in the detector's axes, as columns (2, 2): as the method found
    them, along the detector's axes where it found nothing.
    """
    said = json.loads(str(answer.attributes.get("found", "{}"))).get("scan_against_detector")
    if not said:
        return np.eye(2)
    return geometry.scan_steps(
        np.deg2rad(said["rotation_deg"]), said["step_ratio"], said["mirrored"]
    )
