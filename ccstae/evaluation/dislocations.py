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
from numpy.typing import NDArray
from scipy.ndimage import binary_opening, correlate
from scipy.optimize import linear_sum_assignment
from scipy.stats import chi2

from ccstae import geometry

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_CLEARANCE_A = 15.0  # least distance of a circuit from the cell in its middle: core and probe
_FALSE_ALARMS = 1e-3  # maps without a dislocation that show one by noise alone
_RULE = 0.03  # error of the trapezoidal sum, in shortest lattice vectors
_LONGEST = 2.5  # Burgers vector, in shortest lattice vectors
# Trapezoidal weights of (F^-1)_.x and (F^-1)_.y at the corners of a cell, round it from x towards
# y.
_CELL = np.stack([[[0.5, 0.5], [-0.5, -0.5]], [[-0.5, 0.5], [-0.5, 0.5]]], -1)


@dataclass(frozen=True)
class Found:
    """Dislocations of a map."""

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


def cells(step_A: float) -> int:
    """Side of the circuits in steps: odd, so that one cell is in the middle, and at least a step
    and core and probe away from it.
    """
    return 1 + 2 * max(1, math.ceil(_CLEARANCE_A / step_A))


def circuits(F: Array, step_A: float, covariance: Array | None = None) -> Circuits:
    """Closures of all circuits of a map F (Ry, Rx, 2, 2) that lies on one branch of the lattice's
    symmetry.

    `covariance` (Ry, Rx, 4, 4) is that of (exx, eyy, exy, theta); without it errors of F count as
    white and the covariance has no scale.
    """
    n = cells(step_A)
    around, along_x, along_y = (step_A * weights for weights in _weights(n))
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


def find(F: Array, lattice_A: Array, step_A: float, covariance: Array | None = None) -> Found:
    """The dislocations of a map, the surest first; arguments as in `circuits`, `lattice_A` (2, 2)
    the reference lattice's vectors, columns.

    A circuit shows one where the lattice vector most likely to be its closure is not 0, and its
    closure differs from 0 by more than the noise of all circuits together would make it in one map
    of a thousand. Noise is what the covariance says, or, where that is more, what the circuits' own
    median says: most go round nothing. Its neighbours must agree.
    """
    seen = circuits(F, step_A, covariance)
    shortest = float(np.linalg.norm(lattice_A, axis=0).min())
    vectors = geometry.lattice_nodes(lattice_A, _LONGEST * shortest) @ lattice_A.T  # the first is 0
    free = np.asarray(
        np.isfinite(seen.closure_A).all(-1) & np.isfinite(seen.covariance).all((-1, -2))
    )
    if not free.any():
        return Found(np.zeros((0, 2)), np.zeros((0, 2)))
    variance = np.where(free[..., None, None], seen.covariance, np.eye(2))
    closure, moment = np.where(free[..., None], seen.closure_A, 0.0), seen.moment_A.copy()
    rule = (_RULE * shortest) ** 2 * np.eye(2)
    scale = float(np.median(_square(closure, variance + rule)[free])) / (
        2 * math.log(2)
    )  # median of chi^2, two degrees of freedom
    variance = variance * (scale if covariance is None else max(1.0, scale)) + rule
    least = chi2.isf(_FALSE_ALARMS / free.sum(), 2)
    middle = np.stack(
        np.meshgrid(*(np.arange(size) + seen.cells / 2 for size in free.shape[::-1])), -1
    )
    positions: list[Array] = []
    burgers: list[Array] = []
    while True:
        distance = _square(closure[..., None, :] - vectors, variance[..., None, :, :])
        nearest = distance.argmin(-1)
        agreed = _agreement(
            nearest, free & (nearest > 0) & (distance[..., 0] > least), free, seen.cells
        )
        at = np.unravel_index(int(agreed.argmax()), agreed.shape)
        if agreed[at] == 0:
            return Found(np.array(positions).reshape(-1, 2), np.array(burgers).reshape(-1, 2))
        b = vectors[nearest[at]]
        place = np.nan_to_num(b @ moment[at] / (b @ b))
        positions.append(middle[at] + np.clip(place, -0.5, 0.5))
        burgers.append(b)
        # What is left to be explained; a circuit that passes the line closely tells nothing.
        away = positions[-1] - middle
        depth = seen.cells / 2 - np.abs(away).max(-1)  # of the line inside a circuit, in steps
        closure = closure - (depth > 0)[..., None] * b
        moment = moment - np.where(
            (depth > 0)[..., None, None], b[:, None] * away[..., None, :], 0.0
        )
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
        block = binary_opening(np.pad(same | ~free, 1, constant_values=True), np.ones((2, 2)))[
            1:-1, 1:-1
        ]
        agreed = np.where(
            shows & same & block,
            correlate(same.astype(int), np.ones((n, n), int), mode="constant"),
            agreed,
        )
    return agreed


def compare(position: Array, burgers_A: Array, found: Found, asked: Mask) -> dict[str, float]:
    """Dislocations found beside those of the truth (n, 2), of which only those `asked` (n,) for can
    be missed.

    Each is matched with at most one, so that the sum of the distances is least and none is more
    than a scan step.
    """
    distance = np.linalg.norm(position[:, None] - found.position, axis=-1)
    true, seen = linear_sum_assignment(np.where(distance > 1, 1e3, distance))
    near = distance[true, seen] <= 1
    true, seen = true[near], seen[near]
    metrics = {"cores_false": float(len(found.position) - len(seen))}
    if asked.any():
        kept = asked[true]
        right = np.linalg.norm(
            burgers_A[true] - found.burgers_A[seen], axis=-1
        ) < 0.1 * np.linalg.norm(burgers_A[true], axis=-1)
        metrics |= {
            "cores_found": float(kept.sum() / asked.sum()),
            "burgers_right": float((kept & right).sum() / asked.sum()),
        }
        if kept.any():
            metrics["core_error"] = float(np.sqrt(np.mean(distance[true, seen][kept] ** 2)))
    return metrics


def surrounded(position: Array, sample: Mask, step_A: float) -> Mask:
    """Which places (n, 2), in steps, have a circuit round them that lies on the sample (Ry, Rx) and
    has them in its middle cell.
    """
    n = cells(step_A)
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
