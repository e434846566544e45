"""Counts files: the noisy patterns that a method gets, and no truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae.errors import InputError
from ccstae.io import hdf5
from ccstae.io.calibration import (
    Calibration,
    read_calibration,
    read_probe,
    write_calibration,
)
from ccstae.io.slips import check_detector

MAX_COUNT = 2**32 - 1


@dataclass(frozen=True)
class Counts:
    """One noisy data set, as a method gets it."""

    counts: NDArray[Any]  # (Ry, Rx, Qy, Qx), unsigned integers
    probe: NDArray[np.float32]  # (Qy, Qx), the vacuum probe, sums to 1
    calibration: Calibration
    path: Path
    good: NDArray[np.bool_]  # (Qy, Qx), where a pixel tells something


def read_counts(path: Path | str) -> Counts:
    """Read and check a counts file.

    Raises:
        InputError: where it is missing, damaged or lacks something, holds what no detector counts,
            or its calibration does not fit its detector.
    """
    with hdf5.opened(path) as file:
        stored = hdf5.dataset(file, "counts", 4, "u")
        calibration, probe = read_calibration(file), read_probe(file, stored.shape[2:])
        check_detector(file, calibration, probe.shape)
        counts = stored[...]
        if counts.max() > MAX_COUNT:
            raise InputError(
                f"{path}: /counts holds {counts.max()}; expected at most {MAX_COUNT} in a pixel"
            )
        return Counts(counts, probe, calibration, Path(path), np.ones(probe.shape, bool))


def scan_shape(path: Path | str) -> tuple[int, int]:
    """(Ry, Rx) of a counts file; InputError where it holds no counts."""
    with hdf5.opened(path) as file:
        rows, columns = hdf5.dataset(file, "counts", 4, "u").shape[:2]
        return int(rows), int(columns)


def write_counts(
    path: Path | str,
    rows: Iterable[NDArray[Any]],
    shape: tuple[int, ...],
    calibration: Calibration,
    probe: NDArray[Any],
) -> None:
    """Write a counts file row by row, whole or not at all.

    Args:
        path: where it goes.
        rows: the rows of the scan in order, each (Rx, Qy, Qx) of unsigned integers.
        shape: (Ry, Rx, Qy, Qx) of all.
        calibration: of instrument and specimen.
        probe: (Qy, Qx), the vacuum probe; sums to 1.

    Raises:
        InputError: where the system takes no more of it.
    """
    chunk = (1, min(shape[1], 32), *shape[2:])
    with hdf5.created(path) as file:
        counts = file.create_dataset(
            "counts", shape, "u4", chunks=chunk, compression="lzf", shuffle=True
        )
        write_calibration(file, calibration, probe)
        for index, row in enumerate(rows):
            counts[index] = row
