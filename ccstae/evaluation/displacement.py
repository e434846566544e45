"""Displacements from a map of the deformation gradient, and the density of dislocations.

F^-1 dx is the step between points X of the reference lattice that belongs to a step dx in the
specimen. The points X are thus potentials of F^-1, up to a constant, and u = x - X. They are
integrated by least squares over the steps of the scan, each with the mean F^-1 of its ends. Where
no potential fits, the closure of a cell is not 0; over the cell's area it is the density of Burgers
vectors (J. F. Nye, Acta Metall. 1, 153 (1953)).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from ccstae import geometry
from ccstae.io.displacement import Displacement
from ccstae.methods.ccstae_pooled import operators
from ccstae.methods.ccstae_pooled.branch import links

Array = NDArray[np.float64]

_ANCHOR = 1e-9  # weight of X = 0 at a position beside that of a step, for X has a free constant


def displacement(F: Array, step_A: float, scan: Array) -> Displacement:
    """Integrate a map.

    Args:
        F: shape (Ry, Rx, 2, 2), on one branch of the lattice's symmetry; NaN for no answer.
        step_A: of the scan.
        scan: its steps along x and y in the detector's axes, as columns (2, 2), in `step_A`.
    """
    rows, columns = F.shape[:2]
    held = np.asarray(np.isfinite(F).all((-1, -2)))
    steps_A = step_A * scan
    x_A = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1)[held] @ steps_A.T
    inverse = np.linalg.inv(F[held])
    u_A = np.full((rows, columns, 2), np.nan)
    curl = np.full((rows - 1, columns - 1, 2), np.nan)
    if held.any():
        i, j = links(held)
        step = x_A[j] - x_A[i]
        # What u gains along a step: it is small, X is not.
        gain = step - 0.5 * np.einsum("lkx,lx->lk", inverse[i] + inverse[j], step)
        u_A[held] = _integrated(gain, i, j, len(x_A))
    closing = operators.closures(held, scan)
    closure = closing.apply(geometry.inverse_transpose(F[held]).reshape(-1, 4))
    at = np.floor(closing.place).astype(int)
    curl[at[:, 0], at[:, 1]] = closure / (step_A * np.linalg.det(scan))
    return Displacement(u_A, curl, step_A)


def _integrated(gain: Array, i: NDArray[np.int64], j: NDArray[np.int64], n: int) -> Array:
    """The values (n, 2) whose differences over the links i to j are nearest to the gains."""
    ends = (np.concatenate([i, j]), np.concatenate([j, i]))
    graph = sparse.csr_array((np.ones(2 * len(i)), ends), (n, n))
    laplacian = sparse.csgraph.laplacian(graph) + _ANCHOR * sparse.eye_array(n)
    right = np.zeros((n, 2))
    np.add.at(right, j, gain)
    np.add.at(right, i, -gain)
    values = splu(laplacian.tocsc()).solve(right)
    parts, part = connected_components(graph, directed=False)
    for index in range(parts):
        values[part == index] -= values[part == index].mean(0)
    return np.asarray(values)
