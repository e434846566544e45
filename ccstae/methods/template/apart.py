"""Disks taken apart: the correlation map round each disk of a pattern without the other disks.

Where disks nearly touch, the map at one node holds what its neighbours correlate to, and the direct
beam may be a hundred times as bright. Correlation is linear, so that their part is known from their
places and intensities: with C the map of the pattern and K(q - s) that of a unit disk at s, the map
of disk k alone is

    C_k(q) = C(q) - sum_j A_j K(q - s_j) + A_k K(q - s_k).

The sum over all disks is taken off in Fourier space, and disk k put back in its window.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ccstae.methods.shared import peaks, windows
from ccstae.methods.shared.between_disks import disk_mask
from ccstae.methods.template import kernels

# Of a disk, which its soft edge and those of its neighbours leave alone; its intensity is read
# inside it.
RIM_PX = 1.5
MIN_CORE_PX = 1.0  # radius: five pixels


class Apart:
    """A unit disk, and its correlation map."""

    def __init__(self, probe: Tensor, kernel: Tensor, radius: float) -> None:
        """From the vacuum probe and the spectrum of a kernel, both on n x n pixels."""
        self.n, self.kernel, self.radius = len(probe), kernel, radius
        disk = kernels.template(probe, radius, "flat", 1)
        self.disk = torch.fft.rfft2(disk)
        self.map = torch.fft.irfft2(self.disk * kernel.conj(), s=probe.shape)
        self.core = max(radius - RIM_PX, MIN_CORE_PX)
        middle = self.n // 2
        core = disk_mask(probe.new_full((1, 1, 2), middle), self.core, self.n, self.n)[0]
        self.core_share = float(disk.roll((middle, middle), (0, 1))[core].mean())

    def peaks(
        self,
        reach: float,
        how: Literal["none", "parabolic", "dft"],
        upsample: int,
        patterns: Tensor,
        at: Tensor,
    ) -> Tensor:
        """The peak near each disk, in its map without the others.

        Args:
            reach: how far from the places to look, pixels.
            how: as of `peaks.subpixel`.
            upsample: as of `peaks.subpixel`.
            patterns: counts less their background (B, Qy, Qx).
            at: places of all disks (B, S, 2), x and y in pixels, as far as they are known.

        Returns:
            x, y and height (B, S, 3).
        """
        intensity = self.intensities(patterns, at)
        rest = kernels.padded_spectrum(patterns, self.n) - self._spectrum(at, intensity)
        maps = kernels.correlate(rest, self.kernel, 1.0, patterns.shape)
        half = math.floor(reach + 0.5) + peaks.TAPS
        nearest = at.round()
        alone = windows.cut(maps, at, half)[0]
        alone = alone + intensity[..., None, None] * self._own(at - nearest, half)
        alone = alone.flatten(0, 1)
        middle = (at - nearest + half).reshape(-1, 1, 2)
        pixel = peaks.near(alone, middle, reach)
        found, height = peaks.subpixel(alone, pixel, how, upsample)
        found = found.reshape(at.shape) - half + nearest
        return torch.cat([found, height.reshape(*at.shape[:2], 1)], -1)

    def disks(self, patterns: Tensor, at: Tensor) -> Tensor:
        """Disks (B, Qy, Qx) at places (B, S, 2), as bright as in patterns (B, Qy, Qx)."""
        _, height, width = patterns.shape
        spectrum = self._spectrum(at, self.intensities(patterns, at))
        return torch.fft.irfft2(spectrum, s=(self.n, self.n))[:, :height, :width]

    def intensities(self, patterns: Tensor, at: Tensor) -> Tensor:
        """Counts (B, S) of disks at places (B, S, 2), from their cores; 0 off the detector."""
        half = math.ceil(self.core)
        values, dx, dy = windows.cut(patterns, at, half)
        x, y = at[..., 0, None, None] + dx, at[..., 1, None, None] + dy
        _, height, width = patterns.shape
        shown = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
        core = ((dx**2 + dy**2 <= self.core**2) & shown).to(values.dtype)
        mean = (values * core).sum((-1, -2)) / core.sum((-1, -2)).clamp_min(1)
        return mean.clamp_min(0) / self.core_share

    def _spectrum(self, at: Tensor, intensity: Tensor) -> Tensor:
        """Spectra (B, n, n // 2 + 1) of disks at places (B, S, 2) with intensities (B, S)."""
        fy = torch.fft.fftfreq(self.n).to(at)
        fx = torch.fft.rfftfreq(self.n).to(at)
        along_y = torch.exp(-2j * torch.pi * at[..., 1, None] * fy) * intensity[..., None]
        along_x = torch.exp(-2j * torch.pi * at[..., 0, None] * fx)
        return self.disk * (along_y.mT @ along_x)

    def _own(self, offset: Tensor, half: int) -> Tensor:
        """Maps (B, S, n, n) of unit disks that lie `offset` (B, S, 2) px from the middle of windows
        of `half` px either way.
        """
        wide, taps = half + peaks.TAPS, 2 * peaks.TAPS + 1
        # The map goes round, so that a window may be larger than it.
        place = torch.arange(-wide, wide + 1, device=offset.device) % self.n
        around = self.map[place][:, place]
        # Linear in each axis: the taps of y are gathered first.
        rows = around.unfold(0, taps, 1).mT  # (n, taps, 2 wide + 1)
        of_y = peaks.interpolation_weights(-offset[..., 1])
        of_x = peaks.interpolation_weights(-offset[..., 0])
        there = torch.einsum("ytx,bst->bsyx", rows, of_y)
        return sum(
            (of_x[..., t, None, None] * there[..., t : t + 2 * half + 1] for t in range(taps)),
            start=torch.zeros_like(there[..., : 2 * half + 1]),
        )
