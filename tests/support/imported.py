"""Files of every format, the words with which `ccstae import` reads them, and what it wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
from detector_files import (
    SHAPE,
    counts,
    write_by_rosettasciio,
    write_dm4,
    write_emi,
    write_mrc,
    write_ser,
    write_tif,
    write_velox,
    write_zspy,
)
from numpy.typing import NDArray

AS_IS = ("--electrons-per-unit", "1", "--pedestal", "0")


def imported(tmp_path: Path) -> tuple[NDArray[Any], dict[str, Any], NDArray[Any] | None]:
    with h5py.File(tmp_path / "out" / "scan.h5") as file:
        mask = file["mask"][...] if "mask" in file else None
        return file["counts"][...], dict(file.attrs), mask


FLAT = (12, *SHAPE[2:])
STEP, PIXEL, ENERGY = {"step_A": 20.0}, {"pixel_size_inv_A": 0.025}, {"energy_keV": 200.0}
# What writes a file, the words with which it is read, and the units that it tells.
TWINS: dict[str, tuple[Callable[[Path], Path], tuple[str, ...], dict[str, float]]] = {
    "hspy": (lambda p: write_by_rosettasciio(p / "a.hspy", counts()), (), STEP | PIXEL),
    "zspy": (lambda p: write_zspy(p / "a.zspy", counts()), (), STEP | PIXEL),
    "dm4": (lambda p: write_dm4(p / "a.dm4", counts()), (), ENERGY | STEP | PIXEL),
    "ser": (lambda p: write_ser(p / "a.ser", counts("i4")), (), STEP),
    "emi": (lambda p: write_emi(p / "a.emi", counts("i4")), (), ENERGY | STEP),
    "mrc": (lambda p: write_mrc(p / "a.mrc", counts().reshape(FLAT)), ("--scan", "3x4"), {}),
    "mrc of floats": (
        lambda p: write_mrc(p / "a.mrc", counts("f4").reshape(FLAT)),
        ("--scan", "3x4"),
        {},
    ),
    "Velox": (
        lambda p: write_velox(p / "a.emd", counts().reshape(FLAT)),
        ("--scan", "3x4"),
        ENERGY | PIXEL,
    ),
    "tif": (lambda p: write_tif(p / "a.tif", counts().reshape(FLAT)), ("--scan", "3x4"), {}),
}
