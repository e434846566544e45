"""Map files: a method's answer for every position of a scan."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ccstae.errors import InputError
from ccstae.io.hdf5 import attribute, created, dataset, holds, opened, values

MAX_DEFORMATION = 100.0
# What a map may hold beside F, by position of the scan: further axes and kinds of number.
_PER_POSITION: dict[str, tuple[tuple[int, ...], str]] = {
    "covariance": ((4, 4), "f"),
    "label": ((), "i"),
    "centre_px": ((2,), "f"),
    "own_strain": ((4,), "f"),
    "F_per_pattern": ((2, 2), "f"),
    "covariance_per_pattern": ((4, 4), "f"),
}


# Of n patterns and E entries: rank and kinds of number.
_ALONE: dict[str, tuple[int, str]] = {
    "rows": (1, "i"),
    "M": (3, "f"),
    "covariance": (3, "f"),
    "odds": (2, "f"),
    "beside": (2, "b"),
    "area": (2, "f"),
    "crystal": (1, "i"),
}


@dataclass(frozen=True)
class Map:
    """A method's answer."""

    F: NDArray[np.float64]  # (Ry, Rx, 2, 2), NaN where the method gives up
    attributes: dict[str, Any]
    covariance: NDArray[np.float64] | None = None  # (Ry, Rx, 4, 4) of exx, eyy, exy, theta
    label: NDArray[np.int8] | None = None
    centre_px: NDArray[np.float64] | None = None  # (Ry, Rx, 2)
    # (entries, Ky, Kx), averaged patterns over the whole detector, however fine
    dictionary: NDArray[np.float32] | None = None
    # (Qy, Qx), counts less model, the mean over the patterns with a lattice; NaN on bad pixels
    residual: NDArray[np.float32] | None = None
    # (Ry, Rx, 4), exx, eyy, exy, theta by a formula of the method's own
    own_strain: NDArray[np.float64] | None = None
    # of a method that pools neighbours, what each pattern says by itself: (Ry, Rx, 2, 2) and
    # (Ry, Rx, 4, 4)
    F_per_pattern: NDArray[np.float64] | None = None
    covariance_per_pattern: NDArray[np.float64] | None = None
    # what single patterns say, for a method that goes on from there; `read_alone` reads it
    alone: dict[str, NDArray[Any]] | None = None


def write_map(path: Path | str, answer: Map) -> None:
    """Write a map file, whole or not at all.

    Args:
        path: where it goes.
        answer: of a method; dicts and lists among its attributes are written as JSON.

    Raises:
        InputError: where the system takes no more of it.
    """
    with created(path) as file:
        fill(file, answer)


def fill(file: h5py.File, answer: Map) -> None:
    """Write a map into an open file."""
    file["F"] = np.asarray(answer.F, np.float64)
    for name in (*_PER_POSITION, "dictionary", "residual"):
        if getattr(answer, name) is not None:
            file[name] = getattr(answer, name)
    for name, value in (answer.alone or {}).items():
        file[f"alone/{name}"] = value
    for key, value in answer.attributes.items():
        file.attrs[key] = json.dumps(value) if isinstance(value, dict | list) else value


def read_map(path: Path | str, shape: tuple[int, ...] | None = None, complete: bool = True) -> Map:
    """Read and check a map file.

    Args:
        path: the file.
        shape: (Ry, Rx) of the scan, where it is known.
        complete: whether the attributes must be there that a run adds to what a method gives.

    Raises:
        InputError: for a file that is none or lacks /F, and for a dataset of another shape, another
            kind or numbers that cannot be; it says what was expected.
    """
    with opened(path) as file:
        F = dataset(file, "F", 4, "f", (*(shape or ("Ry", "Rx")), 2, 2))
        scan = F.shape[:2]
        F = F[...].astype(np.float64)
        check_deformation(F, f"{path}: /F")
        extra: dict[str, Any] = {}
        for name, (trailing, kinds) in _PER_POSITION.items():
            if holds(file, name):
                extra[name] = dataset(file, name, 2 + len(trailing), kinds, scan + trailing)[...]
                _check_no_infinities(extra[name], f"{path}: /{name}", "where the method gives up")
        if holds(file, "dictionary"):
            extra["dictionary"] = values(file, "dictionary", 3, "f")
        if holds(file, "residual"):
            extra["residual"] = dataset(file, "residual", 2, "f")[...]
            _check_no_infinities(extra["residual"], f"{path}: /residual", "on bad pixels")
        attributes = {name: attribute(file, name) for name in file.attrs}
        for name in ("method", "settings", "seconds", "device"):
            if complete and name not in attributes:
                raise InputError(
                    f"{path}: no attribute {name}; expected method, settings (JSON), seconds and "
                    f"device"
                )
        return Map(F, attributes, **extra)


def _check_no_infinities(array: NDArray[Any], where: str, no_answer: str) -> None:
    if np.isinf(array).any():
        raise InputError(f"{where} holds infinities; expected finite numbers, or NaN {no_answer}")


def read_alone(path: Path | str) -> dict[str, NDArray[Any]] | None:
    """What single patterns say, of a map that keeps it; None of another one.

    Raises:
        InputError: for a file that is none, and where a part of it is missing or unfit.
    """
    with opened(path) as file:
        if not holds(file, "alone"):
            return None
        return {
            name: dataset(file, f"alone/{name}", rank, kinds)[...]
            for name, (rank, kinds) in _ALONE.items()
        }


def check_deformation(F: NDArray[np.float64], what: str) -> None:
    """Hold an answer against what a deformation can be.

    Args:
        F: shape (..., 2, 2); NaN says that the method gives up.
        what: names it in the message.

    Raises:
        InputError: for infinities, numbers beyond `MAX_DEFORMATION`, a determinant of 0 or below
            it; it says which of these, at how many positions, and at which first.
    """
    answered = ~np.isnan(F).any((-1, -2))
    usable = (np.abs(F) <= MAX_DEFORMATION).all((-1, -2), keepdims=True)
    determinant = np.linalg.det(np.where(usable, F, np.eye(2)))
    for problem, wrong in (
        ("infinities", np.isinf(F).any((-1, -2))),
        (
            f"numbers beyond {MAX_DEFORMATION:g}",
            answered & (np.abs(F) > MAX_DEFORMATION).any((-1, -2)),
        ),
        ("matrices of determinant 0", determinant == 0),
        ("a reflection, a matrix of negative determinant,", determinant < 0),
    ):
        if wrong.any():
            first = tuple(int(index) for index in np.argwhere(wrong)[0])
            raise InputError(
                f"{what} holds {problem} at {wrong.sum()} of {wrong.size} positions, first at "
                f"{first}; expected deformations, near the unit matrix, or NaN for no answer"
            )
