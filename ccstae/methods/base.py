"""What a method gives, what is checked of it, and how it is loaded.

A method is a module with one function, found by where it lies (`ccstae.config.methods`):

    def map_strain(counts: Counts, settings: <its settings model>, device: str) -> Answer

It gets counts, calibration, the vacuum probe and the nominal lattice, never truth. `device` is
"cpu" or "cuda". A method that learns from a scan, and can map others with what it learned, has four
functions more:

    learn(counts, settings, device) -> Model, None where no pattern teaches anything
    apply(model, counts, device) -> Answer
    save(path, model)
    load(path, counts, settings, device) -> Model

A method that goes on from what another one finds has one function more, and says in its settings
module which other one (`GOES_ON_FROM`):

    go_on(answer: Answer, calibration: Calibration, settings) -> Answer

`ccstae/evaluation/method_contract.py` holds a method against ideal patterns of known F.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae.config.methods import modules
from ccstae.errors import InputError, unknown
from ccstae.io import bad_pixels

# What a method finds of the data that people must hear of: these of `Answer.found`.
SAID = ("mirrored", "second_lattice", "model", "closures")


@dataclass(frozen=True)
class Answer:
    """A method's answer for every pattern of a scan. Only F is required."""

    F: NDArray[np.float64]
    """(Ry, Rx, 2, 2), deformation gradient from the nominal lattice: a reciprocal lattice vector g0
    of `Calibration.lattice_inv_A` is seen at g = F^-T g0. NaN where the method gives up.
    """
    covariance: NDArray[np.float64] | None = None
    """(Ry, Rx, 4, 4), of exx, eyy, exy and the rotation theta in radians."""
    label: NDArray[np.int8] | None = None
    """(Ry, Rx), 0 for background and 1, 2, ... for materials; -1 where the pattern tells nothing
    and its neighbours alone answer.
    """
    centre_px: NDArray[np.float64] | None = None
    """(Ry, Rx, 2), position (x, y) of the direct beam in pixels; pixel centres are integers."""
    dictionary: NDArray[np.float32] | None = None
    """(entries, Ky, Kx), averaged patterns over the whole detector, however fine."""
    residual: NDArray[np.float32] | None = None
    """(Qy, Qx), counts less what the method's model expects, the mean over the patterns with a
    lattice; NaN on pixels that say nothing.
    """
    F_per_pattern: NDArray[np.float64] | None = None
    """(Ry, Rx, 2, 2), of a method that pools neighbours: what each pattern says by itself."""
    covariance_per_pattern: NDArray[np.float64] | None = None
    """(Ry, Rx, 4, 4), of these."""
    alone: dict[str, NDArray[Any]] | None = None
    """What single patterns say, for a method that goes on from there."""
    found: dict[str, Any] = field(default_factory=dict)
    """What the method found by itself, as JSON takes it; the map keeps it beside the settings."""


def load(method: str) -> ModuleType:
    """Import the module of a method, so that one method never pays for another's dependencies.

    Args:
        method: its id, as `ccstae methods` lists it.

    Returns:
        The module with `map_strain`, and with `learn`, `apply`, `save` and `load` where it learns.

    Raises:
        InputError: where no module has this name; it names the nearest.
    """
    if method not in modules():
        raise InputError(unknown("method", method, modules()))
    return import_module(modules()[method])


def remarks(found: dict[str, Any]) -> list[str]:
    """What people must hear of what a method found by itself, as the map keeps it."""
    said = [str(found[name]) for name in SAID if found.get(name)]
    if found.get("bad_pixels"):
        said.insert(0, f"pixels that say nothing: {bad_pixels.words(found['bad_pixels'])}")
    return said


def tell(counts_path: Path | str, found: dict[str, Any]) -> None:
    """Say it on standard error, a line each."""
    for said in remarks(found):
        print(f"{counts_path}: {said}", file=sys.stderr)


def check_answer(answer: Answer, scan: tuple[int, ...], method: str) -> None:
    """Hold an answer against the shapes, the kinds and the finiteness that `Answer` promises.

    Args:
        answer: what the method gave.
        scan: (Ry, Rx).
        method: its id, for the message.

    Raises:
        InputError: for another shape, another kind of number, or infinities.
    """
    expected = {
        "F": ((2, 2), "f"),
        "covariance": ((4, 4), "f"),
        "label": ((), "i"),
        "centre_px": ((2,), "f"),
        "F_per_pattern": ((2, 2), "f"),
        "covariance_per_pattern": ((4, 4), "f"),
    }
    for name, (trailing, kind) in expected.items():
        value = getattr(answer, name)
        if value is None:
            continue
        if value.shape != scan + trailing or value.dtype.kind != kind:
            raise InputError(
                f"method {method}: {name} is {value.dtype} of shape {value.shape}; expected kind "
                f"{kind!r} of shape {scan + trailing}"
            )
        if kind == "f" and np.isinf(value).any():
            raise InputError(
                f"method {method}: {name} holds infinities; expected finite numbers, or NaN where "
                f"it gives up"
            )
