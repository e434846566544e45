"""A detector image that is mirrored against the nominal lattice, as a file read in another order of
its axes is.

No rotation brings an oblique lattice to its mirror image. Where it is nearly symmetric, a wrong F
of a per cent of shear does, and looks like strain. The metric tensor G^T G of the lattices that
were measured tells: it knows no rotation, and the mirror image is the same lattice under other
indices, G U with det U = -1. Both readings leave a shear from the nominal lattice. The square of
their ratio is the odds that the smaller one is no chance: it goes as the area of such shears.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ccstae.errors import InputError
from ccstae.geometry import inverse_transpose
from ccstae.io.calibration import Calibration
from ccstae.methods.base import Answer

# Shear of the mean lattice that a camera's distortion makes, and below which nothing is asked.
MIN_SHEAR = 0.003
MIN_ODDS = 20.0  # "strong" evidence, as for a lattice at all (`shared.site_evidence`)
_INDEX = 2  # largest number in U, for vectors that are not the shortest


def refuse_mirrored(answer: Answer, calibration: Calibration) -> Answer:
    """The answer, without its deformations where the patterns look mirrored.

    Args:
        answer: what a method gave for a scan.
        calibration: of the scan, with the nominal lattice.

    Returns:
        The same, or one whose F and covariance are NaN, and whose `found["mirrored"]` says why.
    """
    said = looks_mirrored(answer.F, calibration)
    if said is None:
        return answer
    nothing = None if answer.covariance is None else np.full_like(answer.covariance, np.nan)
    found = {**answer.found, "mirrored": said}
    return replace(
        answer,
        F=np.full_like(answer.F, np.nan),
        covariance=nothing,
        F_per_pattern=None,
        covariance_per_pattern=None,
        found=found,
    )


def looks_mirrored(F: NDArray[np.float64], calibration: Calibration) -> str | None:
    """One line that says so, where the mirror image of the nominal lattice explains a map
    decisively better; None elsewhere.

    Args:
        F: deformation gradients (..., 2, 2) from the nominal lattice; NaN where there is none.
        calibration: with the nominal lattice.
    """
    F = F.reshape(-1, 2, 2)
    F = F[np.isfinite(F).all((1, 2))]
    F = F[np.abs(np.linalg.det(F)) > 0.1]
    if not len(F):
        return None
    nominal = calibration.lattice_inv_A
    try:
        G = inverse_transpose(F) @ nominal
    except (InputError, np.linalg.LinAlgError):
        return None
    metric = np.median(np.swapaxes(G, 1, 2) @ G, axis=0)
    as_given = _shear(metric, nominal)
    mirrored = min(_shear(U.T @ metric @ U, nominal) for U in _reflections())
    if as_given < MIN_SHEAR or mirrored**2 * MIN_ODDS > as_given**2:
        return None
    return (
        f"the pattern looks mirrored: the mirror image of the nominal lattice leaves a shear of "
        f"{mirrored:.2%}, the lattice as given one of {as_given:.2%}; expected the detector's axes "
        f"as /lattice_inv_A has them"
    )


def _shear(metric: NDArray[np.float64], nominal: NDArray[np.float64]) -> float:
    """Half the logarithm of the ratio of the two stretches from the nominal lattice to one of a
    metric (2, 2); infinite where it is none.
    """
    inverse = np.linalg.inv(nominal)
    squared = np.linalg.eigvalsh(inverse.T @ metric @ inverse)
    return float(np.log(squared[1] / squared[0]) / 4) if squared[0] > 0 else float("inf")


def _reflections() -> list[NDArray[np.int64]]:
    """Integer matrices with determinant -1."""
    index = range(-_INDEX, _INDEX + 1)
    every = (np.array(e).reshape(2, 2) for e in itertools.product(index, repeat=4))
    return [U for U in every if U[0, 0] * U[1, 1] - U[0, 1] * U[1, 0] == -1]
