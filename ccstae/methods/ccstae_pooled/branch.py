"""All lattices of a scan on one branch of their symmetry.

F and F S^k, S the lattice's own rotation, map one and the same lattice; which of them a pattern
answers is chance where the rotation is half a period. Neighbours are brought next to each other
along the spanning tree of the links that turn least, so that no branch is followed across a grain
boundary that could be followed inside the grain (R. M. Goldstein, H. A. Zebker and C. L. Werner,
Radio Sci. 23, 713 (1988), unwrap phases alike).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

from ccstae import geometry

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_LEAST_TURN = 1e-9  # radians: of a link that does not turn, for a graph has no link of weight 0


def one_branch(M: Array, held: Mask, symmetry: int) -> Array:
    """M S^k with the k that joins neighbours; most positions of a connected part keep theirs.

    Args:
        M: lattices F^-T (n, 4) of the positions held, in scan order.
        held: which positions of the scan these are, (Ry, Rx).
        symmetry: order of the lattice's rotational symmetry.

    Returns:
        Lattices (n, 4) that map the same patterns.
    """
    period = 2 * np.pi / symmetry
    lattice = M.reshape(-1, 2, 2)
    theta = geometry.polar(geometry.inverse_transpose(lattice))[1]
    i, j = links(held)
    turn = geometry.wrap(theta[j] - theta[i], symmetry)
    graph = sparse.csr_array((np.abs(turn) + _LEAST_TURN, (i, j)), (len(M), len(M)))
    tree = minimum_spanning_tree(graph)
    parts, part = connected_components(tree, directed=False)
    joined = theta.copy()
    for first in np.unique(part, return_index=True)[1]:
        order, before = breadth_first_order(tree, first, directed=False)
        for at in order[1:]:
            joined[at] = joined[before[at]] + geometry.wrap(
                theta[at] - joined[before[at]], symmetry
            )
    k = np.rint((theta - joined) / period).astype(int)
    for index in range(parts):
        here = part == index
        values, numbers = np.unique(k[here], return_counts=True)
        k[here] -= values[numbers.argmax()]
    return np.asarray(lattice @ geometry.rotation_matrix(-k * period)).reshape(-1, 4)


def links(held: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Neighbours along x and along y among the positions held (Ry, Rx), as two arrays of their
    indices in scan order.
    """
    index = np.cumsum(held.ravel()).reshape(held.shape) - 1
    along_x, along_y = held[:, 1:] & held[:, :-1], held[1:] & held[:-1]
    first = np.concatenate([index[:, :-1][along_x], index[:-1][along_y]])
    return first, np.concatenate([index[:, 1:][along_x], index[1:][along_y]])
