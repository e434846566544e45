"""Climbing the Poisson likelihood by Fisher's and Newton's steps, batched over patterns.

Expected counts in the patch of disk k are m = A_k T(q - s_k) + b beta(q), with s_k = c + M g_k.
Free in every pattern are M (4), the centre c (2), the background's level b and the disks'
intensities A_k; the A_k are eliminated disk by disk (Schur complement), so each step solves a 7 x 7
system. Steps are damped (Levenberg-Marquardt) and taken only where they raise the likelihood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ccstae.methods.ccstae import transformer
from ccstae.methods.ccstae.dictionary import Dictionary

STEPS = 12
# gain in deviance that ends a climb: after a step of 0.17 standard deviations, which leaves far
# less
_CONVERGED = 0.03
ROUGHLY = 1.0
"""The same, for climbs that another follows."""
_LARGEST_STEP_PX = 1.5
_AT_A_TIME = {"cpu": 16, "cuda": 2**16}  # patterns: on a CPU what its caches hold
_NEAR = 4.0  # gain in deviance: two standard deviations from the maximum


@dataclass(frozen=True)
class State:
    """Parameters of n patterns."""

    M: Tensor  # (n, 2, 2), F^-T
    centre: Tensor  # (n, 2), pixels
    intensity: Tensor  # (n, K), counts in each disk, the direct beam first
    level: Tensor  # (n,), background in units of the dictionary's
    prior: Tensor  # (n, K), what the dictionary's code expects of the intensities

    @staticmethod
    def join(parts: list[State]) -> State:
        """The states of all parts, one after another."""
        return State(**{k: torch.cat([getattr(part, k) for part in parts]) for k in vars(parts[0])})

    def where(self, mask: Tensor, other: State) -> State:
        """This state where the mask (n,) holds, the other elsewhere."""
        pick = {
            k: torch.where(mask.reshape(-1, *[1] * (v.ndim - 1)), v, getattr(other, k))
            for k, v in vars(self).items()
        }
        return State(**pick)

    def __getitem__(self, rows: slice | Tensor) -> State:
        return State(**{k: v[rows] for k, v in vars(self).items()})


@dataclass(frozen=True)
class Evaluation:
    """Likelihood and its local quadratic model."""

    deviance: Tensor  # (n,)
    # (n, 7, 7), Fisher information of M (xx, xy, yx, yy), c (x, y) and b, intensities eliminated
    normal: Tensor
    slope: Tensor  # (n, 7)
    pull: Tensor  # (n, K), score of the intensities
    own: Tensor  # (n, K), their information
    cross: Tensor  # (n, K, 3), how the score of an intensity falls with (s_x, s_y, b)
    # (n, 7, 7), as `normal`, with the curvature that the counts at hand have; it need not be
    # positive
    curved: Tensor
    # (n, 2, 2), information of the centre in the direct beam alone, its intensity eliminated
    beam: Tensor
    beam_slope: Tensor  # (n, 2)

    @staticmethod
    def join(parts: list[Evaluation]) -> Evaluation:
        """The evaluations of all parts, one after another."""
        return Evaluation(
            **{k: torch.cat([getattr(part, k) for part in parts]) for k in vars(parts[0])}
        )

    def __getitem__(self, rows: slice | Tensor) -> Evaluation:
        return Evaluation(**{k: v[rows] for k, v in vars(self).items()})


def evaluate(counts: Tensor, dictionary: Dictionary, state: State) -> Evaluation:
    """Deviance, score and Fisher information of patterns (n, Qy, Qx) at a state."""
    size = _AT_A_TIME[counts.device.type]
    parts = [slice(i, i + size) for i in range(0, len(counts), size)]
    return Evaluation.join([_evaluate(counts[part], dictionary, state[part]) for part in parts])


def _evaluate(counts: Tensor, dictionary: Dictionary, state: State) -> Evaluation:
    position = transformer.positions(state.M, state.centre, dictionary.g)
    patch = transformer.patches(position, dictionary.offsets, (counts.shape[-2], counts.shape[-1]))
    d, beta = patch.cut(counts), patch.cut(dictionary.background)
    images, expansion = dictionary.images_near(patch.shift(position))
    A = state.intensity[..., None]
    expansion[:, 1:] *= A.reshape(-1, 1, 1)
    disks = (expansion @ images).unflatten(0, d.shape[:2])  # (n, K, 3, p): T, A T_x, A T_y
    m = (state.level[:, None, None] * beta).addcmul_(A, disks[:, :, 0]).add_(dictionary.floor)
    extra = error_variance(dictionary, state)
    w = patch.inside / (m + extra)
    deviance = excess(d, m, beta + dictionary.floor, extra, patch.inside)
    basis = torch.cat([disks, beta[:, :, None], (d - m)[:, :, None]], 2).flatten(
        0, 1
    )  # (n K, 5, p)
    hit = ((d + extra) * w).reshape(len(basis), 1, -1)  # counts over those expected
    root = w.sqrt_().reshape(len(basis), 1, -1)
    basis *= root
    sums = (basis[:, :4] @ basis.transpose(1, 2)).double().unflatten(0, d.shape[:2])
    gram, score = sums[..., :4], sums[..., 4]
    met = ((basis[:, :4] * hit) @ basis[:, :4].transpose(1, 2)).double().unflatten(0, d.shape[:2])
    bend = (
        (root.mul_(basis[:, 4:]) @ images[:, 3:].transpose(1, 2)).reshape(*d.shape[:2], 3).double()
    )  # residuals with T_xx, T_xy, T_yy
    stiffness, pulled = prior_on_intensity(dictionary, state)
    own = gram[:, :, 0, 0] + stiffness
    pull = score[:, :, 0] - stiffness * pulled
    deviance = deviance + (stiffness * pulled**2).sum(1)
    moves = lattice_moves(dictionary.g)
    normal = total_information(gram[..., 1:, 1:], gram[..., 0, 1:], own, moves)
    # The curvature of the counts at hand: pixels weigh by those seen, and residuals by the model's
    # second derivatives.
    seen, cross = met[..., 1:, 1:], met[..., 0, 1:]
    seen[..., :2, :2] -= A[..., None].double() * bend[..., [0, 1, 1, 2]].unflatten(-1, (2, 2))
    cross[..., :2] -= score[..., 1:3] / A.double()
    curved = total_information(seen, cross, met[..., 0, 0] + stiffness, moves)
    slope = score[:, :, 1:] - cross * (pull / own)[..., None]
    total = slope.flatten(1) @ moves.flatten(0, 1)
    total[:, 6] -= (state.level - 1).double()
    deviance = deviance + (state.level - 1).double() ** 2
    beam = eliminated(gram[:, 0, 1:3, 1:3], gram[:, 0, 0, 1:3], own[:, 0])
    return Evaluation(deviance, normal, total, pull, own, cross, curved, beam, slope[:, 0, :2])


def lattice_moves(g: Tensor) -> Tensor:
    """How (s_x, s_y, b) of every disk follow (Mxx, Mxy, Myx, Myy, c_x, c_y, b): (K, 3, 7), float64,
    from s = c + M g.
    """
    moves = torch.zeros(len(g), 3, 7, dtype=torch.float64, device=g.device)
    for axis in (0, 1):
        moves[:, axis, 2 * axis : 2 * axis + 2], moves[:, axis, 4 + axis] = g.double(), 1.0
    moves[:, 2, 6] = 1.0
    return moves


def eliminated(rest: Tensor, cross: Tensor, own: Tensor) -> Tensor:
    """Information (..., a, a) of a disk's other parameters, its intensity unknown: that of it is
    own (...), mixed cross (..., a).
    """
    return rest - cross[..., :, None] * (cross / own[..., None])[..., None, :]


def total_information(rest: Tensor, cross: Tensor, own: Tensor, moves: Tensor) -> Tensor:
    """Information (n, 7, 7) from the disks, intensities eliminated: rest (n, K, a, a), cross (n, K,
    a), own (n, K), moves (K, a, 7).

    The level is held to the dictionary's within a factor of about two: at low dose its pixels are
    nearly empty.
    """
    total = moves.flatten(0, 1).T @ (eliminated(rest, cross, own) @ moves).flatten(1, 2)
    total[:, 6, 6] += 1.0
    return total


def prior_on_intensity(dictionary: Dictionary, state: State) -> tuple[Tensor, Tensor]:
    """The dictionary's code holds the intensities, within the spread that it has learned:
    precisions and departures, (n, K).
    """
    return 1 / (dictionary.spread * state.prior.clamp_min(1e-3)).double() ** 2, (
        state.intensity - state.prior
    ).double()


def inverse(matrix: Tensor) -> Tensor:
    """Inverse of positive definite matrices (n, m, m) whose rows have units of their own."""
    scale = torch.diagonal(matrix, dim1=1, dim2=2).clamp_min(1e-30).rsqrt()
    return (
        torch.linalg.inv(matrix * scale[:, :, None] * scale[:, None, :])
        * scale[:, :, None]
        * scale[:, None, :]
    )


def covariance_of_M(normal: Tensor) -> Tensor:
    """Covariance (n, 4, 4) of M (xx, xy, yx, yy), centre and level unknown, from the information
    (n, 7, 7).
    """
    return inverse(normal)[:, :4, :4]


def error_variance(dictionary: Dictionary, state: State) -> Tensor:
    """Variance (n, K, 1) of what the model leaves out, beside that of the counts: constant over a
    disk. It decides in noise-free data.
    """
    return ((dictionary.error * dictionary.peak * state.prior) ** 2)[..., None]


def excess(d: Tensor, m: Tensor, without: Tensor, extra: Tensor, inside: Tensor) -> Tensor:
    """Deviance (n,) of counts d from the model m less that from a pattern without disks, all (n, K,
    p).

    Pixels beyond a disk cancel, so that nothing changes when the disk's window moves on by a pixel
    and other ones come in. Without that the deviance has steps of several units, and climbs end on
    them.
    """
    if not extra.any():
        gain = (
            torch.log(m / without).mul_(d).sub_(m).add_(without)
        )  # not in place: autograd and callers keep m
        return -2 * (gain * inside).sum((1, 2), dtype=torch.float64)
    # A variance beside the counts' own lowers a pixel's weight, of either deviance by itself: a
    # weight on their difference would pull. d log(d / m) - d + m is zero for d = m and keeps its
    # digits at high counts.
    here, there = (
        (torch.xlogy(d, d / model) - d + model) * (model / (model + extra))
        for model in (m, without)
    )
    return 2 * (inside * (here - there)).sum((1, 2), dtype=torch.float64)


def step(state: State, at: Evaluation, damping: Tensor, g: Tensor) -> tuple[State, Tensor]:
    """One damped step, and the gain in deviance that it promises (n,).

    Fisher's step from afar. Where it promises little, Newton's, if the curvature of the counts at
    hand is that of a maximum: in noise the two curvatures differ, and the former creeps where the
    latter arrives.
    """
    root = torch.diagonal(at.normal, dim1=1, dim2=2).clamp_min(1e-30).rsqrt()
    damped = torch.diag_embed(damping[:, None].expand_as(root))
    newton, fisher = (
        matrix * root[:, :, None] * root[:, None, :] + damped for matrix in (at.curved, at.normal)
    )
    slope = root * at.slope
    solution = torch.linalg.solve(fisher, slope)
    near = ((solution * slope).sum(1) < _NEAR) & (torch.linalg.cholesky_ex(newton).info == 0)
    solution = root * torch.linalg.solve(torch.where(near[:, None, None], newton, fisher), slope)
    moved = transformer.positions(solution[:, :4].reshape(-1, 2, 2), solution[:, 4:6], g.double())
    short = (_LARGEST_STEP_PX / moved.norm(dim=-1).amax(1).clamp_min(1e-12)).clamp_max(1.0)
    new = moved_by(state, at, torch.cat([solution[:, :6] * short[:, None], solution[:, 6:]], 1), g)
    return new, (solution * at.slope).sum(1) + (at.pull**2 / at.own).sum(1)


def moved_by(state: State, at: Evaluation, steps: Tensor, g: Tensor) -> State:
    """The state after steps (n, 7) of (Mxx, Mxy, Myx, Myy, c_x, c_y, b); the intensities follow to
    their conditional maximum.
    """
    dM, dc, db = steps[:, :4].reshape(-1, 2, 2), steps[:, 4:6], steps[:, 6]
    moved = transformer.positions(dM, dc, g.double())
    dA = (at.pull - (at.cross[..., :2] * moved).sum(-1) - at.cross[..., 2] * db[:, None]) / at.own
    dtype = state.M.dtype
    return replace(
        state,
        M=state.M + dM.to(dtype),
        centre=state.centre + dc.to(dtype),
        intensity=positive(state.intensity, dA),
        level=positive(state.level, db),
    )


def following(state: State, at: Evaluation, moved: Tensor) -> Tensor:
    """Intensities (n, K, N) of the diffracted disks, moved by (n, K, N, 2) pixels, at their
    conditional maximum, to first order.
    """
    start, pull, own, cross = (
        state.intensity[:, 1:],
        at.pull[:, 1:],
        at.own[:, 1:],
        at.cross[:, 1:, :2],
    )
    change = (pull[..., None] - (moved.double() @ cross[..., None])[..., 0]) / own[..., None]
    return positive(start[..., None], change)


def positive(value: Tensor, change: Tensor) -> Tensor:
    """The value changed, but never below a tenth of what it was: intensities stay positive."""
    return torch.maximum(value + change.to(value.dtype), 0.1 * value)


def refine(
    counts: Tensor,
    dictionary: Dictionary,
    state: State,
    steps: int = STEPS,
    evaluate: Callable[[Tensor, Dictionary, State], Evaluation] = evaluate,
    converged: float = _CONVERGED,
) -> tuple[State, Evaluation]:
    """Climb to the maximum of the likelihood, until a step gains less than `converged` in deviance;
    the state and its evaluation.

    `evaluate` is that of the transformer.
    """
    best = evaluate(counts, dictionary, state)
    damping = torch.full_like(best.deviance, 1e-3)
    active = torch.ones_like(best.deviance, dtype=torch.bool)
    for _ in range(steps):
        rows = active.nonzero()[:, 0]
        if len(rows) == 0:
            break
        local = best[rows]
        trial, gain = step(state[rows], local, damping[rows], dictionary.g)
        found = evaluate(counts if len(rows) == len(counts) else counts[rows], dictionary, trial)
        better = found.deviance < local.deviance
        kept = trial.where(better, state[rows])
        state = State(
            **{k: v.index_copy(0, rows, getattr(kept, k)) for k, v in vars(state).items()}
        )
        chosen = {}
        for k, v in vars(best).items():
            mask = better.reshape(-1, *[1] * (v.ndim - 1))
            chosen[k] = v.index_copy(
                0, rows, torch.where(mask, getattr(found, k), getattr(local, k))
            )
        best = Evaluation(**chosen)
        damping[rows] = torch.where(better, damping[rows] / 10, damping[rows] * 10)
        # Counts of noise-free data are so high that rounding hides the last gains.
        done = (
            (gain < converged) | (~better & (gain < 1e-4 * local.deviance)) | (damping[rows] > 1e3)
        )
        active[rows[done]] = False
    return state, best
