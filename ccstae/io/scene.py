"""Scene files: clean patterns, and beside them what is exact, for the truth file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ccstae.errors import InputError
from ccstae.io.calibration import Calibration, read_calibration, write_calibration
from ccstae.io.hdf5 import created, dataset, opened, with_room
from ccstae.io.truth import DislocationLines, write_dislocations


def clean_patterns(patterns: h5py.Dataset, row: int) -> NDArray[np.float32]:
    """One row (Rx, Qy, Qx) of a scene's patterns.

    Raises:
        InputError: where a pattern is no distribution of electrons.
    """
    clean = patterns[row]
    if not (np.isfinite(clean).all() and (clean >= 0).all() and (clean.sum((-1, -2)) > 0).all()):
        raise InputError(
            f"{patterns.file.filename}: {patterns.name}, row {row}: expected finite numbers from 0 "
            f"up, not all 0 in any pattern"
        )
    return clean


def read_patterns(
    path: Path | str, positions: list[tuple[int, int]]
) -> tuple[NDArray[np.float32], Calibration]:
    """Read some clean patterns of a scene.

    Args:
        path: of the scene file.
        positions: n of (row, column) of its scan.

    Returns:
        The patterns, shape (n, Qy, Qx), and the calibration.

    Raises:
        InputError: where the file is missing, damaged or lacks something.
    """
    with opened(path) as file:
        stored = dataset(file, "patterns", 4, "f")
        patterns = np.stack([clean_patterns(stored, row)[column] for row, column in positions])
        return patterns, read_calibration(file)


def create_scene(
    path: Path, shape: tuple[int, ...], calibration: Calibration, probe: NDArray[Any]
) -> None:
    """Create a scene file without its patterns, for which there is room.

    Args:
        path: where it goes.
        shape: (Ry, Rx, Qy, Qx) of the patterns.
        calibration: of instrument and specimen.
        probe: (Qy, Qx), the vacuum probe.

    Raises:
        InputError: where the system takes no more of it.
    """
    with created(path, reserved=True) as file:
        with_room(file, "patterns", shape, (1, min(shape[1], 32), *shape[2:]))
        write_calibration(file, calibration, probe)


def create_exact(
    path: Path,
    shape: tuple[int, ...],
    exact: Mapping[str, NDArray[Any]],
    regions: tuple[str, ...],
    dislocations: DislocationLines | None,
    nuisances: Mapping[str, Any],
) -> None:
    """Create the file of what is exact in a scene, from which its truth is made.

    It holds all but the patterns' gradients (Ry, Rx, 2, Qy, Qx), for which there is room.

    Args:
        path: where it goes.
        shape: (Ry, Rx, Qy, Qx) of the patterns.
        exact: by the name of its dataset, from `simulation.exact.exact_truth`.
        regions: their names, in the order of the indices in `exact["region"]`.
        dislocations: of the scene; None where circuits need not close.
        nuisances: by name, those that are on.

    Raises:
        InputError: where the system takes no more of it.
    """
    chunk = (1, min(shape[1], 32), 2, *shape[2:])
    with created(path, reserved=True) as file:
        with_room(file, "gradient", (*shape[:2], 2, *shape[2:]), chunk)
        for name, value in exact.items():
            file[name] = value
        file["region"].attrs["regions"] = json.dumps(regions)
        if dislocations is not None:
            write_dislocations(file, dislocations)
        for name, value in nuisances.items():
            file[f"nuisance/{name}"] = value
