"""Dislocations in a map of the deformation gradient, by circuits that do not close.

F^-1 dx is the step between points of the reference lattice that belongs to the step dx in the
specimen. Round a closed circuit

    c = oint F^-1 dx

is therefore 0 where the lattice is whole, whatever its strain and whatever the materials, and the
Burgers vector b where the circuit goes round a dislocation: the integral of Nye's tensor over the
area (F. C. Frank, Phil. Mag. 42, 809 (1951); J. F. Nye, Acta Metall. 1, 153 (1953)). What the probe
averages is F^-T, so a circuit that keeps clear of the core closes to the same b.

Circuits here are squares of n x n scan steps, c the trapezoidal sum along the sides: a weighted sum
of F^-1 at the positions passed, so its covariance follows from that of F. Positions inside, where a
core leaves no lattice, enter only the place: sum over the cells inside of (cell's place) (cell's
closure), along b / b^2. Lines closer together than n steps are seen as one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.ndimage import binary_opening, correlate
from scipy.optimize import linear_sum_assignment

from ccstae import geometry

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_MIN_CLEARANCE_A = 15.0  # of a circuit from the cell in its middle: core and probe
_MAX_FALSE_ALARMS = 1e-3  # share of maps without a dislocation that show one by noise alone
_TRAPEZOID_TOLERANCE = 0.03  # error of the trapezoidal sum, in shortest lattice vectors
_MAX_BURGERS = 2.5  # length of a Burgers vector, in shortest lattice vectors
_MAX_DISTANCE = 1.0  # of a dislocation in a map from the true one, in scan steps
_BURGERS_TOLERANCE = 0.1  # by which a right Burgers vector may differ, as a share of its length
# Trapezoidal weights of (F^-1)_.x and (F^-1)_.y at a cell's corners, round it from x towards y.
_CELL = np.stack([[[0.5, 0.5], [-0.5, -0.5]], [[-0.5, 0.5], [-0.5, 0.5]]], -1)


@dataclass(frozen=True)
class FoundDislocations:
    """The dislocations that a map shows."""

    position: Array  # (n, 2), column and row of the scan, in steps from its first position
    burgers_A: Array  # (n, 2), a vector of the reference lattice


@dataclass(frozen=True)
class Circuits:
    """Every square circuit of a scan, by the position of its first corner."""

    cells: int
    closure_A: Array  # (H, W, 2), NaN where a position passed has no answer
    covariance: Array  # (H, W, 2, 2), in square Angstrom
    # (H, W, 2, 2), of component i of the closure with the place k, in steps from the middle; NaN
    # where not known
    moment_A: Array


def circuit_cells(step_A: float) -> int:
    """Side of the circuits in steps: odd, so that one cell is in the middle, and at least a step
    and core and probe away from it.
    """
    return 1 + 2 * max(1, math.ceil(_MIN_CLEARANCE_A / step_A))


def circuits(F: Array, step_A: float, covariance: Array | None = None) -> Circuits:
    """Closures of all circuits of a map.

    Args:
        F: shape (Ry, Rx, 2, 2), on one branch of the lattice's symmetry; NaN for no answer.
        step_A: of the scan.
        covariance: of (exx, eyy, exy, theta), shape (Ry, Rx, 4, 4); without it errors of F count as
            white and the closures' covariance has no scale.
    """
    n = circuit_cells(step_A)
    around, along_x, along_y = step_A * np.array(_weights(n))
    inverse = np.asarray(np.linalg.inv(F), np.float64)
    spread = _of_inverse(F, inverse, covariance)
    shape = tuple(max(0, size - n) for size in F.shape[:2])
    closure, variance = np.zeros((*shape, 2)), np.zeros((*shape, 2, 2))
    for i, j in np.argwhere(around.any(-1)):
        part = np.s_[i : i + shape[0], j : j + shape[1]]
        closure += inverse[part] @ around[i, j]
        variance += np.einsum("hwrcsd,c,d->hwrs", spread[part], around[i, j], around[i, j])
    moment = np.zeros((*shape, 2, 2))
    for k, weights in enumerate((along_x, along_y)):
        for i, j in np.argwhere(weights.any(-1)):
            moment[..., k] += inverse[i : i + shape[0], j : j + shape[1]] @ weights[i, j]
    return Circuits(n, closure, variance, moment)


def find(
    F: Array, lattice_A: Array, step_A: float, covariance: Array | None = None
) -> FoundDislocations:
    """The dislocations of a map, the surest first.

    Args:
        F, step_A, covariance: as in `circuits`.
        lattice_A: vectors of the reference lattice, columns, shape (2, 2).

    A circuit shows one where the lattice vector most likely to be its closure is not 0, and its
    closure differs from 0 by more than the noise of all circuits together would make it in one map
    of a thousand. Noise is what the covariance says, or, where that is more, what the circuits' own
    median says: most go round nothing. Its neighbours must agree.
    """
    circuit = circuits(F, step_A, covariance)
    shortest = float(np.linalg.norm(lattice_A, axis=0).min())
    hk = geometry.lattice_nodes(lattice_A, _MAX_BURGERS * shortest)
    vectors = hk @ lattice_A.T  # the first is 0
    free = np.asarray(
        np.isfinite(circuit.closure_A).all(-1) & np.isfinite(circuit.covariance).all((-1, -2))
    )
    if not free.any():
        return FoundDislocations(np.zeros((0, 2)), np.zeros((0, 2)))
    variance = np.where(free[..., None, None], circuit.covariance, np.eye(2))
    closure = np.where(free[..., None], circuit.closure_A, 0.0)
    moment = circuit.moment_A.copy()
    trapezoid = (_TRAPEZOID_TOLERANCE * shortest) ** 2 * np.eye(2)
    median = float(np.median(_square(closure, variance + trapezoid)[free]))
    scale = median / (2 * math.log(2))  # the median of chi^2 with two degrees of freedom
    variance = variance * (scale if covariance is None else max(1.0, scale)) + trapezoid
    min_square = scipy.stats.chi2.isf(_MAX_FALSE_ALARMS / free.sum(), 2)
    y = np.arange(free.shape[0]) + circuit.cells / 2
    x = np.arange(free.shape[1]) + circuit.cells / 2
    middle = np.stack(np.meshgrid(x, y), -1)
    positions: list[Array] = []
    burgers: list[Array] = []
    while True:
        distance = _square(closure[..., None, :] - vectors, variance[..., None, :, :])
        nearest = distance.argmin(-1)
        shows = free & (nearest > 0) & (distance[..., 0] > min_square)
        agreed = _agreement(nearest, shows, free, circuit.cells)
        at = np.unravel_index(int(agreed.argmax()), agreed.shape)
        if agreed[at] == 0:
            return FoundDislocations(
                np.array(positions).reshape(-1, 2), np.array(burgers).reshape(-1, 2)
            )
        b = vectors[nearest[at]]
        place = np.nan_to_num(b @ moment[at] / (b @ b))
        positions.append(middle[at] + np.clip(place, -0.5, 0.5))
        burgers.append(b)
        # What is left to be explained; a circuit that passes the line closely tells nothing.
        away = positions[-1] - middle
        depth = circuit.cells / 2 - np.abs(away).max(-1)  # of the line inside a circuit, in steps
        inside = depth > 0
        closure = closure - inside[..., None] * b
        moment = moment - np.where(inside[..., None, None], b[:, None] * away[..., None, :], 0.0)
        free &= np.abs(depth) >= 1
        free[at] = False


def _agreement(nearest: NDArray[np.int64], shows: Mask, free: Mask, n: int) -> NDArray[np.int64]:
    """How many of the circuits round the middle cell of each circuit are nearest to the same
    vector; 0 where that shows nothing.

    Of the circuits round a line at least two by two, side by side, pass it half a step away or
    more; as far as they are free, all of them must agree. A wrong pattern spoils the circuits that
    pass it, a ring one circuit wide.
    """
    agreed = np.zeros(nearest.shape, np.int64)
    for vector in np.unique(nearest[shows]):
        same = free & (nearest == vector)
        agrees = np.pad(same | ~free, 1, constant_values=True)
        two_by_two = binary_opening(agrees, np.ones((2, 2)))[1:-1, 1:-1]
        around = correlate(same.astype(int), np.ones((n, n), int), mode="constant")
        agreed = np.where(shows & same & two_by_two, around, agreed)
    return agreed


def match(
    position: Array, burgers_A: Array, answer: FoundDislocations, asked: Mask
) -> dict[str, float]:
    """How well the dislocations that a map shows match those of the truth.

    Each is matched with at most one, so that the sum of the distances is least and none is more
    than a scan step.

    Args:
        position: of the true ones, shape (n, 2), in scan steps.
        burgers_A: of the true ones, shape (n, 2).
        answer: those of the map.
        asked: which of the true ones can be missed, shape (n,); see `surrounded`.

    Returns:
        `cores_false`; with any asked for also `cores_found` and `burgers_right`, and with any of
        those found also `core_error`.
    """
    distance = np.linalg.norm(position[:, None] - answer.position, axis=-1)
    too_far = distance > _MAX_DISTANCE
    true, matched = linear_sum_assignment(np.where(too_far, 1e3, distance))
    near = ~too_far[true, matched]
    true, matched = true[near], matched[near]
    metrics = {"cores_false": float(len(answer.position) - len(matched))}
    if asked.any():
        hit = asked[true]  # of the matched true ones, those asked for
        difference = np.linalg.norm(burgers_A[true] - answer.burgers_A[matched], axis=-1)
        right = difference < _BURGERS_TOLERANCE * np.linalg.norm(burgers_A[true], axis=-1)
        metrics |= {
            "cores_found": float(hit.sum() / asked.sum()),
            "burgers_right": float((hit & right).sum() / asked.sum()),
        }
        if hit.any():
            metrics["core_error"] = float(np.sqrt(np.mean(distance[true, matched][hit] ** 2)))
    return metrics


def surrounded(position: Array, sample: Mask, step_A: float) -> Mask:
    """Which places (n, 2), in steps, have a circuit round them that lies on the sample (Ry, Rx) and
    has them in its middle cell.
    """
    n = circuit_cells(step_A)
    first = np.floor(position).astype(int) - (n - 1) // 2
    fits = np.asarray(((first >= 0) & (first + n < sample.shape[::-1])).all(-1))
    return np.array(
        [
            ok and sample[y : y + n + 1, x : x + n + 1].all()
            for ok, (x, y) in zip(fits, first, strict=True)
        ],
        np.bool_,
    )


def _weights(n: int) -> tuple[Array, Array, Array]:
    """Weights (n + 1, n + 1, 2) of F^-1 in steps: of the sum of the cells' closures, and of that
    sum times the cells' x and y.
    """
    around, along_x, along_y = np.zeros((3, n + 1, n + 1, 2))
    for i in range(n):
        for j in range(n):
            around[i : i + 2, j : j + 2] += _CELL
            along_x[i : i + 2, j : j + 2] += (j - (n - 1) / 2) * _CELL
            along_y[i : i + 2, j : j + 2] += (i - (n - 1) / 2) * _CELL
    return around, along_x, along_y


def _of_inverse(F: Array, inverse: Array, covariance: Array | None) -> Array:
    """Covariance (Ry, Rx, 2, 2, 2, 2) of F^-1 from that of (exx, eyy, exy, theta); d(F^-1) = -F^-1
    dF F^-1.
    """
    scan = F.shape[:2]
    if covariance is None:
        return np.broadcast_to(np.eye(4).reshape(2, 2, 2, 2), (*scan, 2, 2, 2, 2))
    change = -np.einsum("hwik,hwlj->hwijkl", inverse, inverse).reshape(*scan, 4, 4)
    slope = change @ np.linalg.inv(geometry.components_jacobian(F))
    return np.asarray(slope @ covariance @ np.swapaxes(slope, -1, -2)).reshape(*scan, 2, 2, 2, 2)


def _square(closure: Array, variance: Array) -> Array:
    """c^T S^-1 c."""
    return np.asarray((closure * np.linalg.solve(variance, closure[..., None])[..., 0]).sum(-1))
