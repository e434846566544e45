"""How far the disks of a scan stray from the model, and what that does to the stated deviations.

Fisher's information takes counts for Poisson's and disks for copies of one shape on a rigid lattice.
Counts of an amplifier or of shared charge vary more; disks of a thick crystal have structure inside
them, each its own, and do not sit on the lattice to within the noise of their counts. Both show in
the scores of the disks: at the maximum these add to zero, but each by itself is as large as what
moves the disk. With N the information, J_k that of disk k and u_k its score, the covariance is

    V = N^-1 (sum_k u_k u_k^T / (1 - h_k)) N^-1,   h_k = tr(N^-1 J_k) / 2,

the sandwich (P. J. Huber, Proc. Fifth Berkeley Symp. 1, 221 (1967)), with the correction for the
leverage h_k (J. G. MacKinnon and H. White, J. Econom. 29, 305 (1985)). The few disks of a pattern
tell it roughly, so the whole scan tells it together: patterns keep Fisher's covariance L L^T, and
get L Phi L^T, with Phi the mean over the scan of L^-1 V L^-T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.refine import Evaluation, inverse, lattice_moves

# Below, a dispersion is that of a model which is right: expansions and priors alone make it vary by
# a tenth.
MIN_DISPERSION = 1.2
MIN_SIGNIFICANCE = 4.0  # standard errors beyond 1
MAX_LEVERAGE = 0.9
MAX_LOCATION_ERROR_PX = 1.0  # a disk located worse says nothing of strays
# Share of the patterns, those of the largest dispersion, that do not enter its mean: a few fits that
# have lost their disks must not speak for the scan.
TRIMMED_SHARE = 0.02


@dataclass(frozen=True)
class Misfit:
    """What the disks of n patterns say of the model."""

    dispersion: Float64[Tensor, "n 4 4"]  # L^-1 V L^-T, of M
    chi2: Float64[Tensor, " n"]  # of the disks' places about the lattice
    degrees_of_freedom: Float64[Tensor, " n"]
    # sums over the disks of information times excess, and of information, for the mean stray
    excess: Float64[Tensor, " n"]
    weight: Float64[Tensor, " n"]

    @staticmethod
    def join(parts: list[Misfit]) -> Misfit:
        """The misfits of all parts, one after another."""
        return Misfit(
            **{k: torch.cat([getattr(part, k) for part in parts]) for k in vars(parts[0])}
        )


def misfit(dictionary: Dictionary, at: Evaluation) -> Misfit:
    """What the disks of patterns say of the model, at the maximum of their likelihood.

    Args:
        dictionary: what the patterns are made of.
        at: the evaluation there.
    """
    moves = lattice_moves(dictionary.g)
    covariance = inverse(at.information)
    # tr(N^-1 J_k) of every disk, from its own three parameters
    of_disks = moves @ (covariance[:, None] @ moves.transpose(1, 2))  # (n, K, 3, 3)
    leverage = 0.5 * (of_disks * at.disk_information.transpose(2, 3)).sum((2, 3))
    scores = at.disk_score[:, :, None] @ moves  # (n, K, 1, 7)
    scores = scores[:, :, 0] / (1 - leverage.clamp(0, MAX_LEVERAGE)).sqrt()[..., None]
    influence = (scores @ covariance)[..., :4]
    sandwich = influence.transpose(1, 2) @ influence
    root, _ = torch.linalg.cholesky_ex(covariance[:, :4, :4])
    half = torch.linalg.solve_triangular(root, sandwich, upper=False)
    dispersion = torch.linalg.solve_triangular(root, half.transpose(1, 2), upper=False)
    information = at.disk_information[:, 1:, :2, :2]
    score = at.disk_score[:, 1:, :2]
    total = information.diagonal(dim1=2, dim2=3).sum(2)
    located = torch.linalg.det(information) * MAX_LOCATION_ERROR_PX**2 > total
    information = torch.where(located[..., None, None], information, torch.eye(2).to(information))
    chi2 = (score * torch.linalg.solve(information, score)).sum(2) * located
    share = 1 - leverage[:, 1:].clamp(0, MAX_LEVERAGE)
    return Misfit(
        dispersion,
        chi2.sum(1),
        2 * (share * located).sum(1),
        (chi2 - 2 * share * located).sum(1),
        (total * located * share).sum(1),
    )


@dataclass(frozen=True)
class Dispersion:
    """What the scan says of the model."""

    matrix: Float64[Tensor, "4 4"]  # Phi; the unit matrix where the model holds
    chi2_per_degree: float
    stray_px: float  # root mean square stray of the disks along one axis, beyond that of the counts

    @property
    def widening(self) -> float:
        """Root mean square factor by which the deviations are widened."""
        return math.sqrt(float(self.matrix.diagonal().mean()))

    def widened(self, covariance: Tensor) -> Tensor:
        """L Phi L^T from the covariances L L^T of M, (n, 4, 4)."""
        if torch.equal(self.matrix, torch.eye(4).to(self.matrix)):
            return covariance
        root, failed = torch.linalg.cholesky_ex(covariance)
        matrix = self.matrix.to(covariance)
        return torch.where(
            (failed == 0)[:, None, None], root @ matrix @ root.transpose(1, 2), covariance
        )

    def words(self) -> str:
        """The same for people."""
        chi2 = (
            f"chi^2 of the places of the disks is {self.chi2_per_degree:.2f} per degree of freedom"
        )
        if self.widening == 1:
            return f"{chi2}: the model holds, and the deviations are those of the counts"
        return (
            f"{chi2}: disks stray by {self.stray_px:.2g} px beyond what their counts allow; "
            f"deviations widened {self.widening:.2g} times"
        )


def of_scan(found: Misfit) -> Dispersion:
    """The dispersion of a scan, from what its n patterns say.

    An eigenvalue of Phi counts where it is beyond `MIN_DISPERSION` and significant. Deviations are
    widened by it and never made narrower.
    """
    size = found.dispersion.diagonal(dim1=1, dim2=2).sum(1)
    sound = size.isfinite()
    matrix = torch.eye(4, dtype=torch.float64, device=size.device)
    if not sound.any():
        return Dispersion(matrix, math.nan, math.nan)
    limit = size[sound].quantile(1 - TRIMMED_SHARE)
    sound &= size <= limit
    of_patterns = found.dispersion[sound]
    n = len(of_patterns)
    values, vectors = torch.linalg.eigh(of_patterns.mean(0))
    along = torch.einsum("ai,nab,bi->ni", vectors, of_patterns, vectors)
    degrees = found.degrees_of_freedom[sound]
    # What the disks of one pattern tell varies by at least the chi^2 law.
    least = (2 * values**2 / (0.5 * degrees.mean()).clamp_min(1)).sqrt()
    deviation = torch.maximum(along.std(0), least) if n > 1 else least
    significant = (values > MIN_DISPERSION) & (
        values - 1 > MIN_SIGNIFICANCE * deviation / math.sqrt(n)
    )
    values = torch.where(significant, values, 1.0)
    matrix = vectors @ torch.diag(values) @ vectors.T if significant.any() else matrix
    stray2 = float(found.excess[sound].sum() / found.weight[sound].sum().clamp_min(1e-30))
    chi2 = float(found.chi2[sound].sum() / degrees.sum().clamp_min(1e-30))
    return Dispersion(matrix, chi2, math.sqrt(max(0.0, stray2)))
