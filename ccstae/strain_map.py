"""Strain from an array of patterns, or a calibrated scan, in one call."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.config.methods import Method
from ccstae.errors import InputError
from ccstae.evaluation.reference import Reference, against
from ccstae.io.calibration import Calibration, disk_radius_px
from ccstae.io.counts import MAX_COUNT, write_counts
from ccstae.io.maps import Map, read_map
from ccstae.io.probe import even_disk
from ccstae.io.strain import axis_of, check_ending, layers, unit, write_strain
from ccstae.methods import run
from ccstae.reporting.figures import strain as figure
from ccstae.reporting.figures import style

Array = NDArray[np.float64]


@dataclass(frozen=True)
class StrainMap:
    """A map of deformations, and the strain in it against a reference that is chosen afterwards.

    A `reference` is a rectangle (slices of rows and columns), a mask (Ry, Rx), a label, or None for
    the commonest lattice of the map.
    """

    map: Map

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Of a map file; InputError where it is none."""
        return cls(read_map(path, complete=False))

    @property
    def F(self) -> Array:
        """(Ry, Rx, 2, 2), deformation gradient from the nominal lattice, NaN for no answer; in the
        sample's frame (`docs/quickstart.md`).
        """
        return self.map.F

    @property
    def label(self) -> NDArray[np.int8] | None:
        """(Ry, Rx), 0 for background and 1, 2, ... for materials, where the method tells them."""
        return self.map.label

    def against(self, reference: Reference = None) -> StrainMap:
        """The map in which a reference is undeformed, its covariance carried along.

        Raises:
            InputError: where the reference is none of this map, or holds no answer.
        """
        return StrainMap(against(self.map, reference))

    def strain(self, reference: Reference = None) -> Array:
        """exx, eyy and exy (tensor shear), (Ry, Rx, 3)."""
        return geometry.components(self.against(reference).F)[..., :3]

    def rotation(self, reference: Reference = None) -> Array:
        """Radians, positive from x towards y, (Ry, Rx)."""
        return geometry.components(self.against(reference).F)[..., 3]

    def covariance(self, reference: Reference = None) -> Array | None:
        """Of exx, eyy, exy and the rotation, (Ry, Rx, 4, 4), where the method states it. The error
        of the reference itself is not in it.
        """
        return self.against(reference).map.covariance

    def plot(self, reference: Reference = None) -> Figure:
        """A figure of strain and rotation; `.savefig(path)` writes it."""
        with style.styled():
            return figure.draw(self.against(reference).map)

    def save(self, path: Path | str, reference: Reference = None) -> None:
        """Write strain, rotation, deviations and labels to `.h5` (which `read` takes), `.nc`,
        `.tif` or `.csv`.

        Raises:
            InputError: for another ending, and where the system takes no more of it.
        """
        check_ending(path)
        write_strain(path, self.map, self.against(reference).map)

    def to_xarray(self, reference: Reference = None) -> Any:
        """An `xarray.Dataset` with a variable for each layer, over y and x in Angstrom.

        Raises:
            InputError: where xarray is not installed.
        """
        try:
            import xarray
        except ImportError:
            raise InputError("to_xarray: xarray is not installed; pip install xarray") from None
        found = layers(self.against(reference).map)
        step, axis_unit = axis_of(self.map)
        axes = {
            name: (name, np.arange(side) * step, {"units": axis_unit})
            for name, side in zip("yx", self.F.shape[:2], strict=True)
        }
        variables = {
            name: (("y", "x"), values, {"units": unit(name)}) for name, values in found.items()
        }
        return xarray.Dataset(variables, coords=axes)

    def to_hyperspy(self, reference: Reference = None) -> Any:
        """A HyperSpy `Signal2D` over y and x, with the layers along its navigation axis. The names
        of the layers are in `metadata.Signal.layers`.

        Raises:
            InputError: where HyperSpy is not installed.
        """
        try:
            from hyperspy.api import signals
        except ImportError:
            raise InputError(
                "to_hyperspy: hyperspy is not installed; pip install hyperspy"
            ) from None
        found = layers(self.against(reference).map)
        step, axis_unit = axis_of(self.map)
        axes = [{"name": "layer", "size": len(found)}]
        for name, side in zip("yx", self.F.shape[:2], strict=True):
            axes.append({"name": name, "size": side, "scale": step, "units": axis_unit})
        signal = signals.Signal2D(np.stack(list(found.values())), axes=axes)
        signal.metadata.Signal.layers = list(found)
        return signal


def map_strain(
    counts: Any,
    calibration: Calibration | None = None,
    method: str = "ccstae",
    *,
    probe: NDArray[Any] | None = None,
    mask: NDArray[Any] | None = None,
    **settings: Any,
) -> StrainMap:
    """Map strain.

    Args:
        counts: a calibrated scan file by its name; or patterns (Ry, Rx, Qy, Qx), an array of NumPy
            or dask or a dataset of HDF5. Arrays are passed on piece by piece through a file in the
            folder for temporary files.
        calibration: of instrument and specimen; with an array alone, whose file has none.
        method: its id, as `ccstae methods` lists it.
        probe: (Qy, Qx), the vacuum probe of an array; an even disk of the semiangle where left out.
        mask: (Qy, Qx), nonzero where a pixel of an array is bad.
        settings: of the method, where they differ from the defaults.

    Returns:
        The map, in the sample's frame.

    Raises:
        InputError: for an unknown method or setting, and for counts or a calibration that cannot
            be.

    Strain along x of a made-up crystal, against its first column:

        strained = ccstae.map_strain(counts, calibration, method="com")
        exx = strained.strain(reference=(slice(None), slice(0, 1)))[..., 0]
    """
    row = Method(settings=settings)
    with tempfile.TemporaryDirectory(prefix="ccstae-") as folder:
        out = Path(folder) / "map.h5"
        if isinstance(counts, str | Path):
            if calibration is not None or probe is not None or mask is not None:
                raise InputError(
                    f"{counts}: a scan file has calibration, probe and mask in it; expected none "
                    f"beside it"
                )
            path = Path(counts)
        else:
            path = Path(folder) / "array"
            _write_array(path, counts, calibration, probe, mask)
        run.write_row(row, method, "auto", path, out)
        return StrainMap.read(out)


def _write_array(
    path: Path,
    counts: Any,
    calibration: Calibration | None,
    probe: NDArray[Any] | None,
    mask: NDArray[Any] | None,
) -> None:
    """A counts file of an array."""
    if calibration is None:
        raise InputError("array: no calibration; expected a ccstae.Calibration beside it")
    shape = tuple(int(side) for side in getattr(counts, "shape", ()))
    if len(shape) != 4 or 0 in shape or np.dtype(counts.dtype).kind not in "uif":
        raise InputError(
            f"array: {type(counts).__name__} of shape {shape}; expected numbers (Ry, Rx, Qy, Qx), "
            f"or the name of a scan file"
        )
    for name, given in (("probe", probe), ("mask", mask)):
        if given is not None and given.shape != shape[2:]:
            raise InputError(f"{name}: shape {given.shape}; expected {shape[2:]}, as the patterns")
    if probe is None:
        probe = even_disk(shape[2:], disk_radius_px(calibration))
    write_counts(path, _rows(counts), shape, calibration, probe, mask)


def _rows(counts: Any) -> Iterator[NDArray[Any]]:
    """The rows of the scan in order, read as many at a time as a chunk of the array holds."""
    chunks = getattr(counts, "chunks", None) or (1,)
    together = chunks[0] if isinstance(chunks[0], int) else max(chunks[0])
    for first in range(0, counts.shape[0], together):
        rows = np.asarray(counts[first : first + together])
        if rows.dtype.kind == "f":
            yield from rows.astype(np.float32, copy=False)
            continue
        if rows.min() < 0 or rows.max() > MAX_COUNT:
            raise InputError(
                f"array: integers from {rows.min()} to {rows.max()}; expected counts from 0 to "
                f"{MAX_COUNT}, or floats"
            )
        yield from rows.astype(np.uint32)
