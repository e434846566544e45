"""A detector's file as a scan of patterns, (Ry, Rx, Qy, Qx), whatever the order of its axes: turned
round, cut, and binned, a slab at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae.errors import InputError
from ccstae.io.detector.recorded import AXES, Recorded

SCAN_AXES = ("Ry", "Rx", "Qy", "Qx")
# Readings that are held at a time: they, their copies in float32 and what is written take a few
# times as much.
SLAB_BYTES = 48 * 2**20
_SHAPES_SHOWN = 5  # of a scan, that a message proposes


@dataclass(frozen=True)
class Scan:
    """Part of a detector's file as a scan."""

    source: Recorded
    axes: tuple[str, ...]
    """Of the file, as in `Recorded.axes`; an axis of the detector may be mirrored: -Qx."""
    recorded: tuple[int, int]
    """(Ry, Rx) of the positions that the file holds."""
    cut: dict[str, tuple[int, int]]
    """Start and stop of each of `SCAN_AXES`, before binning."""
    bin: int
    """Pixels either way that are summed."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(Ry, Rx, Qy, Qx) of what is read."""
        ry, rx, qy, qx = (stop - start for start, stop in (self.cut[axis] for axis in SCAN_AXES))
        return ry, rx, qy // self.bin, qx // self.bin

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(Qy, Qx), pixels that the file marks as bad."""
        if self.source.mask is None:
            return np.zeros(self.shape[2:], bool)
        stored = self.source.mask[None].astype(np.uint8)
        return np.asarray(self._detector(stored, ["F", *self._names("Q")])[0] > 0)

    def slabs(self, slab_bytes: int = SLAB_BYTES) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of the scan, part by part in order, that take about `slab_bytes` in the
        file; whole rows where they fit.
        """
        ry, rx = self.shape[:2]
        start_y, start_x = (self.cut[axis] for axis in ("Qy", "Qx"))
        pixels = (start_y[1] - start_y[0]) * (start_x[1] - start_x[0])
        positions = max(1, slab_bytes // (pixels * self.source.dtype.itemsize))
        rows = max(1, positions // rx)
        columns = rx if positions >= rx else max(1, positions // 32 * 32 or positions)
        for row in range(0, ry, rows):
            for column in range(0, rx, columns):
                yield (
                    slice(row, min(row + rows, ry)),
                    slice(column, min(column + columns, rx)),
                )

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        """Patterns (rows, columns, Qy, Qx) of a part of the scan, in the file's dtype or, where
        they are binned, in one that holds sums of it.

        Raises:
            InputError: where the file is damaged there.
        """
        top, left = self.cut["Ry"][0], self.cut["Rx"][0]
        rows = slice(rows.start + top, rows.stop + top)
        columns = slice(columns.start + left, columns.stop + left)
        stored_scan = self._stored_scan()
        if stored_scan == self.recorded:
            patterns = self._fetch({"Ry": rows, "Rx": columns})
        elif columns.stop - columns.start == self.recorded[1] or rows.stop - rows.start == 1:
            first = rows.start * self.recorded[1] + columns.start
            last = (rows.stop - 1) * self.recorded[1] + columns.stop
            patterns = self._positions(first, last)
        else:
            width = self.recorded[1]
            lines = [
                self._positions(row * width + columns.start, row * width + columns.stop)
                for row in range(rows.start, rows.stop)
            ]
            patterns = np.concatenate(lines)
        return patterns.reshape(
            rows.stop - rows.start, columns.stop - columns.start, *patterns.shape[-2:]
        )

    def _stored_scan(self) -> tuple[int, ...]:
        sides = {axis: side for axis, side in zip(self.axes, self.source.shape, strict=True)}
        return tuple(sides[axis] for axis in ("Ry", "Rx", "R") if axis in sides)

    def _positions(self, first: int, last: int) -> NDArray[Any]:
        """Patterns (n, Qy, Qx) first to last of the file, counted through."""
        stored = self._stored_scan()
        if len(stored) == 1:
            return self._fetch({"R": slice(first, last)})
        if not stored:
            return self._fetch({})
        top, bottom = first // stored[1], -(-last // stored[1])
        whole = self._fetch({"Ry": slice(top, bottom), "Rx": slice(0, stored[1])})
        whole = whole.reshape(-1, *whole.shape[-2:])
        return whole[first - top * stored[1] : last - top * stored[1]]

    def _names(self, letter: str) -> list[str]:
        return [axis.lstrip("-") for axis in self.axes if axis.lstrip("-").startswith(letter)]

    def _fetch(self, at: dict[str, slice]) -> NDArray[Any]:
        """Patterns (..., Qy, Qx) at slices of the scan's axes, cut and binned."""
        piece = []
        for axis, side in zip(self.axes, self.source.shape, strict=True):
            if axis in at:
                piece.append(at[axis])
            elif axis.lstrip("-") in ("Qy", "Qx"):
                start, stop = self.cut[axis.lstrip("-")]
                mirrored = axis.startswith("-")
                piece.append(slice(side - stop, side - start) if mirrored else slice(start, stop))
            else:
                piece.append(slice(0, side))
        values = self.source.read(tuple(piece))
        names = [axis.lstrip("-") for axis in self.axes]
        single = tuple(index for index, name in enumerate(names) if name == "1")
        values = values.squeeze(single)
        names = [name for name in names if name != "1"]
        return self._oriented(values, names)

    def _detector(self, values: NDArray[Any], names: list[str]) -> NDArray[Any]:
        """A whole image (1, of the detector) in the order of the file, as `_oriented` would."""
        cut = [slice(None)]
        for axis in (axis for axis in self.axes if axis.lstrip("-") in ("Qy", "Qx")):
            start, stop = self.cut[axis.lstrip("-")]
            side = values.shape[len(cut)]
            cut.append(slice(side - stop, side - start) if axis[0] == "-" else slice(start, stop))
        return self._oriented(values[tuple(cut)], names)

    def _oriented(self, values: NDArray[Any], names: list[str]) -> NDArray[Any]:
        """Scan axes in front, the detector's behind, mirrored and binned."""
        order = [axis for axis in (*SCAN_AXES[:2], "R", "F", *SCAN_AXES[2:]) if axis in names]
        values = values.transpose([names.index(axis) for axis in order])
        for position, axis in ((-2, "-Qy"), (-1, "-Qx")):
            if axis in self.axes:
                values = np.flip(values, position)
        if self.bin == 1:
            return values
        height, width = values.shape[-2] // self.bin, values.shape[-1] // self.bin
        wide = np.float32 if values.dtype.kind == "f" else np.dtype(f"{values.dtype.kind}8")
        if values.dtype.kind == "b":
            wide = np.dtype("u8")
        boxes = values.reshape(*values.shape[:-2], height, self.bin, width, self.bin)
        sums = np.asarray(boxes.sum((-3, -1), dtype=wide))
        if values.dtype.kind in "iu":  # a box with a mark in it is one
            marks = (boxes == np.iinfo(values.dtype).max).any((-3, -1))
            sums[marks] = np.iinfo(sums.dtype).max
        return sums


def arrange(
    source: Recorded,
    axes: str | None = None,
    scan: str | None = None,
    skip: int = 0,
    crop: str | None = None,
    binning: int = 1,
) -> Scan:
    """A detector's file as a scan.

    Args:
        source: the open file.
        axes: names of the file's axes in its order, such as "Ry Rx Qy Qx"; its own, or the usual
            ones of its rank, where left out. R is a scan whose positions lie in one row, -Qx a
            mirrored axis, 1 an axis of length 1.
        scan: the positions that were recorded, rows and columns, such as "256x256".
        skip: columns at the end of each row that are left out: the beam flies back there.
        crop: parts to keep, such as "Ry=0:100 Qx=10:118".
        binning: pixels either way that are summed.

    Raises:
        InputError: where these do not fit the file or each other.
    """
    names = source.axes if axes is None else _named(axes, source)
    sides = {axis.lstrip("-"): side for axis, side in zip(names, source.shape, strict=True)}
    recorded = _positions(source, sides, scan)
    if not 0 <= skip < recorded[1]:
        raise InputError(
            f"--skip {skip}: the scan has {recorded[1]} columns; expected fewer than that"
        )
    cut = {
        "Ry": (0, recorded[0]),
        "Rx": (0, recorded[1] - skip),
        "Qy": (0, sides["Qy"]),
        "Qx": (0, sides["Qx"]),
    }
    for word in (crop or "").split():
        axis, part = _part(word, cut)
        cut[axis] = part
    if not 1 <= binning <= min(cut[axis][1] - cut[axis][0] for axis in ("Qy", "Qx")):
        raise InputError(f"--bin {binning}: expected 1 or more, and no more than the detector has")
    for axis in ("Qy", "Qx"):
        side = cut[axis][1] - cut[axis][0]
        if side % binning:
            fits = side - side % binning
            raise InputError(
                f"--bin {binning} does not divide {side} pixels along {axis}; expected it to: "
                f"--crop {axis}={cut[axis][0]}:{cut[axis][0] + fits} does"
            )
    return Scan(source, names, recorded, cut, binning)


def _named(axes: str, source: Recorded) -> tuple[str, ...]:
    names = tuple(axes.replace(",", " ").split())
    plain = [name.lstrip("-") for name in names]
    known = {*AXES, "-Qy", "-Qx"}
    wrong = [name for name in names if name not in known]
    if wrong:
        raise InputError(
            f"--axes {axes!r}: {wrong[0]!r} is no axis; expected names such as Ry Rx Qy Qx, R for "
            f"positions in one row, -Qx for a mirrored axis, 1 for one of length 1"
        )
    if len(names) != len(source.shape):
        raise InputError(
            f"--axes {axes!r} names {len(names)} axes; {source.path} has {len(source.shape)}: "
            f"{source.shape}"
        )
    counted = [name for name in plain if name != "1"]
    if len(set(counted)) < len(counted) or not {"Qy", "Qx"} <= set(counted):
        raise InputError(f"--axes {axes!r}: expected Qy and Qx once each, and no axis twice")
    if "R" in counted and {"Ry", "Rx"} & set(counted):
        raise InputError(f"--axes {axes!r}: expected either R, or Ry and Rx")
    if len({"Ry", "Rx"} & set(counted)) == 1:
        raise InputError(f"--axes {axes!r}: expected Ry and Rx both; R for positions in one row")
    for name, side in zip(names, source.shape, strict=True):
        if name == "1" and side != 1:
            raise InputError(f"--axes {axes!r}: the axis of {side} is called 1; expected length 1")
    return names


def _positions(source: Recorded, sides: dict[str, int], scan: str | None) -> tuple[int, int]:
    """(Ry, Rx) of all positions of the file."""
    stored = tuple(sides[axis] for axis in ("Ry", "Rx", "R") if axis in sides) or (1, 1)
    number = math.prod(stored)
    if scan is None:
        if source.positions not in (None, number):
            raise InputError(
                f"{source.path}: holds {number} patterns, and says that {source.positions} were "
                f"taken; expected all of them: cut short? --scan reads those that are there"
            )
        if len(stored) == 2:
            return stored
        if number == 1:
            return 1, 1
        raise InputError(
            f"{source.path}: {number} patterns in a row, and no size of the scan; expected --scan "
            f"ROWSxCOLUMNS, such as {_shapes(number)}"
        )
    try:
        rows, columns = (int(part) for part in scan.lower().split("x"))
    except ValueError:
        rows = columns = 0
    if rows < 1 or columns < 1:
        raise InputError(f"--scan {scan!r}: expected ROWSxCOLUMNS, such as 256x256")
    if rows * columns != number:
        raise InputError(
            f"--scan {scan}: {rows * columns} positions, and {source.path} holds {number} "
            f"patterns; expected as many, such as {_shapes(number)}; columns where the beam flies "
            f"back count, and --skip leaves them out"
        )
    return rows, columns


def _shapes(number: int) -> str:
    """Shapes of a scan of so many positions, the squarest first."""
    factors = [rows for rows in range(math.isqrt(number), 0, -1) if number % rows == 0]
    return ", ".join(f"{rows}x{number // rows}" for rows in factors[:_SHAPES_SHOWN])


def _part(word: str, cut: dict[str, tuple[int, int]]) -> tuple[str, tuple[int, int]]:
    axis, _, span = word.partition("=")
    try:
        first, last = (int(part) if part else None for part in span.split(":"))
    except ValueError:
        first = last = None
        axis = ""
    if axis not in cut:
        raise InputError(
            f"--crop {word!r}: expected AXIS=START:STOP, such as Ry=0:100, of {', '.join(cut)}"
        )
    start, stop = cut[axis]
    begin, end = start if first is None else first, stop if last is None else last
    if not start <= begin < end <= stop:
        raise InputError(f"--crop {word!r}: expected a part of {start} to {stop} along {axis}")
    return axis, (begin, end)
