"""Strips of a scan, in which its systems are solved: memory and time grow with its positions.

The precision of a field is a band matrix when positions follow each other along the shorter side of
a strip. Its Cholesky factor costs (positions) x (width of the strip)^2. What a strip says of its
core is what the whole scan says, for neighbours matter over a few steps only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import cho_solve_banded, cholesky_banded

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

MAX_WIDTH = 48  # shorter side of a scan that is solved as a whole, in steps
CORE = 16  # width of a strip's own part
SAMPLE = 4096  # positions of a larger scan from which the scales of all of it are learned
_TILE = 32  # side of a part of these
_GAP = 8  # steps between such parts, so that no window reaches across
MARGIN = 8  # what it takes along on both sides, several lengths over which neighbours matter


@dataclass(frozen=True)
class Strip:
    """A part of a scan, and how much of it is its own."""

    positions: NDArray[np.int64]  # (m,), of the n held, in the order in which they are solved
    own: Mask  # (m,), which of these are its own
    axis: int  # of the scan, along which strips lie side by side
    core: tuple[float, float]  # from and below which coordinate along it they are its own

    def owns(self, place: Array) -> Mask:
        """Which places (rows, 2), in steps, are its own."""
        along = place[:, self.axis]
        return np.asarray((along >= self.core[0]) & (along < self.core[1]))


def strips(held: Mask) -> list[Strip]:
    """Strips that cover the positions held (Ry, Rx), side by side across the shorter side; one for
    a narrow scan.
    """
    axis = int(np.argmin(held.shape))
    place = np.argwhere(held)
    order = np.lexsort((place[:, axis], place[:, 1 - axis]))
    side = held.shape[axis]
    if side <= MAX_WIDTH:
        return [Strip(order, np.ones(len(order), bool), axis, (-np.inf, np.inf))]
    found = []
    for first in np.arange(0, side, CORE):
        along = place[order, axis]
        near = (along >= first - MARGIN) & (along < first + CORE + MARGIN)
        own = (along >= first) & (along < first + CORE)
        if own.any():
            # A difference half way between two strips belongs to the second.
            core = (first - 0.5, first + CORE - 0.5)
            found.append(Strip(order[near], own[near], axis, core))
    return found


def sample(held: Mask, generator: np.random.Generator) -> tuple[NDArray[np.int64], Mask]:
    """Which of the n positions held (Ry, Rx) scales are learned from, and a scan that holds them
    alone: all of a small scan, or square parts of a larger one that are chosen by chance, side by
    side.
    """
    index = np.where(held, np.cumsum(held.ravel()).reshape(held.shape) - 1, -1)
    if held.sum() > SAMPLE:
        height, width = np.minimum(held.shape, _TILE)
        tiles = [
            index[row : row + height, column : column + width]
            for row in range(0, held.shape[0] - height + 1, height)
            for column in range(0, held.shape[1] - width + 1, width)
        ]
        numbers = np.array([(tile >= 0).sum() for tile in tiles])
        full = np.flatnonzero(numbers >= numbers.max() / 2)
        some = generator.permutation(full)[: max(1, SAMPLE // (height * width))]
        apart = [np.pad(tiles[k], ((0, 0), (0, _GAP)), constant_values=-1) for k in sorted(some)]
        index = np.concatenate(apart, 1)
    return index[index >= 0], index >= 0


class Factor:
    """Cholesky factor of a sparse, symmetric, positive definite matrix, as a band."""

    def __init__(self, matrix: sparse.sparray) -> None:
        matrix = sparse.coo_array(matrix)
        lower = matrix.row >= matrix.col
        row, column = matrix.row[lower], matrix.col[lower]
        below = row - column
        band = np.zeros((int(below.max(initial=0)) + 1, matrix.shape[0]))
        np.add.at(band, (below, column), matrix.data[lower])
        self._factor = cholesky_banded(band, overwrite_ab=True, lower=True, check_finite=False)

    def solve(self, right: Array) -> Array:
        """The solution for right sides (m, 4) or (m, 4, s), in their shape."""
        flat = right.reshape(4 * len(right), -1)
        found = cho_solve_banded((self._factor, True), flat, check_finite=False)
        return np.asarray(found).reshape(right.shape)


def block_diagonal(blocks: Array) -> sparse.coo_array:
    """Block diagonal matrix of blocks (n, 4, 4)."""
    n = len(blocks)
    return sparse.bsr_array((blocks, np.arange(n), np.arange(n + 1)), shape=(4 * n, 4 * n)).tocoo()
