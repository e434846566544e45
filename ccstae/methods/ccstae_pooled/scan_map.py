"""How the scan lies against the detector, from the closures of the map itself.

Where the scan's steps along x and y are the columns of A in the detector's axes, the closures of
A^T M vanish. They are linear in A, so a map that was pooled without them tells A: the turn, the
handedness and the ratio of the steps that make them least. Closures are counted in the deviations
that the map's noise gives them, and on a logarithm, for at dislocations and grain boundaries they
do not vanish under any A.

How sure that is comes from the scan itself, left out part by part (the jackknife; B. Efron and C.
Stein, Ann. Stat. 9, 586 (1981)). A field that varies along one direction alone, or hardly, tells
nothing, and its closures are then of no use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.machine.device import spread_over
from ccstae.methods.ccstae_pooled.law import Moments

Array = NDArray[np.float64]

# Turn in radians and step ratio: with errors of that size pooling with closures is no better than
# without.
MAX_DEVIATION = 0.1
_MAX_CELLS = 4096  # evenly out of more
_SIDES = 4  # parts of the scan along x and y for the jackknife
_COARSE, _FINE = np.deg2rad(3.0), np.deg2rad(0.5)  # steps of the search
_LOG_RATIOS = np.linspace(-0.3, 0.3, 25)


@dataclass(frozen=True)
class ScanMap:
    """How the scan lies against the detector."""

    matrix: Array | None  # A, (2, 2); None where the map does not tell
    found: dict[str, Any]  # for people


def fit(gradients: Moments, place: Array) -> ScanMap:
    """Find A from the gradients of a map that was pooled without closures.

    Args:
        gradients: (D_x M, D_y M) of the cells of the scan, `operators.gradients`.
        place: of the cells, (cells, 2).
    """
    cells = _Cells.of(gradients, place)
    if cells is None:
        return _untold()
    turns = np.arange(0, np.pi, _COARSE)  # A and -A close alike
    coarse = {hand: cells.misfit(turns, 0.0, hand) for hand in (1, -1)}
    whole = {hand: misfit.sum(0) for hand, misfit in coarse.items()}
    hand = min(whole, key=lambda which: whole[which].min())
    without = {which: whole[which] - coarse[which] for which in whole}
    if not (without[hand].min(1) < without[-hand].min(1)).all():
        return _untold()
    near = turns[whole[hand].argmin()] + np.arange(-3 * _COARSE, 3 * _COARSE + _FINE, _FINE)
    turn, turn_deviation = _jackknife(cells.misfit(near, 0.0, hand), near)
    free = np.array([cells.misfit(near, ratio, hand).min(1) for ratio in _LOG_RATIOS]).T
    log_ratio, ratio_deviation = _jackknife(free, _LOG_RATIOS)
    if ratio_deviation < MAX_DEVIATION / 3:
        turn, turn_deviation = _jackknife(cells.misfit(near, log_ratio, hand), near)
    else:
        log_ratio = 0.0
    if not turn_deviation < MAX_DEVIATION:
        return _untold()
    degrees = float(np.rad2deg(geometry.wrap(turn, 2)))
    return ScanMap(
        geometry.scan_steps(turn, np.exp(log_ratio), hand < 0),
        {
            "rotation_deg": round(degrees, 1),
            "deviation_deg": round(float(np.rad2deg(turn_deviation)), 1),
            "mirrored": hand < 0,
            "step_ratio": round(float(np.exp(log_ratio)), 3),
        },
    )


@dataclass(frozen=True)
class _Cells:
    """Closures of the cells as linear forms in A, and their noise."""

    form: Array  # (cells, 2, 4)
    noise: Array  # (2, 4, 4)
    part: NDArray[np.int64]  # (cells,), of the scan

    @classmethod
    def of(cls, gradients: Moments, place: Array) -> _Cells | None:
        if len(place) == 0:
            return None
        some = spread_over(len(place), _MAX_CELLS)
        form, noise = _form(gradients.mean[some]), _form(gradients.posterior[some])
        covariance = np.einsum("ckas,ckbs->kab", noise, noise) / (len(noise) * noise.shape[-1])
        where = place[some] - place.min(0)
        part = (where / (where.max(0) + 1) * _SIDES).astype(int) @ [_SIDES, 1]
        if len(np.unique(part)) < _SIDES**2 / 2:
            return None
        return cls(form, covariance, part)

    def misfit(self, turns: Array, log_ratio: float, hand: int) -> Array:
        """Misfit (parts, turns) of the closures under these turns."""
        steps = [geometry.scan_steps(turn, np.exp(log_ratio), hand < 0) for turn in turns]
        a = np.stack(steps).reshape(-1, 4)
        variance = np.einsum("ta,kab,tb->kt", a, self.noise, a)
        square = (np.einsum("cka,ta->ckt", self.form, a) ** 2 / variance).sum(1)
        # Student law of two degrees of freedom for two numbers, up to constants
        cost = np.log1p(square / 2)
        return np.stack([cost[self.part == index].sum(0) for index in np.unique(self.part)])


def _form(gradients: Array) -> Array:
    """c_k = sum_a form_ka A_a with A row by row, from gradients (cells, 8, ...)."""
    along_x, along_y = gradients.reshape(len(gradients), 2, 2, 2, *gradients.shape[2:]).swapaxes(
        0, 1
    )
    return np.stack([-along_y[:, 0], along_x[:, 0], -along_y[:, 1], along_x[:, 1]], 2)


def _jackknife(misfit: Array, values: Array) -> tuple[float, float]:
    """The value of least misfit (parts, values), and its standard deviation."""
    whole = misfit.sum(0)
    n = len(misfit)
    without = np.array([_least(whole - part, values) for part in misfit])
    deviation = np.sqrt((n - 1) * without.var())
    return _least(whole, values), float(deviation)


def _least(misfit: Array, values: Array) -> float:
    """Where a parabola through the least misfit and its neighbours is least."""
    at = int(np.clip(misfit.argmin(), 1, len(values) - 2))
    before, here, after = misfit[at - 1 : at + 2]
    bend = before - 2 * here + after
    shift = np.clip(0.5 * (before - after) / bend, -1, 1) if bend > 0 else 0.0
    return float(values[at] + shift * (values[1] - values[0]))


def _untold() -> ScanMap:
    return ScanMap(None, {})
