"""Errors of every method against the truth, as one long tidy table.

Every answer is treated alike: rotations are taken modulo the lattice's symmetry, every map and the
truth itself are re-referenced over the same positions, and a position on the sample without an
answer enters every metric with the error of the no-strain answer. The headline truth is the
deformation averaged over the probe.

Metrics of a component in a region, e the error (answer minus truth), s the per-pattern Cramer-Rao
standard deviation:

* `bias` mean e; `mae` mean |e|; `rmse` root mean square e; `p95` 95th percentile of |e|;
* `robust_std` 1.4826 times the median of |e - median e|, the standard deviation of a normal law
  without its tails;
* `limit` root mean square s; `rmse_over_limit` is rmse / limit;
* `limit_ratio` the robust_std of e / s, pattern by pattern: 1 for an efficient method whatever the
  spread of s;
* `coverage95` share of |e| <= 1.96 standard deviations of the method's own covariance; no answer is
  not covered;
* `gain` slope of the answer over the truth by least squares, weighted with 1 / s^2: 1 where a
  method shows strain in full, less where it smooths or shrinks it, whatever its noise. Of quantity
  `all` it is one slope for all components. Only where the truth varies;
* `own_bias` and `own_rmse` the same as without `own_`, of the strain that a program from outside
  gets by its own formula, where it tells it; all else comes from F, so that no method loses by its
  formula.

`failure_rate` (quantity `all`) is the share of positions without an answer. Of the labels (quantity
`label`), over unmixed positions: `accuracy` is the share that is right, vacuum included, under the
best one-to-one naming of the method's classes; `sample_accuracy` the share for which vacuum and
specimen are told apart; `material_accuracy` the accuracy on the specimen alone. Where circuits must
close (quantity `all`, region `all`; dislocations.py finds the dislocations in the answer's own F):
`cores_found` is the share of the dislocations with a circuit round them on the sample that are
found within one scan step, `burgers_right` the share found with the right Burgers vector,
`core_error` their root mean square distance in scan steps, `cores_false` how many more are found.
At the noise-free level the limit is 0 and what is divided by it is nan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ccstae import geometry
from ccstae.config.levels import Level
from ccstae.config.run import Config
from ccstae.errors import InputError
from ccstae.evaluation import dislocations
from ccstae.io import atomic, layout
from ccstae.io.maps import Map, read_map
from ccstae.io.truth import Truth, read_truth

COLUMNS = (
    "scene",
    "method",
    "background",
    "electrons",
    "seed",
    "region",
    "quantity",
    "metric",
    "value",
)
# 1 / (sqrt(2) erfinv(1/2)): median absolute deviation to standard deviation, normal law
MAD_TO_STD = 1.482602218505602
_VARIES = 1e-4  # least standard deviation of a truth that has a gain
Z95 = 1.959963984540054  # sqrt(2) erfinv(0.95)

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Comparison:
    """An answer beside the truth, both in the common gauge; components are exx, eyy, exy, theta
    (radians).
    """

    truth: Array  # (Ry, Rx, 4)
    answer: Array  # (Ry, Rx, 4), theta on the branch of the truth; no strain where failed
    failed: Mask  # (Ry, Rx), no answer

    @property
    def error(self) -> Array:
        return self.answer - self.truth

    def deformation(self, sample: Mask) -> Array:
        """F (Ry, Rx, 2, 2) of the answer, NaN off the sample and where it gives up."""
        F = geometry.deformation(*np.moveaxis(self.answer, -1, 0))
        return np.where((sample & ~self.failed)[..., None, None], F, np.nan)


def compare(truth: Truth, F: Array) -> Comparison:
    """Bring an answer F (Ry, Rx, 2, 2) and the probe-averaged truth to the common gauge and take
    their components.
    """
    expected = geometry.components(geometry.regauge(truth.F_probe, truth.reference))
    answer = geometry.regauge(_on_branch(F, truth), truth.reference)
    failed = np.asarray(np.isnan(F).any((-1, -2)))
    answer = np.where(failed[..., None, None], np.eye(2), answer)
    found = geometry.components(answer)
    found[..., 3] = expected[..., 3] + geometry.wrap(
        found[..., 3] - expected[..., 3], truth.symmetry
    )
    return Comparison(expected, found, failed)


def _on_branch(F: Array, truth: Truth) -> Array:
    """Each F turned by the lattice's symmetry to lie nearest the truth, up to one turn common to
    the whole map.

    The common turn (the map's own zero of rotation) is the circular mean over the reference
    positions; without it a map whose zero lies half a period away would scatter over two branches
    and have no median.
    """
    turn = geometry.polar(F)[1] - geometry.polar(truth.F_probe)[1]
    inside = turn[truth.reference & np.isfinite(turn)]
    common = np.angle(np.exp(1j * truth.symmetry * inside).sum()) / truth.symmetry
    return geometry.to_branch(F, truth.F_probe @ geometry.rotation_matrix(common), truth.symmetry)


def regions(truth: Truth) -> dict[str, Mask]:
    """Positions on the sample by region name, empty regions left out, then `all` of the sample."""
    sample = truth.label != 0
    masks = {name: (truth.region == index) & sample for index, name in enumerate(truth.regions)}
    return {name: mask for name, mask in {**masks, "all": sample}.items() if mask.any()}


def robust_std(values: Array) -> float:
    """1.4826 times the median absolute deviation from the median."""
    return float(MAD_TO_STD * np.median(np.abs(values - np.median(values))))


def component_metrics(
    error: Array, limit: Array | None, deviation: Array | None
) -> dict[str, float]:
    """Metrics of one component over the n positions of a region.

    error (n,); limit (n,) bound on the standard deviation, None where there is no noise; deviation
    (n,) the standard deviation that the method states, None where it states none, nan where it gave
    no answer.
    """
    metrics = {
        "bias": float(error.mean()),
        "mae": float(np.abs(error).mean()),
        "rmse": _rms(error),
        "robust_std": robust_std(error),
        "p95": float(np.percentile(np.abs(error), 95)),
    }
    if limit is None:
        metrics |= {"limit": 0.0, "limit_ratio": math.nan, "rmse_over_limit": math.nan}
    else:
        metrics |= {
            "limit": _rms(limit),
            "limit_ratio": robust_std(error / limit),
            "rmse_over_limit": metrics["rmse"] / _rms(limit),
        }
    if deviation is not None:
        metrics["coverage95"] = (
            math.nan if limit is None else float((np.abs(error) <= Z95 * deviation).mean())
        )
    return metrics


def gain(truth: Array, answer: Array, limit: Array | None) -> float | None:
    """Slope of answers over truths (n, components), one for all components, each about its own
    mean; None where no truth varies.

    Weights are 1 / limit^2, the same for all where there is no noise.
    """
    weight = np.ones_like(truth) if limit is None else 1 / np.square(limit)
    truth = truth - np.average(truth, axis=0, weights=weight)
    if truth.std(0).max() < _VARIES:
        return None
    return float((weight * truth * answer).sum() / (weight * truth**2).sum())


def label_accuracy(truth: NDArray[Any], found: NDArray[Any]) -> float:
    """Share of unmixed positions (truth >= 0) labelled right, under the best one-to-one naming of
    the found classes.
    """
    unmixed = truth >= 0
    _, rows = np.unique(truth[unmixed], return_inverse=True)
    _, columns = np.unique(found[unmixed], return_inverse=True)
    together = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(together, (rows, columns), 1)
    return float(together[linear_sum_assignment(together, maximize=True)].sum() / unmixed.sum())


def score_map(truth: Truth, level: Level, answer: Map) -> Iterator[tuple[str, str, str, float]]:
    """(region, quantity, metric, value) of one map, in a fixed order. KeyError where the truth
    lacks the level's limit.
    """
    comparison = compare(truth, answer.F)
    limit = None if math.isinf(level.electrons) else truth.limit[level.name]
    deviation = None
    if answer.covariance is not None:
        deviation = np.sqrt(np.maximum(np.diagonal(answer.covariance, axis1=-2, axis2=-1), 0))
        deviation = np.where(comparison.failed[..., None], np.nan, deviation)
    own = None
    if answer.own_strain is not None:
        own = compare(truth, geometry.deformation(*np.moveaxis(answer.own_strain, -1, 0))).error
    for region, mask in regions(truth).items():
        for c, component in enumerate(geometry.COMPONENTS):
            chosen = (None if a is None else a[mask, c] for a in (limit, deviation))
            for metric, value in component_metrics(comparison.error[mask, c], *chosen).items():
                yield region, component, metric, value
            yield from _gain(comparison, limit, mask, [c], region, component)
            if own is not None:
                yield region, component, "own_bias", float(own[mask, c].mean())
                yield region, component, "own_rmse", _rms(own[mask, c])
        yield from _gain(comparison, limit, mask, [0, 1, 2, 3], region, "all")
        yield region, "all", "failure_rate", float(comparison.failed[mask].mean())
    for metric, value in core_metrics(truth, comparison, answer.covariance).items():
        yield "all", "all", metric, value
    if answer.label is not None:
        unmixed = truth.label >= 0
        yield "all", "label", "accuracy", label_accuracy(truth.label, answer.label)
        yield (
            "all",
            "label",
            "sample_accuracy",
            float(((answer.label > 0) == (truth.label > 0))[unmixed].mean()),
        )
        material = unmixed & (truth.label > 0)
        if material.any():
            yield (
                "all",
                "label",
                "material_accuracy",
                label_accuracy(truth.label[material], answer.label[material]),
            )
    seconds = float(answer.attributes["seconds"])
    yield "all", "all", "seconds", seconds
    yield (
        "all",
        "all",
        "patterns_per_second",
        0.0 if "error" in answer.attributes else comparison.failed.size / max(seconds, 1e-9),
    )
    yield "all", "all", "peak_memory_bytes", float(answer.attributes["peak_memory_bytes"])


def _gain(
    comparison: Comparison,
    limit: Array | None,
    mask: Mask,
    components: list[int],
    region: str,
    quantity: str,
) -> Iterator[tuple[str, str, str, float]]:
    """The row of a gain, where there is one."""
    truth, answer = (
        values[mask][:, components] for values in (comparison.truth, comparison.answer)
    )
    value = gain(truth, answer, None if limit is None else limit[mask][:, components])
    if value is not None:
        yield region, quantity, "gain", value


def core_metrics(
    truth: Truth, comparison: Comparison, covariance: Array | None
) -> dict[str, float]:
    """What a map shows of a scene's dislocations; nothing where circuits need not close."""
    lines = truth.dislocations
    if lines is None:
        return {}
    sample = truth.label != 0
    found = dislocations.find(
        comparison.deformation(sample), lines.lattice_A, lines.step_A, covariance
    )
    return dislocations.compare(
        lines.position,
        lines.burgers_A,
        found,
        dislocations.surrounded(lines.position, sample, lines.step_A),
    )


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _read_truth(path: Path, levels: list[Level]) -> Truth:
    truth = read_truth(path)
    shape = (*truth.label.shape, 4)
    for level in levels:
        limit = truth.limit.get(level.name)
        if math.isinf(level.electrons):
            continue
        if limit is None or limit.shape != shape or not (limit[truth.label != 0] > 0).all():
            raise InputError(
                f"{path}: /limit/{level.name} is missing or unfit; expected standard deviations "
                f"above 0 of shape {shape}"
            )
    return truth


def _read_map(path: Path, shape: tuple[int, int]) -> Map:
    answer = read_map(path, shape)
    for name in ("seconds", "peak_memory_bytes"):
        value = answer.attributes.get(name)
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise InputError(
                f"{path}: attribute {name} is {value!r}; expected a finite number from 0 up"
            )
    return answer


def write(
    config: Config, run_dir: Path, metrics_path: Path, not_run_to: Path | None = None
) -> None:
    """Score every map of a run and write the long table, and the maps that no program could make,
    and why (`not_run.csv` beside it).

    InputError names the file that is missing or unfit.
    """
    rows: list[tuple[Any, ...]] = []
    not_run: list[tuple[Any, ...]] = []
    for scene in config.scored:
        truth = _read_truth(layout.truth_path(Path(run_dir), scene), config.levels)
        for method in config.methods:
            for level in config.levels:
                for seed in config.seeds.test:
                    answer = _read_map(
                        layout.map_path(Path(run_dir), scene, level.name, seed, method),
                        truth.label.shape,
                    )
                    key = (scene, method, level.background, level.electrons, seed)
                    rows += [(*key, *row) for row in score_map(truth, level, answer)]
                    if "error" in answer.attributes:
                        not_run.append((*key, answer.attributes["error"]))
    frames = {Path(metrics_path): pd.DataFrame(rows, columns=list(COLUMNS))}
    frames[Path(not_run_to or layout.not_run_path(metrics_path))] = pd.DataFrame(
        not_run, columns=[*COLUMNS[:5], "error"]
    )
    for path, frame in frames.items():
        with atomic.atomic(path) as temporary:
            frame.to_csv(
                temporary, index=False, na_rep="nan", float_format="%.9g", lineterminator="\n"
            )


def read_not_run(metrics_path: Path) -> pd.DataFrame:
    """Scene, method, background, electrons, seed and error of the maps that no program could make;
    empty where nothing tells of any.
    """
    path = layout.not_run_path(metrics_path)
    columns = [*COLUMNS[:5], "error"]
    return (
        pd.read_csv(path, keep_default_na=False)[columns]
        if path.is_file()
        else pd.DataFrame(columns=columns)
    )


def read(path: Path) -> pd.DataFrame:
    """Read a table of scores; InputError where it is missing or has other columns."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; expected the table of scores")
    try:
        # Ids are text whatever they spell: a method may be called "null".
        kinds = {
            name: float
            if name in ("background", "electrons", "value")
            else int
            if name == "seed"
            else str
            for name in COLUMNS
        }
        frame = pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values={"value": ["nan"]})
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable table: {str(error).splitlines()[0]}") from None
    if tuple(frame.columns) != COLUMNS:
        raise InputError(
            f"{path}: columns are {', '.join(map(str, frame.columns))}; expected "
            f"{', '.join(COLUMNS)}"
        )
    return frame


def shown_level(metrics: pd.DataFrame) -> tuple[float, float]:
    """(background, electrons) of the level that stands for a run where only one is shown: w nearest
    0.25 at the highest noisy dose.
    """
    levels = metrics[["background", "electrons"]].drop_duplicates()
    noisy = levels[np.isfinite(levels["electrons"])]
    levels = noisy if len(noisy) else levels
    highest = levels[levels["electrons"] == levels["electrons"].max()]
    row = highest.loc[(highest["background"] - 0.25).abs().idxmin()]
    return float(row["background"]), float(row["electrons"])
