"""Posterior mean and covariance of a pattern's lattice where its likelihood is not a parabola.

Fisher information describes a likelihood only while disks are located to a fraction of the width of
their edges. Beyond that the inverse information understates the error, and the maximum is no longer
the best answer: the estimate of least square error is the posterior mean. It and its covariance are
found by adaptive importance sampling. Every round draws about the mean and covariance that all
draws so far give, and weighs all draws against the mixture of the rounds (J.-M. Cornuet et al.,
Scand. J. Stat. 39, 798 (2012)).

Disks stand apart, so the log posterior of a lattice is the sum of those of the places of its disks.
Each of these is computed once, on a grid, and a draw looks them up.

The prior is flat in the lattice M and the centre, which are drawn. Intensities are at their
conditional maximum. The background scale stays: what is left of its uncertainty lies far from
normal at low dose, and says nothing of the lattice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.interpolate import CubicSpline
from torch import Tensor

from ccstae.machine.device import at_a_time, ceil_div
from ccstae.methods.ccstae import expected, spline, transformer
from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.refine import (
    Evaluation,
    State,
    following_intensity,
    inverse,
    moved_by,
    prior_on_intensity,
)
from ccstae.methods.ccstae.transformer import Patterns

DRAWS = (128, 256, 512, 1024, 2048)
"""Draws of each round. A round follows where few of the draws before it count."""
FREE = 6
"""Parameters drawn: Mxx, Mxy, Myx, Myy, c_x, c_y."""
FINE, COARSE = 0.5, 0.75
"""Steps of the grid, in pixels, for disks that are located well and ill."""
MIN_ERROR_PX = 0.15  # a disk located better lies on a parabola, since its edge is softer
MAX_FINE_ERROR_PX = 0.33  # a disk located worse takes the coarse grid
MAX_CONTRAST = 2.0  # of a disk to what lies under it, up to which a polynomial is its logarithm
LOG_POWERS = 12
MIN_EFFECTIVE_DRAWS = 24.0  # with fewer the draws say nothing, and the maximum stays
MAX_EFFECTIVE_DRAWS = 64.0  # effective number of draws that ends the sampling
_WIDER = 1.25  # draws over posterior, standard deviations: the tails must be reached
# Trust in the Fisher information, in draws, when the covariance of a round is learned.
_FISHER_DRAWS = 16.0
_PLACES = 32  # per step of a grid, at which its values are looked up
_AT_A_TIME = 2**18  # numbers in hand on a CPU, whose caches hold them


def posterior_mean(
    patterns: Patterns, dictionary: Dictionary, state: State, at: Evaluation
) -> tuple[State, Tensor]:
    """Move patterns from the maximum of their likelihood to the posterior mean.

    Patterns whose disks are all located to 0.15 px stay.

    Args:
        patterns: the n patterns.
        dictionary: what they are made of.
        state: their maxima.
        at: the evaluation there.

    Returns:
        The states at the posterior mean, and the information (n, 7, 7) that the posterior
        covariance amounts to.
    """
    covariance = inverse(at.information)
    worst = location_error(covariance, dictionary.g)
    shift, information = covariance.new_zeros(len(patterns), 7), at.information.clone()
    for grid_step, low, high in (
        (FINE, MIN_ERROR_PX, MAX_FINE_ERROR_PX),
        (COARSE, MAX_FINE_ERROR_PX, math.inf),
    ):
        rows = ((worst > low) & (worst <= high)).nonzero()[:, 0]
        if len(rows):
            places = place_posterior(patterns[rows], dictionary, state[rows], at[rows], grid_step)
            mean, drawn, sound = moments(places, dictionary.g, covariance[rows, :FREE, :FREE])
            rows = rows[sound]
            shift[rows, :FREE] = mean[sound]
            information[rows] = inverse(with_drawn_block(covariance[rows], drawn[sound]))
    return moved_by(state, at, shift, dictionary.g), information


@dataclass(frozen=True)
class Grid:
    """Nodes at which the posterior of a disk's place is computed, `step` pixels apart and `half` of
    them either way.
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
        weights = spline_weights(self.half, values.device).to(values.dtype)
        nearest = cell.clamp(0, len(weights) - 1)
        off_grid = (cell != nearest).any(-1)
        x, y = (
            weights.index_select(0, of_axis.reshape(-1)).unflatten(0, of_axis.shape)
            for of_axis in nearest.unbind(-1)
        )
        return (y @ values).mul_(x).sum(-1).masked_fill_(off_grid, -torch.inf)


@cache
def spline_weights(half: int, device: torch.device) -> Tensor:
    """Weights (places, 2 half + 1) of the natural cubic spline through nodes -half ... half, at
    places a `_PLACES`-th of a step apart.
    """
    at, nodes = np.arange(-half * _PLACES, half * _PLACES + 1) / _PLACES, np.arange(-half, half + 1)
    spline = CubicSpline(nodes, np.eye(len(nodes)), bc_type="natural")
    return torch.from_numpy(spline(at)).float().to(device)


def grid_for(dictionary: Dictionary, step: float) -> Grid:
    """The grid of such a step. It reaches farther where few pixels hold a count, since a node then
    costs little.
    """
    return Grid(step, 7 if dictionary.sparse else 4)


@dataclass(frozen=True)
class PlacePosterior:
    """Log posterior of the places of n patterns' K diffracted disks, each by itself, with its
    intensity at the conditional maximum.
    """

    value: Float[Tensor, "n K N N"]  # at the nodes of the grid, rows y
    # where the disk is at the state, in pixels from the middle of the grid
    start: Float[Tensor, "n K 2"]
    beam_information: Float64[Tensor, "n 2 2"]  # of the place of the direct beam
    beam_score: Float64[Tensor, "n 2"]
    grid: Grid

    def __getitem__(self, rows: slice | Tensor) -> PlacePosterior:
        return PlacePosterior(
            self.value[rows],
            self.start[rows],
            self.beam_information[rows],
            self.beam_score[rows],
            self.grid,
        )


def place_posterior(
    patterns: Patterns, dictionary: Dictionary, state: State, at: Evaluation, step: float
) -> PlacePosterior:
    """Log posterior of the places of all disks, on a grid about a state.

    It is the sum over the pixels of a window of d log(A T + b beta), less A times the share of the
    disk that falls on them. The intensity A follows the place. Where counts are few, only pixels
    that hold any take part in the sum.

    Args:
        patterns: the n patterns.
        dictionary: what they are made of.
        state: their maxima.
        at: the evaluation there.
        step: of the grid, pixels.
    """
    counts = patterns.counts
    grid = grid_for(dictionary, step)
    nodes = grid.nodes.to(counts)
    window, edge = dictionary.offsets, dictionary.pixels
    if dictionary.sparse:
        edge = dictionary.pixels + 2 * math.ceil(grid.half * step)
        window = transformer.square(edge, counts.device)
    patch_T = spline.render(dictionary.disk, nodes, edge)
    T = patch_T[:, window[:, 1] + edge // 2, window[:, 0] + edge // 2].T.contiguous()  # (p, N)
    position = transformer.positions(state.M, state.centre, dictionary.g)[:, 1:]
    patch = patterns.windows(position, window)
    start = patch.shift(position)
    d = patch.cut(counts)
    scale = state.background_scale[:, None, None]
    background = scale * patch.cut(patterns.background) + dictionary.floor
    if dictionary.touching:  # what the other disks shed on a window is as the state has it
        unit = spline.render(dictionary.disk, start.flatten(0, 1), edge)
        unit = unit[:, window[:, 1] + edge // 2, window[:, 0] + edge // 2].reshape(d.shape)
        own = state.intensity[:, 1:, None] * unit * patch.inside
        background += (expected.all_disks(dictionary, state, patch) - own).clamp_min(0)
    A = following_intensity(state, at, nodes, start)  # (n, K, N)
    precision = prior_on_intensity(dictionary, state)[0][:, 1:, None].float()
    value = (A - state.prior[:, 1:, None]).square_().mul_(-0.5 * precision)
    value.addcmul_(A, share_inside(patch.inside, T), value=-1)
    if dictionary.sparse:
        # The number of pixels is rounded up, so that it seldom depends on which patterns come
        # together.
        with_counts = int((d != 0).sum(-1).max())
        _, index = d.abs().topk(min(ceil_div(with_counts, 16) * 16, len(window)))
        d = d.gather(2, index)
        background = background.gather(2, index)
        index = index.flatten(0, 1)
    # From here on a row is one disk of one pattern.
    d, background, A, sums = (
        d.flatten(0, 1),
        background.flatten(0, 1),
        A.flatten(0, 1),
        value.flatten(0, 1),
    )
    rows = torch.arange(len(d), device=d.device)
    if not dictionary.sparse:
        # Pixels without counts say nothing, whatever their contrast.
        contrast = torch.where(d != 0, A.amax(1, keepdim=True) * T.max() / background, 0.0)
        faint = contrast.amax(1) <= MAX_CONTRAST
        rows = faint.nonzero()[:, 0]
        of_faint = log_contrast_sums(d[rows], contrast[rows], A[rows], T)
        sums.index_add_(0, rows, of_faint)  # a view: this fills `value`
        rows = (~faint).nonzero()[:, 0]
    size = _rows_at_a_time(d.shape[1] * len(nodes), counts.device.type)
    for part in rows.split(size):
        model = (T[index[part]] if dictionary.sparse else T) * A[part, None]
        model.add_(background[part, :, None]).log_()
        without_disk = (d[part] * background[part].log()).sum(1, keepdim=True)
        sums.index_add_(0, part, (d[part, None] @ model)[:, 0] - without_disk)
    side = 2 * grid.half + 1
    return PlacePosterior(
        value.unflatten(2, (side, side)),
        start,
        at.disk_information[:, 0, :2, :2],
        at.disk_score[:, 0, :2],
        grid,
    )


def share_inside(inside: Tensor, T: Tensor) -> Tensor:
    """Share (n, K, N) of unit disks T (p, N) that falls on the pixels inside, 1 in (n, K, p)."""
    if inside.is_cuda:  # to choose among the windows would wait for the GPU
        return inside @ T
    share = T.sum(0).expand(*inside.shape[:2], -1).clone()
    cut = (inside.amin(2) < 1).reshape(-1).nonzero()[:, 0]
    share.flatten(0, 1).index_copy_(0, cut, inside.flatten(0, 1)[cut] @ T)
    return share


def log_contrast_sums(d: Tensor, contrast: Tensor, A: Tensor, T: Tensor) -> Tensor:
    """Sums (r, N) over the pixels of r disks of d log(1 + A T / B) at N places, for contrasts up to
    `MAX_CONTRAST`.

    The logarithm is a polynomial of its argument, and each power of this is a product of what
    depends on the pixel and of what depends on the place: sums over pixels are products of
    matrices.

    Args:
        d: counts (r, p).
        contrast: what the largest A, times the largest T, is over the background B (r, p).
        A: intensities of the disks (r, N).
        T: unit disks (p, N).
    """
    at_place, of_disk = T / T.max(), A / A.amax(1, keepdim=True)
    sums = torch.zeros_like(A)
    of_pixels, of_places, of_disks = d, torch.ones_like(T), torch.ones_like(A)
    for coefficient in log_polynomial():
        of_pixels, of_places = of_pixels * contrast, of_places * at_place
        of_disks = of_disks * of_disk
        sums.addcmul_(of_disks, of_pixels @ of_places, value=coefficient)
    return sums


@cache
def log_polynomial() -> tuple[float, ...]:
    """Coefficients of x, x^2, ... in a polynomial that is log(1 + x) from 0 to `MAX_CONTRAST`, to
    the rounding of float32.
    """
    ratio = np.polynomial.Chebyshev.interpolate(
        lambda x: np.log1p(x) / x, LOG_POWERS - 1, [0, MAX_CONTRAST]
    )
    return tuple(ratio.convert(kind=np.polynomial.Polynomial).coef.tolist())


def _rows_at_a_time(numbers: int, device: str) -> int:
    """How many rows to take at a time, of so many numbers each."""
    # A number is a float32; up to eight of them are made at the same time.
    return at_a_time(_AT_A_TIME // numbers, 32 * numbers, device)


def log_posterior(places: PlacePosterior, g: Tensor, steps: Tensor) -> Tensor:
    """Log posterior density of lattices, the sum of those of all disks.

    That of the direct beam, which the counts place to a hundredth of a pixel, is a parabola.

    Args:
        places: log posterior of the places of the disks of n patterns.
        g: reference nodes (K + 1, 2) in pixels, the direct beam first.
        steps: lattices (n, S, FREE), as steps from the state.

    Returns:
        Log density (n, S), up to a constant of each pattern.
    """
    n, S, _ = steps.shape
    dc = steps[..., 4:6]
    bend = torch.einsum("nsa,nab,nsb->ns", dc, places.beam_information, dc)
    value = (dc * places.beam_score[:, None]).sum(-1) - 0.5 * bend
    disks, side = len(g) - 1, 2 * places.grid.half + 1
    size = _rows_at_a_time(S * disks * side, steps.device.type)
    for i in range(0, n, size):
        part = slice(i, i + size)
        dM = steps[part, :, :4].reshape(-1, 2, 2)
        moved = transformer.positions(dM, dc[part].reshape(-1, 2), g[1:].double())
        moved = moved.unflatten(0, (-1, S)).transpose(1, 2).float()
        at = places.start[part, :, None] + moved  # (n, K, S, 2)
        by_disk = places.grid.interpolate(places.value[part].flatten(0, 1), at.flatten(0, 1))
        value[part] += by_disk.unflatten(0, (-1, disks)).sum(1)
    return value


@cache
def draws() -> tuple[Tensor, ...]:
    """Normal draws (S, FREE) of each round, in pairs z, -z whose second moment is exactly the unit
    matrix.

    They are quasi-random: Sobol points (I. M. Sobol', USSR Comput. Math. Math. Phys. 7, 86 (1967)),
    scrambled with a seed of their own for each round.
    """
    rounds = []
    for seed, size in enumerate(DRAWS):
        sobol = torch.quasirandom.SobolEngine(FREE, scramble=True, seed=seed)
        uniform = sobol.draw(size // 2).double().clamp(1e-4, 1 - 1e-4)
        half = math.sqrt(2) * torch.erfinv(2 * uniform - 1)
        half = half @ torch.linalg.inv(torch.linalg.cholesky(half.T @ half / len(half))).T
        rounds.append(torch.cat([half, -half]))
    return tuple(rounds)


@dataclass(frozen=True)
class Proposal:
    """The normal law that one round of draws follows, for each of n patterns."""

    mean: Float64[Tensor, "n FREE"]
    factor: Float64[Tensor, "n FREE FREE"]  # Cholesky factor of the covariance
    size: int  # how many draws follow it

    def __getitem__(self, rows: Tensor) -> Proposal:
        return Proposal(self.mean[rows], self.factor[rows], self.size)

    def log_density(self, x: Tensor) -> Tensor:
        """Log density (n, S) of all its draws at x (n, S, FREE), up to a constant."""
        z = torch.linalg.solve_triangular(
            self.factor, (x - self.mean[:, None]).transpose(1, 2), upper=False
        )
        log_volume = torch.diagonal(self.factor, dim1=1, dim2=2).log().sum(1, keepdim=True)
        return math.log(self.size) - 0.5 * (z**2).sum(1) - log_volume


def moments(places: PlacePosterior, g: Tensor, fisher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and covariance of the posterior, by adaptive importance sampling.

    Args:
        places: log posterior of the places of the disks of n patterns.
        g: reference nodes (K + 1, 2) in pixels, the direct beam first.
        fisher: inverse of the information at the maximum (n, FREE, FREE), which the first draws
            follow.

    Returns:
        The mean (n, FREE) as a step from the maximum, the covariance (n, FREE, FREE), and whether
        enough draws count for these to be sound (n,).
    """
    n = len(fisher)
    means, covariances = fisher.new_zeros(n, FREE), fisher.clone()
    sound = torch.zeros(n, dtype=torch.bool, device=fisher.device)
    rows = torch.arange(n, device=fisher.device)  # patterns that still draw
    steps, values = fisher.new_zeros(n, 0, FREE), fisher.new_zeros(n, 0)  # all draws so far
    proposals: list[Proposal] = []
    mean, covariance = means.clone(), fisher  # later rounds weigh the first draws about this mean
    for z in draws():
        proposal = Proposal(mean, _WIDER * cholesky_factor(covariance), len(z))
        proposals.append(proposal)
        new = mean[:, None] + z.to(mean) @ proposal.factor.transpose(1, 2)
        steps = torch.cat([steps, new], 1)
        values = torch.cat([values, log_posterior(places, g, new)], 1)
        mixture = torch.stack([one.log_density(steps) for one in proposals]).logsumexp(0)
        weight = (values - mixture).softmax(1)
        effective = 1 / (weight**2).sum(1)
        mean = (weight[..., None] * steps).sum(1)
        away = steps - mean[:, None]
        covariance = torch.einsum("ns,nsa,nsb->nab", weight, away, away)
        means[rows], covariances[rows] = mean, covariance
        sound[rows] = effective > MIN_EFFECTIVE_DRAWS
        # Few effective draws say little of a covariance, so that of the next round leans on the
        # information.
        trust = (effective / (effective + _FISHER_DRAWS))[:, None, None]
        more = (effective < MAX_EFFECTIVE_DRAWS).nonzero()[:, 0]
        covariance = (trust * covariance + (1 - trust) * fisher[rows])[more]
        rows, places, mean = rows[more], places[more], mean[more]
        steps, values = steps[more], values[more]
        proposals = [one[more] for one in proposals]
        if len(rows) == 0:
            break
    return means, covariances, sound


def location_error(covariance: Tensor, g: Tensor) -> Tensor:
    """Standard deviation (n,) in pixels, along x or y, of the disk that is located worst, from the
    covariance (n, 7, 7) of a pattern and g (K, 2).
    """
    node = torch.cat([g, torch.ones_like(g[:, :1])], 1).double()
    along_x, along_y = [0, 1, 4], [2, 3, 5]  # Mxx, Mxy, c_x and Myx, Myy, c_y
    variances = []
    for parameters in (along_x, along_y):
        C = covariance[:, parameters][:, :, parameters]
        variances.append(torch.einsum("ki,nij,kj->nk", node, C, node))
    return torch.stack(variances).amax((0, 2)).clamp_min(0).sqrt()


def cholesky_factor(covariance: Tensor) -> Tensor:
    """Cholesky factor of covariances (n, m, m) whose parameters have different units; NaN where one
    is not positive definite, so that its draws count for nothing.
    """
    scale = torch.diagonal(covariance, dim1=1, dim2=2).clamp_min(1e-30).sqrt()
    scaled = covariance / (scale[:, :, None] * scale[:, None, :])
    factor, failed = torch.linalg.cholesky_ex(scaled)
    return scale[:, :, None] * torch.where(failed[:, None, None] == 0, factor, torch.nan)


def with_drawn_block(covariance: Tensor, drawn: Tensor) -> Tensor:
    """Covariances (n, 7, 7) with the drawn block (n, FREE, FREE) in its place; the background scale
    keeps its variance.
    """
    out = torch.zeros_like(covariance)
    out[:, :FREE, :FREE] = drawn + 1e-3 * covariance[:, :FREE, :FREE]
    out[:, FREE, FREE] = covariance[:, FREE, FREE]
    return out
