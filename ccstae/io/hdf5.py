"""HDF5: the one module that opens such files, to read or to write.

Files that are read may be damaged, wrong, or made to do harm: what does not fit is refused, and
named. Files that are written are whole or not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ccstae.errors import InputError
from ccstae.io.atomic import atomic, reserve, writing

# A file may not claim more than this many times the bytes it stores, past the first MB: HDF5's
# filters reach about 1000, so what claims more was never written in full, or is a trap for memory.
# An attribute of a product is short.
MAX_EXPANSION = 4096
MAX_ATTRIBUTE_BYTES = 2**16
SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Unpacked chunks of a dataset that are kept, so that a chunk is unpacked once where its pieces are
# read one after another.
CHUNK_CACHE_BYTES = 32 * 2**20

# Registered filters that detectors and archives use: https://github.com/HDFGroup/hdf5_plugins
FILTERS = {
    307: "bzip2",
    32000: "LZF",
    32001: "blosc",
    32004: "LZ4",
    32008: "bitshuffle",
    32013: "ZFP",
    32015: "zstd",
    32017: "SZ",
    32026: "blosc2",
}


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn what HDF5 says of a damaged file inside the block into an error for people.

    Raises:
        InputError: in place of what HDF5 raises.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, MemoryError) as error:
        raise InputError(
            f"{path}: not a readable HDF5 file (truncated or damaged?): "
            f"{' '.join(str(error).split())}"
        ) from None


def open_to_read(path: Path | str) -> h5py.File:
    """An HDF5 file for reading, which is open until it is closed or no longer used.

    Raises:
        InputError: where it is missing, truncated or no HDF5 at all, or hides data in an attribute.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an HDF5 file")
    with reading(path):
        file = h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE_BYTES)
        for name in file.attrs:
            _check_size(file, name)
        return file


def is_hdf5(path: Path | str) -> bool:
    """Whether a file begins as HDF5 does; one that is not there, whether its name ends so."""
    path = Path(path)
    if not path.is_file():
        return path.suffix in (".h5", ".hdf5")
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


@contextmanager
def opened(path: Path | str) -> Iterator[h5py.File]:
    """The same, closed when the block ends; what HDF5 raises inside it becomes an InputError."""
    with reading(path), open_to_read(path) as file:
        yield file


@contextmanager
def created(path: Path | str, reserved: bool = False) -> Iterator[h5py.File]:
    """A new HDF5 file that takes its name when the block ends well; see `atomic`.

    A `reserved` one has all of its room on the disk by then; see `atomic.reserve`.
    """
    with atomic(path) as temporary:
        with h5py.File(temporary, "w") as file:
            yield file
        if reserved:
            reserve(temporary)


@contextmanager
def extended(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file of ours to write more into; see `atomic.writing` for what is refused."""
    with writing(path), h5py.File(path, "r+") as file:
        yield file


def with_room(file: h5py.File, name: str, shape: tuple[int, ...], chunk: tuple[int, ...]) -> None:
    """A float32 dataset whose room is set aside at once and filled later.

    What is written over that room changes nothing else, so that a file stays whole whenever a run
    is killed.
    """
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    file.create_dataset(name, shape, "f4", chunks=chunk, dcpl=early, fill_time="never")


def holds(file: h5py.File, name: str) -> bool:
    """Whether the file holds `name`; InputError where that is a link, which may lead out of it."""
    link = file.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
        raise InputError(f"{file.filename}: /{name} is a link; expected it in the file itself")
    return link is not None


def dataset(
    file: h5py.File, name: str, rank: int, kinds: str, shape: tuple[int | str, ...] | None = None
) -> h5py.Dataset:
    """A dataset of the file itself, not yet read.

    Args:
        file: opened for reading.
        name: its path in the file.
        rank: the number of its axes.
        kinds: letters of the dtype kinds that it may have, such as "f" or "iu".
        shape: what it must have, where that is known. A side that may have any length is a
            name, for messages.

    Raises:
        InputError: where it is missing, a link, stored elsewhere or not in full, compressed by a
            filter that this HDF5 lacks, or does not fit.
    """
    sides = None if shape is None else f"({', '.join(map(str, shape))})"
    form = f"rank {rank}" if sides is None else f"rank {rank}, shape {sides}"
    where = f"{file.filename}: /{name}"
    parts = name.split("/")
    for end in range(1, len(parts) + 1):
        holds(file, "/".join(parts[:end]))
    stored = file.get(name)
    if not isinstance(stored, h5py.Dataset):
        raise InputError(f"{file.filename}: no dataset /{name}; expected one of {form}")
    if stored.external or stored.is_virtual:
        raise InputError(f"{where} keeps its data in another file; expected it in this one")
    if stored.ndim != rank or stored.dtype.kind not in kinds:
        raise InputError(
            f"{where} is {stored.dtype} of shape {stored.shape}; expected {form}, dtype kind "
            f"{kinds!r}"
        )
    if shape is not None and any(
        isinstance(expected, int) and side != expected
        for side, expected in zip(stored.shape, shape, strict=True)
    ):
        raise InputError(f"{where} has shape {stored.shape}; expected {sides}")
    _check_filters(stored, where)
    size = stored.id.get_storage_size()
    if stored.size == 0 or stored.nbytes > MAX_EXPANSION * size + 2**20:
        raise InputError(
            f"{where} of shape {stored.shape} stores {size} bytes; expected data, written in full"
        )
    return stored


def _check_filters(stored: h5py.Dataset, where: str) -> None:
    """InputError where a filter of the dataset is not at hand to undo it."""
    properties = stored.id.get_create_plist()
    for index in range(properties.get_nfilters()):
        code, _, _, given_name = properties.get_filter(index)
        if not h5py.h5z.filter_avail(code):
            with suppress(ImportError):
                import hdf5plugin  # noqa: F401  (its import makes the filters known)
        if not h5py.h5z.filter_avail(code):
            name = FILTERS.get(code) or given_name.decode(errors="replace") or "unknown"
            raise InputError(
                f"{where} is compressed by the HDF5 filter {code} ({short(name)}), which is "
                f"missing here; expected one of HDF5's own, such as gzip: "
                f'pip install "ccstae[files]" brings those of detectors, or install the '
                f"filter's plugin where HDF5_PLUGIN_PATH points, or write the file anew"
            )


def values(
    file: h5py.File, name: str, rank: int, kinds: str, shape: tuple[int, ...] | None = None
) -> NDArray[Any]:
    """All of a dataset; arguments as in `dataset`.

    Raises:
        InputError: where `dataset` refuses it, or a number is not finite.
    """
    array = dataset(file, name, rank, kinds, shape)[...]
    if not np.isfinite(array).all():
        raise InputError(
            f"{file.filename}: /{name} holds NaN or infinities; expected finite numbers"
        )
    return array


def attribute(owner: h5py.File | h5py.Dataset, name: str) -> Any:
    """An attribute of a file or a dataset.

    Raises:
        KeyError: where there is none.
        InputError: where it is longer than products have it.
    """
    _check_size(owner, name)
    value = owner.attrs[name]
    return value.item() if isinstance(value, np.generic) else value


def _check_size(owner: h5py.File | h5py.Dataset, name: str) -> None:
    size = owner.attrs.get_id(name).get_storage_size()
    if size > MAX_ATTRIBUTE_BYTES:
        raise InputError(
            f"{owner.file.filename}: attribute {name} holds {size} bytes; expected at most "
            f"{MAX_ATTRIBUTE_BYTES}"
        )


def short(value: object) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
