"""HDF5 of any origin: a dataset that is named, or the only scan in the file; EMD and py4DSTEM with
their axes, and the file sets of Dectris with the pixels that they mark.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ccstae.errors import InputError
from ccstae.io import hdf5
from ccstae.io.detector.recorded import (
    Recorded,
    length_A,
    plausible,
    reciprocal_inv_A,
    squeezed_axes,
)

MIN_PATTERN_SIDE = 8  # pixels; smaller arrays beside a scan are tables
DECTRIS_DATA = "entry/data"
DECTRIS_MASK = "entry/instrument/detector/detectorSpecific/pixel_mask"
DECTRIS_ENERGY = "entry/instrument/beam/incident_energy"
MAX_NAMED = 8  # datasets that a message lists


def open_file(path: Path, name: str | None) -> Recorded:
    """Open an HDF5 file.

    Args:
        path: of the file.
        name: of the dataset; where left out, the file must hold one scan alone.

    Raises:
        InputError: where it is damaged, its filter is missing, or it holds no scan, or several.
    """
    with hdf5.opened(path) as file:
        parts = _dectris_parts(file)
        if name is None and parts:
            return _dectris(path, file, parts)
        name = name or _only_scan(path, file)
        stored = hdf5.dataset(file, name.strip("/"), _rank(file, name), "biuf")
        shape, dtype = stored.shape, stored.dtype
        told, remarks = plausible(_told(file, name.strip("/"), shape))
    where = f"{path}: /{name.strip('/')}"

    def read(piece: tuple[slice, ...]) -> NDArray[Any]:
        with hdf5.opened(path) as file:
            return np.asarray(file[name][piece])

    return Recorded(path, shape, dtype, squeezed_axes(shape, where), read, told, remarks=remarks)


def _rank(file: h5py.File, name: str) -> int:
    """Rank of a dataset; of a scan's where it is no dataset, so that the message says so."""
    stored = file.get(name, getlink=False) if name in file else None
    return stored.ndim if isinstance(stored, h5py.Dataset) else 4


def _only_scan(path: Path, file: h5py.File) -> str:
    """The name of the one dataset that can be a scan: of the highest rank, up to 4 axes of more
    than one place.
    """
    found: dict[str, int] = {}

    def note(name: str, stored: object) -> None:
        if not isinstance(stored, h5py.Dataset) or stored.dtype.kind not in "biuf":
            return
        rank = sum(side > 1 for side in stored.shape[:-2]) + 2
        if stored.ndim >= 2 and min(stored.shape[-2:]) >= MIN_PATTERN_SIDE and rank <= 4:
            found[name] = rank

    file.visititems(note)
    best = [name for name, rank in found.items() if rank == max(found.values())]
    if len(best) == 1:
        return best[0]
    if not best:
        raise InputError(f"{path}: holds no dataset of patterns; expected one, or its --dataset")
    shown = ", ".join(f"/{name} {file[name].shape}" for name in best[:MAX_NAMED])
    raise InputError(
        f"{path}: holds {len(best)} datasets of patterns: {shown}; expected --dataset with one"
    )


def _told(file: h5py.File, name: str, shape: tuple[int, ...]) -> dict[str, float | None]:
    """What the axes beside a dataset tell, as EMD has them: dim0, dim1, ... (or dim1, dim2, ...)
    with names and units.
    """
    parent = file[name].parent
    first = 0 if "dim0" in parent else 1
    told: dict[str, float | None] = {}
    for axis in range(len(shape)):
        stored = parent.get(f"dim{axis + first}")
        if not isinstance(stored, h5py.Dataset) or stored.ndim != 1 or len(stored) < 2:
            continue
        if stored.dtype.kind not in "iuf" or len(stored) > 2**20:
            continue
        values, unit = stored[:2].astype(float), _word(stored, "units")
        step = float(values[1] - values[0])
        length = length_A(step, unit)
        if axis >= len(shape) - 2:
            told.setdefault("pixel_size_inv_A", reciprocal_inv_A(step, unit, None))
        elif length is not None:
            told["step_A"] = length
    return {key: value for key, value in told.items() if value}


def _word(stored: h5py.Dataset, name: str) -> str:
    value = hdf5.attribute(stored, name) if name in stored.attrs else ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _dectris_parts(file: h5py.File) -> list[str]:
    """Names of the links of a master file that lead to frames."""
    group = file.get(DECTRIS_DATA)
    if not isinstance(group, h5py.Group):
        return []
    return sorted(name for name in group if re.fullmatch(r"data_\d+", name))


def _dectris(path: Path, file: h5py.File, links: list[str]) -> Recorded:
    """A master file and the files with the frames beside it."""
    group = file[DECTRIS_DATA]
    parts: list[tuple[Path, str, int]] = []
    shape, dtype = (0, 0), np.dtype("u4")
    for key in links:
        link = group.get(key, getlink=True)
        other, inside = path, f"{DECTRIS_DATA}/{key}"
        if isinstance(link, h5py.ExternalLink):
            # The name alone: a master file leads to those beside it, and nowhere else.
            other, inside = path.with_name(Path(link.filename).name), link.path.strip("/")
        with hdf5.opened(other) as part:
            stored = hdf5.dataset(part, inside, 3, "iu")
            if parts and stored.shape[1:] != shape:
                raise InputError(
                    f"{other}: frames of {stored.shape[1:]} pixels; expected {shape}, as in "
                    f"{parts[0][0]}"
                )
            shape, dtype = stored.shape[1:], stored.dtype
            parts.append((other, inside, stored.shape[0]))
    mask = None
    if DECTRIS_MASK in file:
        mask = np.asarray(hdf5.values(file, DECTRIS_MASK, 2, "iu", shape) != 0)
    energy_eV = None
    if isinstance(file.get(DECTRIS_ENERGY), h5py.Dataset):
        energy_eV = float(file[DECTRIS_ENERGY][()])
    told, remarks = plausible({"energy_keV": energy_eV / 1e3 if energy_eV else None})

    def read(piece: tuple[slice, ...]) -> NDArray[Any]:
        start, stop = piece[0].start, piece[0].stop
        frames, before = [], 0
        for other, inside, number in parts:
            low, high = max(start - before, 0), min(stop - before, number)
            if low < high:
                with hdf5.opened(other) as part:
                    frames.append(part[inside][(slice(low, high), *piece[1:])])
            before += number
        return np.concatenate(frames)

    frames = sum(number for _, _, number in parts)
    return Recorded(
        path, (frames, *shape), dtype, ("R", "Qy", "Qx"), read, told, mask, remarks=remarks
    )
