"""Masks of positions that a person made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccstae.errors import InputError


def read_mask(path: Path) -> NDArray[np.bool_]:
    """A mask from NumPy's `.npy`, True where a number is not 0.

    Raises:
        InputError: where the file is missing, or holds no numbers.
    """
    try:
        mask = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read: {error}; expected a mask, .npy") from None
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "biuf":
        raise InputError(f"{path}: holds no numbers; expected a mask, .npy")
    return np.asarray(mask != 0)
