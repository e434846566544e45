"""The dictionary: what patterns look like before they are deformed and counted.

It holds the shape of the disks (sampled finer than the detector), the intensities of each entry's
disks, and the diffuse background. A sparse code picks one entry for each pattern. All of it is
learned from the counts; it starts from the vacuum probe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ccstae.methods.ccstae import spline, transformer

_FEW = 0.125  # counts a pixel


@dataclass(frozen=True)
class Dictionary:
    """Averaged patterns of the reference lattice."""

    g: Tensor  # (K, 2), reference nodes in pixels; the first is the direct beam
    direct: Tensor  # (S, S), profile of the direct beam, sums to its samples per pixel squared
    disk: Tensor  # (S, S), profile of the diffracted disks
    intensity: Tensor  # (E, K), counts in each disk of each entry
    background: Tensor  # (Qy, Qx), diffuse counts of a pattern, fixed to the detector
    centre_px: tuple[float, float]  # nominal direct beam (x, y), on which the background is centred
    area: Tensor  # (E, 2), mean and deviation of log det M of each entry's patterns
    spread: Tensor  # (K,), relative spread of the intensities about their entry
    pixels: int  # edge of a patch, odd
    floor: float  # counts that any pixel may hold; keeps the model positive
    # root mean square of what the model leaves out, over the disk's brightest pixel
    error: float = 0.0
    # disks are warped with the lattice, as an image is; else they keep their shape
    affine: bool = False

    def to(self, device: str) -> Dictionary:
        """The dictionary on another device."""
        moved: dict[str, Any] = {
            f.name: value.to(device)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)

    def scaled(self, dose: float) -> Dictionary:
        """The dictionary of the same patterns with `dose` times as many electrons."""
        intensity, background = dose * self.intensity, dose * self.background
        return replace(self, intensity=intensity, background=background, floor=dose * self.floor)

    @cached_property
    def local_background(self) -> Tensor:
        """Diffuse counts per pixel at each reference node, (K,), where the direct beam lies at its
        nominal place; a node off the detector takes the nearest pixel's.
        """
        height, width = self.background.shape
        x = (self.g[:, 0] + self.centre_px[0]).round().long().clamp(0, width - 1)
        y = (self.g[:, 1] + self.centre_px[1]).round().long().clamp(0, height - 1)
        return self.background[y, x]

    @cached_property
    def peak(self) -> float:
        """Share of a disk in its brightest pixel."""
        return float(spline.render(self.disk, self.disk.new_zeros(1, 2), self.pixels).max())

    @cached_property
    def table(self) -> spline.Table:
        """Rendered direct beam and diffracted disk at every sub-pixel phase."""
        return spline.Table(torch.stack([self.direct, self.disk]), self.pixels, self.offsets)

    @cached_property
    def offsets(self) -> Tensor:
        """Pixels (p, 2) of a round window that holds a disk wherever in its middle pixel it
        lies."""
        square = transformer.square(self.pixels, self.g.device)
        return square[square.float().norm(dim=1) <= self.pixels / 2]

    def images_near(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        """Unit disks in windows of `offsets` near the shifts (n, K, 2), and expansions, (n K, 6, p)
        and (n K, 3, 6): `spline.Table`.
        """
        diffracted = torch.ones(shift.shape[:2], dtype=torch.long, device=shift.device)
        diffracted[:, 0] = 0
        return self.table(shift.reshape(-1, 2), diffracted.reshape(-1))

    @cached_property
    def sparse(self) -> bool:
        """Whether few of a window's pixels hold a count: it is then faster to go by counts than by
        pixels.
        """
        pixels = len(self.offsets)
        return (
            float((self.intensity.mean(0) + pixels * self.local_background)[1:].mean())
            < _FEW * pixels
        )

    def pictures(self) -> Tensor:
        """The entries as patterns on the profiles' own fine grid, (E, o Qy, o Qx) in counts per
        pixel, for people to look at.
        """
        o, samples = spline.OVERSAMPLING, self.disk.shape[-1]
        height, width = self.background.shape
        fine = torch.nn.functional.interpolate(
            self.background[None, None], scale_factor=o, mode="bilinear", align_corners=False
        )[0]
        out = fine.repeat(len(self.intensity), 1, 1)
        whole = torch.tensor([round(x) for x in self.centre_px], device=self.g.device)
        fraction = torch.tensor(self.centre_px, dtype=self.g.dtype, device=self.g.device) - whole
        # Pixel p is samples o p to o p + o - 1 of the fine grid; its centre is sample o p + o // 2.
        middle = whole * o + o // 2
        # x and y of each profile's first sample
        at = ((self.g + fraction) * o).round().long() + middle - samples // 2
        for k, (x, y) in enumerate(at.tolist()):
            profile = self.direct if k == 0 else self.disk
            top, left, bottom, right = (
                max(0, -y),
                max(0, -x),
                min(samples, o * height - y),
                min(samples, o * width - x),
            )
            if bottom > top and right > left:
                out[:, y + top : y + bottom, x + left : x + right] += (
                    self.intensity[:, k, None, None] * profile[top:bottom, left:right]
                )
        return out


def patch_pixels(radius_px: float) -> int:
    """Edge of the patch round a disk: the disk, its soft edge and a rim of background."""
    return 2 * math.ceil(radius_px + 2.75) + 1


def from_probe(
    probe: Tensor, centre: tuple[float, float], radius_px: float, iterations: int = 60
) -> Tensor:
    """Profile (S, S) of a disk from the vacuum probe (Qy, Qx): Richardson-Lucy from a round start.

    The start is the probe's own radial mean, which many pixels at many distances from the centre
    sample finer than one pixel. Each round is C <- C W^T(d / m) / W^T 1, with m = W C the rendered
    profile and d the probe (W. H. Richardson, J. Opt. Soc. Am. 62, 55 (1972); L. B. Lucy, Astron.
    J. 79, 745 (1974)).
    """
    pixels = patch_pixels(radius_px)
    samples = spline.samples(pixels)
    half = pixels // 2
    cx, cy = round(centre[0]), round(centre[1])
    patch = probe[cy - half : cy + half + 1, cx - half : cx + half + 1]
    shift = torch.tensor([[centre[0] - cx, centre[1] - cy]], dtype=probe.dtype, device=probe.device)
    at = (torch.arange(samples, device=probe.device) - samples // 2) / spline.OVERSAMPLING
    r = torch.hypot(at[:, None], at[None, :])
    steps = torch.arange(pixels, device=probe.device) - half
    distance = torch.hypot(steps[:, None] - shift[0, 1], steps[None, :] - shift[0, 0])
    order = distance.reshape(-1).argsort()
    profile = _interpolate(r, distance.reshape(-1)[order], patch.reshape(-1)[order])
    for _ in range(iterations):
        model = spline.render(profile, shift, pixels)[0]
        profile = profile * spline.adjoint((patch / model.clamp_min(1e-12))[None], shift, samples)
        profile = profile / spline.adjoint_of_flat(
            torch.ones_like(shift[:, 0]), shift, pixels, samples
        ).clamp_min(1e-6)
    return normalised(profile)


def normalised(profile: Tensor) -> Tensor:
    """The profile scaled so that its patch sums to 1."""
    return (profile / profile.sum() * spline.OVERSAMPLING**2).clamp_min(
        1e-12
    )  # no denormal numbers, which are slow


def _interpolate(x: Tensor, known: Tensor, values: Tensor) -> Tensor:
    """Linear interpolation of (known, values), running mean of neighbours, at x."""
    width = 5
    kernel = torch.ones(1, 1, width, dtype=values.dtype, device=values.device) / width
    pad = width // 2
    smooth = [
        torch.nn.functional.conv1d(
            torch.nn.functional.pad(v[None, None], (pad, pad), mode="replicate"), kernel
        )[0, 0]
        for v in (known, values)
    ]
    index = torch.searchsorted(smooth[0].contiguous(), x.contiguous()).clamp(1, len(known) - 1)
    x0, x1 = smooth[0][index - 1], smooth[0][index]
    t = ((x - x0) / (x1 - x0).clamp_min(1e-9)).clamp(0, 1)
    return torch.lerp(smooth[1][index - 1], smooth[1][index], t)


def improve(
    dictionary: Dictionary,
    patches: Tensor,
    models: Tensor,
    intensity: Tensor,
    shift: Tensor,
    prior: float,
) -> Dictionary:
    """One expectation-maximisation update of the disk profile from n patches and models (n, P, P),
    intensities (n,), shifts (n, 2).

    The direct beam's profile is a Dirichlet prior worth `prior` counts.
    """
    samples = dictionary.disk.shape[-1]
    gain = spline.adjoint(patches / models * intensity[:, None, None], shift, samples)
    norm = spline.adjoint_of_flat(intensity, shift, dictionary.pixels, samples)
    known = (
        prior / dictionary.direct.sum()
    )  # counts in a sample of the prior, over its value: as `norm` for the data
    return replace(
        dictionary,
        disk=normalised(
            (dictionary.disk * gain + known * dictionary.direct) / (norm + known).clamp_min(1e-9)
        ),
    )
