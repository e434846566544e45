"""Strain against a reference that is chosen afterwards, in a map that was made against a nominal
lattice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ccstae import geometry
from ccstae.errors import InputError
from ccstae.io.maps import Map

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

Reference = tuple[slice, slice] | Mask | int | None
"""Rows and columns of a rectangle, a mask (Ry, Rx), a label of the map, or None for the commonest
lattice.
"""

# The commonest lattice is that of the share of the answers that lie nearest together: few enough
# for a material or a grain that holds a tenth of the scan, many enough for their median.
COMMONEST_SHARE = 0.1
# Answers, spread over the scan, that are compared with one another.
COMPARED = 4096
# Of a lattice of which nothing is known: every one has an inversion in two dimensions.
LEAST_SYMMETRY = 2


def against(answer: Map, reference: Reference = None) -> Map:
    """A map in which the reference is undeformed: F S^k F_ref^-1.

    F_ref is the elementwise median of F over the reference, whose own error is left out. The
    lattice's rotation S^k brings F to the branch of the reference.

    Args:
        answer: a map against any lattice.
        reference: positions whose lattice is taken for undeformed.

    Returns:
        The map with F, covariance and label alone.

    Raises:
        InputError: where the reference is none of this map, or holds no answer.
    """
    F = answer.F
    answered = np.asarray(np.isfinite(F).all((-1, -2)))
    if not answered.any():
        raise InputError("no position of the map has an answer; expected one to refer to")
    symmetry = int(answer.attributes.get("rotational_symmetry", LEAST_SYMMETRY))
    F = geometry.to_branch(F, F[answered][0], symmetry)
    chosen = _positions(answer, F, answered, reference) & answered
    if not chosen.any():
        raise InputError("the reference holds no position with an answer; expected at least one")
    F = geometry.to_branch(F, F[chosen][0], symmetry)
    inverse = np.asarray(np.linalg.inv(np.median(F[chosen], axis=0)), np.float64)
    covariance = answer.covariance
    if covariance is not None:
        covariance = geometry.carried_covariance(covariance, F, np.eye(2), inverse)
    return Map(F @ inverse, answer.attributes, covariance, answer.label)


def commonest(answer: Map) -> Mask:
    """The positions (Ry, Rx) of the commonest lattice of a map, which has an answer."""
    answered = np.asarray(np.isfinite(answer.F).all((-1, -2)))
    symmetry = int(answer.attributes.get("rotational_symmetry", LEAST_SYMMETRY))
    return _commonest(geometry.to_branch(answer.F, answer.F[answered][0], symmetry), answered)


def _positions(answer: Map, F: Array, answered: Mask, reference: Reference) -> Mask:
    """The reference as a mask (Ry, Rx)."""
    scan = answered.shape
    if reference is None:
        return _commonest(F, answered)
    chosen = np.zeros(scan, bool)
    if isinstance(reference, tuple):
        chosen[reference] = True
        return chosen
    if isinstance(reference, np.ndarray):
        if reference.shape != scan or reference.dtype.kind != "b":
            raise InputError(
                f"the reference is {reference.dtype} of shape {reference.shape}; expected a mask "
                f"of bool, {scan}"
            )
        return reference
    if answer.label is None:
        raise InputError(f"the map has no labels; expected some for the reference {reference}")
    return np.asarray(answer.label == reference)


def _commonest(F: Array, answered: Mask) -> Mask:
    """Of answers spread over the scan, those that lie nearest together in F."""
    places = np.argwhere(answered)
    places = places[np.linspace(0, len(places) - 1, min(COMPARED, len(places))).astype(int)]
    points = F[tuple(places.T)].reshape(-1, 4)
    number = max(1, round(COMMONEST_SHARE * len(points)))
    distance, nearest = cKDTree(points).query(points, number)
    distance, nearest = distance.reshape(-1, number), nearest.reshape(-1, number)
    chosen = np.zeros(answered.shape, bool)
    chosen[tuple(places[nearest[distance[:, -1].argmin()]].T)] = True
    return chosen
