"""Templates for cross-correlation: the vacuum probe with a trench round it, so that a flat
background correlates to nothing.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

# Points along each side of a pixel over which a trench is averaged, as a detector averages a probe:
# the trench of a disk of 1.4 px, read at pixel centres alone, moves disks by up to 0.1 px.
_SUBPIXELS = 5


def padded(size: int, reach: float) -> int:
    """Length of a periodic pattern on which a kernel does not wrap round to the far border.

    Args:
        size: side of the pattern, pixels.
        reach: half width of the kernel, pixels.

    Returns:
        The smallest even length, of factors 2, 3, 5 and 7, that is at least their sum. The Fourier
        transform is fast on such lengths.
    """
    smooth_numbers = (
        2**20 * 3**10 * 5**8 * 7**6
    )  # any length in use with no other factor divides it
    n = size + math.ceil(reach)
    while n % 2 or smooth_numbers % n:
        n += 1
    return n


def template(
    probe: Tensor, radius: float, kind: Literal["flat", "gaussian", "sigmoid"], trench_radii: float
) -> Tensor:
    """The probe over its sum, less a trench over its own.

    With r the distance from the centre of the probe, R the radius and T = `trench_radii` R, the
    trench is: for "flat" none; for "gaussian" exp(-r^2 / (2 R^2)) inside T; for "sigmoid" an
    annulus from R to T with logistic edges, 1 / (1 + exp(-(r - R) / s)) less the same at T, with
    s = R / 10 (Savitzky et al., Microsc. Microanal. 27, 712 (2021)).

    Args:
        probe: vacuum probe (Qy, Qx), in any unit.
        radius: of a disk, pixels.
        kind: of the trench.
        trench_radii: outer radius of the trench over that of a disk.

    Returns:
        Kernel (Qy, Qx), centred on pixel (0, 0) and periodic.
    """
    height, width = probe.shape
    y, x = torch.meshgrid(
        torch.arange(height).to(probe), torch.arange(width).to(probe), indexing="ij"
    )
    bright = torch.where(probe > 0.1 * probe.max(), probe, 0)
    cx = float((bright * x).sum() / bright.sum())
    cy = float((bright * y).sum() / bright.sum())
    within = (torch.arange(_SUBPIXELS).to(probe) + 0.5) / _SUBPIXELS - 0.5
    r = (
        ((x - cx)[..., None, None] + within) ** 2
        + ((y - cy)[..., None, None] + within[:, None]) ** 2
    ).sqrt()
    outer = trench_radii * radius
    kernel = probe / probe.sum()
    if kind == "flat":
        return shift(kernel, -cx, -cy)
    if kind == "gaussian":
        trench = torch.exp(-(r**2) / (2 * radius**2)) * (r <= outer)
    else:
        trench = torch.sigmoid((r - radius) * 10 / radius) - torch.sigmoid(
            (r - outer) * 10 / radius
        )
    trench = trench.mean((-1, -2))
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
    fy = torch.fft.fftfreq(image.shape[0]).to(image)[:, None]
    fx = torch.fft.rfftfreq(image.shape[1]).to(image)[None]
    return fy, fx


def padded_spectrum(patterns: Tensor, n: int) -> Tensor:
    """rfft2 (B, n, n // 2 + 1) of patterns (B, Qy, Qx), less their background, on n x n pixels; the
    added pixels hold 0.
    """
    spectrum: Tensor = torch.fft.rfft2(patterns, s=(n, n))
    return spectrum


def correlate(patterns: Tensor, kernel: Tensor, power: float, shape: tuple[int, ...]) -> Tensor:
    """Correlation of patterns with a kernel, from their spectra.

    The product of spectra P enters as P |P|^(power - 1).

    Args:
        patterns: spectra (B, n, n // 2 + 1), from `padded_spectrum`.
        kernel: spectrum (n, n // 2 + 1).
        power: 1 is cross-correlation, 0 phase correlation, and between them hybrid.
        shape: (..., Qy, Qx), to which the maps are cut.

    Returns:
        Maps (B, Qy, Qx); the value at q is for the kernel moved to pixel q.
    """
    product = patterns * kernel.conj()
    if power < 1:
        magnitude = product.abs()
        # Frequencies that the kernel lacks hold rounding errors alone.
        floor = 1e-6 * magnitude.amax((-1, -2), keepdim=True)
        whitened = product * magnitude.clamp_min(1e-30) ** (power - 1)
        product = torch.where(magnitude > floor, whitened, 0)
    n = patterns.shape[-2]
    maps: Tensor = torch.fft.irfft2(product, s=(n, n))
    return maps[:, : shape[-2], : shape[-1]]
