"""What a detector's file holds, whatever its format: axes, readings to be fetched in pieces, and
what it tells of the instrument.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.errors import InputError

Read = Callable[[tuple[slice, ...]], NDArray[Any]]

# Axes of a file: R is a scan whose positions lie in one row, 1 an axis of length 1 that says
# nothing.
AXES = ("Ry", "Rx", "R", "Qy", "Qx", "1")

_LENGTHS_A = {
    "m": 1e10,
    "mm": 1e7,
    "um": 1e4,
    "µm": 1e4,
    "μm": 1e4,
    "nm": 10.0,
    "a": 1.0,
    "å": 1.0,
    "angstrom": 1.0,
    "pm": 0.01,
}
# What instruments have; a number beyond is one that nobody calibrated.
_PLAUSIBLE = {
    "energy_keV": (10.0, 1000.0),
    "step_A": (1e-3, 1e6),
    "pixel_size_inv_A": (1e-4, 1.0),
    "semiangle_mrad": (1e-2, 200.0),
}


@dataclass(frozen=True)
class Recorded:
    """An open detector file."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: tuple[str, ...]
    """Of `AXES`, one for each axis of the file."""
    read: Read
    """A piece of the readings: one slice an axis, each with a start and a stop."""
    told: dict[str, float] = field(default_factory=dict)
    """What the file tells of the instrument: attributes of a counts file, in their units."""
    mask: NDArray[np.bool_] | None = None
    """(Qy, Qx), pixels that the file marks as bad."""
    positions: int | None = None
    """How many patterns the file says that it holds."""
    remarks: tuple[str, ...] = ()
    """What a person should hear of it."""


def axes_of(rank: int, where: str) -> tuple[str, ...]:
    """The axes of an array that does not say, slowest first: a pattern, patterns in a row, a scan.

    Raises:
        InputError: for another rank than 2, 3 or 4.
    """
    by_rank = {2: ("Qy", "Qx"), 3: ("R", "Qy", "Qx"), 4: ("Ry", "Rx", "Qy", "Qx")}
    if rank not in by_rank:
        raise InputError(
            f"{where} has {rank} axes; expected a pattern (2), patterns in a row (3) or a scan (4)"
        )
    return by_rank[rank]


def squeezed_axes(shape: tuple[int, ...], where: str) -> tuple[str, ...]:
    """The same for an array that may have axes of length 1 to spare: those in front of the last two
    are left out until four remain.
    """
    spare = max(0, len(shape) - 4)
    single = [axis for axis, side in enumerate(shape[:-2]) if side == 1]
    dropped = set(single[::-1][:spare])
    rest = iter(axes_of(len(shape) - len(dropped), where))
    return tuple("1" if axis in dropped else next(rest) for axis in range(len(shape)))


def length_A(value: float, unit: str) -> float | None:
    """A length in Angstrom; None where the unit is none of a length."""
    factor = _LENGTHS_A.get(_plain(unit))
    return None if factor is None else abs(value) * factor


def reciprocal_inv_A(value: float, unit: str, energy_keV: float | None) -> float | None:
    """A reciprocal length, or an angle, in 1/Angstrom; None where the unit is neither, or is an
    angle and the energy is not known.
    """
    plain = _plain(unit)
    angles = {"rad": 1.0, "mrad": 1e-3}
    if plain in angles and energy_keV:
        return abs(value) * angles[plain] / geometry.wavelength_A(energy_keV)
    for length, factor in _LENGTHS_A.items():
        if plain in (f"1/{length}", f"{length}^-1", f"{length}-1"):
            return abs(value) / factor
    return None


def plausible(told: dict[str, float | None]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Those of the numbers that instruments have, and a remark on each of the others."""
    kept, remarks = {}, []
    for name, value in told.items():
        if value is None:
            continue
        low, high = _PLAUSIBLE.get(name, (-math.inf, math.inf))
        if math.isfinite(value) and low <= value <= high:
            kept[name] = float(value)
        else:
            remarks.append(
                f"{name} of {value:.3g}, as the file has it, is left out; expected {low:g} to "
                f"{high:g}"
            )
    return kept, tuple(remarks)


def _plain(unit: str) -> str:
    for old, new in ((" ", ""), ("$", ""), ("{", ""), ("}", ""), ("⁻¹", "^-1"), ("\u212b", "Å")):
        unit = unit.replace(old, new)
    return unit.lower()
