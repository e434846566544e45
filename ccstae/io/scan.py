"""Scans as `ccstae import` writes them: counts and what the detector's file tells of the
instrument. `ccstae calibrate` makes a counts file (`counts.py`) of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ccstae.io import hdf5
from ccstae.io.calibration import Calibration, write_calibration

# A chunk of the counts holds so many bytes at most: what is read for one position.
CHUNK_BYTES = 4 * 2**20
CHUNK_COLUMNS = 32
TOLD = "told"  # the attribute that keeps, as JSON, what the detector's file told

Slab = tuple[slice, slice, NDArray[Any]]


def write_scan(
    path: Path,
    slabs: Iterable[Slab],
    shape: tuple[int, int, int, int],
    dtype: np.dtype[Any],
    told: dict[str, float | str],
    mask: NDArray[np.bool_],
) -> None:
    """Write a scan slab by slab, whole or not at all.

    Args:
        path: where it goes.
        slabs: rows, columns, and the patterns (rows, columns, Qy, Qx) there.
        shape: (Ry, Rx, Qy, Qx) of all.
        dtype: of the counts. Integers are compressed; noise in floats hardly can be.
        told: attributes.
        mask: (Qy, Qx), bad pixels; not written where there are none.

    Raises:
        InputError: where the system takes no more of it.
    """
    frame = shape[2] * shape[3] * dtype.itemsize
    columns = max(1, min(shape[1], CHUNK_COLUMNS, CHUNK_BYTES // frame))
    packed: dict[str, Any] = {} if dtype.kind == "f" else {"compression": "lzf", "shuffle": True}
    with hdf5.created(path) as file:
        counts = file.create_dataset(
            "counts", shape, dtype, chunks=(1, columns, *shape[2:]), **packed
        )
        for name, value in told.items():
            file.attrs[name] = value
        if mask.any():
            file["mask"] = mask.astype(np.uint8)
        for rows, cols, patterns in slabs:
            counts[rows, cols] = patterns


@dataclass(frozen=True)
class StoredScan:
    """A scan file that is open for reading."""

    path: Path
    counts: h5py.Dataset
    """(Ry, Rx, Qy, Qx)."""
    mask: NDArray[np.bool_]
    """(Qy, Qx), bad pixels."""
    told: dict[str, float]
    """Attributes that are numbers, as they were before any calibration."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        ry, rx, qy, qx = (int(side) for side in self.counts.shape)
        return ry, rx, qy, qx


@contextmanager
def opened_scan(path: Path) -> Iterator[StoredScan]:
    """A scan file, or a counts file, for reading.

    Raises:
        InputError: where it is missing, damaged, or holds no counts.
    """
    with hdf5.opened(path) as file:
        counts = hdf5.dataset(file, "counts", 4, "uf")
        mask = np.zeros(counts.shape[2:], bool)
        if hdf5.holds(file, "mask"):
            mask = hdf5.values(file, "mask", 2, "biuf", counts.shape[2:]) != 0
        yield StoredScan(path, counts, mask, _told(file))


def _told(file: h5py.File) -> dict[str, float]:
    """What the detector's file told, whatever a calibration wrote later."""
    if TOLD in file.attrs:
        kept = json.loads(hdf5.attribute(file, TOLD))
    else:
        kept = {name: hdf5.attribute(file, name) for name in file.attrs}
    return {name: float(value) for name, value in kept.items() if isinstance(value, int | float)}


def write_calibrated(
    path: Path,
    calibration: Calibration,
    probe: NDArray[Any],
    beam_px: NDArray[np.float64],
) -> None:
    """Make a scan file a counts file: all of it, or none that a method would read.

    Args:
        path: of the scan file.
        calibration: of instrument and specimen.
        probe: (Qy, Qx), the vacuum probe; sums to 1.
        beam_px: (Ry, Rx, 2), the direct beam of each pattern, x and y; NaN where there is none.

    Raises:
        InputError: where the system takes no more of it.
    """
    with hdf5.extended(path) as file:
        if TOLD not in file.attrs:
            file.attrs[TOLD] = json.dumps(_told(file))
        # Without its semiangle a file is no counts file; it gets it last.
        file.attrs.pop("semiangle_mrad", None)
        file.attrs.pop("scan_rotation_deg", None)
        for name in ("lattice_inv_A", "probe", "distortion", "beam_px"):
            if name in file:
                del file[name]
        file["beam_px"] = beam_px.astype(np.float32)
        file.flush()
        write_calibration(file, calibration, probe)
