"""Which module opens which file."""

from __future__ import annotations

from pathlib import Path

import h5py

from ccstae.errors import InputError
from ccstae.io.detector import empad, hdf5_file, numpy_file, rosettasciio
from ccstae.io.detector.recorded import Recorded

HDF5 = (".h5", ".hdf5", ".he5", ".nxs")


def open_file(path: Path | str, name: str | None = None) -> Recorded:
    """Open a detector's file by its ending.

    Args:
        path: of the file.
        name: of the dataset or signal in it, where there are several.

    Raises:
        InputError: where the file is missing, unreadable, or of no kind that is known.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if not (path.is_dir() if ending == ".zspy" else path.is_file()):
        raise InputError(f"{path}: no such file; expected a detector's file")
    if ending == ".npy":
        return numpy_file.open_file(path)
    if ending in (".raw", ".xml"):
        return empad.open_file(path)
    if ending in HDF5 or (ending == ".emd" and not _velox(path)):
        return hdf5_file.open_file(path, name)
    if ending in rosettasciio.READERS:
        return rosettasciio.open_file(path, name)
    known = ", ".join((".npy", ".raw", ".xml", *HDF5, *rosettasciio.READERS))
    raise InputError(f"{path}: files ending in {ending!r} are not known; expected one of {known}")


def _velox(path: Path) -> bool:
    """Whether an EMD file is of Velox, which has a layout of its own."""
    from ccstae.io import hdf5

    with hdf5.opened(path) as file:
        return isinstance(file.get("Data"), h5py.Group) and "Version" in file
