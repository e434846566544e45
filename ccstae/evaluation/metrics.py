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
* `self_precision` root mean square deviation of the answer, not of the error, from the median of
  its neighbours (resolution.py): what a map tells of its error where there is no truth;
* `own_bias` and `own_rmse` the same as without `own_`, of the strain that a program from outside
  gets by its own formula, where it tells it; all else comes from F, so that no method loses by its
  formula.

`filled_rate` (quantity `all`, region `all`) is the share of positions that a method which pools
neighbours answers without an answer of their own, `filled_rmse_over_limit` their rmse over the
bound, mean of the components. `failure_rate` (quantity `all`) is the share of positions without an
answer, `confident_wrong` the share where a component is off by more than 5 of the standard
deviations that the method states; no answer is not wrong in this sense. Of the labels (quantity
`label`), over unmixed positions: `accuracy` is the share that is right, vacuum included, under the
best one-to-one naming of the method's classes; `sample_accuracy` the share for which vacuum and
specimen are told apart; `material_accuracy` the accuracy on the specimen alone. Where circuits must
close (quantity `all`, region `all`; dislocations.py finds the dislocations in the answer's own F,
and where it pools neighbours in what each pattern says by itself):
`cores_found` is the share of the dislocations with a circuit round them on the sample that are
found within one scan step, `burgers_right` the share found with the right Burgers vector,
`core_error` their root mean square distance in scan steps, `cores_false` how many more are found.
Of a scene with strain waves, each in a region `wave_<wavelength in scan steps>`, `mtf` is the gain
in that wave, and `mtf_half_wavelength` (region `all`) where it falls to one half, in scan steps:
the shortest wavelength where it does not fall so low, and no row where the longest shows less. Of a
scene with an interface (region `all`) `width_10_90` is the distance in scan steps over which a
component goes from 10 to 90 % of its step, and `width_10_90_truth` that of the truth; no row where
the map shows less than half of the step.
At the noise-free level the bound is 0 and what is divided by it is nan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ccstae import geometry
from ccstae.config.levels import Level
from ccstae.evaluation import dislocations, resolution
from ccstae.io.maps import Map
from ccstae.io.truth import Truth

# 1 / (sqrt(2) erfinv(1/2)): median absolute deviation to standard deviation, normal law
MAD_TO_STD = 1.482602218505602
Z95 = 1.959963984540054  # sqrt(2) erfinv(0.95)
# Stated standard deviations beyond which an answer is wrong and sure: a normal law has 6e-7 there.
_CONFIDENT = 5.0
Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Compared:
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


def compare(truth: Truth, F: Array) -> Compared:
    """Bring an answer and the probe-averaged truth to the common gauge and take their components.

    Args:
        truth: of the scene.
        F: the answer, shape (Ry, Rx, 2, 2), in any gauge; NaN where the method gives up.

    Returns:
        Both with shape (Ry, Rx, 4), theta in radians, and where there was no answer.
    """
    expected = geometry.components(geometry.regauge(truth.F_probe, truth.reference))
    F_gauged = geometry.regauge(_on_branch(F, truth), truth.reference)
    failed = np.asarray(np.isnan(F).any((-1, -2)))
    answer = np.where(failed[..., None, None], np.eye(2), F_gauged)
    answered = geometry.components(answer)
    turn = geometry.wrap(answered[..., 3] - expected[..., 3], truth.symmetry)
    answered[..., 3] = expected[..., 3] + turn
    return Compared(expected, answered, failed)


def per_pattern(truth: Truth, answer: Map) -> tuple[Compared, Array | None]:
    """What each pattern says by itself, beside the truth, and its covariance: of a map that pools
    neighbours what it keeps of that, of another one its answer.
    """
    if answer.F_per_pattern is None:
        return compare(truth, answer.F), answer.covariance
    return compare(truth, answer.F_per_pattern), answer.covariance_per_pattern


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
    """1.4826 times the median absolute deviation from the median: the standard deviation of a
    normal law, which a few outliers do not move.

    >>> round(robust_std(np.array([-1.0, 0.0, 1.0])), 4)
    1.4826
    >>> round(robust_std(np.array([-1.0, -1.0, 0.0, 1.0, 100.0])), 4)
    1.4826
    """
    return float(MAD_TO_STD * np.median(np.abs(values - np.median(values))))


def component_metrics(
    error: Array, bound: Array | None, deviation: Array | None
) -> dict[str, float]:
    """Metrics of one component over the n positions of a region.

    Args:
        error: answer minus truth, shape (n,).
        bound: Cramer-Rao bound on its standard deviation, shape (n,); None where there is no noise.
        deviation: the standard deviation that the method states, shape (n,), NaN where it gave no
            answer; None where it states none.

    Returns:
        Values by the name of the metric; see the module's docstring.

    A method that errs by one bound, and states it:

    >>> bound = np.full(4, 1e-3)
    >>> metrics = component_metrics(np.array([1e-3, -1e-3, 1e-3, -1e-3]), bound, bound)
    >>> round(metrics["rmse_over_limit"], 9), metrics["coverage95"]
    (1.0, 1.0)
    """
    metrics = {
        "bias": float(error.mean()),
        "mae": float(np.abs(error).mean()),
        "rmse": _rms(error),
        "robust_std": robust_std(error),
        "p95": float(np.percentile(np.abs(error), 95)),
    }
    if bound is None:
        metrics |= {"limit": 0.0, "limit_ratio": math.nan, "rmse_over_limit": math.nan}
    else:
        metrics |= {
            "limit": _rms(bound),
            "limit_ratio": robust_std(error / bound),
            "rmse_over_limit": metrics["rmse"] / _rms(bound),
        }
    if deviation is not None:
        metrics["coverage95"] = (
            math.nan if bound is None else float((np.abs(error) <= Z95 * deviation).mean())
        )
    return metrics


def label_accuracy(truth: NDArray[Any], label: NDArray[Any]) -> float:
    """Share of unmixed positions (truth >= 0) labelled right, under the best one-to-one naming of
    the method's classes.

    Of four positions the method puts one into the wrong class; the mixed one is not asked:

    >>> label_accuracy(np.array([1, 1, 2, 2, -1]), np.array([7, 7, 3, 7, 3]))
    0.75
    """
    unmixed = truth >= 0
    _, rows = np.unique(truth[unmixed], return_inverse=True)
    _, columns = np.unique(label[unmixed], return_inverse=True)
    together = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(together, (rows, columns), 1)
    return float(together[linear_sum_assignment(together, maximize=True)].sum() / unmixed.sum())


def score_map(truth: Truth, level: Level, answer: Map) -> Iterator[tuple[str, str, str, float]]:
    """All scores of one map.

    Args:
        truth: of the scene.
        level: of the noise in the counts.
        answer: the map, with `seconds` and `peak_memory_bytes` among its attributes.

    Yields:
        (region, quantity, metric, value) in a fixed order; see the module's docstring.

    Raises:
        KeyError: where the truth lacks the level's bound.
    """
    compared = compare(truth, answer.F)
    bound = None if math.isinf(level.electrons) else truth.bound[level.name]
    deviation = None
    if answer.covariance is not None:
        deviation = np.sqrt(np.maximum(np.diagonal(answer.covariance, axis1=-2, axis2=-1), 0))
        deviation = np.where(compared.failed[..., None], np.nan, deviation)
    own_error = None
    if answer.own_strain is not None:
        own_F = geometry.deformation(*np.moveaxis(answer.own_strain, -1, 0))
        own_error = compare(truth, own_F).error
    answered = (truth.label != 0) & ~compared.failed
    scatter = resolution.neighbour_deviation(np.where(answered[..., None], compared.answer, np.nan))
    for region, mask in regions(truth).items():
        for c, component in enumerate(geometry.COMPONENTS):
            error = compared.error[mask, c]
            bound_here = None if bound is None else bound[mask, c]
            stated = None if deviation is None else deviation[mask, c]
            for metric, value in component_metrics(error, bound_here, stated).items():
                yield region, component, metric, value
            yield from _gain(compared, bound, mask, [c], region, component)
            told = scatter[mask, c]
            if np.isfinite(told).any():
                yield region, component, "self_precision", _rms(told[np.isfinite(told)])
            if own_error is not None:
                yield region, component, "own_bias", float(own_error[mask, c].mean())
                yield region, component, "own_rmse", _rms(own_error[mask, c])
        yield from _gain(compared, bound, mask, [0, 1, 2, 3], region, "all")
        yield region, "all", "failure_rate", float(compared.failed[mask].mean())
        if deviation is not None and bound is not None:
            beyond = np.abs(compared.error[mask]) > _CONFIDENT * deviation[mask]
            yield region, "all", "confident_wrong", float(beyond.any(-1).mean())
    own, own_covariance = per_pattern(truth, answer)
    if answer.F_per_pattern is not None:
        sample = truth.label != 0
        filled = sample & own.failed & ~compared.failed
        yield "all", "all", "filled_rate", float(filled[sample].mean())
        if filled.any() and bound is not None:
            share = [_rms(compared.error[filled, c]) / _rms(bound[filled, c]) for c in range(4)]
            yield "all", "all", "filled_rmse_over_limit", float(np.mean(share))
    for metric, value in core_metrics(truth, own, own_covariance).items():
        yield "all", "all", metric, value
    yield from resolution.scores(truth, compared.truth, compared.answer, bound)
    if answer.label is not None:
        for metric, value in _label_metrics(truth.label, answer.label).items():
            yield "all", "label", metric, value
    seconds = float(answer.attributes["seconds"])
    made = "error" not in answer.attributes
    speed = compared.failed.size / max(seconds, 1e-9) if made else 0.0
    yield "all", "all", "seconds", seconds
    yield "all", "all", "patterns_per_second", speed
    yield "all", "all", "peak_memory_bytes", float(answer.attributes["peak_memory_bytes"])


def _label_metrics(truth: NDArray[Any], label: NDArray[Any]) -> dict[str, float]:
    """How right the labels of a map are."""
    unmixed = truth >= 0
    told_apart = (label > 0) == (truth > 0)
    metrics = {
        "accuracy": label_accuracy(truth, label),
        "sample_accuracy": float(told_apart[unmixed].mean()),
    }
    material = truth > 0
    if material.any():
        metrics["material_accuracy"] = label_accuracy(truth[material], label[material])
    return metrics


def _gain(
    compared: Compared,
    bound: Array | None,
    mask: Mask,
    components: list[int],
    region: str,
    quantity: str,
) -> Iterator[tuple[str, str, str, float]]:
    """The row of a gain, where there is one."""
    truth = compared.truth[mask][:, components]
    answer = compared.answer[mask][:, components]
    value = resolution.gain(truth, answer, None if bound is None else bound[mask][:, components])
    if value is not None:
        yield region, quantity, "gain", value


def core_metrics(truth: Truth, compared: Compared, covariance: Array | None) -> dict[str, float]:
    """What a map shows of a scene's dislocations; nothing where circuits need not close."""
    lines = truth.dislocations
    if lines is None:
        return {}
    sample = truth.label != 0
    answered = dislocations.find(
        compared.deformation(sample), lines.lattice_A, lines.step_A, covariance
    )
    asked = dislocations.surrounded(lines.position, sample, lines.step_A)
    return dislocations.match(lines.position, lines.burgers_A, answered, asked)


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
