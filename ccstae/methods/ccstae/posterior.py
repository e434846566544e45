"""Posterior mean and covariance of a pattern's lattice where its likelihood is not a parabola.

Fisher information describes a likelihood only while disks are located to a fraction of the width of
their edges. Beyond, the inverse information is too small an error and the maximum is no longer the
best answer: the estimate of least square error is the posterior mean. It and its covariance are
found by adaptive importance sampling: every round draws about the mean and covariance that all
draws so far give, and weighs all draws against the mixture of the rounds (J.-M. Cornuet et al.,
Scand. J. Stat. 39, 798 (2012)).

Disks stand apart, so the log posterior of a lattice is the sum of those of its disks' places. Each
is computed once, on a grid, and a draw looks them up.

The prior is flat in the lattice M and the centre, which are drawn. Intensities are at their
conditional maximum. The background's level stays: what is left of its uncertainty lies far from
normal at low dose, and says nothing of the lattice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from ccstae.methods.ccstae import spline, transformer
from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.refine import (
    Evaluation,
    State,
    following,
    inverse,
    moved_by,
    prior_on_intensity,
)

DRAWS = (128, 256, 512, 1024, 2048)
"""Draws of each round; a round follows where few of those before it count."""
FREE = 6  # parameters drawn: Mxx, Mxy, Myx, Myy, c_x, c_y
_ENOUGH = 64.0  # effective number of draws that ends the sampling
_LEAST = 24.0  # below it the draws say nothing: the maximum stays
_WIDER = 1.25  # draws over posterior, standard deviations: the tails must be reached
# draws' worth of trust in the Fisher information when a round's covariance is learned
_STIFFNESS = 16.0
_PARABOLIC_PX = 0.15  # a disk located better than this lies on a parabola: its edge is softer
_PLACES = 32  # per step of a grid, at which maps are looked up
_AT_A_TIME = {"cpu": 2**18, "cuda": 2**27}  # numbers in hand: on a CPU what its caches hold


@cache
def draws() -> tuple[Tensor, ...]:
    """Normal draws (S, FREE) of each round: pairs z, -z whose second moment is exactly the unit
    matrix.
    """
    found = []
    for seed, size in enumerate(DRAWS):
        uniform = (
            torch.quasirandom.SobolEngine(FREE, scramble=True, seed=seed)
            .draw(size // 2)
            .double()
            .clamp(1e-4, 1 - 1e-4)
        )
        half = math.sqrt(2) * torch.erfinv(2 * uniform - 1)
        half = half @ torch.linalg.inv(torch.linalg.cholesky(half.T @ half / len(half))).T
        found.append(torch.cat([half, -half]))
    return tuple(found)


def mean(
    counts: Tensor, dictionary: Dictionary, state: State, at: Evaluation
) -> tuple[State, Tensor]:
    """States at the posterior mean, and the information (n, 7, 7) that the posterior covariance
    amounts to.

    `state` and `at` are the maximum and its evaluation. Patterns whose disks are all located to
    0.15 px keep both.
    """
    full = inverse(at.normal)
    worst = location_error(full, dictionary.g)
    shift, normal = full.new_zeros(len(counts), 7), at.normal.clone()
    for step, lowest, highest in ((FINE, _PARABOLIC_PX, _ILL_PX), (COARSE, _ILL_PX, math.inf)):
        rows = ((worst > lowest) & (worst <= highest)).nonzero()[:, 0]
        if len(rows):
            seen = maps(counts[rows], dictionary, state[rows], at[rows], step)
            centre, covariance, sound = moments(seen, dictionary.g, full[rows, :FREE, :FREE])
            rows = rows[sound]
            shift[rows, :FREE] = centre[sound]
            normal[rows] = inverse(replaced(full[rows], covariance[sound]))
    return moved_by(state, at, shift, dictionary.g), normal


def moments(seen: Maps, g: Tensor, fisher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Posterior mean (n, FREE) as a step from the maximum, covariance (n, FREE, FREE), and whether
    enough draws count (n,).

    The first draws follow `fisher`, the inverse of the information at the maximum.
    """
    rows = torch.arange(len(fisher), device=fisher.device)
    means, covariances, sound = (
        fisher.new_zeros(len(rows), FREE),
        fisher.clone(),
        torch.zeros_like(rows, dtype=torch.bool),
    )
    steps, values = fisher.new_zeros(len(rows), 0, FREE), fisher.new_zeros(len(rows), 0)
    rounds: list[
        tuple[Tensor, Tensor, int]
    ] = []  # mean, Cholesky factor and number of each round's draws
    centre, covariance = means, fisher
    for z in draws():
        rounds.append((centre, _WIDER * factor(covariance), len(z)))
        drawn = centre[:, None] + z.to(centre) @ rounds[-1][1].transpose(1, 2)
        steps, values = (
            torch.cat([steps, drawn], 1),
            torch.cat([values, log_posterior(seen, g, drawn)], 1),
        )
        weight = (
            values - torch.stack([log_normal(steps, *one) for one in rounds]).logsumexp(0)
        ).softmax(1)
        effective = 1 / (weight**2).sum(1)
        centre = (weight[..., None] * steps).sum(1)
        away = steps - centre[:, None]
        covariance = torch.einsum("ns,nsa,nsb->nab", weight, away, away)
        means[rows], covariances[rows], sound[rows] = centre, covariance, effective > _LEAST
        # Few effective draws say little of a covariance: the next round's leans on the information.
        trust = (effective / (effective + _STIFFNESS))[:, None, None]
        more = effective < _ENOUGH
        covariance = (trust * covariance + (1 - trust) * fisher[rows])[more]
        rows, steps, values, centre, seen = (
            rows[more],
            steps[more],
            values[more],
            centre[more],
            seen[more],
        )
        rounds = [(a[more], b[more], size) for a, b, size in rounds]
        if len(rows) == 0:
            break
    return means, covariances, sound


def location_error(covariance: Tensor, g: Tensor) -> Tensor:
    """Standard deviation (n,) in pixels, along x or y, of the disk that is located worst;
    covariance (n, 7, 7), g (K, 2).
    """
    node = torch.cat([g, torch.ones_like(g[:, :1])], 1).double()
    axes = [covariance[:, rows][:, :, rows] for rows in ([0, 1, 4], [2, 3, 5])]
    return (
        torch.stack([torch.einsum("ki,nij,kj->nk", node, C, node) for C in axes])
        .amax((0, 2))
        .clamp_min(0)
        .sqrt()
    )


def factor(covariance: Tensor) -> Tensor:
    """Cholesky factor of covariances (n, m, m) whose rows have units of their own."""
    scale = torch.diagonal(covariance, dim1=1, dim2=2).clamp_min(1e-30).sqrt()
    return scale[:, :, None] * torch.linalg.cholesky(
        covariance / (scale[:, :, None] * scale[:, None, :])
    )


def replaced(full: Tensor, drawn: Tensor) -> Tensor:
    """Covariances (n, 7, 7) with the drawn block (n, FREE, FREE) in its place; the level keeps its
    own variance.
    """
    out = torch.zeros_like(full)
    out[:, :FREE, :FREE] = drawn + 1e-3 * full[:, :FREE, :FREE]
    out[:, FREE, FREE] = full[:, FREE, FREE]
    return out


def log_normal(x: Tensor, centre: Tensor, L: Tensor, size: int) -> Tensor:
    """Log density (n, S), up to a constant, of `size` draws at x (n, S, m) under normal laws with
    means (n, m) and Cholesky factors.
    """
    z = torch.linalg.solve_triangular(L, (x - centre[:, None]).transpose(1, 2), upper=False)
    return (
        math.log(size)
        - 0.5 * (z**2).sum(1)
        - torch.diagonal(L, dim1=1, dim2=2).log().sum(1, keepdim=True)
    )


@cache
def spline_weights(half: int) -> Tensor:
    """Weights (places, 2 half + 1) of the natural cubic spline through nodes -half ... half, at
    places a `_PLACES`-th of a step apart.
    """
    at, nodes = np.arange(-half * _PLACES, half * _PLACES + 1) / _PLACES, np.arange(-half, half + 1)
    return torch.from_numpy(CubicSpline(nodes, np.eye(len(nodes)), bc_type="natural")(at)).float()


@dataclass(frozen=True)
class Grid:
    """Nodes, `step` pixels apart and `half` of them either way, at which the posterior of a disk's
    place is computed.
    """

    step: float
    half: int

    @property
    def nodes(self) -> Tensor:
        """Places (N, 2) of the nodes in pixels, x and y, rows first."""
        return transformer.square(2 * self.half + 1, torch.device("cpu")) * self.step

    def interpolate(self, values: Tensor, at: Tensor) -> Tensor:
        """Values (n, 2 half + 1, 2 half + 1), rows y, interpolated at (n, S, 2), x and y in pixels;
        minus infinity off the grid.
        """
        cell = (at * (_PLACES / self.step)).round().long() + self.half * _PLACES
        weights = spline_weights(self.half).to(values)
        on = (cell >= 0) & (cell < len(weights))
        x, y = (weights[cell[..., axis].clamp(0, len(weights) - 1)] for axis in (0, 1))
        return torch.where(on.all(-1), ((y @ values) * x).sum(-1), -torch.inf)


FINE, COARSE = 0.5, 0.75
"""Steps of the grid, pixels, for disks that are located well and ill."""
_ILL_PX = 0.33


def grid(dictionary: Dictionary, step: float) -> Grid:
    """The grid of such a step. Where few pixels hold a count, and a node costs little, it reaches
    farther.
    """
    return Grid(step, 7 if dictionary.sparse else 4)


@dataclass(frozen=True)
class Maps:
    """Log posterior of the places of n patterns' K diffracted disks, each by itself, its intensity
    at the conditional maximum.
    """

    value: Tensor  # (n, K, N, N) at the nodes of the grid, rows y
    start: Tensor  # (n, K, 2), where the disk is at the state, in pixels from the grid's middle
    beam: Tensor  # (n, 2, 2), information of the direct beam's place, and its slope
    beam_slope: Tensor  # (n, 2)
    grid: Grid

    def __getitem__(self, rows: slice | Tensor) -> Maps:
        return Maps(
            self.value[rows], self.start[rows], self.beam[rows], self.beam_slope[rows], self.grid
        )


def maps(counts: Tensor, dictionary: Dictionary, state: State, at: Evaluation, step: float) -> Maps:
    """Maps of patterns (n, Qy, Qx) about a state, with its evaluation.

    Sum over the window's pixels of d log(A T + b beta), less A times the share of the disk that
    falls on them; A follows the place. Where counts are few only pixels that hold any are looked
    at.
    """
    lattice = grid(dictionary, step)
    nodes = lattice.nodes.to(counts)
    window, edge = dictionary.offsets, dictionary.pixels
    if dictionary.sparse:
        edge = dictionary.pixels + 2 * math.ceil(lattice.half * step)
        window = transformer.square(edge, counts.device)
    T = spline.render(dictionary.disk, nodes, edge)[
        :, window[:, 1] + edge // 2, window[:, 0] + edge // 2
    ].T.contiguous()  # (p, N)
    position = transformer.positions(state.M, state.centre, dictionary.g)[:, 1:]
    patch = transformer.patches(position, window, (counts.shape[-2], counts.shape[-1]))
    start = patch.shift(position)
    d, base = (
        patch.cut(counts),
        state.level[:, None, None] * patch.cut(dictionary.background) + dictionary.floor,
    )
    A = following(state, at, nodes - start[:, :, None])  # (n, K, N)
    stiffness = prior_on_intensity(dictionary, state)[0][:, 1:, None].float()
    value = -0.5 * stiffness * (A - state.prior[:, 1:, None]) ** 2 - A * (patch.inside @ T)
    if dictionary.sparse:
        # The number kept is rounded up, so that it seldom depends on which patterns come together.
        most = min(-(-int((d > 0).sum(-1).max()) // 16) * 16, len(window))
        d, index = d.topk(most)
        base = base.gather(2, index)
    d, base, A, gain = d.flatten(0, 1), base.flatten(0, 1), A.flatten(0, 1), value.flatten(0, 1)
    size = max(1, _AT_A_TIME[counts.device.type] // (d.shape[1] * len(nodes)))
    for i in range(0, len(d), size):
        part = slice(i, i + size)
        model = (T[index.flatten(0, 1)[part]] if dictionary.sparse else T) * A[part, None]
        model.add_(base[part, :, None]).log_()
        gain[part] += (d[part, None] @ model)[:, 0] - (d[part] * base[part].log()).sum(
            1, keepdim=True
        )
    side = 2 * lattice.half + 1
    return Maps(value.unflatten(2, (side, side)), start, at.beam, at.beam_slope, lattice)


def log_posterior(seen: Maps, g: Tensor, steps: Tensor) -> Tensor:
    """Log posterior density (n, S), up to a constant, at steps (n, S, FREE) from the state,
    reference nodes g (K + 1, 2).

    The sum of all disks'; that of the direct beam, which the counts place to a hundredth of a
    pixel, is a parabola.
    """
    n, S, _ = steps.shape
    dc = steps[..., 4:6]
    value = (dc * seen.beam_slope[:, None]).sum(-1) - 0.5 * torch.einsum(
        "nsa,nab,nsb->ns", dc, seen.beam, dc
    )
    size = max(1, _AT_A_TIME[steps.device.type] // (S * (len(g) - 1) * (2 * seen.grid.half + 1)))
    for i in range(0, n, size):
        part = slice(i, i + size)
        moved = transformer.positions(
            steps[part, :, :4].reshape(-1, 2, 2), dc[part].reshape(-1, 2), g[1:].double()
        ).unflatten(0, (-1, S))
        at = seen.start[part, :, None] + moved.transpose(1, 2).float()
        value[part] += (
            seen.grid.interpolate(seen.value[part].flatten(0, 1), at.flatten(0, 1))
            .unflatten(0, (-1, len(g) - 1))
            .sum(1)
        )
    return value
