"""Templates for cross-correlation: the vacuum probe with a trench round it, so that a flat
background correlates to nothing.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor


def padded(size: int, reach: float) -> int:
    """Smallest length, of factors 2, 3, 5 and 7, that keeps a kernel of this `reach` from meeting
    the far border round the back.
    """
    n = size + math.ceil(reach)
    while n // math.gcd(n, 2**20 * 3**10 * 5**8 * 7**6) > 1 or n % 2:
        n += 1
    return n


def template(
    probe: Tensor, radius: float, kind: Literal["flat", "gaussian", "sigmoid"], trench_radii: float
) -> Tensor:
    """Kernel, of the probe's shape, centred on pixel (0, 0): the probe over its sum, less a trench
    over its own.

    Trenches, with r from the probe's centre and R = `radius` in pixels, T = `trench_radii` R:
    "flat" has none; "gaussian" exp(-r^2 / (2 R^2)) inside T; "sigmoid" an annulus from R to T with
    edges of logistic shape, 1 / (1 + exp(-(r - R) / s)) less the same at T, s = R / 10. (Savitzky
    et al., Microsc. Microanal. 27, 712 (2021).)
    """
    height, width = probe.shape
    y, x = torch.meshgrid(
        torch.arange(height).to(probe), torch.arange(width).to(probe), indexing="ij"
    )
    bright = torch.where(probe > 0.1 * probe.max(), probe, 0)
    cx, cy = float((bright * x).sum() / bright.sum()), float((bright * y).sum() / bright.sum())
    r = ((x - cx) ** 2 + (y - cy) ** 2).sqrt()
    outer = trench_radii * radius
    kernel = probe / probe.sum()
    if kind == "gaussian":
        trench = torch.exp(-(r**2) / (2 * radius**2)) * (r <= outer)
        kernel = kernel - trench / trench.sum()
    elif kind == "sigmoid":
        trench = torch.sigmoid((r - radius) * 10 / radius) - torch.sigmoid(
            (r - outer) * 10 / radius
        )
        kernel = kernel - trench / trench.sum()
    return shift(kernel, -cx, -cy)


def smooth(image: Tensor, sigma: float) -> Tensor:
    """The periodic image (Qy, Qx) under a Gaussian of standard deviation `sigma` pixels."""
    fy, fx = _frequencies(image)
    smoothed: Tensor = torch.fft.irfft2(
        torch.fft.rfft2(image) * torch.exp(-2 * (torch.pi * sigma) ** 2 * (fx**2 + fy**2)),
        s=image.shape,
    )
    return smoothed


def shift(image: Tensor, dx: float, dy: float) -> Tensor:
    """The periodic image (Qy, Qx) moved by (dx, dy) pixels, exactly, in Fourier space."""
    fy, fx = _frequencies(image)
    moved: Tensor = torch.fft.irfft2(
        torch.fft.rfft2(image) * torch.exp(-2j * torch.pi * (fx * dx + fy * dy)), s=image.shape
    )
    return moved


def _frequencies(image: Tensor) -> tuple[Tensor, Tensor]:
    """Frequencies of rfft2 in cycles per pixel: along y (Qy, 1) and along x (1, Qx // 2 + 1)."""
    return torch.fft.fftfreq(image.shape[0]).to(image)[:, None], torch.fft.rfftfreq(
        image.shape[1]
    ).to(image)[None]


def spectrum(patterns: Tensor, n: int) -> Tensor:
    """rfft2 (B, n, n // 2 + 1) of patterns (B, Qy, Qx) on n x n pixels; the added pixels hold the
    mean of the pattern's border.
    """
    border = torch.cat(
        [
            patterns[:, :2].flatten(1),
            patterns[:, -2:].flatten(1),
            patterns[..., :2].flatten(1),
            patterns[..., -2:].flatten(1),
        ],
        1,
    )
    found: Tensor = torch.fft.rfft2(patterns - border.mean(1)[:, None, None], s=(n, n))
    return found


def correlate(patterns: Tensor, kernel: Tensor, power: float, shape: tuple[int, ...]) -> Tensor:
    """Correlation (B, Qy, Qx), cut to `shape`, of patterns with a kernel, from their spectra; entry
    q is for the kernel moved to pixel q.

    The product of spectra P enters as P |P|^(power - 1): power 1 is cross-correlation, 0 phase
    correlation, between them hybrid.
    """
    product = patterns * kernel.conj()
    if power < 1:
        magnitude = product.abs()
        floor = 1e-6 * magnitude.amax(
            (-1, -2), keepdim=True
        )  # frequencies that the kernel lacks hold rounding errors alone
        product = torch.where(
            magnitude > floor, product * magnitude.clamp_min(1e-30) ** (power - 1), 0
        )
    n = patterns.shape[-2]
    found: Tensor = torch.fft.irfft2(product, s=(n, n))
    return found[:, : shape[-2], : shape[-1]]
