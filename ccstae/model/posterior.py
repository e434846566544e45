"""Posterior mean and covariance of a pattern's lattice where its likelihood is not a parabola.

Fisher information describes a likelihood only while disks are located to a fraction of the width of their edges. Beyond, the
inverse information is too small an error and the maximum is no longer the best answer: the estimate of least square error is the
posterior mean. It and its covariance are found by adaptive importance sampling: every round draws about the mean and covariance that
all draws so far give, and weighs all draws against the mixture of the rounds (J.-M. Cornuet et al., Scand. J. Stat. 39, 798 (2012)).

The prior is flat in the lattice and the centre; intensities are at their conditional maximum.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from ccstae.model import spline, transformer
from ccstae.model.dictionary import Dictionary
from ccstae.model.refine import Evaluation, State, inverse, moved_by, prior_on_intensity

DRAWS = 256  # of a round: their fourth moments, which a covariance needs, are then right to 5 %
ROUNDS = 2
_ENOUGH = 48.0  # effective number of draws that ends the sampling
_LEAST = 24.0  # below it the draws say nothing: the maximum stays
_WIDER = 1.25  # draws over posterior, standard deviations: the tails must be reached
_STIFFNESS = 16.0  # draws' worth of trust in the Fisher information when a round's covariance is learned
_PARABOLIC_PX = 0.15  # a disk located better than this lies on a parabola: its edge is softer


@cache
def draws() -> Tensor:
    """Normal draws (ROUNDS, DRAWS, 7), in each round pairs z, -z whose second moment is exactly the unit matrix."""
    uniform = torch.quasirandom.SobolEngine(7, scramble=True, seed=0).draw(ROUNDS * DRAWS // 2).double().clamp(1e-4, 1 - 1e-4)
    half = (math.sqrt(2) * torch.erfinv(2 * uniform - 1)).reshape(ROUNDS, -1, 7)
    moment = half.transpose(1, 2) @ half / half.shape[1]
    half = half @ torch.linalg.inv(torch.linalg.cholesky(moment)).transpose(1, 2)
    return torch.cat([half, -half], 1)


def mean(counts: Tensor, dictionary: Dictionary, state: State, at: Evaluation) -> tuple[State, Tensor]:
    """States at the posterior mean, and the information (n, 7, 7) that the posterior covariance amounts to.

    `state` and `at` are the maximum and its evaluation. Patterns whose disks are all located to 0.15 px keep both.
    """
    fisher = inverse(at.normal)
    rows = (location_error(fisher, dictionary.g) > _PARABOLIC_PX).nonzero()[:, 0]
    shift, normal = fisher.new_zeros(len(counts), 7), at.normal.clone()
    steps, values = fisher.new_zeros(len(rows), 0, 7), fisher.new_zeros(len(rows), 0)
    rounds: list[tuple[Tensor, Tensor]] = []  # mean and Cholesky factor of each round's draws
    centre, covariance = shift[rows], fisher[rows]
    for z in draws().to(counts.device):
        if len(rows) == 0:
            break
        rounds.append((centre, _WIDER * factor(covariance)))
        drawn = centre[:, None] + z @ rounds[-1][1].transpose(1, 2)
        found = log_posterior(counts[rows], dictionary, state[rows], at[rows], drawn)
        steps, values = torch.cat([steps, drawn], 1), torch.cat([values, found], 1)
        log_weight = values - torch.stack([log_normal(steps, *one) for one in rounds]).logsumexp(0)
        weight, effective = log_weight.softmax(1), 1 / (log_weight.softmax(1) ** 2).sum(1)
        centre = (weight[..., None] * steps).sum(1)
        away = steps - centre[:, None]
        covariance = torch.einsum("ns,nsa,nsb->nab", weight, away, away)
        sound = effective > _LEAST
        shift[rows[sound]], normal[rows[sound]] = centre[sound], inverse(covariance + 1e-3 * fisher[rows])[sound]
        # Few effective draws say little of a covariance: the next round's leans on the information.
        trust = (effective / (effective + _STIFFNESS))[:, None, None]
        more = effective < _ENOUGH
        covariance = (trust * covariance + (1 - trust) * fisher[rows])[more]
        rows, steps, values, centre = rows[more], steps[more], values[more], centre[more]
        rounds = [(a[more], b[more]) for a, b in rounds]
    return moved_by(state, at, shift, dictionary.g), normal


def location_error(covariance: Tensor, g: Tensor) -> Tensor:
    """Standard deviation (n,) in pixels, along x or y, of the disk that is located worst; covariance (n, 7, 7), g (K, 2)."""
    node = torch.cat([g, torch.ones_like(g[:, :1])], 1).double()
    axes = [covariance[:, rows][:, :, rows] for rows in ([0, 1, 4], [2, 3, 5])]
    return torch.stack([torch.einsum("ki,nij,kj->nk", node, C, node) for C in axes]).amax((0, 2)).clamp_min(0).sqrt()


def factor(covariance: Tensor) -> Tensor:
    """Cholesky factor of covariances (n, m, m) whose rows have units of their own."""
    scale = torch.diagonal(covariance, dim1=1, dim2=2).clamp_min(1e-30).sqrt()
    return scale[:, :, None] * torch.linalg.cholesky(covariance / (scale[:, :, None] * scale[:, None, :]))


def log_normal(x: Tensor, centre: Tensor, L: Tensor) -> Tensor:
    """Log density (n, S), up to a constant, of x (n, S, m) under normal laws with means (n, m) and Cholesky factors (n, m, m)."""
    z = torch.linalg.solve_triangular(L, (x - centre[:, None]).transpose(1, 2), upper=False)
    return -0.5 * (z**2).sum(1) - torch.diagonal(L, dim1=1, dim2=2).log().sum(1, keepdim=True)


def log_posterior(counts: Tensor, dictionary: Dictionary, state: State, at: Evaluation, steps: Tensor) -> Tensor:
    """Log posterior density (n, S), up to a constant, at steps (n, S, 7) from the state; intensities follow the steps.

    Windows stay where they are at the state, and profiles are rendered at the nearest of many phases: no derivatives are needed.
    """
    position = transformer.positions(state.M, state.centre, dictionary.g)
    patch = transformer.patches(position, dictionary.offsets, (counts.shape[-2], counts.shape[-1]))
    d, beta = patch.cut(counts), patch.cut(dictionary.background)
    n, S, _ = steps.shape
    every = torch.arange(n, device=counts.device).repeat_interleave(S)
    moved = moved_by(state[every], at[every], steps.reshape(-1, 7), dictionary.g)
    place = transformer.positions(moved.M, moved.centre, dictionary.g).unflatten(0, (n, S))
    shift = place - patch.middle[:, None].to(place.dtype)
    index, within = spline.nearest_image(shift[:, :, 1:])
    stiffness, pulled = prior_on_intensity(dictionary, moved)
    prior = (stiffness * pulled**2).sum(1) + (moved.level - 1).double() ** 2
    found = []
    for s in range(S):
        one = slice(s, None, S)
        m = moved.level[one, None, None] * beta + dictionary.floor
        m = m.addcmul_(moved.intensity[one, :, None], dictionary.render_nearest(shift[:, s, 0], index[:, s]))
        found.append((d * m.log() - patch.inside * m).sum((1, 2), dtype=torch.float64))
    value = torch.stack(found, 1) - 0.5 * prior.reshape(n, S)
    return torch.where(within.all(-1), value, value.new_full((), -torch.inf))
