"""Disk profiles sampled finer than the detector, and their exact integrals over pixels at any
sub-pixel shift.

A profile is h(x, y) = sum_ij C_ij B(x o - i) B(y o - j), with B the cubic B-spline and o samples
per pixel. A pixel sees its integral over the pixel's area, which is separable: T = W(y) C W(x)^T,
with W the B-spline integrated over a pixel. B-splines: C. de Boor, A Practical Guide to Splines
(1978); the cubic one is written out below.
"""

from __future__ import annotations

import torch
from torch import Tensor

OVERSAMPLING = 3
"""Profile samples per detector pixel."""


def samples(pixels: int) -> int:
    """Samples along an edge of the profile whose patch has this edge: the patch, and two more
    either way.
    """
    return OVERSAMPLING * pixels + 4


_CHUNK = 1024  # patches at a time: what is in hand then stays in the processor's cache


def cubic(u: Tensor) -> Tensor:
    """Cubic B-spline: 2/3 - u^2 + |u|^3 / 2 for |u| <= 1, (2 - |u|)^3 / 6 up to 2, else 0."""
    a = u.abs()
    return torch.where(a < 1, 2 / 3 - a * a + a * a * a / 2, _cube((2 - a).clamp_min(0)) / 6)


def _cube(u: Tensor) -> Tensor:
    return u * u * u  # far faster than u**3


def cubic_integral(u: Tensor) -> Tensor:
    """Integral of the cubic B-spline from minus infinity to u; 0 below -2, 1 above 2."""
    a = u.abs().clamp_max(2)
    half = torch.where(
        a < 1, 2 * a / 3 - _cube(a) / 3 + a * _cube(a) / 8, 0.5 - (2 - a) * _cube(2 - a) / 24
    )
    return 0.5 + torch.sign(u) * half


def weights(shift: Tensor, pixels: int, samples: int, derivative: int = 0) -> Tensor:
    """W (n, pixels, samples), or its first or second derivative with the shift, for shifts (n,) in
    pixels from the patch's centre pixel.

    Row p holds the weights of the profile's samples in pixel p: b(o (p - P/2 - s) - (j - K/2)),
    with b(u) = integral of B over [u - o/2, u + o/2], divided by o so that profiles are densities
    per pixel.
    """
    o = OVERSAMPLING
    # b depends on o p - j only, so each row of W is the same vector moved by o: evaluate it once
    # and view it shifted.
    length = o * (pixels - 1) + samples
    first = -o * (pixels // 2) - (samples - 1 - samples // 2)
    u = (
        torch.arange(first, first + length, device=shift.device, dtype=shift.dtype)
        - o * shift[:, None]
    )
    primitive = (cubic_integral, cubic, cubic_slope)[derivative]
    vector = (primitive(u + o / 2) - primitive(u - o / 2)) * (-o) ** derivative / o
    # Counted this way the samples run backwards: turn them.
    return vector.as_strided((shift.shape[0], pixels, samples), (length, o, 1)).flip(-1)


def cubic_slope(u: Tensor) -> Tensor:
    """Derivative of the cubic B-spline."""
    a = u.abs()
    return torch.sign(u) * torch.where(a < 1, 1.5 * a**2 - 2 * a, -((2 - a).clamp_min(0) ** 2) / 2)


def render(profile: Tensor, shift: Tensor, pixels: int) -> Tensor:
    """Patches (n, pixels, pixels), rows y, of a profile (K, K) at shifts (n, 2)."""
    wx, wy = (weights(shift[:, axis], pixels, profile.shape[-1]) for axis in (0, 1))
    return wy @ profile @ wx.transpose(1, 2)


def adjoint(patches: Tensor, shift: Tensor, samples: int) -> Tensor:
    """sum_n W(y)^T patch W(x), (K, K): the transpose of `render`, summed over patches."""
    total = patches.new_zeros(samples, samples)
    for part, at in zip(patches.split(_CHUNK), shift.split(_CHUNK), strict=True):
        wx, wy = (weights(at[:, axis], patches.shape[-1], samples) for axis in (0, 1))
        total += wy.reshape(-1, samples).T @ (part @ wx).reshape(-1, samples)
    return total


def adjoint_of_flat(intensity: Tensor, shift: Tensor, pixels: int, samples: int) -> Tensor:
    """`adjoint` of patches that hold one value each, intensity (n,): separable, so far cheaper."""
    x, y = (weights(shift[:, axis], pixels, samples).sum(1) for axis in (0, 1))
    return y.T @ (intensity[:, None] * x)


class Table:
    """Patches of profiles (m, S, S) at any shift in [-1/2, 1/2], from exact ones at `PHASES` shifts
    a pixel and their derivatives.

    Between them the second-order expansion errs by |shift|^3 / 6 times the third derivative, with
    |shift| <= 1 / (2 PHASES).
    """

    PHASES = 16

    def __init__(self, profiles: Tensor, pixels: int, offsets: Tensor):
        phase = torch.linspace(
            -0.5, 0.5, self.PHASES + 1, dtype=profiles.dtype, device=profiles.device
        )
        w, s, c = (
            weights(phase, pixels, profiles.shape[-1], derivative) for derivative in range(3)
        )

        def outer(y: Tensor, x: Tensor) -> Tensor:
            full = torch.einsum("apk,mkl,bql->mabpq", y, profiles, x)
            return full[..., offsets[:, 1] + pixels // 2, offsets[:, 0] + pixels // 2].reshape(
                -1, len(offsets)
            )

        # T, T_x, T_y, T_xx, T_xy, T_yy, each (m phases^2, p)
        self.images = torch.stack(
            [outer(w, w), outer(w, s), outer(s, w), outer(w, c), outer(s, s), outer(c, w)], 1
        )

    def __call__(self, shift: Tensor, which: Tensor | int = 0) -> tuple[Tensor, Tensor]:
        """Images (N, 6, p) of the profiles `which` (N,) near the shifts (N, 2), and the expansion
        (N, 3, 6) about them.

        Their product is T in the pixels at `offsets`, dT/dx and dT/dy at the shifts; the last three
        images are the second derivatives.
        """
        cell = ((shift + 0.5) * self.PHASES).round().clamp(0, self.PHASES)
        x, y = (shift + 0.5 - cell / self.PHASES).unbind(1)
        side = self.PHASES + 1
        index = which * side**2 + (cell[:, 1] * side + cell[:, 0]).long()
        one, none = torch.ones_like(x), torch.zeros_like(x)
        # Rows T, T_x, T_y in the columns T, T_x, T_y, T_xx, T_xy, T_yy: one small product a patch.
        rows = [
            one,
            x,
            y,
            x * x / 2,
            x * y,
            y * y / 2,
            none,
            one,
            none,
            x,
            y,
            none,
            none,
            none,
            one,
            none,
            x,
            y,
        ]
        return self.images.index_select(0, index), torch.stack(rows, 1).reshape(-1, 3, 6)
