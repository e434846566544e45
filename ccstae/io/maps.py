"""Map files: a method's answer for every position of a scan."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae.errors import InputError
from ccstae.io.hdf5 import attribute, created, dataset, holds, opened, values

MAX_DEFORMATION = 100.0


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
    # (Ry, Rx, 4), exx, eyy, exy, theta by a formula of the method's own
    own_strain: NDArray[np.float64] | None = None


def write_map(path: Path | str, answer: Map) -> None:
    """Write a map file, whole or not at all.

    Args:
        path: where it goes.
        answer: of a method; dicts and lists among its attributes are written as JSON.

    Raises:
        InputError: where the system takes no more of it.
    """
    with created(path) as file:
        file["F"] = np.asarray(answer.F, np.float64)
        for name in ("covariance", "label", "centre_px", "dictionary", "own_strain"):
            if getattr(answer, name) is not None:
                file[name] = getattr(answer, name)
        for key, value in answer.attributes.items():
            file.attrs[key] = json.dumps(value) if isinstance(value, dict | list) else value


def read_map(path: Path | str, shape: tuple[int, ...] | None = None, complete: bool = True) -> Map:
    """Read and check a map file.

    Args:
        path: of the file.
        shape: (Ry, Rx) of the scan, where it is known.
        complete: whether it must have the attributes method, settings, seconds and device.

    Raises:
        InputError: where it is missing or damaged, lacks something, or holds no deformations.
    """
    with opened(path) as file:
        F = dataset(file, "F", 4, "f")
        if F.shape[2:] != (2, 2) or (shape is not None and F.shape[:2] != shape):
            scan = shape or ("Ry", "Rx")
            raise InputError(
                f"{path}: /F has shape {F.shape}; expected ({scan[0]}, {scan[1]}, 2, 2)"
            )
        scan = F.shape[:2]
        F = F[...].astype(np.float64)
        check_deformation(F, f"{path}: /F")
        extra: dict[str, Any] = {}
        for name, trailing, kinds in (
            ("covariance", (4, 4), "f"),
            ("label", (), "i"),
            ("centre_px", (2,), "f"),
            ("own_strain", (4,), "f"),
        ):
            if holds(file, name):
                extra[name] = dataset(file, name, 2 + len(trailing), kinds, scan + trailing)[...]
                if np.isinf(extra[name]).any():
                    raise InputError(
                        f"{path}: /{name} holds infinities; expected finite numbers, or NaN where "
                        f"the method gives up"
                    )
        if holds(file, "dictionary"):
            extra["dictionary"] = values(file, "dictionary", 3, "f")
        attributes = {name: attribute(file, name) for name in file.attrs}
        for name in ("method", "settings", "seconds", "device"):
            if complete and name not in attributes:
                raise InputError(
                    f"{path}: no attribute {name}; expected method, settings (JSON), seconds and "
                    f"device"
                )
        return Map(F, attributes, **extra)


def check_deformation(F: NDArray[np.float64], what: str) -> None:
    """Check that an answer holds deformations.

    Args:
        F: shape (..., 2, 2); NaN says that the method gives up.
        what: names it in the message.

    Raises:
        InputError: where F holds infinities, huge numbers or a reflection.
    """
    answered = F[~np.isnan(F).any((-1, -2))]
    if (
        np.isinf(F).any()
        or (np.abs(answered) > MAX_DEFORMATION).any()
        or (np.linalg.det(answered) <= 0).any()
    ):
        raise InputError(
            f"{what} holds infinities, numbers beyond {MAX_DEFORMATION:g} or a reflection; "
            f"expected deformations, or NaN for no answer"
        )
