"""The image-affine transformer, for comparison: the whole pattern is warped, and the disks with it.

The image I of the dictionary, seen through M, is I(M^-1 (q - c)). Disk k lies at s_k = c + M g_k,
as in the lattice-rigid transformer, but

    m(q) = A_k H(M^-1 (q - s_k)) / det M + b beta(q)

with H the profile integrated over a pixel, so the disk itself is stretched. The division by det M
keeps A_k the counts in the disk.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ccstae.methods.ccstae import spline, transformer
from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.refine import (
    Evaluation,
    OfPixels,
    State,
    relative_deviance,
    with_priors,
)
from ccstae.methods.ccstae.transformer import Patterns

# Grid points a pixel along either axis. Between them the surface is expanded to second order, as in
# spline.PhaseTable.
_PHASES = 16


class Surface:
    """H(x), the integral of a profile over the pixel centred at x, anywhere in a window of
    `pixels`.
    """

    def __init__(self, profile: Tensor, pixels: int):
        self.half = pixels / 2
        points = torch.arange(_PHASES * pixels + 1, dtype=profile.dtype, device=profile.device)
        x = points / _PHASES - self.half
        # One pixel, seen from a disk that is shifted by -x. A slope with x is that with the shift,
        # with the sign turned.
        w = spline.weights(-x, 1, profile.shape[-1])[:, 0]
        slope = -spline.weights(-x, 1, profile.shape[-1], 1)[:, 0]
        bend = spline.weights(-x, 1, profile.shape[-1], 2)[:, 0]

        def outer(y: Tensor, x: Tensor) -> Tensor:
            return (y @ profile @ x.T).reshape(-1)

        H, H_x, H_y = outer(w, w), outer(w, slope), outer(slope, w)
        H_xx, H_xy, H_yy = outer(w, bend), outer(slope, slope), outer(bend, w)
        self.side = len(x)
        self.grid = torch.stack([H, H_x, H_y, H_xx, H_xy, H_yy], -1)

    def __call__(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """H (...) and its gradient (..., 2) at places (..., 2), x and y in pixels from the centre
        of the disk.
        """
        steps = (at + self.half) * _PHASES
        cell = steps.round().clamp(0, self.side - 1)
        ex, ey = ((steps - cell).clamp(-0.5, 0.5) / _PHASES).unbind(-1)
        index = (cell[..., 1] * self.side + cell[..., 0]).long()
        H, Hx, Hy, Hxx, Hxy, Hyy = self.grid[index].unbind(-1)
        gx, gy = Hx + ex * Hxx + ey * Hxy, Hy + ex * Hxy + ey * Hyy
        return H + 0.5 * (ex * (Hx + gx) + ey * (Hy + gy)), torch.stack([gx, gy], -1)


def render_warped(
    direct: Surface, disk: Surface, M: Tensor, offsets: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Unit disks warped by M, and their derivatives.

    With u = M^-1 (q - s), dT/ds_i = -(grad T)_i and dT/dM_ij = -(grad T)_i u_j - T (M^-1)_ji.

    Args:
        direct: the direct beam, disk 0.
        disk: the diffracted disks.
        M: warps (n, 2, 2).
        offsets: pixels of the windows (p, 2).
        shift: places s of the disks in their windows (n, K, 2), pixels.

    Returns:
        T (n, K, p), dT/ds (n, K, 2, p) and, with s held, dT/dM (n, K, 4, p), with M in the order
        xx, xy, yx, yy.
    """
    inverse = torch.linalg.inv(M)
    u = torch.einsum("nij,nkpj->nkpi", inverse, offsets - shift[:, :, None])
    direct_T, direct_slope = direct(u[:, :1])
    disk_T, disk_slope = disk(u[:, 1:])
    T, slope = torch.cat([direct_T, disk_T], 1), torch.cat([direct_slope, disk_slope], 1)
    area = torch.linalg.det(M)
    T = T / area[:, None, None]
    gradient = torch.einsum("nkpj,nji->nkip", slope, inverse) / area[:, None, None, None]
    warp = (
        -(gradient[:, :, :, None] * u.transpose(2, 3)[:, :, None])
        - T[:, :, None, None] * inverse.transpose(1, 2)[:, None, :, :, None]
    )
    return T, -gradient, warp.flatten(2, 3)


def evaluate_warped(patterns: Patterns, dictionary: Dictionary, state: State) -> Evaluation:
    """Deviance, score and Fisher information of n patterns at a state, as `refine.evaluate`, with
    disks that are warped.
    """
    position = transformer.positions(state.M, state.centre, dictionary.g)
    patch = patterns.windows(position, dictionary.offsets)
    d, beta = patch.cut(patterns.counts), patch.cut(patterns.background)
    direct = Surface(dictionary.direct, dictionary.pixels)
    disk = Surface(dictionary.disk, dictionary.pixels)
    shift = patch.shift(position)
    T, by_place, by_M = render_warped(direct, disk, state.M, dictionary.offsets, shift)
    A = state.intensity[..., None]
    m = A * T + state.background_scale[:, None, None] * beta + dictionary.floor
    extra = patterns.error_variance
    w = patch.inside / (m + extra)
    # (n, K, 8, p): slopes of m with A, s_x, s_y, b and M
    basis = torch.cat(
        [T[:, :, None], A[:, :, None] * by_place, beta[:, :, None], A[:, :, None] * by_M], 2
    )
    weighted = basis * w[:, :, None]
    gram = (weighted @ basis.transpose(2, 3)).double()
    score = (weighted @ (d - m)[..., None])[..., 0].double()
    without_disks = patterns.level[:, None, None] * beta + dictionary.floor
    deviance = relative_deviance(d, m, without_disks, extra, patch.inside, patterns.exact)
    return with_priors(OfPixels(deviance, gram, score, gram), patterns, dictionary, state)
