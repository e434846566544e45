"""Several layers: the wave meets each as one slice and spreads in between.

    psi_1 = probe t_1,    psi_n+1 = t_n+1 FFT^-1[P FFT[psi_n]],    P(q) = exp(-i pi lambda d q^2),

with |q + k|^2 in place of q^2 where the beam comes in along k, and psi the wave over that of k: the
multislice of J. M. Cowley and A. F. Moodie, Acta Cryst. 10, 609 (1957). Electrons that one
layer scatters beyond the detector may be brought back by the next, so the window's grid is finer
than that of one layer (`optics.window`): at 0.07 Angstrom it keeps 4.8 1/Angstrom. Waves and
transmission functions keep two thirds of the grid's frequencies; what their product folds back then
lies outside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.config.microscope import Microscope
from ccstae.simulation import optics

KEPT_BAND = 2 / 3
"""Share of the grid's frequencies that waves and transmission functions keep."""


def propagator(
    microscope: Microscope, win: optics.Window, distance_A: float, direction: NDArray[np.float64]
) -> torch.Tensor:
    """P (n, n), complex64, the direct beam in the middle, over a distance in Angstrom, for a beam
    that comes in along `direction` (2,) in 1/Angstrom; zero where waves are cut.
    """
    q = np.fft.fftshift(win.frequencies)
    in_band = np.abs(q) < KEPT_BAND * q.max()
    phase = (
        -np.pi
        * geometry.wavelength_A(microscope.energy_keV)
        * distance_A
        * ((q[:, None] + direction[1]) ** 2 + (q + direction[0]) ** 2)
    )
    return torch.from_numpy(
        np.where(in_band[:, None] & in_band, np.exp(1j * phase), 0.0).astype(np.complex64)
    )


def band_limited(transmission: torch.Tensor) -> torch.Tensor:
    """A transmission function (ny, nx) without the frequencies that are cut."""
    spectrum = torch.fft.fft2(transmission)
    for axis, n in enumerate(transmission.shape):
        cut = np.flatnonzero(np.abs(np.fft.fftfreq(n)) >= KEPT_BAND / 2)
        spectrum.index_fill_(axis, torch.from_numpy(cut).to(transmission.device), 0)
    return torch.fft.ifft2(spectrum)


def exit_wave(
    probe: torch.Tensor, slices: Sequence[torch.Tensor], propagator: torch.Tensor | None
) -> torch.Tensor:
    """The wave (B, n, n) behind B times slices (layers, n, n) that a probe meets in this order; one
    needs no propagator.

    The probe (B, n, n, 2) is real, each value there twice, and is overwritten. Its sign changes
    from sample to sample, and so does the wave's: that puts the direct beam in the middle of the
    transform.
    """
    for wave, layers in zip(probe, slices, strict=True):
        wave *= torch.view_as_real(layers[0])
    waves = torch.view_as_complex(probe)
    for layer in range(1, len(slices[0])):
        waves = torch.fft.ifft2(torch.fft.fft2(waves) * propagator)
        for wave, layers in zip(waves, slices, strict=True):
            wave *= layers[layer]
    return waves
