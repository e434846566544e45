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
from typing import Self

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ccstae.methods.ccstae import transformer
from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.transformer import Patterns

STEPS = 12
"""Steps of a climb, at most."""
# Gain in deviance that ends a climb. It is that of a step of 0.17 standard deviations, after which
# far less is left.
DEVIANCE_TOLERANCE = 0.03
ROUGH_DEVIANCE_TOLERANCE = 1.0
"""The same for climbs that another one follows."""
MAX_STEP_PX = 1.5  # movement of any disk in one step
MAX_NEWTON_GAIN = 4.0  # in deviance: within two standard deviations of the maximum
MAX_DAMPING = 1e3  # a climb that needs more has arrived
# Steps after which patterns that have arrived are left out. To choose them waits for a GPU, where a
# step of all costs little more than one of some.
_STEPS_TOGETHER = {"cpu": 1, "cuda": 2}
_AT_A_TIME = {"cpu": 16, "cuda": 2**16}  # patterns; on a CPU as many as its caches hold


class OfPatterns:
    """What dataclasses have in common whose fields all hold a row for each of n patterns."""

    @classmethod
    def join(cls, parts: list[Self]) -> Self:
        """All parts, one after another."""
        return cls(**{k: torch.cat([getattr(part, k) for part in parts]) for k in vars(parts[0])})

    def where(self, mask: Tensor, other: Self) -> Self:
        """These rows where the mask (n,) holds, those of `other` elsewhere."""

        def chosen(name: str, values: Tensor) -> Tensor:
            shape = (-1, *[1] * (values.ndim - 1))
            return torch.where(mask.reshape(shape), values, getattr(other, name))

        return type(self)(**{k: chosen(k, v) for k, v in vars(self).items()})

    def with_rows(self, rows: Tensor, other: Self) -> Self:
        """The same with those of `other` in these rows."""
        return type(self)(
            **{k: v.index_copy(0, rows, getattr(other, k)) for k, v in vars(self).items()}
        )

    def __getitem__(self, rows: slice | Tensor) -> Self:
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


def evaluate(patterns: Patterns, dictionary: Dictionary, state: State) -> Evaluation:
    """Deviance, score and information of patterns at a state, with disks that keep their shape.

    Args:
        patterns: the n patterns.
        dictionary: what they are made of.
        state: their parameters.

    Returns:
        The evaluation of the n patterns.
    """
    size = _AT_A_TIME[patterns.counts.device.type]
    if len(patterns) <= size:
        return _evaluate(patterns, dictionary, state)
    parts = [slice(i, i + size) for i in range(0, len(patterns), size)]
    return Evaluation.join([_evaluate(patterns[part], dictionary, state[part]) for part in parts])


def _evaluate(patterns: Patterns, dictionary: Dictionary, state: State) -> Evaluation:
    position = transformer.positions(state.M, state.centre, dictionary.g) + state.stray
    patch = patterns.windows(position, dictionary.offsets)
    d, beta = patch.cut(patterns.counts), patch.cut(patterns.background)
    images, expansion = dictionary.images_near(patch.shift(position))
    A = state.intensity[..., None]
    expansion[:, 1:] *= A.reshape(-1, 1, 1)
    disks = (expansion @ images).unflatten(0, d.shape[:2])  # (n, K, 3, p): T, A T_x, A T_y
    m = state.background_scale[:, None, None] * beta
    m = m.addcmul_(A, disks[:, :, 0]).add_(dictionary.floor)
    without_disks = patterns.level[:, None, None] * beta + dictionary.floor
    once = patch.inside
    if dictionary.touching:
        own = A * disks[:, :, 0]
        m = m + patch.together(own, patterns.counts) - own * patch.inside
        # A pixel of several windows tells of each of their disks, but counts once.
        once = once / patch.together(torch.ones_like(own), patterns.counts).clamp_min(1)
        beta = beta * once
    extra = patterns.error_variance
    w = patch.inside / (m + extra)
    deviance = relative_deviance(d, m, without_disks, extra, once, patterns.exact)
    # (n K, 5, p): slopes of m with A, s_x, s_y and b, and the residual
    basis = torch.cat([disks, beta[:, :, None], (d - m)[:, :, None]], 2).flatten(0, 1)
    ratio = ((d + extra) * w).reshape(len(basis), 1, -1)  # counts over those expected
    root = w.sqrt_().reshape(len(basis), 1, -1)
    basis *= root
    slopes, residual = basis[:, :4], basis[:, 4:]
    products = (slopes @ basis.transpose(1, 2)).double().unflatten(0, d.shape[:2])
    gram, score = products[..., :4], products[..., 4]
    observed = ((slopes * ratio) @ slopes.transpose(1, 2)).double().unflatten(0, d.shape[:2])
    # residuals times T_xx, T_xy, T_yy
    bend = root.mul_(residual) @ images[:, 3:].transpose(1, 2)
    bend = bend.reshape(*d.shape[:2], 3).double()
    precision, departure = prior_on_intensity(dictionary, state)
    intensity_information = gram[:, :, 0, 0] + precision
    intensity_score = score[:, :, 0] - precision * departure
    deviance = deviance + (precision * departure**2).sum(1)
    moves = lattice_moves(dictionary.g)
    disk_information = eliminated(gram[..., 1:, 1:], gram[..., 0, 1:], intensity_information)
    # The curvature of the counts at hand: pixels weigh by the counts they hold, and residuals by
    # the second derivatives of the model.
    observed_rest, coupling = observed[..., 1:, 1:], observed[..., 0, 1:]
    bend_xx, bend_xy, bend_yy = bend.unbind(-1)
    bends = torch.stack([bend_xx, bend_xy, bend_xy, bend_yy], -1).unflatten(-1, (2, 2))
    observed_rest[..., :2, :2] -= A[..., None].double() * bends
    coupling[..., :2] -= score[..., 1:3] / A.double()
    observed_disks = eliminated(observed_rest, coupling, observed[..., 0, 0] + precision)
    disk_score = score[:, :, 1:] - coupling * (intensity_score / intensity_information)[..., None]
    follow = disk_information.new_zeros(*A.shape[:2], 2, 4)
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
    information = total_information(disk_information, moves, patterns.level)
    observed_information = total_information(observed_disks, moves, patterns.level)
    total_score = disk_score.flatten(1) @ moves.flatten(0, 1)
    off_level = (state.background_scale / patterns.level - 1).double()
    total_score[:, 6] -= off_level / patterns.level
    deviance = deviance + off_level**2
    return Evaluation(
        deviance=deviance,
        information=information,
        score=total_score,
        intensity_score=intensity_score,
        intensity_information=intensity_information,
        intensity_coupling=coupling,
        observed_information=observed_information,
        disk_score=disk_score,
        disk_information=disk_information,
        stray_follows=follow,
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
    gain = (solution * at.score).sum(1) + (at.intensity_score**2 / at.intensity_information).sum(1)
    return new, gain


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


def following_intensity(state: State, at: Evaluation, moved: Tensor) -> Tensor:
    """Intensities (n, K, N) of the diffracted disks, moved by (n, K, N, 2) pixels, at their
    conditional maximum to first order.
    """
    coupling = at.intensity_coupling[:, 1:, :2]
    score = at.intensity_score[:, 1:, None] - (moved.double() @ coupling[..., None])[..., 0]
    change = score / at.intensity_information[:, 1:, None]
    return positive(state.intensity[:, 1:, None], change)


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
        tolerance: gain in deviance below which a climb ends.

    Returns:
        The best state of each pattern, and its evaluation.
    """
    best = evaluate(patterns, dictionary, state)
    damping = torch.full_like(best.deviance, 1e-3)
    active = torch.ones_like(best.deviance, dtype=torch.bool)
    together = _STEPS_TOGETHER[patterns.counts.device.type]
    for taken in range(0, steps, together):
        rows = active.nonzero()[:, 0]
        if len(rows) == 0:
            break
        some = patterns if len(rows) == len(patterns) else patterns[rows]
        now, at, damped, climbing = state[rows], best[rows], damping[rows], active[rows]
        for _ in range(min(together, steps - taken)):
            trial, gain = step(now, at, damped, dictionary.g)
            at_trial = evaluate(some, dictionary, trial)
            better = climbing & (at_trial.deviance < at.deviance)
            damped = torch.where(better, damped / 10, damped * 10)
            # Counts of noise-free data are so high that rounding hides the last gains.
            lost_in_rounding = ~better & (gain < 1e-4 * at.deviance)
            climbing = climbing & ~((gain < tolerance) | lost_in_rounding | (damped > MAX_DAMPING))
            now, at = trial.where(better, now), at_trial.where(better, at)
        state, best = state.with_rows(rows, now), best.with_rows(rows, at)
        damping[rows], active[rows] = damped, climbing
    return state, best
