"""Posterior mean and covariance of a pattern's lattice where its likelihood is not a parabola.

Fisher information describes a likelihood only while disks are located to a fraction of the width of their edges. Beyond, the
inverse information is too small an error and the maximum is no longer the best answer: the estimate of least square error is the
posterior mean. It and its covariance are found by adaptive importance sampling: every round draws about the mean and covariance that
all draws so far give, and weighs all draws against the mixture of the rounds (J.-M. Cornuet et al., Scand. J. Stat. 39, 798 (2012)).

The prior is flat in the lattice M and the centre, which are drawn. Intensities are at their conditional maximum. The background's
level stays: what is left of its uncertainty lies far from normal at low dose, and says nothing of the lattice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ccstae.model import spline, transformer
from ccstae.model.dictionary import Dictionary
from ccstae.model.refine import Evaluation, State, inverse, moved_by, prior_on_intensity

DRAWS = (128, 128, 256, 512, 1024)
"""Draws of each round; a round follows where few of those before it count."""
FREE = 6  # parameters drawn: Mxx, Mxy, Myx, Myy, c_x, c_y
_ENOUGH = 48.0  # effective number of draws that ends the sampling
_LEAST = 24.0  # below it the draws say nothing: the maximum stays
_WIDER = 1.25  # draws over posterior, standard deviations: the tails must be reached
_STIFFNESS = 16.0  # draws' worth of trust in the Fisher information when a round's covariance is learned
_PARABOLIC_PX = 0.15  # a disk located better than this lies on a parabola: its edge is softer
_MARGIN_PX = 5  # how far draws may move a disk where windows are looked through count by count
_AT_A_TIME = {"cpu": 2**18, "cuda": 2**27}  # pixels of draws in hand: on a CPU what its caches hold


@cache
def draws() -> tuple[Tensor, ...]:
    """Normal draws (S, FREE) of each round: pairs z, -z whose second moment is exactly the unit matrix."""
    found = []
    for seed, size in enumerate(DRAWS):
        uniform = torch.quasirandom.SobolEngine(FREE, scramble=True, seed=seed).draw(size // 2).double().clamp(1e-4, 1 - 1e-4)
        half = math.sqrt(2) * torch.erfinv(2 * uniform - 1)
        half = half @ torch.linalg.inv(torch.linalg.cholesky(half.T @ half / len(half))).T
        found.append(torch.cat([half, -half]))
    return tuple(found)


def mean(counts: Tensor, dictionary: Dictionary, state: State, at: Evaluation) -> tuple[State, Tensor]:
    """States at the posterior mean, and the information (n, 7, 7) that the posterior covariance amounts to.

    `state` and `at` are the maximum and its evaluation. Patterns whose disks are all located to 0.15 px keep both.
    """
    full = inverse(at.normal)
    rows = (location_error(full, dictionary.g) > _PARABOLIC_PX).nonzero()[:, 0]
    shift, normal = full.new_zeros(len(counts), 7), at.normal.clone()
    if len(rows) == 0:
        return state, normal
    seen = Seen.of(counts[rows], dictionary, state[rows], at[rows])
    fisher = full[:, :FREE, :FREE]
    steps, values = fisher.new_zeros(len(rows), 0, FREE), fisher.new_zeros(len(rows), 0)
    rounds: list[tuple[Tensor, Tensor, int]] = []  # mean, Cholesky factor and number of each round's draws
    centre, covariance = shift[rows, :FREE], fisher[rows]
    for z in draws():
        rounds.append((centre, _WIDER * factor(covariance), len(z)))
        drawn = centre[:, None] + z.to(centre) @ rounds[-1][1].transpose(1, 2)
        steps, values = torch.cat([steps, drawn], 1), torch.cat([values, log_posterior(seen, dictionary, drawn)], 1)
        log_weight = values - torch.stack([log_normal(steps, *one) for one in rounds]).logsumexp(0)
        weight = log_weight.softmax(1)
        effective = 1 / (weight**2).sum(1)
        centre = (weight[..., None] * steps).sum(1)
        away = steps - centre[:, None]
        covariance = torch.einsum("ns,nsa,nsb->nab", weight, away, away)
        sound = effective > _LEAST
        shift[rows[sound], :FREE] = centre[sound]
        normal[rows[sound]] = inverse(replaced(full[rows[sound]], covariance[sound]))
        # Few effective draws say little of a covariance: the next round's leans on the information.
        trust = (effective / (effective + _STIFFNESS))[:, None, None]
        more = effective < _ENOUGH
        covariance = (trust * covariance + (1 - trust) * fisher[rows])[more]
        rows, steps, values, centre, seen = rows[more], steps[more], values[more], centre[more], seen[more]
        rounds = [(a[more], b[more], size) for a, b, size in rounds]
        if len(rows) == 0:
            break
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


def replaced(full: Tensor, drawn: Tensor) -> Tensor:
    """Covariances (n, 7, 7) with the drawn block (n, FREE, FREE) in its place; the level keeps its own variance."""
    out = torch.zeros_like(full)
    out[:, :FREE, :FREE] = drawn + 1e-3 * full[:, :FREE, :FREE]
    out[:, FREE, FREE] = full[:, FREE, FREE]
    return out


def log_normal(x: Tensor, centre: Tensor, L: Tensor, size: int) -> Tensor:
    """Log density (n, S), up to a constant, of `size` draws at x (n, S, m) under normal laws with means (n, m) and Cholesky factors."""
    z = torch.linalg.solve_triangular(L, (x - centre[:, None]).transpose(1, 2), upper=False)
    return math.log(size) - 0.5 * (z**2).sum(1) - torch.diagonal(L, dim1=1, dim2=2).log().sum(1, keepdim=True)


@dataclass(frozen=True)
class Seen:
    """What n patterns hold round their K diffracted disks, in E pixels each, about a state and its evaluation."""

    state: State
    at: Evaluation
    middle: Tensor  # (n, K, 2), the pixel that a window is centred on
    counts: Tensor  # (n, K, E)
    base: Tensor  # (n, K, E), expected without the disk
    pixel: Tensor  # (n, K, E, 2), places of the pixels in the window; (n, 0) where they are those of the dictionary's window
    shape: tuple[int, int]  # of the detector

    @staticmethod
    def of(counts: Tensor, dictionary: Dictionary, state: State, at: Evaluation) -> Seen:
        """Cut from patterns (n, Qy, Qx). Where counts are few only pixels that hold any are kept, from a wider window."""
        shape = (counts.shape[-2], counts.shape[-1])
        offsets = dictionary.offsets
        if dictionary.sparse:
            offsets = transformer.square(dictionary.pixels + 2 * _MARGIN_PX, counts.device)
        patch = transformer.patches(transformer.positions(state.M, state.centre, dictionary.g)[:, 1:], offsets, shape)
        d, base = patch.cut(counts), state.level[:, None, None] * patch.cut(dictionary.background) + dictionary.floor
        if not dictionary.sparse:
            return Seen(state, at, patch.middle, d, base, offsets.new_zeros(len(d), 0), shape)
        # The number kept is rounded up, so that it seldom depends on which patterns come together.
        most = min(-(-int((d > 0).sum(-1).max()) // 16) * 16, len(offsets))
        kept, index = d.topk(most)
        return Seen(state, at, patch.middle, kept, base.gather(2, index), offsets[index], shape)

    def __getitem__(self, rows: slice | Tensor) -> Seen:
        return Seen(**{k: v if k == "shape" else v[rows] for k, v in vars(self).items()})


def log_posterior(seen: Seen, dictionary: Dictionary, steps: Tensor) -> Tensor:
    """Log posterior density (n, S), up to a constant, at steps (n, S, FREE) from the state; intensities follow the steps.

    Sum over the windows' pixels of d log(A T + b beta), less A times the share of the disk that falls on the detector. The direct beam,
    which the counts place to a hundredth of a pixel, adds its parabola. Profiles are looked up at the nearest of many places.
    """
    n, S, _ = steps.shape
    every = torch.arange(n, device=steps.device).repeat_interleave(S)
    moved = moved_by(seen.state[every], seen.at[every], torch.nn.functional.pad(steps, (0, 1)).reshape(n * S, -1), dictionary.g)
    stiffness, pulled = prior_on_intensity(dictionary, moved)
    place = transformer.positions(moved.M, moved.centre, dictionary.g)[:, 1:]
    A = moved.intensity[:, 1:]
    value = -0.5 * (stiffness * pulled**2)[:, 1:].sum(1) - (A * dictionary.fine.on(place, seen.shape)).sum(1, dtype=torch.float64)
    dc = steps[..., 4:6]
    value = value.reshape(n, S) + (dc * seen.at.beam_slope[:, None]).sum(-1) - 0.5 * torch.einsum("nsa,nab,nsb->ns", dc, seen.at.beam, dc)
    A, shift = A.unflatten(0, (n, S)), place.unflatten(0, (n, S)) - seen.middle[:, None]
    index, within = spline.nearest_image(shift)
    if dictionary.sparse:
        within = (shift.abs() <= _MARGIN_PX).all(-1)
    held = seen.counts.flatten(1)
    together = max(1, _AT_A_TIME[steps.device.type] // held.shape[1])
    size = max(1, together // S)
    for i in range(0, n, size):
        some = slice(i, i + size)
        for s in range(0, S, together):
            part = slice(s, s + together)
            if dictionary.sparse:
                T = dictionary.fine(seen.pixel[some, None] - shift[some, part, :, None])
            else:
                chosen = index[some, part]
                T = dictionary.images.index_select(0, chosen.reshape(-1)).reshape(*chosen.shape, -1)
            T.mul_(A[some, part, :, None]).add_(seen.base[some, None]).log_()
            value[some, part] += (T.flatten(2) @ held[some, :, None])[..., 0]
    return torch.where(within.all(-1), value, value.new_full((), -torch.inf))
