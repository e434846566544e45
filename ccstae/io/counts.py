"""Counts files: the noisy patterns that a method gets, and no truth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ccstae.errors import InputError
from ccstae.io import bad_pixels, hdf5, missing, silent_pixels
from ccstae.io.calibration import (
    Calibration,
    disk_radius_px,
    read_calibration,
    write_calibration,
)
from ccstae.io.probe import vacuum_probe
from ccstae.io.slips import check_detector, nearest_px
from ccstae.io.stored import Correction, Patterns, StoredCounts, StoredPatterns, slabs

MAX_COUNT = 2**32 - 1
# A scan of at most so many bytes is held in memory, so that nothing is read twice; a larger one is
# read piece by piece.
MAX_HELD_BYTES = 256 * 2**20
# Largest count that is stored in 16 bits: above, a reading may be a mark of a bad pixel
# (`bad_pixels`).
MAX_16_BIT_COUNT = 2**16 - 2**10 - 1
# Bytes of patterns that are packed together: a piece is what has to be unpacked for one pattern.
CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Counts:
    """One noisy data set, as a method gets it."""

    # (Ry, Rx, Qy, Qx), unsigned integers or float32; 0 on bad pixels. A large scan stays in its
    # file; `patterns` serves both.
    counts: NDArray[Any] | StoredCounts
    probe: NDArray[np.float32]  # (Qy, Qx), the vacuum probe, sums to 1
    calibration: Calibration
    path: Path
    good: NDArray[np.bool_]  # (Qy, Qx), where a pixel tells something
    bad_pixels: dict[str, int] = field(default_factory=dict)
    """How many pixels are bad, by what they were found by, and readings that were filled; empty
    where all are good.
    """

    @property
    def patterns(self) -> Patterns:
        """(Ry Rx, Qy, Qx) in scan order. A slice or an array of places gives those patterns in
        memory; to ask for all of them takes as much memory as the scan has.
        """
        if isinstance(self.counts, StoredCounts):
            return self.counts.patterns
        return self.counts.reshape(-1, *self.counts.shape[2:])

    @property
    def scan(self) -> tuple[int, int]:
        """(Ry, Rx)."""
        return self.counts.shape[0], self.counts.shape[1]

    @property
    def detector(self) -> tuple[int, int]:
        """(Qy, Qx)."""
        return self.counts.shape[2], self.counts.shape[3]

    def held(self) -> NDArray[Any]:
        """All patterns in memory, (Ry, Rx, Qy, Qx)."""
        return self.counts.patterns.held() if isinstance(self.counts, StoredCounts) else self.counts

    def corrected(self, correction: Correction, dtype: np.dtype[Any]) -> Counts:
        """The same scan with one more correction, which gives patterns of `dtype`; a scan that lies
        in its file is corrected as it is read.
        """
        if isinstance(self.counts, StoredCounts):
            stored = self.counts.patterns.corrected(correction, dtype)
            return replace(self, counts=StoredCounts(stored))
        patterns = self.counts.reshape(-1, *self.detector)
        corrected = correction(patterns, np.arange(len(patterns)))
        return replace(self, counts=corrected.reshape(self.counts.shape))

    def scan_rows(self) -> Iterator[NDArray[Any]]:
        """The rows (Rx, Qy, Qx) of the scan in order."""
        rows, columns = self.scan
        return (self.patterns[row * columns : (row + 1) * columns] for row in range(rows))


def read_counts(path: Path | str) -> Counts:
    """Read and check a counts file, and find its bad pixels (`bad_pixels.find`).

    Raises:
        InputError: where it is missing, damaged or lacks something, holds what no detector counts,
            too few of its pixels are good, or its calibration does not fit its detector.
    """
    file = hdf5.open_to_read(path)
    with hdf5.reading(path):
        stored = hdf5.dataset(file, "counts", 4, "uf")
        calibration, shape = read_calibration(file), stored.shape[2:]
        recorded = hdf5.dataset(file, "probe", 2, "fiu", shape)[...]
        check_detector(file, calibration, shape)
        masked = _read_mask(file, shape)
    patterns = StoredPatterns(stored, file, stored.dtype)
    if stored.dtype.kind == "f":
        patterns = patterns.corrected(_float32, np.dtype(np.float32))
    unwrap, wrapped = missing.unwrapping(patterns)
    if unwrap is not None:
        patterns = patterns.corrected(unwrap, np.dtype(np.float32))
    found = bad_pixels.find(patterns, masked, _disks(calibration), str(path))
    patterns = patterns.corrected(found.taken_out)
    _check_range(patterns, path)
    counts: NDArray[Any] | StoredCounts = StoredCounts(patterns)
    if counts.dtype.itemsize * math.prod(counts.shape) <= MAX_HELD_BYTES:
        counts = patterns.held()
        file.close()
    probe = vacuum_probe(recorded, found.good, disk_radius_px(calibration), str(path))
    return Counts(counts, probe, calibration, Path(path), found.good, wrapped | found.numbers)


def _float32(patterns: NDArray[Any], places: NDArray[np.int64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return patterns.astype(np.float32, copy=False)


def _check_range(patterns: StoredPatterns, path: Path | str) -> None:
    """InputError where the patterns hold what no detector counts."""
    if patterns.dtype.kind == "u" and np.iinfo(patterns.dtype).max <= MAX_COUNT:
        return
    least, most = np.inf, -np.inf
    for rows in slabs(patterns):
        slab = patterns[rows]
        least, most = min(least, slab.min()), max(most, slab.max())
    if most <= 0 and least < 0:
        raise InputError(
            f"{path}: /counts holds no number above 0, and negative ones; expected electrons"
        )
    if most > MAX_COUNT:
        raise InputError(f"{path}: /counts holds {most}; expected at most {MAX_COUNT} in a pixel")


def _disks(calibration: Calibration) -> silent_pixels.Disks:
    radius = disk_radius_px(calibration)
    return silent_pixels.Disks(radius, nearest_px(calibration) - 2 * radius)


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
        rows: the rows of the scan in order, each (Rx, Qy, Qx) of unsigned integers, which are
            stored in 16 bits where all fit and in 32 elsewhere, or floats, which stay floats.
        shape: (Ry, Rx, Qy, Qx) of all.
        calibration: of instrument and specimen.
        probe: (Qy, Qx), the vacuum probe; sums to 1.
        mask: (Qy, Qx), nonzero where a pixel is bad; not written where none is.

    Raises:
        InputError: where the system takes no more of it.
    """
    rows = iter(rows)
    first = next(rows)
    with hdf5.created(path) as file:
        narrow = np.dtype("u2")
        counts = _new_counts(file, shape, first.dtype if first.dtype.kind == "f" else narrow)
        if mask is not None and np.any(mask):
            file["mask"] = np.asarray(mask != 0, np.uint8)
        write_calibration(file, calibration, probe)
        for index, row in enumerate(chain([first], rows)):
            if counts.dtype == narrow and row.max(initial=0) > MAX_16_BIT_COUNT:
                counts = _widened(file, index)
            counts[index] = row


def _new_counts(file: h5py.File, shape: tuple[int, ...], dtype: np.dtype[Any]) -> h5py.Dataset:
    together = CHUNK_BYTES // (dtype.itemsize * math.prod(shape[2:]))
    chunk = (1, min(shape[1], max(1, together)), *shape[2:])
    return file.create_dataset(
        "counts", shape, dtype, chunks=chunk, compression="lzf", shuffle=True
    )


def _widened(file: h5py.File, rows: int) -> h5py.Dataset:
    """/counts in 32 bits, with what its first rows held in 16."""
    file.move("counts", "narrow")
    narrow = file["narrow"]
    counts = _new_counts(file, narrow.shape, np.dtype("u4"))
    for index in range(rows):
        counts[index] = narrow[index]
    del file["narrow"]
    return counts
