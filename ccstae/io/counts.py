"""Counts files: the noisy patterns that a method gets, and no truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ccstae.errors import InputError
from ccstae.io import bad_pixels, hdf5
from ccstae.io.calibration import (
    Calibration,
    disk_radius_px,
    read_calibration,
    write_calibration,
)
from ccstae.io.probe import vacuum_probe
from ccstae.io.slips import check_detector, nearest_px

MAX_COUNT = 2**32 - 1


@dataclass(frozen=True)
class Counts:
    """One noisy data set, as a method gets it."""

    counts: NDArray[Any]  # (Ry, Rx, Qy, Qx), unsigned integers or float32; 0 on bad pixels
    probe: NDArray[np.float32]  # (Qy, Qx), the vacuum probe, sums to 1
    calibration: Calibration
    path: Path
    good: NDArray[np.bool_]  # (Qy, Qx), where a pixel tells something
    bad_pixels: dict[str, int] = field(default_factory=dict)
    """How many pixels are bad, by what they were found by, and readings that were filled; empty
    where all are good.
    """


def read_counts(path: Path | str) -> Counts:
    """Read and check a counts file, and find its bad pixels (`bad_pixels.take_out`).

    Raises:
        InputError: where it is missing, damaged or lacks something, holds what no detector counts,
            too few of its pixels are good, or its calibration does not fit its detector.
    """
    with hdf5.opened(path) as file:
        stored = hdf5.dataset(file, "counts", 4, "uf")
        calibration, shape = read_calibration(file), stored.shape[2:]
        recorded = hdf5.dataset(file, "probe", 2, "fiu", shape)[...]
        check_detector(file, calibration, shape)
        masked = _read_mask(file, shape)
        counts = stored[...]
    if counts.dtype.kind == "f":
        with np.errstate(over="ignore"):
            counts = counts.astype(np.float32, copy=False)
    counts, wrapped = bad_pixels.unwrapped(counts)
    good, found = bad_pixels.take_out(counts, masked, _disks(calibration), str(path))
    if counts.dtype.kind == "f" and counts.max() <= 0 and counts.any():
        raise InputError(
            f"{path}: /counts holds no number above 0, and negative ones; expected electrons"
        )
    if counts.max() > MAX_COUNT:
        raise InputError(
            f"{path}: /counts holds {counts.max()}; expected at most {MAX_COUNT} in a pixel"
        )
    probe = vacuum_probe(recorded, good, disk_radius_px(calibration), str(path))
    return Counts(counts, probe, calibration, Path(path), good, wrapped | found)


def _disks(calibration: Calibration) -> bad_pixels.Disks:
    radius = disk_radius_px(calibration)
    return bad_pixels.Disks(radius, nearest_px(calibration) - 2 * radius)


def _read_mask(file: h5py.File, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where `/mask` of an open counts file marks a pixel as bad, (Qy, Qx); nowhere without one."""
    if not hdf5.holds(file, "mask"):
        return np.zeros(shape, bool)
    return np.asarray(hdf5.values(file, "mask", 2, "biuf", shape) != 0)


def scan_shape(path: Path | str) -> tuple[int, int]:
    """(Ry, Rx) of a counts file; InputError where it holds no counts."""
    with hdf5.opened(path) as file:
        rows, columns = hdf5.dataset(file, "counts", 4, "uf").shape[:2]
        return int(rows), int(columns)


def calibration_of(path: Path | str) -> Calibration:
    """The calibration of a counts file; InputError where it is missing or unfit."""
    with hdf5.opened(path) as file:
        return read_calibration(file)


def write_counts(
    path: Path | str,
    rows: Iterable[NDArray[Any]],
    shape: tuple[int, ...],
    calibration: Calibration,
    probe: NDArray[Any],
    mask: NDArray[Any] | None = None,
) -> None:
    """Write a counts file row by row, whole or not at all.

    Args:
        path: where it goes.
        rows: the rows of the scan in order, each (Rx, Qy, Qx) of unsigned integers or floats, which
            stay floats.
        shape: (Ry, Rx, Qy, Qx) of all.
        calibration: of instrument and specimen.
        probe: (Qy, Qx), the vacuum probe; sums to 1.
        mask: (Qy, Qx), nonzero where a pixel is bad; not written where none is.

    Raises:
        InputError: where the system takes no more of it.
    """
    chunk = (1, min(shape[1], 32), *shape[2:])
    rows = iter(rows)
    first = next(rows)
    dtype = first.dtype if first.dtype.kind == "f" else np.dtype("u4")
    with hdf5.created(path) as file:
        counts = file.create_dataset(
            "counts", shape, dtype, chunks=chunk, compression="lzf", shuffle=True
        )
        if mask is not None and np.any(mask):
            file["mask"] = np.asarray(mask != 0, np.uint8)
        write_calibration(file, calibration, probe)
        for index, row in enumerate(chain([first], rows)):
            counts[index] = row
