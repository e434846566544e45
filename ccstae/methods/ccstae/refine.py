"""Climbing the Poisson likelihood by Fisher's and Newton's steps, batched over patterns.

Expected counts in the patch of disk k are m = A_k T(q - s_k) + b beta(q), with s_k = c + M g_k, and
the light of the next disks where they nearly touch. The free parameters of a pattern are M (4), the
centre c (2), the background scale b and the disk intensities A_k. The A_k are eliminated disk by
disk (Schur complement), so each step solves a 7 x 7 system. Steps are damped (K. Levenberg, Q.
Appl. Math. 2, 164 (1944); D. W. Marquardt, J. Soc. Ind. Appl. Math. 11, 431 (1963)) and taken only
where they raise the likelihood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ccstae.methods.ccstae import transformer
from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.transformer import Patterns, Rows

STEPS = 12
"""Steps of a climb, at most."""
# Gain in deviance that a step must promise to be taken: that of 0.01 standard deviations.
DEVIANCE_TOLERANCE = 1e-4
ROUGH_DEVIANCE_TOLERANCE = 1.0
"""The same for climbs that another one follows."""
# What may hide in the steps of the deviance where windows move on, or in its rounding where counts
# are high: that of a step of 0.17 standard deviations.
MAX_HIDDEN_GAIN = 0.03
FIRST_DAMPING = 1e-3
MAX_STEP_PX = 1.5  # movement of any disk in one step
MAX_NEWTON_GAIN = 4.0  # in deviance: within two standard deviations of the maximum
MAX_DAMPING = 1e3  # a climb that needs more has arrived
_AT_A_TIME = {"cpu": 16, "cuda": 2**16}  # patterns; on a CPU as many as its caches hold


class OfPatterns:
    """What dataclasses have in common whose fields all hold a row for each of n patterns: tensors,
    or others of their kind.
    """

    @classmethod
    def join(cls, parts: list[Self]) -> Self:
        """All parts, one after another."""

        def joined(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            kind = type(values[0])
            return kind.join(values) if issubclass(kind, OfPatterns) else torch.cat(values)

        return cls(**{name: joined(name) for name in vars(parts[0])})

    def where(self, mask: Tensor, other: Self) -> Self:
        """These rows where the mask (n,) holds, those of `other` elsewhere."""

        def chosen(one: Any, two: Any) -> Any:
            if isinstance(one, OfPatterns):
                return one.where(mask, two)
            return torch.where(mask.reshape(-1, *[1] * (one.ndim - 1)), one, two)

        return type(self)(**{k: chosen(v, getattr(other, k)) for k, v in vars(self).items()})

    def with_rows(self, rows: Tensor, other: Self) -> Self:
        """The same with those of `other` in these rows."""

        def changed(one: Any, two: Any) -> Any:
            if isinstance(one, OfPatterns):
                return one.with_rows(rows, two)
            return one.index_copy(0, rows, two)

        return type(self)(**{k: changed(v, getattr(other, k)) for k, v in vars(self).items()})

    def __getitem__(self, rows: Rows) -> Self:
        return type(self)(**{k: v[rows] for k, v in vars(self).items()})


@dataclass(frozen=True)
class State(OfPatterns):
    """Parameters of n patterns."""

    M: Float[Tensor, "n 2 2"]  # F^-T
    centre: Float[Tensor, "n 2"]  # direct beam, pixels
    intensity: Float[Tensor, "n K"]  # counts in each disk, the direct beam first
    background_scale: Float[Tensor, " n"]  # background in units of the dictionary's
    prior: Float[Tensor, "n K"]  # intensities that the pattern's entry of the dictionary expects
    stray: Float[Tensor, "n K 2"]  # of each disk off the lattice, pixels; zero where none strays


@dataclass(frozen=True)
class OfPixels(OfPatterns):
    """What the pixels of n patterns say at a state, disk by disk, before any prior.

    The parameters of a disk are its intensity, its place and the background scale, (A, s_x, s_y,
    b), and whatever else deforms it.
    """

    # minus twice the log likelihood, less that of a pattern without disks
    deviance: Float64[Tensor, " n"]
    information: Float64[Tensor, "n K a a"]  # Fisher information
    score: Float64[Tensor, "n K a"]  # slope of the log likelihood
    # as `information`, with the curvature that the counts at hand have
    curvature: Float64[Tensor, "n K a a"]


@dataclass(frozen=True)
class Evaluation(OfPatterns):
    """Likelihood of n patterns at a state, and its local quadratic model.

    Parameters are in the order M (xx, xy, yx, yy), c (x, y), b, with the intensities eliminated.
    """

    # minus twice the log likelihood, less that of a pattern without disks
    deviance: Float64[Tensor, " n"]
    information: Float64[Tensor, "n 7 7"]  # Fisher information
    score: Float64[Tensor, "n 7"]  # slope of the log likelihood
    intensity_score: Float64[Tensor, "n K"]  # slope of the log likelihood with the intensities
    intensity_information: Float64[Tensor, "n K"]  # their Fisher information
    # how the score of an intensity falls with its disk's place (s_x, s_y) and with b
    intensity_coupling: Float64[Tensor, "n K 3"]
    # as `information`, with the curvature that the counts at hand have; it need not be positive
    observed_information: Float64[Tensor, "n 7 7"]
    # score and information of place and background scale (s_x, s_y, b) in each disk alone, the
    # direct beam first, its intensity and stray eliminated
    disk_score: Float64[Tensor, "n K 3"]
    disk_information: Float64[Tensor, "n K 3 3"]
    # how far a stray falls back when (s_x, s_y, b) grow, and its step where they stay
    stray_follows: Float64[Tensor, "n K 2 4"]
    of_pixels: OfPixels


def evaluate(patterns: Patterns, dictionary: Dictionary, state: State) -> Evaluation:
    """Deviance, score and information of patterns at a state, with disks that keep their shape.

    Args:
        patterns: the n patterns.
        dictionary: what they are made of.
        state: their parameters.

    Returns:
        The evaluation of the n patterns.
    """
    return with_priors(of_pixels(patterns, dictionary, state), patterns, dictionary, state)


def of_pixels(patterns: Patterns, dictionary: Dictionary, state: State) -> OfPixels:
    """What the pixels say of disks that keep their shape."""
    position = transformer.positions(state.M, state.centre, dictionary.g) + state.stray
    shift = (position - position.round()).reshape(-1, 2)
    near, expansion = (
        values.unflatten(0, position.shape[:2])
        for values in dictionary.table.nearest(shift, dictionary.profiles(len(position)))
    )
    size = _AT_A_TIME[patterns.counts.device.type]
    sums = []
    for part in (slice(i, i + size) for i in range(0, len(position), size)):
        some = patterns[part]
        patch = some.windows(position[part], dictionary.offsets)
        n, K, p = patch.index.shape
        d, beta = patch.unmasked(some.counts), patch.unmasked(some.background)
        images = dictionary.table.images.index_select(0, near[part].reshape(-1))  # (n K, 6, p)
        disks = expansion[part].flatten(0, 1) @ images  # T, T_x, T_y
        m = state.background_scale[part, None, None] * beta
        A, unit = state.intensity[part, :, None], disks[:, 0].unflatten(0, (n, K))
        m.addcmul_(A, unit).add_(dictionary.floor)
        once = patch.inside
        if dictionary.touching:
            own = A * unit
            m += patch.together(own, some.counts) - own * patch.inside
            # A pixel of several windows tells of each of their disks, but counts once.
            once = once / patch.together(torch.ones_like(own), some.counts).clamp_min(1)
        extra = some.error_variance
        w = patch.inside / (m if some.exact else m + extra)
        without_disks = some.level[:, None, None] * beta + dictionary.floor
        deviance = relative_deviance(d, m, without_disks, extra, once, some.exact)
        if dictionary.touching:
            beta = beta * once
        # Slopes of m with A, s_x / A, s_y / A and b, and what pixels weigh by for the model, for
        # the counts that they hold and for their residuals.
        slopes = torch.cat([disks, beta.reshape(-1, 1, p)], 1)
        ratio = (d if some.exact else d + extra) * w
        residual = (ratio - patch.inside).reshape(-1, 1, p)
        weighted = slopes * w.reshape(-1, 1, p)
        gram = weighted @ slopes.transpose(1, 2)
        weighted *= ratio.reshape(-1, 1, p)
        observed = weighted @ slopes.transpose(1, 2)
        score = residual @ slopes.transpose(1, 2)
        bend = residual @ images[:, 3:].transpose(1, 2)
        sums.append((deviance, gram, observed, score, bend))
    deviance, *rest = (torch.cat(parts) for parts in zip(*sums, strict=True))
    gram, observed, score, bend = (
        values.double().unflatten(0, position.shape[:2]) for values in rest
    )
    return _scaled(deviance, gram, observed, score[:, :, 0], bend[:, :, 0], state)


def _scaled(
    deviance: Tensor, gram: Tensor, observed: Tensor, score: Tensor, bend: Tensor, state: State
) -> OfPixels:
    """Sums over pixels, taken for disks of unit slope, as those of the disks at hand.

    The curvature of the counts at hand has the residuals times the second derivatives of the model:
    `bend` (n, K, 3) is the sum of residuals times T_xx, T_xy, T_yy.
    """
    A = state.intensity[..., None].double()
    one = torch.ones_like(A)
    scale = torch.cat([one, A, A, one], -1)
    bend_xx, bend_xy, bend_yy = bend.unbind(-1)
    observed = observed * scale[..., None] * scale[:, :, None]
    bends = torch.stack([bend_xx, bend_xy, bend_xy, bend_yy], -1).unflatten(-1, (2, 2))
    observed[..., 1:3, 1:3] -= A[..., None] * bends
    observed[..., 0, 1:3] -= score[..., 1:3]
    observed[..., 1:3, 0] -= score[..., 1:3]
    return OfPixels(deviance, gram * scale[..., None] * scale[:, :, None], score * scale, observed)


def with_priors(
    of_pixels: OfPixels, patterns: Patterns, dictionary: Dictionary, state: State
) -> Evaluation:
    """The evaluation of patterns at a state, from what their pixels say there: intensities, strays
    and background scale are held to their priors, and intensities and strays are eliminated.
    """
    precision, departure = prior_on_intensity(dictionary, state)
    information, score, observed = of_pixels.information, of_pixels.score, of_pixels.curvature
    intensity_information = information[:, :, 0, 0] + precision
    intensity_score = score[:, :, 0] - precision * departure
    deviance = of_pixels.deviance + (precision * departure**2).sum(1)
    moves = lattice_moves(dictionary.g)
    if score.shape[-1] > 4:  # the lattice also deforms the disks
        of_M = torch.eye(4, 7, dtype=moves.dtype, device=moves.device).expand(len(moves), 4, 7)
        moves = torch.cat([moves, of_M], 1)
    coupling = observed[..., 0, 1:]
    disk_information = eliminated(
        information[..., 1:, 1:], information[..., 0, 1:], intensity_information
    )
    observed_disks = eliminated(observed[..., 1:, 1:], coupling, observed[..., 0, 0] + precision)
    disk_score = score[:, :, 1:] - coupling * (intensity_score / intensity_information)[..., None]
    follow = disk_information.new_zeros(*precision.shape, 2, 4)
    if patterns.stray_precision is not None:
        firmness = patterns.stray_precision[..., None]
        stray = state.stray.double()
        deviance = deviance + (firmness * stray**2).sum((1, 2))
        # A stray moves its disk as the lattice does, so it shares the lattice's blocks.
        stray_score = disk_score[..., :2] - firmness * stray
        held = torch.diag_embed(firmness.expand_as(stray))
        follow = torch.linalg.solve(
            disk_information[..., :2, :2] + held,
            torch.cat([disk_information[..., :2, :], stray_score[..., None]], -1),
        )
        by_lattice = follow[..., :3].transpose(2, 3)
        disk_score = disk_score - (by_lattice @ stray_score[..., None])[..., 0]
        disk_information = disk_information - by_lattice @ disk_information[..., :2, :]
        observed_disks = observed_disks - observed_disks[..., :, :2] @ torch.linalg.solve(
            observed_disks[..., :2, :2] + held, observed_disks[..., :2, :]
        )
    total_score = disk_score.flatten(1) @ moves.flatten(0, 1)
    off_level = (state.background_scale / patterns.level - 1).double()
    total_score[:, 6] -= off_level / patterns.level
    return Evaluation(
        deviance=deviance + off_level**2,
        information=total_information(disk_information, moves, patterns.level),
        score=total_score,
        intensity_score=intensity_score,
        intensity_information=intensity_information,
        # A stretched disk keeps its counts, so what couples A to M beyond the place of the disk is
        # left out of steps.
        intensity_coupling=coupling[..., :3],
        observed_information=total_information(observed_disks, moves, patterns.level),
        disk_score=disk_score[..., :3],
        disk_information=disk_information[..., :3, :3],
        stray_follows=follow,
        of_pixels=of_pixels,
    )


def lattice_moves(g: Tensor) -> Tensor:
    """How (s_x, s_y, b) of every disk follow (Mxx, Mxy, Myx, Myy, c_x, c_y, b): (K, 3, 7), float64,
    from s = c + M g.
    """
    moves = torch.zeros(len(g), 3, 7, dtype=torch.float64, device=g.device)
    for axis in (0, 1):
        moves[:, axis, 2 * axis : 2 * axis + 2] = g.double()
        moves[:, axis, 4 + axis] = 1.0
    moves[:, 2, 6] = 1.0
    return moves


def eliminated(rest: Tensor, coupling: Tensor, intensity_information: Tensor) -> Tensor:
    """Information (..., a, a) of the parameters of a disk where its intensity is unknown: the Schur
    complement of `intensity_information` (...), with `rest` (..., a, a) and `coupling` (..., a) the
    other blocks.
    """
    return (
        rest - coupling[..., :, None] * (coupling / intensity_information[..., None])[..., None, :]
    )


def total_information(of_disks: Tensor, moves: Tensor, level: Tensor) -> Tensor:
    """Information (n, 7, 7) from all disks.

    The background scale is held to the level of the pattern within a factor of about two, since at
    low dose the pixels that show it are nearly empty.

    Args:
        of_disks: information of the parameters of each disk, intensities eliminated, (n, K, a, a).
        moves: how the parameters of each disk follow those of the pattern, (K, a, 7).
        level: expected background scale of each pattern, (n,).
    """
    total = moves.flatten(0, 1).T @ (of_disks @ moves).flatten(1, 2)
    total[:, 6, 6] += level.double() ** -2
    return total


def prior_on_intensity(dictionary: Dictionary, state: State) -> tuple[Tensor, Tensor]:
    """The normal prior that holds the intensities to those of the pattern's entry, within the
    spread that the dictionary has learned: precisions and departures from its mean, (n, K).
    """
    precision = 1 / (dictionary.spread * state.prior.clamp_min(1e-3)).double() ** 2
    return precision, (state.intensity - state.prior).double()


def inverse(matrix: Tensor) -> Tensor:
    """Inverse of positive definite matrices (n, m, m) whose parameters have different units."""
    scale = torch.diagonal(matrix, dim1=1, dim2=2).clamp_min(1e-30).rsqrt()
    scaled = torch.linalg.inv(matrix * scale[:, :, None] * scale[:, None, :])
    return scaled * scale[:, :, None] * scale[:, None, :]


def covariance_of_M(information: Tensor) -> Tensor:
    """Covariance (n, 4, 4) of M (xx, xy, yx, yy), with centre and background scale unknown, from
    the information (n, 7, 7).
    """
    return inverse(information)[:, :4, :4]


def relative_deviance(
    d: Tensor,
    m: Tensor,
    without_disks: Tensor,
    extra: Tensor,
    inside: Tensor,
    exact: bool = False,
) -> Tensor:
    """Deviance of counts from a model, less that from a pattern without disks.

    Pixels beyond a disk cancel, so nothing changes when the disk's window moves on by a pixel and
    takes in other ones. Otherwise the deviance would have steps of several units, and climbs would
    end on them.

    Args:
        d: counts (n, K, p).
        m: the model (n, K, p).
        without_disks: the model without disks (n, K, p).
        extra: variance beside that of the counts (n, K, 1).
        inside: 1 on the detector, else 0, (n, K, p).
        exact: whether the model leaves nothing out, and `extra` is zero.

    Returns:
        Deviance (n,), float64.
    """
    if exact:
        # In place only after the first step: autograd and callers keep m.
        gain = torch.log(m / without_disks).mul_(d).sub_(m).add_(without_disks)
        return -2 * (gain * inside).sum((1, 2), dtype=torch.float64)

    below_zero = d.is_cuda or bool((d < 0).any())  # to ask would wait for a GPU

    # A variance beside that of the counts lowers the weight of a pixel. It weighs each of the two
    # deviances by itself, for a weight on their difference would pull.
    def weighted(model: Tensor) -> Tensor:
        # d log(d / m) - d + m is zero for d = m and keeps its digits at high counts.
        # A reading below zero, of an amplifier's noise, has no logarithm of its own.
        some = d.clamp_min(0)
        deviance = torch.xlogy(some, some / model) - d + model
        if below_zero:
            deviance -= d.clamp_max(0) * model.log()
        return deviance * (model / (model + extra))

    return 2 * (inside * (weighted(m) - weighted(without_disks))).sum((1, 2), dtype=torch.float64)


def step(state: State, at: Evaluation, damping: Tensor, g: Tensor) -> tuple[State, Tensor]:
    """One damped step, and the gain in deviance that it promises (n,).

    Far from the maximum it is Fisher's step. Where that promises little it is Newton's, if the
    curvature of the counts at hand is that of a maximum: in noise the two curvatures differ, and
    Fisher's step creeps where Newton's arrives.

    Args:
        state: where the step begins.
        at: the evaluation there.
        damping: what is added to the scaled diagonal (n,).
        g: reference nodes (K, 2) in pixels.
    """
    root = torch.diagonal(at.information, dim1=1, dim2=2).clamp_min(1e-30).rsqrt()
    damped = torch.diag_embed(damping[:, None].expand_as(root))
    newton = at.observed_information * root[:, :, None] * root[:, None, :] + damped
    fisher = at.information * root[:, :, None] * root[:, None, :] + damped
    score = root * at.score
    solution = torch.linalg.solve_ex(fisher, score)[0]
    promises_little = (solution * score).sum(1) < MAX_NEWTON_GAIN
    near = promises_little & (torch.linalg.cholesky_ex(newton).info == 0)
    curvature = torch.where(near[:, None, None], newton, fisher)
    solution = root * torch.linalg.solve_ex(curvature, score)[0]
    moved = transformer.positions(solution[:, :4].reshape(-1, 2, 2), solution[:, 4:6], g.double())
    short = (MAX_STEP_PX / moved.norm(dim=-1).amax(1).clamp_min(1e-12)).clamp_max(1.0)
    new = moved_by(state, at, torch.cat([solution[:, :6] * short[:, None], solution[:, 6:]], 1), g)
    # An intensity that cannot fall any further promises nothing.
    dA = torch.maximum(
        at.intensity_score / at.intensity_information, -0.9 * state.intensity.double()
    )
    of_intensity = dA * (2 * at.intensity_score - dA * at.intensity_information)
    return new, (solution * at.score).sum(1) + of_intensity.sum(1)


def moved_by(state: State, at: Evaluation, steps: Tensor, g: Tensor) -> State:
    """The state after steps (n, 7) of (Mxx, Mxy, Myx, Myy, c_x, c_y, b); the intensities follow to
    their conditional maximum.
    """
    dM, dc, db = steps[:, :4].reshape(-1, 2, 2), steps[:, 4:6], steps[:, 6]
    moved = transformer.positions(dM, dc, g.double())
    place = torch.cat([moved, db[:, None, None].expand(*moved.shape[:2], 1)], -1)
    of_stray = at.stray_follows[..., 3] - (at.stray_follows[..., :3] @ place[..., None])[..., 0]
    of_stray = of_stray.clamp(-MAX_STEP_PX, MAX_STEP_PX)
    by_place = (at.intensity_coupling[..., :2] * (moved + of_stray)).sum(-1)
    by_background = at.intensity_coupling[..., 2] * db[:, None]
    dA = (at.intensity_score - by_place - by_background) / at.intensity_information
    dtype = state.M.dtype
    return replace(
        state,
        M=state.M + dM.to(dtype),
        centre=state.centre + dc.to(dtype),
        intensity=positive(state.intensity, dA),
        background_scale=positive(state.background_scale, db),
        stray=state.stray + of_stray.to(dtype),
    )


def following_intensity(state: State, at: Evaluation, nodes: Tensor, start: Tensor) -> Tensor:
    """Intensities (n, K, N) of the diffracted disks, moved from `start` (n, K, 2) to `nodes` (N, 2)
    in pixels, at their conditional maximum to first order.
    """
    coupling = at.intensity_coupling[:, 1:, :2]
    score = at.intensity_score[:, 1:] + (start * coupling).sum(-1)
    change = score[..., None] - coupling @ nodes.to(coupling).T
    return positive(state.intensity[:, 1:, None], change / at.intensity_information[:, 1:, None])


def positive(value: Tensor, change: Tensor) -> Tensor:
    """The value changed, but never below a tenth of what it was, so that it stays positive."""
    return torch.maximum(value + change.to(value.dtype), 0.1 * value)


def refine(
    patterns: Patterns,
    dictionary: Dictionary,
    state: State,
    steps: int = STEPS,
    evaluate: Callable[[Patterns, Dictionary, State], Evaluation] = evaluate,
    tolerance: float = DEVIANCE_TOLERANCE,
) -> tuple[State, Evaluation]:
    """Climb to the maximum of the likelihood.

    Args:
        patterns: the n patterns.
        dictionary: what they are made of.
        state: where the climb begins.
        steps: how many, at most.
        evaluate: that of the transformer: `evaluate`, or `affine.evaluate_warped`.
        tolerance: gain in deviance; a climb ends before a step that promises less.

    Returns:
        The best state of each pattern, and its evaluation.
    """
    best = evaluate(patterns, dictionary, state)
    damping = torch.full_like(best.deviance, FIRST_DAMPING)
    rows = torch.arange(len(damping), device=damping.device)  # patterns that still climb
    for _ in range(steps):
        now, at = state[rows], best[rows]
        trial, gain = step(now, at, damping[rows], dictionary.g)
        # A mask would have the processor wait for a GPU at every tensor that it chooses from.
        on = ((gain >= tolerance) & (damping[rows] <= MAX_DAMPING)).nonzero()[:, 0]
        rows, now, at, trial, gain = rows[on], now[on], at[on], trial[on], gain[on]
        if len(rows) == 0:
            break
        at_trial = evaluate(patterns[rows], dictionary, trial)
        better = at_trial.deviance < at.deviance
        damping[rows] *= torch.where(better, 0.1, 10.0)
        state = state.with_rows(rows, trial.where(better, now))
        best = best.with_rows(rows, at_trial.where(better, at))
        rows = rows[(better | (gain > MAX_HIDDEN_GAIN)).nonzero()[:, 0]]
    return state, best
