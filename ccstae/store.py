"""Every file format: write, read, check. No other module opens an HDF5 file.

Products are written to a temporary name beside the final one, flushed, and renamed, so a file under its
final name is whole. Readers refuse what does not fit, and name file, dataset and expectation.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ccstae.errors import InputError

CALIBRATION = ("energy_keV", "semiangle_mrad", "pixel_size_inv_A", "step_A", "centre_px", "rotational_symmetry")


@dataclass(frozen=True)
class Calibration:
    """What a method may know of the instrument and the specimen."""

    energy_keV: float
    semiangle_mrad: float
    pixel_size_inv_A: float
    step_A: float
    centre_px: tuple[float, float]
    """Nominal direct beam (x, y) in pixels; pixel centres are integers."""
    lattice_inv_A: NDArray[np.float64]
    """Nominal reciprocal lattice vectors of the reference material, columns, (2, 2)."""
    rotational_symmetry: int
    """Order of the lattice's rotational symmetry (6 for the node positions of a hexagonal lattice)."""


@dataclass(frozen=True)
class Counts:
    """One noisy data set, as a method gets it."""

    counts: NDArray[Any]  # (Ry, Rx, Qy, Qx), unsigned integers
    probe: NDArray[np.float32]  # (Qy, Qx), the vacuum probe, sums to 1
    calibration: Calibration
    path: Path


@dataclass(frozen=True)
class Truth:
    """Exact answers; only the scorer and the figures read them."""

    F: NDArray[np.float64]  # (Ry, Rx, 2, 2) at the point
    F_probe: NDArray[np.float64]  # (Ry, Rx, 2, 2) averaged over the probe
    label: NDArray[np.int8]  # (Ry, Rx): -1 mixed, 0 background, 1.. materials
    region: NDArray[np.int8]  # (Ry, Rx), index into regions
    regions: tuple[str, ...]
    reference: NDArray[np.bool_]  # (Ry, Rx), where every method is re-referenced
    symmetry: int
    limit: dict[str, NDArray[np.float64]]  # level -> (Ry, Rx, 4), standard deviations of exx, eyy, exy, theta


@dataclass(frozen=True)
class Map:
    """A method's answer."""

    F: NDArray[np.float64]  # (Ry, Rx, 2, 2), NaN where the method gives up
    attributes: dict[str, Any]
    covariance: NDArray[np.float64] | None = None  # (Ry, Rx, 4, 4) of exx, eyy, exy, theta
    label: NDArray[np.int8] | None = None
    centre_px: NDArray[np.float64] | None = None  # (Ry, Rx, 2)
    dictionary: NDArray[np.float32] | None = None  # (entries, Ky, Kx), averaged patterns over the whole detector, however fine


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well and goes when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text)


@contextmanager
def opened(path: Path | str) -> Iterator[h5py.File]:
    """An HDF5 file for reading; InputError where it is missing, truncated or no HDF5 at all."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a readable HDF5 file (truncated or damaged?): {str(error).splitlines()[0]}") from None


def dataset(file: h5py.File, name: str, rank: int, kinds: str) -> h5py.Dataset:
    """A dataset of the file itself (no link that leaves it), of the given rank and dtype kinds."""
    link = file.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
        raise InputError(f"{file.filename}: /{name} is a link; expected a dataset of the file itself")
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise InputError(f"{file.filename}: no dataset /{name}; expected one of rank {rank}")
    if found.external or found.is_virtual:
        raise InputError(f"{file.filename}: /{name} keeps its data in another file; expected it in this one")
    if found.ndim != rank or found.dtype.kind not in kinds:
        raise InputError(f"{file.filename}: /{name} is {found.dtype} of shape {found.shape}; expected rank {rank}, dtype kind {kinds!r}")
    return found


def write_calibration(file: h5py.File, calibration: Calibration, probe: NDArray[Any]) -> None:
    for name in CALIBRATION:
        file.attrs[name] = getattr(calibration, name)
    file["lattice_inv_A"] = np.asarray(calibration.lattice_inv_A, np.float64)
    file["probe"] = np.asarray(probe, np.float32)


def read_calibration(file: h5py.File) -> Calibration:
    for name in CALIBRATION:
        if name not in file.attrs:
            raise InputError(f"{file.filename}: no attribute {name}; expected the calibration ({', '.join(CALIBRATION)})")
    values = {name: file.attrs[name] for name in CALIBRATION}
    for name in CALIBRATION:
        if not np.isfinite(np.asarray(values[name], float)).all():
            raise InputError(f"{file.filename}: attribute {name} is {values[name]!r}; expected a finite number")
    centre = np.ravel(values["centre_px"])
    if centre.size != 2:
        raise InputError(f"{file.filename}: attribute centre_px is {values['centre_px']!r}; expected x and y")
    lattice = dataset(file, "lattice_inv_A", 2, "f")[...]
    if lattice.shape != (2, 2) or not np.isfinite(lattice).all():
        raise InputError(f"{file.filename}: /lattice_inv_A has shape {lattice.shape}; expected a finite (2, 2)")
    return Calibration(
        energy_keV=float(values["energy_keV"]),
        semiangle_mrad=float(values["semiangle_mrad"]),
        pixel_size_inv_A=float(values["pixel_size_inv_A"]),
        step_A=float(values["step_A"]),
        centre_px=(float(centre[0]), float(centre[1])),
        lattice_inv_A=lattice,
        rotational_symmetry=int(values["rotational_symmetry"]),
    )


def read_patterns(path: Path | str, positions: list[tuple[int, int]]) -> tuple[NDArray[np.float32], Calibration]:
    """Patterns (n, Qy, Qx) of a scene at some (row, column) of its scan, with the calibration."""
    with opened(path) as file:
        patterns = dataset(file, "patterns", 4, "f")
        return np.stack([patterns[row, column] for row, column in positions]), read_calibration(file)


def read_counts(path: Path | str) -> Counts:
    """Read and check a counts file."""
    with opened(path) as file:
        counts = dataset(file, "counts", 4, "u")
        probe = dataset(file, "probe", 2, "f")
        if probe.shape != counts.shape[2:]:
            raise InputError(f"{path}: /probe is {probe.shape}, the patterns are {counts.shape[2:]}; expected the same")
        return Counts(counts[...], probe[...], read_calibration(file), Path(path))


def write_map(path: Path | str, answer: Map) -> None:
    """Write a method's answer."""
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        file["F"] = np.asarray(answer.F, np.float64)
        for name in ("covariance", "label", "centre_px", "dictionary"):
            if getattr(answer, name) is not None:
                file[name] = getattr(answer, name)
        for key, value in answer.attributes.items():
            file.attrs[key] = json.dumps(value) if isinstance(value, dict | list) else value


def read_map(path: Path | str, shape: tuple[int, ...] | None = None, complete: bool = True) -> Map:
    """Read and check a map file; `shape` is that of the scan, where it is known. A map that is not `complete` may lack attributes."""
    with opened(path) as file:
        F = dataset(file, "F", 4, "f")[...].astype(np.float64)
        if F.shape[2:] != (2, 2) or (shape is not None and F.shape[:2] != shape):
            scan = shape or ("Ry", "Rx")
            raise InputError(f"{path}: /F has shape {F.shape}; expected ({scan[0]}, {scan[1]}, 2, 2)")
        if np.isinf(F).any():
            raise InputError(f"{path}: /F holds infinities; expected finite numbers, or NaN where the method gives up")
        extra: dict[str, Any] = {}
        for name, trailing, kinds in (("covariance", (4, 4), "f"), ("label", (), "i"), ("centre_px", (2,), "f")):
            if name in file:
                data = dataset(file, name, 2 + len(trailing), kinds)[...]
                if data.shape != F.shape[:2] + trailing:
                    raise InputError(f"{path}: /{name} has shape {data.shape}; expected {F.shape[:2] + trailing}")
                extra[name] = data
        if "dictionary" in file:
            extra["dictionary"] = dataset(file, "dictionary", 3, "f")[...]
        attributes = {k: v.item() if isinstance(v, np.generic) else v for k, v in file.attrs.items()}
        for name in ("method", "settings", "seconds", "device"):
            if complete and name not in attributes:
                raise InputError(f"{path}: no attribute {name}; expected method, settings (JSON), seconds and device")
        return Map(F, attributes, **extra)


def write_truth(path: Path | str, truth: Truth, extra: dict[str, Any] | None = None) -> None:
    """Write the truth file; `extra` are further datasets (nuisance parameters)."""
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        for name in ("F", "F_probe", "label", "region", "reference"):
            file[name] = getattr(truth, name)
        file["region"].attrs["regions"] = json.dumps(list(truth.regions))
        file.attrs["rotational_symmetry"] = truth.symmetry
        group = file.create_group("limit")
        for level, values in truth.limit.items():
            group[level] = values
        for name, value in (extra or {}).items():
            file[name] = value


def read_truth(path: Path | str) -> Truth:
    """Read and check a truth file."""
    with opened(path) as file:
        region = dataset(file, "region", 2, "iu")
        limit = file.get("limit")
        return Truth(
            F=dataset(file, "F", 4, "f")[...],
            F_probe=dataset(file, "F_probe", 4, "f")[...],
            label=dataset(file, "label", 2, "i")[...],
            region=region[...],
            regions=tuple(json.loads(region.attrs["regions"])),
            reference=dataset(file, "reference", 2, "b")[...],
            symmetry=int(file.attrs["rotational_symmetry"]),
            limit={} if limit is None else {k: v[...] for k, v in limit.items()},
        )
