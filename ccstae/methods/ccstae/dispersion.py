"""How far the disks of a scan stray from the model, and what that does to the stated deviations.

Fisher's information takes counts for Poisson's and disks for copies of one shape on a rigid
lattice. Counts of an amplifier or of shared charge vary more. Disks of a thick crystal have
structure inside them, each its own, and do not sit on the lattice to within the noise of their
counts. Both show in the scores of the disks: at the maximum these add to zero, but each by itself
is as large as what moves the disk. With N the information, J_k that of disk k and u_k its score,
the covariance is

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
from ccstae.methods.ccstae.refine import Evaluation, OfPatterns, inverse, lattice_moves

# Below, a dispersion is that of a model which is right: expansions and priors alone make it vary by
# a tenth.
MIN_DISPERSION = 1.2
MIN_SIGNIFICANCE = 4.0  # standard errors beyond 1
MAX_LEVERAGE = 0.9
MAX_LOCATION_ERROR_PX = 1.0  # a disk located worse says nothing of strays
# Share of the patterns, those of the largest dispersion, that do not enter its mean: a few fits
# that have lost their disks must not speak for the scan.
TRIMMED_SHARE = 0.02
MAX_STRAY_PX = 2.0  # a disk that lies farther off has been taken for another
MIN_DISKS = 10  # in all patterns, to tell what they have in common


@dataclass(frozen=True)
class Misfit(OfPatterns):
    """What the disks of n patterns say of the model."""

    dispersion: Float64[Tensor, "n 4 4"]  # L^-1 V L^-T, of M
    # of the place of each diffracted disk about the lattice, and what it is where the model holds;
    # both zero for a disk that is located too ill to tell
    chi2: Float64[Tensor, "n K"]
    expected: Float64[Tensor, "n K"]
    information: Float64[Tensor, "n K"]  # of the place, the sum along both axes


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
    chi2 = (score * torch.linalg.solve_ex(information, score).result).sum(2)
    located &= chi2.isfinite()
    chi2 = torch.where(located, chi2, 0.0)
    share = (1 - leverage[:, 1:].clamp(0, MAX_LEVERAGE)) * located
    return Misfit(dispersion, chi2, 2 * share, total * share)


def is_beyond_counts(found: Misfit) -> bool:
    """Whether disks lie farther from their lattice than their counts allow."""
    used = _telling(found)
    if int(used.sum()) < MIN_DISKS:
        return False
    return float(found.chi2[used].sum() / found.expected[used].sum()) >= MIN_DISPERSION


def _telling(found: Misfit) -> Tensor:
    """Which disks (n, K) tell how far they lie from their lattice."""
    # chi^2 = |e|^2 times half the sum of the information along both axes, nearly
    near = found.chi2 < 0.5 * found.information * MAX_STRAY_PX**2
    return near & (found.expected > 0)


def common_steps(at: Evaluation) -> Tensor:
    """How far each disk lies off the lattice in all patterns alike, (K, 2) in pixels, float64.

    The step is the sum of the scores u_n of its place over that of the information. It is zero
    unless it raises the log likelihood by half of `MIN_SIGNIFICANCE`^2, and also by as much if the
    scores scatter from pattern to pattern as they do (H. Hotelling, Ann. Math. Stat. 2, 360
    (1931)).

    Args:
        at: the evaluation of n patterns at the maximum of their likelihood.
    """
    information, scores = at.disk_information[..., :2, :2], at.disk_score[..., :2]
    # A climb that ran off leaves numbers that are none; its pattern says nothing of the disks.
    sound = torch.isfinite(information).all((1, 2, 3)) & torch.isfinite(scores).all((1, 2))
    information, scores = information[sound], scores[sound]
    total, n = scores.sum(0)[..., None], len(scores)
    away = (scores - scores.mean(0))[..., None]
    scatter = (away @ away.transpose(2, 3)).sum(0) * (n / max(n - 1, 1))
    step = torch.linalg.lstsq(information.sum(0), total).solution
    gain = (step * total).sum((1, 2))
    surely = (torch.linalg.lstsq(scatter, total).solution * total).sum((1, 2))
    moves = torch.minimum(gain, surely) >= MIN_SIGNIFICANCE**2
    return torch.where(moves[:, None], step[..., 0], 0.0)


def causes(found: Misfit) -> tuple[float, float]:
    """Why disks lie farther from their lattice than their counts allow: how far they stray, root
    mean square along one axis in pixels, and the variance of the counts over Poisson's.

    The chi^2 of a disk, of two degrees of freedom, follows an exponential law. Its mean is what the
    model expects, times the dispersion of the counts, plus the information of its place times the
    variance of strays. Bright and faint disks tell the two apart, by maximum likelihood. A cause
    counts where it raises the log likelihood by half of `MIN_SIGNIFICANCE`^2, and both where the
    mean chi^2 exceeds `MIN_DISPERSION`.
    """
    if not is_beyond_counts(found):
        return 0.0, 1.0
    used = _telling(found)
    chi2, expected = found.chi2[used], found.expected[used]
    columns = torch.stack([expected, found.information[used]], 1)
    none = torch.tensor([1.0, 0.0], dtype=torch.float64, device=chi2.device)
    best, highest = none, -math.inf
    for free in ([], [0], [1], [0, 1]):
        value, x = none.clone(), columns[:, free]
        for _ in range(10 if free else 0):
            weight = 1 / (columns @ value).clamp_min(1e-9) ** 2
            rest = chi2 if 0 in free else chi2 - expected
            normal = x.T @ (weight[:, None] * x)
            value[free] = torch.linalg.lstsq(normal, x.T @ (weight * rest)).solution
            value = torch.maximum(value, none)
        mean = columns @ value
        likelihood = -float((mean.log() + chi2 / mean).sum())
        likelihood -= 0.5 * MIN_SIGNIFICANCE**2 * len(free)
        if likelihood > highest:
            best, highest = value, likelihood
    dispersion, stray2 = best.tolist()
    return math.sqrt(stray2), dispersion


@dataclass(frozen=True)
class Dispersion:
    """What a scan says of the model."""

    matrix: Float64[Tensor, "4 4"]  # Phi; the unit matrix where the model holds
    chi2_per_degree: float | None  # of the places of the disks, None where no disk tells
    stray_px: float  # of the disks, as the model has it
    counts: float  # variance of the counts, over Poisson's

    @property
    def widening(self) -> float:
        """Root mean square factor by which the deviations are widened."""
        return math.sqrt(float(self.matrix.diagonal().mean()))

    def widened(self, covariance: Tensor) -> Tensor:
        """L Phi L^T from the covariances L L^T of M, (n, 4, 4)."""
        if self.widening == 1:
            return covariance
        root, failed = torch.linalg.cholesky_ex(covariance)
        wide = root @ self.matrix.to(covariance) @ root.transpose(1, 2)
        return torch.where((failed == 0)[:, None, None], wide, covariance)

    def words(self) -> str:
        """What people must hear of it; nothing where the model holds."""
        said = []
        if self.stray_px > 0:
            said.append(
                f"disks stray by {self.stray_px:.2g} px from the lattice (structure inside them, "
                f"or a distorted detector); the stated deviations allow for it"
            )
        if self.counts > 1:
            said.append(
                f"counts vary {self.counts:.2g} times as much as Poisson's (charge shared by "
                f"pixels, or structure inside disks that changes with position)"
            )
        if self.widening > 1:
            said.append(f"deviations widened {self.widening:.2g} times")
        return "; ".join(said)


def of_scan(misfits: list[Misfit], stray_px: float) -> Dispersion:
    """The dispersion of a scan, from what its n patterns say.

    An eigenvalue of Phi counts where it is beyond `MIN_DISPERSION` and significant. Deviations are
    widened by it and never made narrower.

    Args:
        misfits: what the disks of the patterns say, in parts; none where nothing is known.
        stray_px: of the disks, as the model has it.
    """
    matrix = torch.eye(4, dtype=torch.float64)
    if not misfits:
        return Dispersion(matrix, None, stray_px, 1.0)
    found = Misfit.join(misfits)
    matrix = matrix.to(found.dispersion.device)
    size = found.dispersion.diagonal(dim1=1, dim2=2).sum(1)
    sound = size.isfinite()
    if not sound.any():
        return Dispersion(matrix, None, stray_px, 1.0)
    sizes = size[sound].sort().values
    sound &= size <= sizes[int((1 - TRIMMED_SHARE) * (len(sizes) - 1))]
    of_patterns = found.dispersion[sound]
    n = len(of_patterns)
    values, vectors = torch.linalg.eigh(of_patterns.mean(0))
    along = torch.einsum("ai,nab,bi->ni", vectors, of_patterns, vectors)
    expected = found.expected[sound].sum()
    # What the disks of one pattern tell varies by at least the chi^2 law.
    deviation = values * (2 / (expected / n).clamp_min(1)).sqrt()
    if n > 1:
        deviation = torch.maximum(along.std(0), deviation)
    beyond = values - 1 > MIN_SIGNIFICANCE * deviation / math.sqrt(n)
    values = torch.where(beyond & (values > MIN_DISPERSION), values, 1.0)
    if (values > 1).any():
        matrix = vectors @ torch.diag(values) @ vectors.T
    chi2 = float(found.chi2[sound].sum() / expected) if expected > 0 else None
    return Dispersion(matrix, chi2, stray_px, causes(found)[1])
