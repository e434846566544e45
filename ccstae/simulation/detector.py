"""The detector: what its pixels hold of an exit wave, and how that changes as the wave shifts."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from ccstae.config.microscope import Microscope
from ccstae.simulation import optics

_BLOCK = 16  # pixels that share one small dense product
_MIN_RESPONSE = 1e-10  # a pixel does not see a sample of which it holds less
# Cut of the point spread, in its standard deviations: a pixel then lacks 3e-7 of what is near it.
_MAX_TAIL = 5.0

Array = NDArray[np.float64]


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
            self.distorted = tuple(part.to(device) for part in _distorted_response(microscope, win))
            return
        value_and_slope = optics.pixel_response(microscope, win)
        parts = [np.fft.fftshift(part, 1) for part in value_and_slope[: self.parts]]
        response = np.stack(parts, 1)  # (pixel, value or slope, sample)
        # Pixels that see nothing fill the last block.
        response = np.pad(response, ((0, -self.pixels % _BLOCK), (0, 0), (0, 0)))
        # (block, value or slope, pixel of the block, sample)
        blocks = response.reshape(-1, _BLOCK, self.parts, win.samples).swapaxes(1, 2)
        self.first, self.last = _span(blocks)
        # Of each block the samples that it sees, counted from `first`, and its response to them,
        # (parts * _BLOCK, samples).
        self.bands: list[tuple[slice, torch.Tensor]] = []
        for block in blocks:
            start, stop = _span(block)
            matrix = block[..., start:stop].reshape(-1, stop - start).astype(np.float32)
            band = slice(start - self.first, stop - self.first)
            self.bands.append((band, torch.from_numpy(matrix).to(device)))

    def __call__(self, amplitude: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Patterns (B, Qy, Qx) and gradients (B, 2, Qy, Qx), a shift along x and y (1/px), of
        amplitudes (B, n, n).

        The direct beam is in the middle of the amplitudes. Without `gradients` there are none: (B,
        0, Qy, Qx).
        """
        count = len(amplitude)
        if self.distorted is not None:
            intensity = torch.fft.ifftshift(amplitude, (1, 2)).abs().square()
            samples = intensity.reshape(count, -1).T.contiguous()
            pattern, *slopes = [
                (part @ samples).T.reshape(-1, self.pixels, self.pixels) for part in self.distorted
            ]
            return pattern, torch.stack(slopes, 1)[:, : 2 * self.parts - 2]
        # |amplitude|^2 (y, B, x) of the samples that reach the detector.
        reach = slice(self.first, self.last)
        real, imaginary = torch.view_as_real(amplitude[:, reach, reach].transpose(0, 1)).unbind(-1)
        intensity = torch.mul(real, real, out=real.new_empty(real.shape)).addcmul_(
            imaginary, imaginary
        )
        blocks, parts = len(self.bands), self.parts
        # Along y, then along x. Both products have whole matrices on either side: batched ones
        # take twice as long.
        rows = intensity.new_empty(blocks, parts * _BLOCK, intensity[0].numel())
        for out, (band, matrix) in zip(rows, self.bands, strict=True):
            torch.mm(matrix, intensity[band].flatten(1), out=out)
        rows = rows.view(-1, intensity.shape[-1])
        both = intensity.new_empty(blocks, len(rows), parts * _BLOCK)
        for out, (band, matrix) in zip(both, self.bands, strict=True):
            torch.mm(rows[:, band], matrix.T, out=out)
        # From (block x, block y, part in y, y, B, part in x, x), where a part is value or slope, to
        # (part in y, part in x, B, block y, y, block x, x).
        both = both.view(blocks, blocks, parts, _BLOCK, count, parts, _BLOCK)
        both = both.permute(2, 5, 4, 1, 3, 0, 6)
        # The pattern is value times value, its change along an axis the slope there times the value
        # along the other.
        wanted = ((0, 0), (0, 1), (1, 0))[: 2 * parts - 1]  # (part in y, part in x)
        images = both.new_empty(count, len(wanted), blocks, _BLOCK, blocks, _BLOCK)
        for n, (y, x) in enumerate(wanted):
            images[:, n] = both[y, x]
        images = images.view(count, len(wanted), blocks * _BLOCK, blocks * _BLOCK)
        images = images[:, :, : self.pixels, : self.pixels]
        return images[:, 0], images[:, 1:]


def _span(response: NDArray[np.float64]) -> tuple[int, int]:
    """First sample (last axis) that any pixel sees, and the one after the last."""
    sees = (np.abs(response) > _MIN_RESPONSE).reshape(-1, response.shape[-1])
    samples = np.flatnonzero(sees.any(0))
    return int(samples[0]), int(samples[-1]) + 1


def _distorted_response(
    microscope: Microscope, win: optics.Window
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Response of the pixels to the window's samples on a distorted detector, and its slopes:
    sparse (detector_px^2, samples^2).

    A sample at u pixels from the direct beam lands at A u and counts in the pixel at j with R((A u
    - j)_x) R((A u - j)_y). The slopes are those with a shift of the sample before the distortion,
    or, where methods are told the lattice after it, with a shift of where the sample lands.
    """
    n, half = microscope.detector_px, microscope.detector_px // 2
    A = np.array(microscope.nuisances.distortion)
    u = win.frequencies / microscope.pixel_size_inv_A
    at = np.stack(np.meshgrid(u, u), -1).reshape(-1, 2) @ A.T
    reach = int(np.ceil(0.5 + _MAX_TAIL * microscope.point_spread_px))
    on = np.flatnonzero((np.abs(at) < half + reach).all(-1))
    # The pixels near each of the m samples that land on the detector, (m, w, 2).
    pixel = np.rint(at[on]).astype(int)[:, None, :] + np.arange(-reach, reach + 1)[:, None]
    value, slope = optics.response(microscope, at[on][:, None, :] - pixel)
    (vx, vy), (sx, sy) = np.moveaxis(value, 2, 0), np.moveaxis(slope, 2, 0)
    column, row = pixel[:, None, :, 0] + half, pixel[:, :, None, 1] + half
    inside = (column >= 0) & (column < n) & (row >= 0) & (row < n)
    sample = np.broadcast_to(on[:, None, None], inside.shape)[inside]
    index = torch.from_numpy(np.stack([(row * n + column)[inside], sample]))

    def sparse(left: Array, right: Array) -> Array:
        return (left[:, :, None] * right[:, None, :])[inside]

    # Slopes with a shift of where the sample lands, then with one before the distortion.
    landed = np.stack([sparse(vy, sx), sparse(sy, vx)])
    along_x, along_y = landed if microscope.nuisances.distortion_known else A.T @ landed
    shape = (n * n, len(at))
    return (
        _csr(index, sparse(vy, vx), shape),
        _csr(index, along_x, shape),
        _csr(index, along_y, shape),
    )


def _csr(index: torch.Tensor, values: Array, shape: tuple[int, int]) -> torch.Tensor:
    # Torch says at its first sparse matrix that they are new, and unchecked.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        matrix = torch.sparse_coo_tensor(index, torch.from_numpy(values).float(), shape)
        return matrix.coalesce().to_sparse_csr()
