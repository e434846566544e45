"""The detector: what its pixels hold of an exit wave, and how that changes as the wave shifts."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ccstae import nuisance, optics
from ccstae.settings.instrument import Microscope

_BLOCK = 16  # pixels that share one small dense product
_NONE = 1e-10  # what a pixel holds less of than this, it does not hold


class Detector:
    """Integrates waves over the pixels and their point spread.

    A pixel sees the few samples near it (13 of the default window's 308), so the separable response is a banded matrix along y
    and along x. Blocks of pixels and the samples that they see make small dense products, with a tenth of the
    multiplications of the whole matrix. A distorted detector does not separate and takes a sparse product.
    """

    def __init__(self, microscope: Microscope, win: optics.Window, device: str = "cpu"):
        self.pixels, self.samples = microscope.detector_px, win.samples
        self.distorted: tuple[torch.Tensor, ...] | None = None
        if microscope.nuisances.distorts:
            self.distorted = tuple(part.to(device) for part in nuisance.distorted_response(microscope, win))
            return
        response, slope = (np.fft.fftshift(part, 1) for part in optics.pixel_response(microscope, win))
        sees = (np.abs(response) > _NONE) | (np.abs(slope) > _NONE)
        self.first, self.last = _span(sees)
        self.bands: list[tuple[slice, slice, torch.Tensor, torch.Tensor]] = []
        for start in range(0, self.pixels, _BLOCK):
            pixels = slice(start, start + _BLOCK)
            a, b = _span(sees[pixels])
            own, sloped = (torch.from_numpy(part[pixels, a:b].astype(np.float32)).to(device) for part in (response, slope))
            self.bands.append((pixels, slice(a - self.first, b - self.first), own, sloped))

    def __call__(self, amplitude: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Patterns (B, Qy, Qx) and gradients (B, 2, Qy, Qx), a shift along x and y (1/px), of amplitudes (B, n, n) in FFT order."""
        count, size = len(amplitude), self.pixels
        if self.distorted is not None:
            samples = (amplitude.real**2 + amplitude.imag**2).reshape(count, -1).T.contiguous()
            pattern, x, y = ((part @ samples).T.reshape(-1, size, size) for part in self.distorted)
            return pattern, torch.stack([x, y], 1)
        intensity = self._intensity(amplitude)
        n = intensity.shape[-1]
        rows, sloped = intensity.new_empty(2, count, size, n)
        for pixels, seen, response, slope in self.bands:
            rows[:, pixels] = torch.bmm(response.expand(count, -1, -1), intensity[:, seen])
            sloped[:, pixels] = torch.bmm(slope.expand(count, -1, -1), intensity[:, seen])
        pattern = intensity.new_empty(count * size, size)
        x, y = torch.empty_like(pattern), torch.empty_like(pattern)
        rows, sloped = rows.view(-1, n), sloped.view(-1, n)
        for pixels, seen, response, slope in self.bands:
            pattern[:, pixels] = rows[:, seen] @ response.T
            x[:, pixels] = rows[:, seen] @ slope.T
            y[:, pixels] = sloped[:, seen] @ response.T
        pattern, x, y = (part.view(count, size, size) for part in (pattern, x, y))
        return pattern, torch.stack([x, y], 1)

    def _intensity(self, amplitude: torch.Tensor) -> torch.Tensor:
        """|amplitude|^2 of the samples that reach the detector, the lowest frequency first."""
        below, above = self.samples // 2 - self.first, self.last - self.samples // 2  # samples at negative and at other frequencies
        out = torch.empty(len(amplitude), below + above, below + above, device=amplitude.device)
        parts = ((slice(0, below), slice(self.samples - below, self.samples)), (slice(below, below + above), slice(0, above)))
        for to_y, from_y in parts:
            for to_x, from_x in parts:
                part = amplitude[:, from_y, from_x]
                torch.mul(part.real, part.real, out=out[:, to_y, to_x]).addcmul_(part.imag, part.imag)
        return out


def _span(sees: NDArray[np.bool_]) -> tuple[int, int]:
    """First column that any row sees, and the one after the last."""
    columns = np.flatnonzero(sees.any(0))
    return int(columns[0]), int(columns[-1]) + 1
