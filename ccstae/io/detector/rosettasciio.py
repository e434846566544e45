"""Formats that RosettaSciIO reads. It is an optional part, under the GPL: it is imported when it is
needed, and nothing of it is copied here.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae.errors import InputError
from ccstae.io.detector.recorded import (
    Recorded,
    length_A,
    plausible,
    reciprocal_inv_A,
    squeezed_axes,
)

# The reader of each ending.
READERS = {
    ".mib": "quantumdetector",
    ".blo": "blockfile",
    ".dm3": "digitalmicrograph",
    ".dm4": "digitalmicrograph",
    ".ser": "tia",
    ".emi": "tia",
    ".emd": "emd",
    ".tvips": "tvips",
    ".mrc": "mrc",
    ".hspy": "hspy",
    ".zspy": "zspy",
    ".tif": "tiff",
    ".tiff": "tiff",
}
INSTALL = 'pip install "ccstae[files]"'
# Bytes that are read before the file is opened anew, so that pages of it do not stay in the
# process.
REOPEN_BYTES = 256 * 2**20


def open_file(path: Path, name: str | None) -> Recorded:
    """Open a file with the reader of its ending.

    Args:
        path: of the file.
        name: title of one of the signals in it; where left out, the largest is taken.

    Raises:
        InputError: where RosettaSciIO is missing or cannot read the file.
    """
    signal = _signal(path, name)
    shape, dtype = tuple(map(int, signal["data"].shape)), signal["data"].dtype
    if dtype.kind not in "biuf" or 0 in shape:
        raise InputError(f"{path}: holds {dtype} of shape {shape}; expected patterns")
    told, remarks = plausible(_told(signal))
    state = {"data": signal["data"], "read": 0}

    def read(piece: tuple[slice, ...]) -> NDArray[Any]:
        if state["read"] > REOPEN_BYTES:
            state.update(data=_signal(path, name)["data"], read=0)
        try:
            part = np.array(state["data"][piece])
        except Exception as error:
            raise _refused(path, error) from None
        state["read"] += part.nbytes
        return part

    return Recorded(
        path,
        shape,
        dtype,
        _axes(signal, shape, path),
        read,
        told,
        positions=_positions(signal),
        remarks=remarks,
    )


def _signal(path: Path, name: str | None) -> dict[str, Any]:
    """The signal of a file that is called `name`, or the largest, its readings not yet read."""
    reader = READERS[path.suffix.lower()]
    try:
        module = import_module(f"rsciio.{reader}")
    except ImportError as error:
        raise InputError(
            f"{path}: files ending in {path.suffix} are read by RosettaSciIO, which lacks "
            f"{error.name}: {INSTALL}; npy, HDF5 and EMPAD's raw files need nothing more"
        ) from None
    for library in ("rsciio", "tifffile"):  # what they say of a damaged file is said in the error
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Those who read need no right to write, which RosettaSciIO asks for here.
            words = {"mode": "r"} if reader == "zspy" else {}
            signals = module.file_reader(str(path), lazy=True, **words)
    except Exception as error:
        raise _refused(path, error) from None
    signals = [signal for signal in signals if np.ndim(signal["data"]) >= 2]
    titles = [str(signal["metadata"].get("General", {}).get("title", "")) for signal in signals]
    if name is not None:
        if name not in titles:
            known = ", ".join(map(repr, titles)) or "none"
            raise InputError(f"{path}: no signal {name!r} of patterns; expected one of: {known}")
        return signals[titles.index(name)]
    if not signals and reader == "tia":
        raise InputError(f"{path}: expected the readings beside it, {path.stem}_1.ser and so on")
    if not signals:
        raise InputError(f"{path}: RosettaSciIO finds no patterns in it; expected a scan")
    return max(signals, key=lambda signal: int(np.prod(signal["data"].shape)))


def _refused(path: Path, error: Exception) -> InputError:
    said = " ".join(str(error).split())
    if isinstance(error, InputError):
        return error
    return InputError(
        f"{path}: RosettaSciIO cannot read it ({type(error).__name__}: {said}); expected a whole "
        f"file of the kind that {path.suffix} says: cut short, damaged, or of another program"
    )


def _axes(signal: dict[str, Any], shape: tuple[int, ...], path: Path) -> tuple[str, ...]:
    """The file's axes: those of the scan in front, where it says which they are."""
    described = signal["axes"]
    if len(described) == len(shape):
        scan = [bool(axis.get("navigate")) for axis in described]
        names = {(1, 2): ("R", "Qy", "Qx"), (2, 2): ("Ry", "Rx", "Qy", "Qx")}
        counts = sum(scan), len(scan) - sum(scan)
        if counts in names:
            told = iter(names[counts][: counts[0]]), iter(names[counts][counts[0] :])
            return tuple(next(told[0] if moves else told[1]) for moves in scan)
    return squeezed_axes(shape, f"{path}: what RosettaSciIO reads")


def _positions(signal: dict[str, Any]) -> int | None:
    """How many frames Merlin's header says that were taken."""
    header = signal.get("original_metadata", {}).get("hdr_file") or {}
    said = str(header.get("Frames in Acquisition (Number)", "")).strip()
    return int(said) if said.isdecimal() else None


def _told(signal: dict[str, Any]) -> dict[str, float | None]:
    microscope = signal["metadata"].get("Acquisition_instrument", {}).get("TEM", {})
    header = signal.get("original_metadata", {}).get("blockfile_header", {})
    told: dict[str, float | None] = {}
    for name, entry in (("energy_keV", "beam_energy"), ("semiangle_mrad", "convergence_angle")):
        told[name] = _number(microscope.get(entry, _mapped(signal, entry)))
    if header:
        told["energy_keV"] = _number(header.get("Beam_energy"), 1e-3)
        told["scan_rotation_deg"] = _number(header.get("Scan_rotation"), 1e-2)
    scan = [axis for axis in signal["axes"] if axis.get("navigate")]
    detector = [axis for axis in signal["axes"] if not axis.get("navigate")]
    for axis in scan[-1:]:
        told["step_A"] = length_A(float(axis.get("scale") or 0), str(axis.get("units") or ""))
    for axis in detector[-1:]:
        told["pixel_size_inv_A"] = reciprocal_inv_A(
            float(axis.get("scale") or 0), str(axis.get("units") or ""), told["energy_keV"]
        )
    return told


def _mapped(signal: dict[str, Any], entry: str) -> Any:
    """An entry of the metadata that the reader leaves where the file has it, and says where; None
    where there is none.
    """
    for place, (target, converted) in (signal.get("mapping") or {}).items():
        if not target.endswith(f".TEM.{entry}"):
            continue
        value: Any = signal.get("original_metadata", {})
        for key in place.replace(" ", "_").split("."):
            inner = value.items() if isinstance(value, dict) else ()
            value = next((item for name, item in inner if name.replace(" ", "_") == key), None)
        with suppress(TypeError, ValueError):
            if value is not None:
                return value if converted is None else converted(value)
    return None


def _number(value: object, factor: float = 1.0) -> float | None:
    """A number times a factor; None where it is none, or 0, which stands for "not known"."""
    if not isinstance(value, int | float | np.number) or not value:
        return None
    return float(value) * factor
