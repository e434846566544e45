"""The image-affine transformer, for comparison: the whole pattern is warped, and the disks with it.

The image I of the dictionary, seen through M, is I(M^-1 (q - c)). Disk k lies at s_k = c + M g_k,
as in the lattice-rigid transformer, but

    m(q) = A_k H(M^-1 (q - s_k)) / det M + b beta(q)

with H the profile integrated over a pixel: the disk itself is stretched. Divided by det M, A_k
stays the counts in the disk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ccstae.methods.ccstae import spline, transformer
from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.refine import (
    Evaluation,
    State,
    eliminated,
    error_variance,
    excess,
    lattice_moves,
    prior_on_intensity,
    total_information,
)

# grid points a pixel along either axis, between which the surface is expanded to second order, as
# in spline.Table
_PHASES = 16


class Surface:
    """H(x), the profile's integral over the pixel centred at x, at any place in a window of
    `pixels`.
    """

    def __init__(self, profile: Tensor, pixels: int):
        self.half = pixels / 2
        x = (
            torch.arange(_PHASES * pixels + 1, dtype=profile.dtype, device=profile.device) / _PHASES
            - self.half
        )
        # One pixel, seen from a disk that is shifted by -x; slopes with x are those with the shift,
        # turned.
        w, s, c = (
            spline.weights(-x, 1, profile.shape[-1], derivative)[:, 0] for derivative in range(3)
        )
        pairs = (
            (w, w),
            (w, -s),
            (-s, w),
            (w, c),
            (-s, -s),
            (c, w),
        )  # H, H_x, H_y, H_xx, H_xy, H_yy
        self.side = len(x)
        self.grid = torch.stack([(y @ profile @ x.T).reshape(-1) for y, x in pairs], -1)

    def __call__(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """H (...) and its gradient (..., 2) at places (..., 2), x and y in pixels from the disk's
        centre.
        """
        steps = (at + self.half) * _PHASES
        cell = steps.round().clamp(0, self.side - 1)
        e = (steps - cell).clamp(-0.5, 0.5) / _PHASES
        H, Hx, Hy, Hxx, Hxy, Hyy = self.grid[
            (cell[..., 1] * self.side + cell[..., 0]).long()
        ].unbind(-1)
        ex, ey = e.unbind(-1)
        gx, gy = Hx + ex * Hxx + ey * Hxy, Hy + ex * Hxy + ey * Hyy
        return H + 0.5 * (ex * (Hx + gx) + ey * (Hy + gy)), torch.stack([gx, gy], -1)


def render(
    direct: Surface, disk: Surface, M: Tensor, offsets: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Unit disks T (n, K, p) in windows of `offsets` (p, 2) at shifts s (n, K, 2), warped by M (n,
    2, 2), and their derivatives.

    dT/ds (n, K, 2, p) and, with s held, dT/dM (n, K, 4, p), M in the order xx, xy, yx, yy. With u =
    M^-1 (q - s), dT/ds_i = -(grad T)_i and dT/dM_ij = -(grad T)_i u_j - T (M^-1)_ji.
    """
    inverse = torch.linalg.inv(M)
    u = torch.einsum("nij,nkpj->nkpi", inverse, offsets - shift[:, :, None])
    T, slope = (torch.cat([a, b], 1) for a, b in zip(direct(u[:, :1]), disk(u[:, 1:]), strict=True))
    area = torch.linalg.det(M)
    T = T / area[:, None, None]
    gradient = torch.einsum("nkpj,nji->nkip", slope, inverse) / area[:, None, None, None]
    warp = (
        -(gradient[:, :, :, None] * u.transpose(2, 3)[:, :, None])
        - T[:, :, None, None] * inverse.transpose(1, 2)[:, None, :, :, None]
    )
    return T, -gradient, warp.flatten(2, 3)


def evaluate(counts: Tensor, dictionary: Dictionary, state: State) -> Evaluation:
    """Deviance, score and Fisher information of patterns (n, Qy, Qx) at a state, as
    `refine.evaluate`, with disks that are warped.
    """
    position = transformer.positions(state.M, state.centre, dictionary.g)
    patch = transformer.patches(position, dictionary.offsets, (counts.shape[-2], counts.shape[-1]))
    d, beta = patch.cut(counts), patch.cut(dictionary.background)
    direct, disk = (
        Surface(profile, dictionary.pixels) for profile in (dictionary.direct, dictionary.disk)
    )
    T, by_place, by_M = render(direct, disk, state.M, dictionary.offsets, patch.shift(position))
    A = state.intensity[..., None]
    m = A * T + state.level[:, None, None] * beta + dictionary.floor
    extra = error_variance(dictionary, state)
    w = patch.inside / (m + extra)
    basis = torch.cat(
        [T[:, :, None], A[:, :, None] * by_place, beta[:, :, None], A[:, :, None] * by_M], 2
    )  # (n, K, 8, p)
    weighted = basis * w[:, :, None]
    gram = (weighted @ basis.transpose(2, 3)).double()
    score = (weighted @ (d - m)[..., None])[..., 0].double()
    stiffness, pulled = prior_on_intensity(dictionary, state)
    own, pull = gram[:, :, 0, 0] + stiffness, score[:, :, 0] - stiffness * pulled
    cross = gram[:, :, 0, 1:]
    slope = score[:, :, 1:] - cross * (pull / own)[..., None]
    # From (s_x, s_y, b, M) of a disk to (M, c, b): s = c + M g.
    moves = lattice_moves(dictionary.g)
    moves = torch.cat(
        [moves, torch.eye(4, 7, dtype=moves.dtype, device=moves.device).expand(len(moves), 4, 7)], 1
    )
    normal = total_information(gram[:, :, 1:, 1:], cross, own, moves)
    total = slope.flatten(1) @ moves.flatten(0, 1)
    total[:, 6] -= (state.level - 1).double()
    deviance = excess(d, m, beta + dictionary.floor, extra, patch.inside)
    deviance = deviance + (stiffness * pulled**2).sum(1) + (state.level - 1).double() ** 2
    beam = eliminated(gram[:, 0, 1:3, 1:3], cross[:, 0, :2], own[:, 0])
    # A disk that is stretched keeps its counts, so what couples A to M beyond the disk's place is
    # left out of steps.
    return Evaluation(
        deviance, normal, total, pull, own, cross[..., :3], normal, beam, slope[:, 0, :2]
    )
