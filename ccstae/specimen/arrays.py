"""Arrays from npy or HDF5 files, here or on the web, checked by their sum; none of it is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccstae.config.scenes import ArrayFile
from ccstae.errors import InputError
from ccstae.io import fetched
from ccstae.io.hdf5 import dataset, opened


def load(name: str, source: ArrayFile, shape: tuple[int, int]) -> NDArray[np.float64]:
    """The array of a file, downloaded where it must be.

    Args:
        name: of the setting, for messages, and of the dataset where `source` names none.
        source: where the file is, and the sum it must have.
        shape: (Ry, Rx) of the scan, of which the array's must be a whole multiple.

    Returns:
        The whole array as float64, shape (n Ry, n Rx).

    Raises:
        InputError: where it cannot be had, is not the one expected or has another shape.
    """
    path = _local(name, source)
    if path.suffix in (".h5", ".hdf5"):
        with opened(path) as file:
            array = dataset(file, source.dataset or name, 2, "fiu")[...]
    else:
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{name}: {path} is not an npy file: {error}; expected npy, or HDF5 ending in .h5"
            ) from None
    times = array.shape[0] // shape[0] if array.ndim == 2 else 0
    if times < 1 or array.shape != tuple(times * n for n in shape) or array.dtype.kind not in "fiu":
        raise InputError(
            f"{name}: {path} holds {array.dtype} of shape {array.shape}; expected numbers of the "
            f"scan's shape {shape}, or of a whole multiple of it"
        )
    return array.astype(np.float64)


def at_hand(source: ArrayFile) -> bool:
    """Whether the file need not be downloaded."""
    return source.url is None or fetched.at_hand(source.url, source.sha256, _ending(source.url))


def _ending(url: str) -> str:
    """Of the file of a URL: HDF5 where it says so, else npy."""
    suffix = Path(url.split("?")[0]).suffix
    return suffix if suffix in (".h5", ".hdf5") else ".npy"


def _local(name: str, source: ArrayFile) -> Path:
    """Path of the file on this machine, after its sum is checked."""
    if source.url is not None:
        return fetched.fetched(name, source.url, source.sha256, _ending(source.url))
    assert source.path is not None  # checked by the settings model
    if not source.path.is_file():
        raise InputError(f"{name}.path: {source.path}: no such file; expected an npy or HDF5 file")
    fetched.check_sum(f"{name}.sha256", source.path, source.sha256)
    return source.path
