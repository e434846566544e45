"""Differences of a field over a scan: first, second, and what does not close.

A field is an array (n, 4), one 2 x 2 matrix M, row by row, for each of n positions, or (n, 4, s)
for s of them. M = F^-T is the gradient of two potentials, M_jk = dX_k / dx_j, the points X of the
reference lattice. Steps of the scan along its x and y are A_j0 and A_j1 in the detector's axes, so
that round a cell of four positions

    c_k = D_x (A^T M)_1k - D_y (A^T M)_0k = 0,    k = 0, 1

with box differences D: the closure of the cell, 0 but at dislocations and grain boundaries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Offset = tuple[int, int]  # rows and columns from a stencil's first corner


@dataclass(frozen=True)
class Operator:
    """Rows of differences, each of `components` numbers: the sum of (stencil) x (component map)."""

    stencils: tuple[sparse.csr_array, ...]  # each (rows, n)
    maps: tuple[Array, ...]  # each (components, 4)
    place: Array  # (rows, 2), row and column of the middle of each, in scan steps

    @property
    def components(self) -> int:
        return len(self.maps[0])

    def apply(self, field: Array) -> Array:
        """Differences (rows, components, ...) of a field (n, 4, ...)."""
        flat = field.reshape(len(field), int(np.prod(field.shape[1:])))
        parts = (
            np.einsum(
                "ca,ra...->rc...",
                mapped,
                (stencil @ flat).reshape(stencil.shape[0], *field.shape[1:]),
            )
            for stencil, mapped in zip(self.stencils, self.maps, strict=True)
        )
        return np.asarray(sum(parts))

    def adjoint(self, rows: Array) -> Array:
        """The transposed operator: (rows, components, ...) to (n, 4, ...)."""
        parts = []
        for stencil, mapped in zip(self.stencils, self.maps, strict=True):
            back = np.einsum("ca,rc...->ra...", mapped, rows)
            flat = stencil.T @ back.reshape(len(back), int(np.prod(back.shape[1:])))
            parts.append(flat.reshape(stencil.shape[1], *back.shape[1:]))
        return np.asarray(sum(parts))

    def precision(self, weight: Array, stiffness: Array) -> sparse.csr_array:
        """sum_rows w d^T K d as a matrix (4 n, 4 n), from weights w (rows,) and K."""
        weights = sparse.diags_array(weight)
        total = sparse.csr_array((4 * self.stencils[0].shape[1],) * 2)
        for left, left_map in zip(self.stencils, self.maps, strict=True):
            for right, right_map in zip(self.stencils, self.maps, strict=True):
                block = left_map.T @ stiffness @ right_map
                total = total + sparse.kron(left.T @ weights @ right, block, "csr")
        return total

    def within(self, positions: NDArray[np.int64]) -> tuple[Operator, NDArray[np.int64]]:
        """The rows all of whose positions are among these (m,), as an operator on fields (m, 4) in
        that order, and which rows they are.
        """
        inside = np.zeros(self.stencils[0].shape[1])
        inside[positions] = 1
        touched = sum(abs(stencil).sign() for stencil in self.stencils).sign()
        rows = np.flatnonzero(touched @ (1 - inside) == 0)
        stencils = tuple(stencil[rows][:, positions] for stencil in self.stencils)
        return Operator(stencils, self.maps, self.place[rows]), rows


def first_differences(held: Mask) -> Operator:
    """Along x and along y, between neighbours among the positions held (Ry, Rx)."""
    return _joined(
        [
            _stencil(held, [((0, 1), 1.0), ((0, 0), -1.0)]),
            _stencil(held, [((1, 0), 1.0), ((0, 0), -1.0)]),
        ]
    )


def second_differences(held: Mask) -> Operator:
    """x_xx, x_yy and sqrt(2) x_xy, wherever all their positions are held: at the borders the second
    derivative is free.
    """
    r = np.sqrt(2.0)
    return _joined(
        [
            _stencil(held, [((0, 0), 1.0), ((0, 1), -2.0), ((0, 2), 1.0)]),
            _stencil(held, [((0, 0), 1.0), ((1, 0), -2.0), ((2, 0), 1.0)]),
            _stencil(held, [((0, 0), r), ((0, 1), -r), ((1, 0), -r), ((1, 1), r)]),
        ]
    )


def gradients(held: Mask) -> Operator:
    """(D_x M, D_y M) of every cell of four positions held, eight numbers, D box differences."""
    along_x, along_y, place = _cells(held)
    eye, zero = np.eye(4), np.zeros((4, 4))
    return Operator((along_x, along_y), (np.vstack([eye, zero]), np.vstack([zero, eye])), place)


def closures(held: Mask, A: Array) -> Operator:
    """Closures (c_0, c_1) of every cell of four positions held.

    Args:
        held: positions of the scan, (Ry, Rx).
        A: the scan's steps along x and y in the detector's axes, as columns (2, 2), of any length.
    """
    along_x, along_y, place = _cells(held)
    eye = np.eye(2)
    of_x, of_y = np.kron(A[None, :, 1], eye), -np.kron(A[None, :, 0], eye)
    return Operator((along_x, along_y), (np.asarray(of_x), np.asarray(of_y)), place)


def _cells(held: Mask) -> tuple[sparse.csr_array, sparse.csr_array, Array]:
    """Box differences along x and y of every cell, and the places of the cells."""
    a, b, c, d = (0, 0), (0, 1), (1, 0), (1, 1)
    along_x, place = _stencil(held, [(a, -0.5), (b, 0.5), (c, -0.5), (d, 0.5)])
    along_y, _ = _stencil(held, [(a, -0.5), (b, -0.5), (c, 0.5), (d, 0.5)])
    return along_x, along_y, place


def _stencil(held: Mask, points: list[tuple[Offset, float]]) -> tuple[sparse.csr_array, Array]:
    """One stencil wherever it fits: matrix (rows, n) and the middles of the rows (rows, 2)."""
    offsets = np.array([offset for offset, _ in points])
    height, width = np.maximum(np.array(held.shape) - offsets.max(0), 0)
    views = [np.s_[i : i + height, j : j + width] for i, j in offsets]
    fits = np.logical_and.reduce([held[view] for view in views])
    index = np.cumsum(held.ravel()).reshape(held.shape) - 1
    columns = np.stack([index[view][fits] for view in views], 1)
    values = np.tile([value for _, value in points], len(columns))
    rows = np.repeat(np.arange(len(columns)), len(points))
    shape = (len(columns), int(held.sum()))
    matrix = sparse.csr_array((values, (rows, columns.ravel())), shape)
    return matrix, np.argwhere(fits) + offsets.max(0) / 2


def _joined(parts: list[tuple[sparse.csr_array, Array]]) -> Operator:
    """Stencils below each other, of all four components alike."""
    matrices, places = zip(*parts, strict=True)
    stencil = sparse.csr_array(sparse.vstack(matrices, "csr"))
    return Operator((stencil,), (np.eye(4),), np.concatenate(places))
