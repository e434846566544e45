"""NumPy's own files, `.npy`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae.errors import InputError
from ccstae.io.detector.recorded import Recorded, squeezed_axes


def open_file(path: Path) -> Recorded:
    """Open a `.npy` file.

    Raises:
        InputError: where it is no such file, is cut short, or holds no real numbers.
    """
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(
            f"{path}: not a readable NumPy file: {' '.join(str(error).split())}; expected an "
            f"array of numbers, whole"
        ) from None
    if not isinstance(stored, np.ndarray) or stored.dtype.kind not in "biuf":
        raise InputError(f"{path}: holds no array of real numbers; expected patterns")
    shape, dtype = stored.shape, stored.dtype

    def read(piece: tuple[slice, ...]) -> NDArray[Any]:
        # Mapped anew each time: pages that were read do not stay in the process.
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False)[piece])

    return Recorded(path, shape, dtype, squeezed_axes(shape, f"{path}: the array"), read)
