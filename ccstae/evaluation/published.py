"""The errors of a run as the published work counts them: mean absolute errors over all positions,
grain boundaries included, beside what its authors published of the same truth.

Each number of `write`'s table is of one map, one set of positions, one quantity and one metric:

    positions   `all`; `on levels`, those whose strains lie on the grains' five levels; `interior`
                and `boundary`, the regions of the truth; `unstrained` and `strained`, those on
                levels where this very component is zero or is not
    quantity    exx, eyy, exy; theta modulo the lattice's symmetry; `theta as published`, whose
                difference is not wrapped
    metric      mae; bias, the mean error; bound, the mean absolute error of a normal law with the
                Cramer-Rao deviation of each pattern, sqrt(2 / pi) sigma; slope, that of answer over
                truth; unshrunk_mae, the mae of the answer's deviations from its mean divided by
                that slope; positions, how many there are

An answer that only shrinks towards no strain has a slope below 1, and its unshrunk error is that of
the answer before. The share of its gain over the bound that it owes to that is `prior_share`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ccstae.config.levels import Level
from ccstae.config.run import Config
from ccstae.config.scenes import LabelledSettings
from ccstae.errors import InputError
from ccstae.evaluation.metrics import Compared, compare
from ccstae.evaluation.resolution import gain
from ccstae.geometry import COMPONENTS, wrap
from ccstae.io import atomic, layout
from ccstae.io.maps import read_map
from ccstae.io.scores import read_table
from ccstae.io.truth import Truth, read_truth

STRAIN_LEVELS = (-0.02, -0.01, 0.0, 0.01, 0.02)
"""exx, eyy and exy of the published grains."""
MAX_OFF_LEVEL = 2e-4
"""Beyond it lie positions between grains, where the published truth is interpolated."""
NORMAL_MAE = math.sqrt(2 / math.pi)
"""Mean absolute value of a normal law over its standard deviation."""
AS_PUBLISHED = "theta as published"
SUBSETS = ("all", "on levels", "interior", "boundary", "unstrained", "strained")
TEXT: dict[str, type] = dict.fromkeys(("scene", "method", "positions", "quantity", "metric"), str)
COLUMNS = (
    "scene",
    "method",
    "background",
    "electrons",
    "seed",
    "positions",
    "quantity",
    "metric",
    "value",
)
ERROR_COLUMNS = ("background", "electrons", "method", "exx", "eyy", "exy", "rotation_deg")
NONE = pd.DataFrame(columns=list(COLUMNS))
Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def scenes(config: Config) -> dict[str, Path]:
    """The scored scenes with published errors, and where these are."""
    return {
        name: scene.published_errors
        for name, scene in config.scored.items()
        if isinstance(scene, LabelledSettings) and scene.published_errors is not None
    }


def write(config: Config, run_dir: Path, out: Path) -> None:
    """Measure every map of the scenes that have published errors.

    Args:
        config: of the run.
        run_dir: its folder, with the truth files and maps.
        out: where the table goes, a CSV file with the columns `COLUMNS`.

    Raises:
        InputError: names a file that is missing or unfit, or that cannot be written.
    """
    rows: list[tuple[Any, ...]] = []
    for scene in scenes(config):
        truth = read_truth(layout.truth_path(Path(run_dir), scene))
        for method, level, seed in product(config.methods, config.levels, config.seeds.test):
            path = layout.map_path(Path(run_dir), scene, level.name, seed, method)
            answer = read_map(path, truth.label.shape)
            if "error" in answer.attributes:
                continue
            key = (scene, method, level.background, level.electrons, seed)
            rows += [(*key, *row) for row in measured(truth, level, compare(truth, answer.F))]
    with atomic.atomic(out) as temporary:
        pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(
            temporary, index=False, na_rep="nan", float_format="%.9g", lineterminator="\n"
        )


def read(file: Path) -> pd.DataFrame:
    """The table that `write` wrote; empty where there is none.

    Raises:
        InputError: where it has other columns than `COLUMNS`.
    """
    return read_table(file, COLUMNS, TEXT, "#") if Path(file).is_file() else NONE


def read_errors(file: Path) -> pd.DataFrame:
    """The errors that others published.

    Returns:
        A frame with the columns `ERROR_COLUMNS`: strains as numbers, rotations in degrees,
        electrons inf where they had no noise.

    Raises:
        InputError: where the file is missing or has other columns.
    """
    if not Path(file).is_file():
        raise InputError(f"{file}: no such file; expected the published errors")
    return read_table(file, ERROR_COLUMNS, TEXT, "#")


def measured(
    truth: Truth, level: Level, compared: Compared
) -> Iterator[tuple[str, str, str, float]]:
    """All numbers of one map.

    Args:
        truth: of the scene.
        level: of the noise in the counts; the truth must have its bound, unless it is noise-free.
        compared: the map beside the truth.

    Yields:
        (positions, quantity, metric, value) in a fixed order; see the module's docstring.
    """
    bound = None if math.isinf(level.electrons) else truth.bound[level.name]
    sample = truth.label != 0
    on_levels = sample & on_strain_levels(compared.truth)
    interior = sample & (truth.region == truth.regions.index("interior"))
    for c, quantity in enumerate((*COMPONENTS, AS_PUBLISHED)):
        component = min(c, 3)
        expected, answered = compared.truth[..., component], compared.answer[..., component]
        at_zero = np.abs(expected) <= MAX_OFF_LEVEL
        masks = {
            "all": sample,
            "on levels": on_levels,
            "interior": interior,
            "boundary": sample & ~interior,
        }
        if component < 3:
            masks |= {"unstrained": on_levels & at_zero, "strained": on_levels & ~at_zero}
        if quantity == AS_PUBLISHED:
            middle = _middle(expected[on_levels if on_levels.any() else sample])
            answered = unwrapped(answered, middle, truth.symmetry)
        for name, mask in masks.items():
            if not mask.any():
                continue
            here = None if bound is None else bound[mask, component]
            for metric, value in _metrics(expected[mask], answered[mask], here, component < 3):
                yield name, quantity, metric, value


def _metrics(
    truth: Array, answer: Array, bound: Array | None, with_slope: bool
) -> Iterator[tuple[str, float]]:
    """Metric and value of one quantity over n positions."""
    error = answer - truth
    yield "positions", float(len(truth))
    yield "mae", float(np.abs(error).mean())
    yield "bias", float(error.mean())
    yield "bound", 0.0 if bound is None else float(NORMAL_MAE * bound.mean())
    slope = gain(truth[:, None], answer[:, None], None) if with_slope else None
    if slope is not None:
        yield "slope", slope
        yield "unshrunk_mae", unshrunk_mae(truth, answer, slope)


def on_strain_levels(components: Array) -> Mask:
    """Where all three strains of `components` (..., 4) lie on levels of the published grains.

    >>> on_strain_levels(np.array([[0.01, -0.0199, 0.0, 0.3], [0.01, -0.018, 0.0, 0.3]]))
    array([ True, False])
    """
    away = np.abs(components[..., :3, None] - np.array(STRAIN_LEVELS)).min(-1)
    return np.asarray((away <= MAX_OFF_LEVEL).all(-1))


def unwrapped(theta: Array, middle: float, symmetry: int) -> Array:
    """Rotations in radians as a method reports them that knows them modulo the lattice's symmetry:
    each in the one period that is centred on `middle`.

    A hexagonal lattice turned by 50 degrees, seen about no rotation and about 40 degrees:

    >>> [round(float(np.rad2deg(unwrapped(np.deg2rad(50), np.deg2rad(m), 6)))) for m in (0, 40)]
    [-10, 50]
    """
    return middle + wrap(theta - middle, symmetry)


def unshrunk_mae(truth: Array, answer: Array, slope: float) -> float:
    """Mean absolute error of answers (n,) whose deviations from their mean are divided by their
    slope over the truths (n,); nan where they have no slope.

    An answer that halves the right one is without error once it is stretched again:

    >>> truth = np.array([-0.01, 0.0, 0.01])
    >>> unshrunk_mae(truth, 0.5 * truth, 0.5)
    0.0
    """
    if slope <= 0:
        return math.nan
    stretched = (answer - answer.mean()) / slope + truth.mean()
    return float(np.abs(stretched - truth).mean())


def prior_share(mae: float, unshrunk: float, bound: float) -> float:
    """The share of a method's gain over the bound that shrinking towards no strain explains, 0 to
    1; nan where it gains nothing.

    The gain is bound - mae. What is left of it after the answer is stretched is not the prior's.

    >>> prior_share(0.5, 1.0, 1.0), prior_share(0.5, 0.5, 1.0)
    (1.0, 0.0)
    """
    if not mae < bound or math.isnan(unshrunk):
        return math.nan
    return min(max((unshrunk - mae) / (bound - mae), 0.0), 1.0)


def _middle(theta: Array) -> float:
    """Half way between the least and the largest rotation."""
    return float(theta.min() + theta.max()) / 2
