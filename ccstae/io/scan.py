"""Scans as `ccstae import` writes them: counts and what the detector's file tells of the
instrument. `ccstae calibrate` makes a counts file (`counts.py`) of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae.io import hdf5

# A chunk of the counts holds so many bytes at most: what is read for one position.
CHUNK_BYTES = 4 * 2**20
CHUNK_COLUMNS = 32

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
    packed = {} if dtype.kind == "f" else {"compression": "lzf", "shuffle": True}
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
