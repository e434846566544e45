"""EMPAD's raw files: float32 frames of 130 x 128 pixels, the last two rows numbers of the camera,
and the XML file beside them.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae.errors import InputError
from ccstae.io.detector.recorded import Recorded, plausible

ROWS, SIDE = 130, 128
FRAME = np.dtype(("<f4", (ROWS, SIDE)))


def open_file(path: Path) -> Recorded:
    """Open `.raw`, with the `.xml` of the same name where there is one, or that `.xml`.

    Without the XML the frames lie in one row, unless the name has the scan: scan_x128_y64.raw.

    Raises:
        InputError: where the file is missing, holds no whole frames, or not those of its XML.
    """
    raw, described = _pair(path)
    size = raw.stat().st_size
    if size == 0 or size % FRAME.itemsize:
        raise InputError(
            f"{raw}: {size} bytes are {size / FRAME.itemsize:.2f} frames of EMPAD; expected whole "
            f"ones, of {ROWS} x {SIDE} float32: cut short, or another detector's"
        )
    frames = size // FRAME.itemsize
    scan = _scan(raw, described)
    told, remarks = plausible(_told(described, scan))
    if scan is not None and scan[0] * scan[1] != frames:
        raise InputError(
            f"{raw}: holds {frames} frames, and {described or 'its name'} has a scan of "
            f"{scan[0]} x {scan[1]}; expected {scan[0] * scan[1]}: cut short?"
        )
    lead = (frames,) if scan is None else scan

    def read(piece: tuple[slice, ...]) -> NDArray[Any]:
        # Mapped anew each time: pages that were read do not stay in the process.
        stored = np.memmap(raw, FRAME, "r", shape=lead)
        return np.array(stored[piece])

    axes = ("R",) if scan is None else ("Ry", "Rx")
    shape = (*lead, SIDE, SIDE)  # pieces never reach the rows of the camera's numbers
    return Recorded(raw, shape, np.dtype("<f4"), (*axes, "Qy", "Qx"), read, told, remarks=remarks)


def _pair(path: Path) -> tuple[Path, Path | None]:
    """The raw file, and its XML where there is one."""
    if path.suffix.lower() != ".xml":
        beside = path.with_suffix(".xml")
        return path, beside if beside.is_file() else None
    name = ""
    for found in _tree(path).iter("raw_file"):
        name = found.get("filename") or found.findtext("filename") or ""
    # The name alone: a file that was moved keeps the folder where it was made.
    raw = path.with_name(Path(name.replace("\\", "/")).name or path.with_suffix(".raw").name)
    if not raw.is_file():
        raise InputError(f"{raw}: no such file; expected the frames that {path} describes")
    return raw, path


def _tree(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise InputError(f"{path}: no readable XML: {error}; expected EMPAD's") from None


def _text(root: ElementTree.Element, name: str) -> str:
    """The text of the first element `name`, or its attribute `value`; empty without one."""
    for found in root.iter(name):  # names hold dots, which paths do not take
        return found.get("value") or found.text or ""
    return ""


def _number(root: ElementTree.Element, name: str) -> float | None:
    number = _float(_text(root, name))
    return number if math.isfinite(number) else None


def _float(text: str) -> float:
    """The number that a text holds, NaN where it holds none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _scan(raw: Path, described: Path | None) -> tuple[int, int] | None:
    """(Ry, Rx) as the XML has it, or the name of the file."""
    if described is not None:
        root = _tree(described)
        size = _number(root, "pix_y"), _number(root, "pix_x")
        if size[0] and size[1]:
            return int(size[0]), int(size[1])
    in_name = re.search(r"_x(\d+)_y(\d+)$", raw.stem)
    return None if in_name is None else (int(in_name[2]), int(in_name[1]))


def _told(described: Path | None, scan: tuple[int, int] | None) -> dict[str, float | None]:
    """What the XML tells of the instrument."""
    if described is None:
        return {}
    root = _tree(described)
    told: dict[str, float | None] = {}
    voltage_V, pixel = _number(root, "source.get_voltage"), _number(root, "calibrated_pixelsize")
    told["energy_keV"] = voltage_V / 1e3 if voltage_V else None
    # In inverse nanometres, times 1e-9; versions since 1.2 have none.
    told["pixel_size_inv_A"] = pixel * 1e8 if pixel else None
    if scan is None:
        return told
    x, factor = None, _number(root, "scale_factor")
    for new in root.iter("full_scan_field_of_view"):
        x = _number(new, "x")
    old = re.findall(r"[-+.\deE]+", _text(root, "optics.get_full_scan_field_of_view"))
    if x and factor:
        # Both numbers of the field are that of the longer side, times this factor.
        told["step_A"] = x / factor / max(scan) * 1e10
    elif old:
        told["step_A"] = _float(old[-1]) / scan[1] * 1e10
    return told
