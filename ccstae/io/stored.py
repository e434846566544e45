"""Patterns of a counts file that are read when they are asked for: memory does not grow with the
scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ccstae.io.hdf5 import reading

# Bytes of patterns that one pass over a scan holds at a time.
SLAB_BYTES = 16 * 2**20

Places = int | slice | NDArray[np.int64]
# What a correction makes of patterns (n, Qy, Qx), which it may overwrite, and of their places (n,).
Correction = Callable[[NDArray[Any], NDArray[np.int64]], NDArray[Any]]


@dataclass(frozen=True)
class StoredPatterns:
    """The patterns (N, Qy, Qx) of a scan, in scan order, in an open file.

    A place, a slice or an array of places gives those patterns in memory, as of an array.
    """

    stored: h5py.Dataset  # (Ry, Rx, Qy, Qx)
    file: h5py.File  # which stays open as long as they may be asked for
    dtype: np.dtype[Any]
    corrections: tuple[Correction, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, Qy, Qx)."""
        rows, columns, height, width = self.stored.shape
        return rows * columns, height, width

    @property
    def scan(self) -> tuple[int, int]:
        """(Ry, Rx)."""
        return self.stored.shape[0], self.stored.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: Places) -> NDArray[Any]:
        """Patterns (n, Qy, Qx) at these places, or one (Qy, Qx), corrected.

        Raises:
            InputError: where the file cannot be read.
        """
        chosen = np.asarray(np.arange(len(self))[places])
        index = np.atleast_1d(chosen)
        patterns = self._read(index)
        for correct in self.corrections:
            patterns = correct(patterns, index)
        return patterns if chosen.ndim else patterns[0]

    def corrected(
        self, correction: Correction, dtype: np.dtype[Any] | None = None
    ) -> StoredPatterns:
        """The same with one more correction, which gives patterns of `dtype` where that changes."""
        return replace(self, dtype=dtype or self.dtype, corrections=(*self.corrections, correction))

    def held(self) -> NDArray[Any]:
        """All of them in memory, (Ry, Rx, Qy, Qx)."""
        patterns = np.empty(self.shape, self.dtype)
        for rows in slabs(self):
            patterns[rows] = self[rows]
        return patterns.reshape(self.stored.shape)

    def _read(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Patterns as the file has them: neighbours along a scan row in one piece, in the order of
        the file.
        """
        patterns = np.empty((len(places), *self.shape[1:]), self.stored.dtype)
        order = np.argsort(places, kind="stable")
        row, column = np.divmod(places[order], self.stored.shape[1])
        apart = (np.diff(row) != 0) | (np.diff(column) != 1)
        with reading(self.file.filename):
            for run in np.split(np.arange(len(places)), np.flatnonzero(apart) + 1):
                if len(run):
                    x = column[run[0]]
                    patterns[order[run]] = self.stored[row[run[0]], x : x + len(run)]
        return patterns


@dataclass(frozen=True)
class StoredCounts:
    """A scan that lies in a file: its shape, and the patterns that can be asked for."""

    patterns: StoredPatterns

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(Ry, Rx, Qy, Qx)."""
        return (*self.patterns.scan, *self.patterns.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the patterns, corrected."""
        return self.patterns.dtype


Patterns = NDArray[Any] | StoredPatterns


def slabs(patterns: Patterns) -> Iterator[slice]:
    """Slices that cut patterns (N, Qy, Qx) into pieces of `SLAB_BYTES`."""
    each = patterns.dtype.itemsize * patterns.shape[1] * patterns.shape[2]
    size = max(1, SLAB_BYTES // each)
    return (slice(start, start + size) for start in range(0, len(patterns), size))
