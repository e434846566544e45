"""Disk profiles sampled finer than the detector, and their exact integrals over pixels at any
sub-pixel shift.

A profile is h(x, y) = sum_ij C_ij B(x o - i) B(y o - j), with B the cubic B-spline and o samples
per pixel. A pixel records the integral over its area, which is separable: T = W(y) C W(x)^T, with W
the B-spline integrated over a pixel. B-splines: C. de Boor, A Practical Guide to Splines (1978);
the cubic one is written out below.
"""

from __future__ import annotations

import torch
from torch import Tensor

OVERSAMPLING = 3
"""Profile samples per detector pixel."""
_CHUNK = 1024  # patches at a time, so that what is in hand stays in the processor's cache


def samples(pixels: int) -> int:
    """Samples along an edge of the profile of a patch with this edge: those of the patch, and two
    more on either side.
    """
    return OVERSAMPLING * pixels + 4


def pixels_of(profile: Tensor) -> int:
    """Edge of the patch whose profile (S, S) this is."""
    return (profile.shape[-1] - 4) // OVERSAMPLING


def cubic(u: Tensor) -> Tensor:
    """Cubic B-spline: 2/3 - u^2 + |u|^3 / 2 for |u| <= 1, (2 - |u|)^3 / 6 up to 2, else 0."""
    a = u.abs()
    return torch.where(a < 1, 2 / 3 - a * a + a * a * a / 2, _cube((2 - a).clamp_min(0)) / 6)


def cubic_integral(u: Tensor) -> Tensor:
    """Integral of the cubic B-spline from minus infinity to u; 0 below -2, 1 above 2."""
    a = u.abs().clamp_max(2)
    half = torch.where(
        a < 1, 2 * a / 3 - _cube(a) / 3 + a * _cube(a) / 8, 0.5 - (2 - a) * _cube(2 - a) / 24
    )
    return 0.5 + torch.sign(u) * half


def cubic_slope(u: Tensor) -> Tensor:
    """Derivative of the cubic B-spline."""
    a = u.abs()
    return torch.sign(u) * torch.where(a < 1, 1.5 * a**2 - 2 * a, -((2 - a).clamp_min(0) ** 2) / 2)


def _cube(u: Tensor) -> Tensor:
    return u * u * u  # far faster than u**3


def weights(shift: Tensor, pixels: int, samples: int, derivative: int = 0) -> Tensor:
    """Weights of a profile's samples in the pixels of a patch, along one axis.

    Row p holds b(o (p - P/2 - s) - (j - K/2)) for the samples j, with b(u) the integral of B over
    [u - o/2, u + o/2]. It is divided by o, so that profiles are densities per pixel.

    Args:
        shift: shifts s (n,) in pixels from the middle pixel of the patch.
        pixels: edge P of the patch, odd.
        samples: edge K of the profile.
        derivative: 0 for the weights, 1 or 2 for their first or second derivative with the shift.

    Returns:
        W (n, pixels, samples).
    """
    o = OVERSAMPLING
    # b depends on o p - j only, so each row of W is the same vector moved by o: it is evaluated
    # once, and the rows are views of it.
    length = o * (pixels - 1) + samples
    first = -o * (pixels // 2) - (samples - 1 - samples // 2)
    u = (
        torch.arange(first, first + length, device=shift.device, dtype=shift.dtype)
        - o * shift[:, None]
    )
    primitive = (cubic_integral, cubic, cubic_slope)[derivative]
    vector = (primitive(u + o / 2) - primitive(u - o / 2)) * (-o) ** derivative / o
    # Counted this way the samples run backwards, so they are turned.
    return vector.as_strided((shift.shape[0], pixels, samples), (length, o, 1)).flip(-1)


def render(profile: Tensor, shift: Tensor, pixels: int) -> Tensor:
    """Patches of a profile, T = W(y) C W(x)^T.

    Args:
        profile: samples C (K, K), rows y.
        shift: places (n, 2), x and y in pixels from the middle pixel of the patch.
        pixels: edge P of the patch, odd.

    Returns:
        T (n, P, P), rows y.
    """
    wx = weights(shift[:, 0], pixels, profile.shape[-1])
    wy = weights(shift[:, 1], pixels, profile.shape[-1])
    return wy @ profile @ wx.transpose(1, 2)


def adjoint(patches: Tensor, shift: Tensor, samples: int) -> Tensor:
    """The transpose of `render`, summed over patches (n, P, P): sum_n W(y)^T patch W(x), (K, K)."""
    total = patches.new_zeros(samples, samples)
    for some, at in zip(patches.split(_CHUNK), shift.split(_CHUNK), strict=True):
        wx = weights(at[:, 0], patches.shape[-1], samples)
        wy = weights(at[:, 1], patches.shape[-1], samples)
        total += wy.reshape(-1, samples).T @ (some @ wx).reshape(-1, samples)
    return total


def adjoint_of_flat(intensity: Tensor, shift: Tensor, pixels: int, samples: int) -> Tensor:
    """`adjoint` of patches that hold one value each, intensity (n,). It is separable, so far
    cheaper.
    """
    x = weights(shift[:, 0], pixels, samples).sum(1)
    y = weights(shift[:, 1], pixels, samples).sum(1)
    return y.T @ (intensity[:, None] * x)


class PhaseTable:
    """Patches of profiles at any sub-pixel shift, from a table of exact ones.

    The table holds the patches and their first and second derivatives at `PHASES` shifts a pixel
    along either axis. Between them the patch is expanded to second order, with an error of
    |shift|^3 / 6 times the third derivative, where |shift| <= 1 / (2 PHASES).
    """

    PHASES = 16

    def __init__(self, profiles: Tensor, pixels: int, offsets: Tensor):
        """Make the table of m profiles (m, S, S) in windows of `offsets` (p, 2), which lie in a
        patch of edge `pixels`.
        """
        phase = torch.linspace(
            -0.5, 0.5, self.PHASES + 1, dtype=profiles.dtype, device=profiles.device
        )
        w = weights(phase, pixels, profiles.shape[-1])
        slope = weights(phase, pixels, profiles.shape[-1], 1)
        bend = weights(phase, pixels, profiles.shape[-1], 2)

        def outer(y: Tensor, x: Tensor) -> Tensor:
            patch = torch.einsum("apk,mkl,bql->mabpq", y, profiles, x)
            window = patch[..., offsets[:, 1] + pixels // 2, offsets[:, 0] + pixels // 2]
            return window.reshape(-1, len(offsets))

        T, T_x, T_y = outer(w, w), outer(w, slope), outer(slope, w)
        T_xx, T_xy, T_yy = outer(w, bend), outer(slope, slope), outer(bend, w)
        self.images = torch.stack([T, T_x, T_y, T_xx, T_xy, T_yy], 1)  # (m phases^2, 6, p)

    def __call__(self, shift: Tensor, which: Tensor | int = 0) -> tuple[Tensor, Tensor]:
        """Expansions of the patches about the nearest shift in the table.

        Args:
            shift: shifts (N, 2), x and y in pixels, within [-1/2, 1/2].
            which: the profile of each (N,), or of all.

        Returns:
            Images (N, 6, p) at the nearest shift, in the order T, T_x, T_y, T_xx, T_xy, T_yy, and
            the expansion (N, 3, 6). Their product, expansion @ images, is T, dT/dx and dT/dy at the
            shifts.
        """
        index, expansion = self.nearest(shift, which)
        return self.images.index_select(0, index), expansion

    def nearest(self, shift: Tensor, which: Tensor | int = 0) -> tuple[Tensor, Tensor]:
        """Where the images (N,) of the patches lie in the table, and the expansion (N, 3, 6)."""
        # The images of a patch without a place are some or other, its expansion is NaN.
        cell = ((shift + 0.5) * self.PHASES).nan_to_num().round().clamp(0, self.PHASES)
        x, y = (shift + 0.5 - cell / self.PHASES).unbind(1)
        side = self.PHASES + 1
        index = which * side**2 + (cell[:, 1] * side + cell[:, 0]).long()
        one, zero = torch.ones_like(x), torch.zeros_like(x)
        # One small product a patch: the rows give T, T_x and T_y.
        # fmt: off
        expansion = [
            one,  x,    y,    x * x / 2, x * y, y * y / 2,
            zero, one,  zero, x,         y,     zero,
            zero, zero, one,  zero,      x,     y,
        ]
        # fmt: on
        return index, torch.stack(expansion, 1).reshape(-1, 3, 6)
