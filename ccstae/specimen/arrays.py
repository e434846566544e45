"""Arrays from npy or HDF5 files, here or on the web, checked by their sum; none of it is run."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccstae.config.scenes import ArrayFile
from ccstae.errors import InputError
from ccstae.io import atomic
from ccstae.io.hdf5 import dataset, opened

CACHE = Path("results") / ".cache"
CACHE_VARIABLE = "CCSTAE_CACHE"
"""Environment variable: a folder of files that need not be downloaded, only ever read."""
_MAX_BYTES = 1 << 30
_TIMEOUT_S = 60


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
    return source.path is not None or _cached(source).is_file() or _lent(source) is not None


def _cached(source: ArrayFile) -> Path:
    """Where a download is cached."""
    suffix = Path((source.url or "").split("?")[0]).suffix
    return CACHE / f"{source.sha256}{suffix if suffix in ('.h5', '.hdf5') else '.npy'}"


def _lent(source: ArrayFile) -> Path | None:
    """The file in the folder of `CACHE_VARIABLE`, under the name of a cached download or of the
    URL, whatever its case; None where it is not there.
    """
    folder = os.environ.get(CACHE_VARIABLE)
    if not folder or not Path(folder).is_dir():
        return None
    names = {_cached(source).name, Path((source.url or "").split("?")[0]).name.lower()}
    found = (path for path in sorted(Path(folder).iterdir()) if path.name.lower() in names)
    return next((path for path in found if path.is_file()), None)


def _local(name: str, source: ArrayFile) -> Path:
    """Path of the file on this machine, after its sum is checked."""
    if source.path is not None:
        if not source.path.is_file():
            raise InputError(
                f"{name}.path: {source.path}: no such file; expected an npy or HDF5 file"
            )
        _check(name, source.path.read_bytes(), source, str(source.path))
        return source.path
    assert source.url is not None  # checked by the settings model
    lent = _lent(source)
    if lent is not None:
        _check(name, lent.read_bytes(), source, str(lent))
        return lent
    path = _cached(source)
    if not path.is_file():
        try:
            with urllib.request.urlopen(source.url, timeout=_TIMEOUT_S) as answer:
                data = answer.read(_MAX_BYTES)
        except OSError as error:
            advice = (
                f"expected it to be reachable; or download it elsewhere and name its folder by "
                f"{CACHE_VARIABLE}"
            )
            raise InputError(
                f"{name}.url: {source.url} cannot be downloaded: {error}; {advice}"
            ) from None
        _check(name, data, source, source.url)
        with atomic.atomic(path) as temporary:
            temporary.write_bytes(data)
    return path


def _check(name: str, data: bytes, source: ArrayFile, where: str) -> None:
    digest = hashlib.sha256(data).hexdigest()
    if digest != source.sha256:
        raise InputError(f"{name}.sha256: {where} has {digest}; expected {source.sha256}")
