"""Precision of a map without truth. The electrons of every pattern are dealt out to two halves,
which are mapped apart, and their difference is held against the deviations that the map states.

Each electron goes to either half with probability 1/2, so that the halves of a Poisson count are
independent Poisson counts of half the dose. A method whose variance goes as one over the dose has,
in a half, twice the variance that it has in the whole.

Readings that are no whole numbers, as of a camera that does not count, are dealt out as x / 2 + z
and x / 2 - z, with z normal of variance x / 4. Where the variance of x is its mean, as
Poisson's law has it, each half has a mean and a variance of half of that, and the two are not
correlated: var(x) / 4 - E(x) / 4 = 0.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.config.methods import Method, modules
from ccstae.errors import InputError
from ccstae.evaluation.metrics import Z95
from ccstae.io.counts import Counts, read_counts, write_counts
from ccstae.io.maps import Map, read_map
from ccstae.machine.device import Device
from ccstae.methods import run

SEED = 0  # of the deal
# Positions of `middle_rows`: chi-square is then known to 3 %.
MAX_HALVED_POSITIONS = 2048


@dataclass(frozen=True)
class Precision:
    """Of one component over one region."""

    component: str
    region: str
    positions: int
    """With an answer in both halves."""
    rms_difference: float
    """Between the halves; twice the precision of the whole, where variance goes as one over the
    dose.
    """
    stated_difference: float
    """What the halves' covariances state of it; NaN where the method states none."""
    chi_square: float
    """Mean over the positions of the squared difference over its stated variance; 1 where the
    stated deviations hold.
    """
    coverage95: float
    """Share of the positions whose difference lies within 1.96 of its stated deviation."""


def split_half(
    counts_path: Path | str,
    answer: Map,
    rows: slice = slice(None),
    entry: Method | None = None,
    device: Device = "auto",
) -> list[Precision]:
    """Map a scan again by halves.

    Args:
        counts_path: the scan of the map.
        answer: the map, whose method and settings map the halves.
        rows: of the scan that are mapped; all where left out. `middle_rows` are enough for a look.
        entry: of a config, which made the map; where left out, the map tells it.
        device: to map them on.

    Returns:
        Every component, over each material that the map tells apart (all answers where it tells
        none).

    Raises:
        InputError: where the map is not of the scan, or neither of a row nor of a method of this
            package.
    """
    method = str(answer.attributes.get("method"))
    if entry is None and method not in modules():
        raise InputError(
            f"the map is of {method!r}; expected one of a method of this package, to map again"
        )
    counts = read_counts(counts_path)
    if counts.scan != answer.F.shape[:2]:
        raise InputError(
            f"{counts_path}: a scan of {counts.scan}; expected that of the map, "
            f"{answer.F.shape[:2]}"
        )
    chosen = range(counts.scan[0])[rows]
    if entry is None:
        entry = Method(settings=json.loads(str(answer.attributes.get("settings", "{}"))))
    halves = []
    with tempfile.TemporaryDirectory(prefix="ccstae-") as folder:
        for half in (0, 1):
            path, out = (Path(folder) / f"half.{half}.{name}" for name in ("h5", "map.h5"))
            write_counts(
                path,
                dealt(counts, half, chosen),
                (len(chosen), counts.scan[1], *counts.detector),
                counts.calibration,
                counts.probe,
                ~counts.good,
            )
            run.write_row(entry, method, device, path, out)
            halves.append(read_map(out))
            path.unlink()
    label = None if answer.label is None else answer.label[rows]
    return compared(halves[0], halves[1], label, counts.calibration.rotational_symmetry)


def middle_rows(scan: tuple[int, int]) -> slice:
    """Rows of a scan (Ry, Rx) that are enough to map by halves: about `MAX_HALVED_POSITIONS` in the
    middle of it, or all. They lie side by side, for methods that take neighbours together.
    """
    rows = min(scan[0], max(1, MAX_HALVED_POSITIONS // scan[1]))
    first = (scan[0] - rows) // 2
    return slice(first, first + rows)


def dealt(counts: Counts, half: int, chosen: Iterable[int] | None = None) -> Iterator[NDArray[Any]]:
    """The chosen rows (all where left out) of a half, 0 or 1; both together are the scan."""
    columns = counts.scan[1]
    for index in range(counts.scan[0]) if chosen is None else chosen:
        row = counts.patterns[index * columns : (index + 1) * columns]
        generator = np.random.default_rng([SEED, index])
        if row.dtype.kind == "u":
            first = generator.binomial(row, 0.5).astype(row.dtype)
        else:
            dealt_out = generator.standard_normal(row.shape, np.float32)
            first = row / 2 + np.sqrt(row.clip(0)) / 2 * dealt_out
        yield first if half == 0 else row - first


def compared(
    first: Map, second: Map, label: NDArray[np.int8] | None, symmetry: int
) -> list[Precision]:
    """Two independent maps of the same scan, held against what they state.

    Args:
        first, second: the maps.
        label: (Ry, Rx), regions; what is 1 or more is told apart.
        symmetry: order of the lattice's rotation.
    """
    one, other = first.F, geometry.to_branch(second.F, first.F, symmetry)
    difference = geometry.components(one) - geometry.components(other)
    answered = np.asarray(np.isfinite(difference).all(-1))
    variance = np.full(difference.shape, np.nan)
    if first.covariance is not None and second.covariance is not None:
        variance = np.diagonal(first.covariance + second.covariance, axis1=-2, axis2=-1)
    regions = {"all answers": answered}
    if label is not None:
        materials = np.unique(label[label > 0]).tolist()
        regions = {f"material {m}": answered & (label == m) for m in materials} or regions
    return [
        Precision(
            component,
            name,
            int(region.sum()),
            float(np.sqrt(np.mean(difference[region, k] ** 2))),
            float(np.sqrt(np.mean(variance[region, k]))),
            float(np.mean(difference[region, k] ** 2 / variance[region, k])),
            _covered(difference[region, k], variance[region, k]),
        )
        for name, region in regions.items()
        if region.any()
        for k, component in enumerate(geometry.COMPONENTS)
    ]


def _covered(difference: NDArray[np.float64], variance: NDArray[np.float64]) -> float:
    """Share of differences within 1.96 of their stated deviation; NaN where none is stated."""
    if np.isnan(variance).any():
        return float("nan")
    return float(np.mean(np.abs(difference) <= Z95 * np.sqrt(variance)))
