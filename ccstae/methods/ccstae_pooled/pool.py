"""One lattice field for a scan, from what its patterns say each by itself.

Two laws are tried:

* curved: second differences are small, and the closures of cells vanish;
* steps: the field is constant but for jumps, as in grains. First differences are small.

Each is learned from the map itself (`field`, `law`); the better one holds, region by region
(`choice`). Closures need to know how the scan lies against the detector (`scan_map`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve

from ccstae.methods.ccstae_pooled import choice, operators, scan_map, tiles
from ccstae.methods.ccstae_pooled.branch import one_branch
from ccstae.methods.ccstae_pooled.field import Data, Fit
from ccstae.methods.ccstae_pooled.law import Term, kronecker_of
from ccstae.methods.ccstae_pooled.scan_map import ScanMap

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_ROUNDS_ALONE = 3  # of learning without closures, after which the scan's map is found
_ROUNDS = 10  # of learning after that
# The same where a part of the scan has taught the scales, and only weights are to be found.
_ROUNDS_TAUGHT = 4
_STUDENT = 2.0  # degrees of freedom of differences: jumps are no surprise
_CAUCHY = 1.0  # of closures
_MIN_CLOSURE = 0.03  # deviation of a closure, in those that the patterns' noise gives it
_FILLED = 0.75  # share of its neighbours with an answer, by which a position without one gets one
_FAINT = 1e-6  # information of a position without an answer, in that of the others


@dataclass(frozen=True)
class Pooled:
    """A scan pooled."""

    M: Array  # (m, 4), at the positions answered, in scan order
    covariance: Array  # (m, 4, 4)
    answered: Mask  # (Ry, Rx), those given and those that their neighbours answer for
    found: dict[str, Any]


def pool(M: Array, information: Array, held: Mask, symmetry: int, seed: int) -> Pooled:
    """Fit one field to the lattices of a scan.

    Args:
        M: lattices F^-T (n, 4) of the patterns held, in scan order.
        information: their information (n, 4, 4).
        held: which positions of the scan these are, (Ry, Rx), with n true.
        symmetry: order of the lattice's rotational symmetry.
        seed: of the samples.
    """
    answered = held | _enclosed(held)
    data = _data(one_branch(M, held, symmetry), information, held[answered])
    generator = np.random.default_rng(seed)
    rows, sampled = tiles.sample(answered, generator)
    taught_by = data[rows]
    scan = _scan_map(taught_by, sampled, generator)
    laws: list[Callable[..., Fit]] = [partial(_curved, steps=scan.matrix), _steps]
    fits = [law(taught_by, sampled, generator) for law in laws]
    if len(rows) < len(data.M):
        scales = [fit.terms[0].scale for fit in fits]
        fits = [
            law(data, answered, generator, scale=scale)
            for law, scale in zip(laws, scales, strict=True)
        ]
    fields = [fit.field() for fit in fits]
    best = choice.better(data, fields, np.argwhere(answered).astype(float))
    found: dict[str, Any] = {"scan_against_detector": scan.found}
    if scan.matrix is None:
        found["closures"] = (
            "neighbours were pooled without the closures of cells, because the map does not tell "
            "how the scan lies against the detector"
        )
    return Pooled(best.mean, best.covariance, answered, found)


def _scan_map(data: Data, answered: Mask, generator: np.random.Generator) -> ScanMap:
    """How the scan lies against the detector, from a field pooled without closures."""
    second = Term(operators.second_differences(answered), kronecker_of(data.typical), _STUDENT)
    watched = Term(operators.gradients(answered), np.eye(8), _CAUCHY, learned=False)
    watched.student[:] = 0
    fit = Fit(data, [second, watched], tiles.strips(answered), generator)
    for _ in range(_ROUNDS_ALONE):
        gradients = fit.round()[1]
    return scan_map.fit(gradients, watched.operator.place)


def _curved(
    data: Data,
    answered: Mask,
    generator: np.random.Generator,
    steps: Array | None,
    scale: Array | None = None,
) -> Fit:
    """The field whose second differences are small and whose closures vanish where the scan's
    steps are known; `scale` is what a part of the scan has taught.
    """
    second = Term(
        operators.second_differences(answered),
        kronecker_of(data.typical) if scale is None else scale,
        _STUDENT,
    )
    terms = [second]
    if steps is not None:
        operator = operators.closures(answered, steps)
        noise = np.diag(sum(np.diag(each @ data.typical @ each.T) for each in operator.maps))
        closing = Term(operator, noise, _CAUCHY, learned=False)
        terms.append(closing)
    fit = Fit(data, terms, tiles.strips(answered), generator)
    rounds, pace = (_ROUNDS, 0.5) if scale is None else (_ROUNDS_TAUGHT, 0.25)
    for step in range(rounds):
        fit.round()
        if steps is not None:
            # Step by step: what does not close by the noise alone is found before closures are
            # stiff.
            closing.scale = noise * max(pace ** (step + 1), _MIN_CLOSURE) ** 2
    return fit


def _steps(
    data: Data, answered: Mask, generator: np.random.Generator, scale: Array | None = None
) -> Fit:
    """The field that is constant but for jumps; `scale` is what a part of the scan has taught."""
    first = Term(
        operators.first_differences(answered),
        kronecker_of(data.typical) if scale is None else scale,
        _STUDENT,
    )
    fit = Fit(data, [first], tiles.strips(answered), generator)
    for _ in range(_ROUNDS if scale is None else _ROUNDS_TAUGHT):
        fit.round()
    return fit


def _enclosed(held: Mask) -> Mask:
    """Positions without an answer, most of whose neighbours (Ry, Rx) have one."""
    around = np.ones((3, 3))
    neighbours = convolve(np.ones(held.shape), around, mode="constant")
    having = convolve(held.astype(float), around, mode="constant")
    return np.asarray(~held & (having >= _FILLED * (neighbours - 1)))


def _data(M: Array, information: Array, given: NDArray[np.bool_]) -> Data:
    """Data of all positions answered, of which some are given (m,)."""
    typical = np.median(np.linalg.inv(information), 0)
    all_M = np.tile(np.median(M, 0), (len(given), 1))
    all_information = np.tile(_FAINT * np.linalg.inv(typical), (len(given), 1, 1))
    all_M[given], all_information[given] = M, information
    return Data(all_M, all_information, typical)
