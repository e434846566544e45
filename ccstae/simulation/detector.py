"""The detector: what its pixels hold of an exit wave, and how that changes as the wave shifts."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ccstae.config.microscope import Microscope
from ccstae.simulation import nuisance, optics

_BLOCK = 16  # pixels that share one small dense product
_NONE = 1e-10  # what a pixel holds less of than this, it does not hold


class Detector:
    """Integrates waves over the pixels and their point spread.

    A pixel sees the few samples near it (13 of the default window's 308), so the separable response
    is a banded matrix along y and along x. Blocks of pixels and the samples that they see make
    small dense products, with a seventh of the multiplications of the whole matrix. A distorted
    detector does not separate and takes a sparse product.
    """

    def __init__(
        self,
        microscope: Microscope,
        win: optics.Window,
        device: str = "cpu",
        gradients: bool = True,
    ):
        self.pixels = microscope.detector_px
        self.parts = 2 if gradients else 1  # value and slope of the response
        self.distorted: tuple[torch.Tensor, ...] | None = None
        if microscope.nuisances.distorts:
            self.distorted = tuple(
                part.to(device) for part in nuisance.distorted_response(microscope, win)
            )
            return
        both = np.stack(
            [
                np.fft.fftshift(part, 1)
                for part in optics.pixel_response(microscope, win)[: self.parts]
            ],
            1,
        )  # (pixel, value or slope, n)
        both = (
            np.pad(both, ((0, -self.pixels % _BLOCK), (0, 0), (0, 0)))
            .reshape(-1, _BLOCK, self.parts, win.samples)
            .swapaxes(1, 2)
        )
        self.first, self.last = _span(both)
        self.bands: list[
            tuple[slice, torch.Tensor]
        ] = []  # of each block the samples that it sees, and (parts * _BLOCK, seen)
        for block in both:
            a, b = _span(block)
            matrix = torch.from_numpy(block[..., a:b].reshape(-1, b - a).astype(np.float32)).to(
                device
            )
            self.bands.append((slice(a - self.first, b - self.first), matrix))

    def __call__(self, amplitude: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Patterns (B, Qy, Qx) and gradients (B, 2, Qy, Qx), a shift along x and y (1/px), of
        amplitudes (B, n, n).

        The direct beam is in the middle of the amplitudes. Without `gradients` there are none: (B,
        0, Qy, Qx).
        """
        count = len(amplitude)
        if self.distorted is not None:
            samples = (
                torch.fft.ifftshift(amplitude, (1, 2))
                .abs()
                .square()
                .reshape(count, -1)
                .T.contiguous()
            )
            pattern, x, y = (
                (part @ samples).T.reshape(-1, self.pixels, self.pixels) for part in self.distorted
            )
            return pattern, torch.stack([x, y], 1)[:, : 2 * self.parts - 2]
        # |amplitude|^2 (y, B, x) of the samples that reach the detector.
        reach = slice(self.first, self.last)
        real, imaginary = torch.view_as_real(amplitude[:, reach, reach].transpose(0, 1)).unbind(-1)
        intensity = torch.mul(real, real, out=real.new_empty(real.shape)).addcmul_(
            imaginary, imaginary
        )
        blocks, parts = len(self.bands), self.parts
        # Both products have whole matrices on either side: batched ones take twice as long.
        rows = intensity.new_empty(blocks, parts * _BLOCK, intensity[0].numel())
        for out, (seen, matrix) in zip(rows, self.bands, strict=True):
            torch.mm(matrix, intensity[seen].flatten(1), out=out)
        rows = rows.view(-1, intensity.shape[-1])
        both = intensity.new_empty(blocks, len(rows), parts * _BLOCK)
        for out, (seen, matrix) in zip(both, self.bands, strict=True):
            torch.mm(rows[:, seen], matrix.T, out=out)
        # From (block x, block y, value or slope in y, y, B, value or slope in x, x).
        both = both.view(blocks, blocks, parts, _BLOCK, count, parts, _BLOCK).permute(
            2, 5, 4, 1, 3, 0, 6
        )
        kept = ((0, 0), (0, 1), (1, 0))[: 2 * parts - 1]
        out = both.new_empty(count, len(kept), blocks, _BLOCK, blocks, _BLOCK)
        for n, (y, x) in enumerate(kept):
            out[:, n] = both[y, x]
        out = out.view(count, len(kept), blocks * _BLOCK, blocks * _BLOCK)[
            :, :, : self.pixels, : self.pixels
        ]
        return out[:, 0], out[:, 1:]


def _span(sees: NDArray[np.float64]) -> tuple[int, int]:
    """First sample (last axis) that any pixel sees, and the one after the last."""
    seen = np.flatnonzero((np.abs(sees) > _NONE).reshape(-1, sees.shape[-1]).any(0))
    return int(seen[0]), int(seen[-1]) + 1
