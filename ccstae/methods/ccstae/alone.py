"""What the patterns of a scan say each by itself, and the answer that it makes.

A map keeps it (`Answer.alone`), so that a method that pools neighbours goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from ccstae import geometry
from ccstae.methods.ccstae import cell_area, crystals, entries
from ccstae.methods.ccstae.dictionary import Dictionary

MAX_STRAIN_DEVIATION = 0.05  # an answer with a larger standard deviation is none
MIN_COVERAGE = 0.5  # share of the probe on the sample, below which the label is that of vacuum


@dataclass(frozen=True)
class Alone:
    """The n patterns with a lattice, and the E entries of the dictionary."""

    rows: NDArray[np.int64]  # (n,), which patterns they are, in scan order
    M: NDArray[np.float64]  # (n, 2, 2), F^-T
    covariance: NDArray[np.float64]  # (n, 4, 4), of M
    odds: NDArray[np.float32]  # (n, E), log odds of the entries from the intensities
    beside: NDArray[np.bool_]  # (n, E), whether most of the probe is beside the sample
    area: NDArray[np.float64]  # (E, 2), log det M of the patterns of an entry, mean and deviation
    crystal: NDArray[np.int64]  # (E,), from 0

    @classmethod
    def of(
        cls,
        rows: NDArray[np.int64],
        M: Float[Tensor, "n 2 2"],
        covariance: Float64[Tensor, "n 4 4"],
        odds: Float[Tensor, "n E"],
        diffracted: Float[Tensor, " n"],
        dictionary: Dictionary,
        symmetry: int,
    ) -> Self:
        """What the patterns of these rows say, `diffracted` being as `diffracted_over_direct`."""
        # Below a half the probe's centre is beside the sample, and its rim alone shows the lattice.
        covered = diffracted[:, None] / diffracted_over_direct(dictionary.intensity)
        of_patterns = (M.double(), covariance, odds, covered < MIN_COVERAGE)
        of_entries = (dictionary.area, crystals.crystals(dictionary, symmetry))
        return cls(rows, *(part.cpu().numpy() for part in (*of_patterns, *of_entries)))

    def answer(
        self, scan: tuple[int, int], M: NDArray[np.float64], covariance: NDArray[np.float64]
    ) -> dict[str, NDArray[Any]]:
        """F, covariance and label of a scan (Ry, Rx), as `Answer` has them, where the lattices of
        the patterns are M (n, 2, 2), of covariance (n, 4, 4).
        """
        total = scan[0] * scan[1]
        F = np.full((total, 2, 2), np.nan)
        components = np.full((total, 4, 4), np.nan)
        label = np.zeros(total, np.int8)
        F[self.rows], components[self.rows] = deformation_and_covariance(M, covariance)
        measured = cell_area.log_area(torch.from_numpy(M), torch.from_numpy(covariance))
        odds, area = torch.from_numpy(self.odds), torch.from_numpy(self.area)
        entry = entries.likeliest(odds, area, measured).numpy()
        beside = self.beside[np.arange(len(entry)), entry]
        label[self.rows] = np.where(beside, 0, self.crystal[entry] + 1)
        lost = ~determined(components)
        F[lost] = components[lost] = np.nan
        return {
            "F": F.reshape(*scan, 2, 2),
            "covariance": components.reshape(*scan, 4, 4),
            "label": label.reshape(scan),
        }


def diffracted_over_direct(intensity: Float[Tensor, "n K"]) -> Float[Tensor, " n"]:
    """Counts of the diffracted disks over those of the direct beam, from those of all K disks.

    Over that of its entry it is the share of the probe that meets the sample.
    """
    return intensity[:, 1:].sum(1) / intensity[:, 0]


def determined(covariance: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the answers of this covariance (n, 4, 4) of strain and rotation are any; NaN is
    none.
    """
    deviation = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)[:, :3]).max(1, initial=0.0)
    return np.asarray(deviation < MAX_STRAIN_DEVIATION)


def deformation_and_covariance(
    M: NDArray[np.float64], covariance: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F (n, 2, 2) = M^-T and the covariance (n, 4, 4) of (exx, eyy, exy, theta), from M (n, 2, 2)
    and its covariance (n, 4, 4).
    """
    F = geometry.inverse_transpose(M)
    # F = M^-T: dF = -M^-T dM^T M^-T, so dF_ij / dM_kl = -F_il F_kj.
    change = -np.einsum("nil,nkj->nijkl", F, F).reshape(-1, 4, 4)
    jacobian = geometry.components_jacobian(F) @ change
    return F, jacobian @ covariance @ np.swapaxes(jacobian, 1, 2)
