"""The shape of the probe: the profile of a disk, sampled finer than the detector, from pictures of
it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ccstae.methods.ccstae import spline
from ccstae.methods.shared import beams

ITERATIONS = 60
# Of the rim of the disk, whose edge is no noise. It also lies there if the semiangle is wrong by a
# tenth.
RIM_PX = 1.5
MIN_INNER_PIXELS = 12  # twice as many as a parabola has terms


def probe_px(probe: Tensor, nominal: tuple[float, float], radius_px: float) -> tuple[float, float]:
    """Where the vacuum probe (Qy, Qx) lies on its picture, (x, y): its centre of mass, or the
    nominal place where the border cuts the probe there.
    """
    sums = beams.box_sums(probe[None], radius_px)
    x, y = beams.direct_beam(probe[None], sums, radius_px)[0].tolist()
    height, width = probe.shape
    cut = min(x, y, width - 1 - x, height - 1 - y) < 2 * radius_px
    return nominal if cut and math.dist(nominal, (x, y)) < radius_px else (x, y)


def electrons_of(probe: Tensor, centre: tuple[float, float], radius_px: float) -> float:
    """How many electrons made the picture of a probe, whatever its unit: as many as vary as its
    pixels do about a parabola, well inside the disk. Infinity where too few pixels lie there.

    A probe that is not quite even seems to hold fewer: 2e5 for one that varies by 2 %.

    Args:
        probe: vacuum probe (Qy, Qx), in any unit.
        centre: its place (x, y) in pixels.
        radius_px: of its disk.
    """
    height, width = probe.shape
    y = (torch.arange(height, device=probe.device, dtype=torch.float64) - centre[1]) / radius_px
    x = (torch.arange(width, device=probe.device, dtype=torch.float64) - centre[0]) / radius_px
    y, x = torch.meshgrid(y, x, indexing="ij")
    inner = torch.hypot(x, y) * radius_px < radius_px - RIM_PX
    pixels = int(inner.sum())
    if pixels < MIN_INNER_PIXELS:
        return math.inf
    x, y, values = x[inner], y[inner], probe[inner].double()
    terms = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], 1)
    rest = values - terms @ torch.linalg.lstsq(terms, values[:, None]).solution[:, 0]
    variance = float(rest.square().sum()) / (pixels - terms.shape[1])
    return float(probe.sum() * values.mean()) / max(variance, torch.finfo(torch.float64).tiny)


def from_probe(probe: Tensor, centre: tuple[float, float], pixels: int) -> Tensor:
    """Profile (S, S) of a disk from the vacuum probe; its patch sums to 1.

    Args:
        probe: vacuum probe (Qy, Qx), in any unit.
        centre: its place (x, y) in pixels, on the detector. The border may cut the probe.
        pixels: edge of its patch.
    """
    half = pixels // 2
    cx, cy = round(centre[0]), round(centre[1])
    y = torch.arange(cy - half, cy + half + 1, device=probe.device)
    x = torch.arange(cx - half, cx + half + 1, device=probe.device)
    height, width = probe.shape
    known = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))
    patch = probe[y.clamp(0, height - 1)][:, x.clamp(0, width - 1)]
    shift = torch.tensor([[centre[0] - cx, centre[1] - cy]], dtype=probe.dtype, device=probe.device)
    return deconvolved(patch[None], known[None], shift)


def deconvolved(patches: Tensor, known: Tensor, shift: Tensor) -> Tensor:
    """Profile of a disk from pictures of it, by Richardson-Lucy deconvolution from a round start.

    The start is the radial mean of the pictures, which many pixels at many distances from the
    centre sample finer than one pixel. Each round is C <- C W^T(d / m) / W^T 1, with m = W C the
    rendered profile and d the pictures (W. H. Richardson, J. Opt. Soc. Am. 62, 55 (1972); L. B.
    Lucy, Astron. J. 79, 745 (1974)).

    Args:
        patches: the n pictures (n, P, P), in one unit.
        known: where they show something, (n, P, P); elsewhere their radial mean stands for them.
        shift: places of the disk (n, 2), x and y in pixels from the middle pixel.

    Returns:
        Profile (S, S) whose patch sums to 1.
    """
    n, pixels, _ = patches.shape
    samples = spline.samples(pixels)
    at = (torch.arange(samples, device=patches.device) - samples // 2) / spline.OVERSAMPLING
    r = torch.hypot(at[:, None], at[None, :])
    steps = torch.arange(pixels, device=patches.device) - pixels // 2
    x, y = steps - shift[:, 0, None, None], steps[:, None] - shift[:, 1, None, None]
    distance = torch.hypot(y, x)
    order = distance[known].argsort()
    # As many neighbours as in one picture would be five.
    profile = _interpolate(r, distance[known][order], patches[known][order], 4 * n + 1)
    patches = torch.where(known, patches, spline.render(profile, shift, pixels))
    share = spline.adjoint_of_flat(torch.ones_like(shift[:, 0]), shift, pixels, samples)
    for _ in range(ITERATIONS):
        model = spline.render(profile, shift, pixels)
        profile = profile * spline.adjoint(patches / model.clamp_min(1e-12), shift, samples)
        profile = profile / share.clamp_min(1e-6)
    return normalised(profile)


def normalised(profile: Tensor) -> Tensor:
    """The profile scaled so that its patch sums to 1."""
    # Denormal numbers are slow, so there are none.
    return (profile / profile.sum() * spline.OVERSAMPLING**2).clamp_min(1e-12)


def _interpolate(x: Tensor, known: Tensor, values: Tensor, width: int) -> Tensor:
    """Linear interpolation at x of (known, values), each a running mean over `width` neighbours."""
    smooth_known, smooth_values = _running_mean(known, width), _running_mean(values, width)
    index = torch.searchsorted(smooth_known, x.contiguous()).clamp(1, len(known) - 1)
    x0, x1 = smooth_known[index - 1], smooth_known[index]
    t = ((x - x0) / (x1 - x0).clamp_min(1e-9)).clamp(0, 1)
    return torch.lerp(smooth_values[index - 1], smooth_values[index], t)


def _running_mean(values: Tensor, width: int) -> Tensor:
    """Mean over `width` neighbours (odd) of values (n,); the ends repeat."""
    kernel = torch.ones(1, 1, width, dtype=values.dtype, device=values.device) / width
    wide = torch.nn.functional.pad(values[None, None], (width // 2, width // 2), mode="replicate")
    return torch.nn.functional.conv1d(wide, kernel)[0, 0].contiguous()
