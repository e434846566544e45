"""Files of strain, in the formats of other programs, told by the ending of the name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray
from scipy.io import netcdf_file

from ccstae import geometry
from ccstae.errors import InputError
from ccstae.io.atomic import atomic
from ccstae.io.displacement import Displacement
from ccstae.io.hdf5 import created
from ccstae.io.maps import Map, fill

UNITS = {"exx": "1", "eyy": "1", "exy": "1", "theta": "rad", "u_x": "Angstrom", "u_y": "Angstrom"}
"""Of the layers, whose standard deviations are called `exx_deviation` and so on."""

Layers = dict[str, NDArray[Any]]


def layers(answer: Map, displacement: Displacement | None = None) -> Layers:
    """What a map says, each an array (Ry, Rx) of floats, NaN where there is no answer.

    Args:
        answer: a map, against the reference that is wanted.
        displacement: of the same scan.
    """
    components = geometry.components(answer.F)
    found = {name: components[..., k] for k, name in enumerate(geometry.COMPONENTS)}
    if answer.covariance is not None:
        variances = np.diagonal(answer.covariance, axis1=-2, axis2=-1)
        deviations = np.sqrt(np.where(variances >= 0, variances, np.nan))
        found |= {f"{name}_deviation": deviations[..., k] for k, name in enumerate(found)}
    if displacement is not None:
        found |= {"u_x": displacement.u_A[..., 0], "u_y": displacement.u_A[..., 1]}
    if answer.label is not None:
        found["label"] = answer.label.astype(np.float64)
    return found


def unit(layer: str) -> str:
    """Of a layer."""
    return UNITS.get(layer.removesuffix("_deviation"), "1")


def step_of(answer: Map) -> float | None:
    """Of the scan in Angstrom, where the map says it."""
    step = answer.attributes.get("step_A")
    return None if step is None else float(step)


def step_nm_of(answer: Map) -> float:
    """Of the scan in nm; 1, a step, where the map does not say it."""
    step_A = step_of(answer)
    return 1.0 if step_A is None else step_A / 10


def axis_of(answer: Map) -> tuple[float, str]:
    """Length of a step along an axis of the scan, and its unit: Angstrom, or steps where the map
    does not say it.
    """
    step_A = step_of(answer)
    return (1.0, "steps") if step_A is None else (step_A, "Angstrom")


def check_ending(path: Path | str) -> None:
    """InputError for a name of no format that is written."""
    if Path(path).suffix not in _WRITERS:
        raise InputError(f"{path}: expected a name that ends in one of {', '.join(_WRITERS)}")


def write_strain(
    path: Path | str, answer: Map, strained: Map, displacement: Displacement | None = None
) -> None:
    """Write strain, rotation, standard deviations and labels of a map, whole or not at all.

    Args:
        path: the ending says the format: `.h5` (HDF5), `.nc` (netCDF), `.tif` (a stack for ImageJ)
            or `.csv` (a row for each position).
        answer: the map as it was made; a `.h5` holds it too, and so is a map file itself.
        strained: the same against the reference that is wanted.
        displacement: of the same scan, which is written too.

    Raises:
        InputError: for another ending, and where the system takes no more of it.
    """
    check_ending(path)
    path = Path(path)
    _WRITERS[path.suffix](path, answer, strained, displacement)


def _write_hdf5(path: Path, answer: Map, strained: Map, displacement: Displacement | None) -> None:
    with created(path) as file:
        fill(file, answer)
        for name, values in layers(strained).items():
            if name not in file:
                file[name] = values
                file[name].attrs["units"] = unit(name)
        if displacement is not None:
            file["u_A"] = displacement.u_A
            file["curl_inv_A"] = displacement.curl_inv_A


def _write_netcdf(
    path: Path, answer: Map, strained: Map, displacement: Displacement | None
) -> None:
    found, (step, axis_unit) = layers(strained, displacement), axis_of(strained)
    with atomic(path) as temporary, netcdf_file(str(temporary), "w", version=2) as file:
        shape = next(iter(found.values())).shape
        for name, side in zip("yx", shape, strict=True):
            file.createDimension(name, side)
            axis = file.createVariable(name, "d", (name,))
            axis[:] = np.arange(side) * step
            axis.units = axis_unit
        for name, values in found.items():
            layer = file.createVariable(name, "d", ("y", "x"))
            layer[:] = values
            layer.units = unit(name)


def _write_tiff(path: Path, answer: Map, strained: Map, displacement: Displacement | None) -> None:
    found, step_A = layers(strained, displacement), step_of(strained)
    stack = np.stack(list(found.values())).astype(np.float32)
    names = [name if unit(name) == "1" else f"{name} / {unit(name)}" for name in found]
    metadata = {"axes": "CYX", "Labels": names}
    calibrated: dict[str, Any] = {}
    if step_A is not None:
        metadata["unit"] = "nm"
        calibrated["resolution"] = (10 / step_A, 10 / step_A)
    with atomic(path) as temporary:
        tifffile.imwrite(temporary, stack, imagej=True, metadata=metadata, **calibrated)


def _write_csv(path: Path, answer: Map, strained: Map, displacement: Displacement | None) -> None:
    found = layers(strained, displacement)
    row, column = np.indices(next(iter(found.values())).shape)
    columns = {"row": row.ravel(), "column": column.ravel()}
    for name, values in found.items():
        named = name if unit(name) == "1" else f"{name}_{unit(name)}"
        columns[named] = values.ravel()
    with atomic(path) as temporary:
        pd.DataFrame(columns).to_csv(
            temporary, index=False, na_rep="nan", float_format="%.9g", lineterminator="\n"
        )


_WRITERS: dict[str, Callable[[Path, Map, Map, Displacement | None], None]] = {
    ".h5": _write_hdf5,
    ".nc": _write_netcdf,
    ".tif": _write_tiff,
    ".csv": _write_csv,
}
