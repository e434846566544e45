"""What the map of a recorded scan tells of its own error, where there is no truth.

Of each component (region `all answers`):

* `precision` half of the root mean square difference of two maps of half the electrons each
  (split_half.py), which is the precision of the whole where variance goes as one over the dose;
  `stated_precision` what the stated deviations of the halves make of it;
* `chi_square` mean square of that difference over its stated variance, 1 where the stated
  deviations hold; `coverage95` share of the positions where it lies within 1.96 of them;
* `self_precision` root mean square deviation from the median of the neighbours (resolution.py).

Of quantity `all`: `positions` with an answer in both halves, `answers` the share of positions with
an answer, and `patterns_per_second`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ccstae import geometry
from ccstae.config.run import Config
from ccstae.errors import InputError
from ccstae.evaluation import resolution
from ccstae.evaluation.reference import against
from ccstae.evaluation.split_half import split_half
from ccstae.io import atomic
from ccstae.io.maps import Map, read_map
from ccstae.io.scores import read_table

COLUMNS = ("quantity", "metric", "value")


def write(config: Config, method: str, counts_path: Path, map_path: Path, out: Path) -> None:
    """Measure a map of a recorded scan.

    Args:
        config: with the row of `methods` that made the map.
        method: the row's id.
        counts_path: the calibrated scan.
        map_path: the map.
        out: where the table goes, a CSV file with the columns `COLUMNS`.

    Raises:
        InputError: where scan or map cannot be read, or a half cannot be mapped.
    """
    answer = read_map(map_path)
    rows = list(_of_map(answer))
    if np.isfinite(answer.F).any():
        # Materials and boundaries together: one number a component.
        alike = Map(answer.F, answer.attributes, answer.covariance)
        for one in split_half(
            counts_path, alike, entry=config.methods[method], device=config.device
        ):
            rows += [
                (one.component, "precision", one.rms_difference / 2),
                (one.component, "stated_precision", one.stated_difference / 2),
                (one.component, "chi_square", one.chi_square),
                (one.component, "coverage95", one.coverage95),
                (one.component, "positions", float(one.positions)),
            ]
    with atomic.atomic(out) as temporary:
        pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(
            temporary, index=False, na_rep="nan", float_format="%.9g", lineterminator="\n"
        )


def read(path: Path) -> dict[tuple[str, str], float]:
    """The values that `write` wrote, by quantity and metric.

    Raises:
        InputError: where the file is missing or no such table.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected the precision of a map")
    table = read_table(path, COLUMNS, {"quantity": str, "metric": str, "value": float})
    keys = zip(table["quantity"], table["metric"], strict=True)
    return dict(zip(keys, table["value"].tolist(), strict=True))


def _of_map(answer: Map) -> Iterator[tuple[str, str, float]]:
    """What needs no halves."""
    answered = np.isfinite(answer.F).all((-1, -2))
    made = "error" not in answer.attributes
    seconds = float(answer.attributes["seconds"])
    yield "all", "answers", float(answered.mean())
    yield "all", "patterns_per_second", answered.size / max(seconds, 1e-9) if made else 0.0
    if not answered.any():
        return
    scatter = resolution.neighbour_deviation(geometry.components(against(answer).F))
    for k, component in enumerate(geometry.COMPONENTS):
        told = scatter[..., k][np.isfinite(scatter[..., k])]
        if told.size:
            yield component, "self_precision", float(np.sqrt(np.mean(told**2)))
