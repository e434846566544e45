"""A detector's file made a scan file, slab by slab."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae.acquisition import detector_gain
from ccstae.errors import InputError
from ccstae.io import fetched
from ccstae.io.detector.files import open_file
from ccstae.io.detector.scan import Scan, arrange
from ccstae.io.scan import Slab, write_scan
from ccstae.machine.progress import progress

# Read ahead for photon transfer: rows over all of the scan.
SAMPLE_ROWS = 32
SAMPLE_BYTES = 192 * 2**20
# Axes that are taken for each other: what should be the mean pattern is then an image of the
# specimen, and what should be that image is the mean pattern, which varies far more.
MIN_CONTRAST_RATIO = 4.0
MIN_SIDE_TO_TELL = 16


@dataclass
class Seen:
    """What was seen of the readings while they went by."""

    shape: tuple[int, int, int, int]
    electrons: bool = False
    lowest: float = math.inf
    highest: float = -math.inf
    gaps: int = 0  # readings that are none
    full: int = 0  # readings at the largest number of the dtype
    empty: int = 0  # patterns that hold nothing
    image: NDArray[np.float64] = field(init=False)
    pattern: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self.image, self.pattern = np.zeros(self.shape[:2]), np.zeros(self.shape[2:])

    def add(self, rows: slice, columns: slice, patterns: NDArray[Any]) -> None:
        """Note the patterns (rows, columns, Qy, Qx) of a part of the scan."""
        if patterns.dtype.kind == "f":
            gaps = ~np.isfinite(patterns)
            self.gaps += int(gaps.sum())
            patterns = np.where(gaps, 0, patterns)
        else:
            self.full += int((patterns == np.iinfo(patterns.dtype).max).sum())
        self.lowest = min(self.lowest, float(patterns.min()))
        self.highest = max(self.highest, float(patterns.max()))
        image = patterns.sum((-1, -2), dtype=np.float64)
        self.image[rows, columns] = image
        self.pattern += patterns.sum((0, 1), dtype=np.float64)
        self.empty += int((~patterns.any((-1, -2))).sum())


def opened(
    file: Path,
    dataset: str | None = None,
    axes: str | None = None,
    scan: str | None = None,
    skip: int = 0,
    crop: str | None = None,
    binning: int = 1,
    sha256: str | None = None,
) -> Scan:
    """A detector's file as a scan.

    Args:
        file: what the detector wrote.
        dataset: of several in the file.
        axes, scan, skip, crop, binning: as `arrange` takes them.
        sha256: sum that the file must have.

    Raises:
        InputError: where the file cannot be read, is another one, or these do not fit it.
    """
    source = open_file(file, dataset)
    if sha256 is not None:
        fetched.check_sum("--sha256", file, sha256)
    return arrange(source, axes, scan, skip, crop, binning)


def write(
    scan: Scan,
    out: Path,
    electrons_per_unit: float | None = None,
    pedestal: float | None = None,
) -> list[str]:
    """Write a scan file.

    Args:
        scan: the detector's file.
        out: where it goes.
        electrons_per_unit: of the file; found from the scan where left out, as is the pedestal.
        pedestal: what a pixel reads without electrons, in units of the file.

    Returns:
        What a person should hear, line by line.

    Raises:
        InputError: where the file is damaged, holds nothing, or its axes cannot be as they are
            said to be.
    """
    if electrons_per_unit is not None and not 0 < electrons_per_unit < math.inf:
        raise InputError(f"--electrons-per-unit {electrons_per_unit}: expected a number above 0")
    if pedestal is not None and not math.isfinite(pedestal):
        raise InputError(f"--pedestal {pedestal}: expected a finite number")
    k, zero, said = _transfer(scan, electrons_per_unit, pedestal)
    as_read = (k, zero) == (1, 0)
    dtype = _stored_dtype(scan) if as_read else np.dtype(np.float32)
    seen = Seen(scan.shape)
    told: dict[str, float | str] = dict(scan.source.told)
    if "pixel_size_inv_A" in scan.source.told:
        told["pixel_size_inv_A"] = scan.source.told["pixel_size_inv_A"] * scan.bin
    told |= {
        "electrons_per_unit": k,
        "pedestal": zero,
        "detector_file": scan.source.path.name,
    }

    def slabs() -> Iterator[Slab]:
        parts = list(scan.slabs())
        for rows, columns in progress(parts, label=f"import {scan.source.path.name} (slabs)"):
            patterns = _readings(scan.read(rows, columns), dtype)
            if not as_read:
                patterns = (patterns - np.float32(zero * scan.bin**2)) * np.float32(k)
            seen.add(rows, columns, patterns)
            yield rows, columns, patterns
        _check(seen, scan)

    write_scan(out, slabs(), scan.shape, dtype, told, scan.mask)
    return [*scan.source.remarks, *_summary(seen, scan, dtype, out, told), said]


def _stored_dtype(scan: Scan) -> np.dtype[Any]:
    """What readings are stored as that are electrons already: unsigned integers stay as they are,
    for their largest number is a mark; others become float32.
    """
    dtype = scan.source.dtype
    if dtype.kind == "b":
        return np.dtype("u1") if scan.bin == 1 else np.dtype("u4")
    if dtype.kind == "u":
        return dtype.newbyteorder("=") if dtype.itemsize <= 4 and scan.bin == 1 else np.dtype("u4")
    return np.dtype(np.float32)


def _readings(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Readings in the dtype that is stored. The largest number of an integer dtype is no reading:
    NaN in floats, the largest number again in integers.
    """
    if values.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            values = values.astype(np.float32)
        values[~np.isfinite(values)] = np.nan
        return values
    if values.dtype.kind == "b" or values.dtype == dtype:
        return values.astype(dtype, copy=False)
    top = np.iinfo(values.dtype).max
    if dtype.kind == "f":
        marks = values == top
        floats = values.astype(np.float32)
        floats[marks] = np.nan
        return floats
    return np.minimum(values, np.iinfo(dtype).max).astype(dtype)


def _transfer(
    scan: Scan, electrons_per_unit: float | None, pedestal: float | None
) -> tuple[float, float, str]:
    """Electrons per unit and pedestal, given or found, and a line that says so."""
    if electrons_per_unit is not None and pedestal is not None:
        return electrons_per_unit, pedestal, f"{_numbers(electrons_per_unit, pedestal)}, as given"
    found = detector_gain.measure(_sample(scan))
    k, zero = electrons_per_unit, pedestal
    if isinstance(found, str):
        k, zero = k or 1.0, zero or 0.0
        return (
            k,
            zero,
            f"gain and pedestal cannot be told from the scan: {found}; taken: {_numbers(k, zero)}, "
            f"which --electrons-per-unit and --pedestal change",
        )
    pixels = f"photon transfer of {found.pixels} pixels"
    if found.counting and k is None and zero is None:
        return 1.0, 0.0, f"counts are electrons: {found.electrons_per_unit:.3f} a unit by {pixels}"
    k = found.electrons_per_unit if k is None else k
    zero = found.pedestal / scan.bin**2 if zero is None else zero
    seen = "" if found.peak else "; the pedestal is right where readout adds little noise"
    return k, zero, f"{_numbers(k, zero)}, by {pixels}{seen}"


def _numbers(k: float, pedestal: float) -> str:
    return f"{k:.4g} electrons a unit, pedestal {pedestal:.4g} units"


def _sample(scan: Scan) -> Iterator[NDArray[Any]]:
    """Rows of the scan, spread over it, as float32 with NaN for no reading."""
    ry, rx, qy, qx = scan.shape
    row_bytes = rx * qy * qx * scan.bin**2 * max(4, scan.source.dtype.itemsize)
    number = max(1, min(SAMPLE_ROWS, ry, SAMPLE_BYTES // row_bytes))
    columns = max(3, min(rx, rx * SAMPLE_BYTES // row_bytes // 4))
    for row in np.unique(np.linspace(0, ry - 1, number).round().astype(int)):
        for start in range(0, min(rx, columns * 4), columns):
            piece = slice(start, min(start + columns, rx))
            values = scan.read(slice(int(row), int(row) + 1), piece)[0]
            yield _readings(values, np.dtype(np.float32))


def _check(seen: Seen, scan: Scan) -> None:
    """InputError where the file holds nothing, or the axes are others."""
    where = scan.source.path
    if seen.gaps == math.prod(seen.shape):
        raise InputError(f"{where}: no pixel gives a reading in any pattern; expected electrons")
    if min(seen.shape) < MIN_SIDE_TO_TELL or "-" in "".join(scan.axes):
        return
    image, pattern = _contrast(seen.image), _contrast(seen.pattern)
    if image > MIN_CONTRAST_RATIO * pattern:
        order = [axis for axis in scan.axes if axis != "1"]
        swapped = " ".join({"R": "Q", "Q": "R"}[axis[0]] + axis[1:] for axis in order)
        looks = f"--axes {swapped!r}" if "R" not in order else "other --axes"
        raise InputError(
            f"{where}: the sum of each pattern varies {image / pattern:.0f} times as much over the "
            f"scan as the mean pattern does over the detector, with the axes "
            f"{' '.join(scan.axes)}; expected the opposite: looks like {looks}"
        )


def _contrast(image: NDArray[np.float64]) -> float:
    """Standard deviation over mean, of what lies above the lowest. A few lost patterns lie below
    it, and say nothing.
    """
    above = (image - np.quantile(image, 0.02)).clip(0)
    return float(above.std() / max(abs(above.mean()), 1e-300))


def _summary(
    seen: Seen, scan: Scan, dtype: np.dtype[Any], out: Path, told: dict[str, float | str]
) -> list[str]:
    ry, rx, qy, qx = seen.shape
    lines = [f"{out}: {ry} x {rx} patterns of {qy} x {qx} pixels, {dtype}"]
    if seen.highest <= seen.lowest:
        lines.append(
            f"warning: all readings are {seen.lowest:g}: looks like a scan that was never "
            f"recorded, or a beam that was off; no lattice will be found"
        )
    notes = {
        "pixels masked by the file": int(scan.mask.sum()),
        "readings missing": seen.gaps,
        f"readings at {dtype}'s largest number": seen.full,
        "patterns that hold nothing": seen.empty,
    }
    said = [f"{number} {what}" for what, number in notes.items() if number]
    if said:
        lines.append("that say nothing: " + ", ".join(said))
    units = [f"{name} {value:.6g}" for name, value in told.items() if name in scan.source.told]
    lines.append("the file tells: " + (", ".join(units) or "nothing of the instrument"))
    return lines
