"""Several layers: the wave meets each as one slice and spreads in between.

    psi_1 = probe t_1,    psi_n+1 = t_n+1 FFT^-1[P FFT[psi_n]],    P(q) = exp(-i pi lambda d q^2),

the multislice of J. M. Cowley and A. F. Moodie, Acta Cryst. 10, 609 (1957). Electrons that one
layer scatters beyond the detector may be brought back by the next, so the window's grid is finer
than that of one layer (`optics.window`): at 0.07 Angstrom it keeps 4.8 1/Angstrom. Waves and
transmission functions keep two thirds of the grid's frequencies; what their product folds back then
lies outside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ccstae import geometry
from ccstae.config.microscope import Microscope
from ccstae.simulation import optics

KEPT = 2 / 3


def propagator(microscope: Microscope, win: optics.Window, distance_A: float) -> torch.Tensor:
    """P (n, n), complex64, the direct beam in the middle, over a distance in Angstrom; zero where
    waves are cut.
    """
    q = np.fft.fftshift(win.frequencies)
    kept = np.abs(q) < KEPT * q.max()
    phase = (
        -np.pi
        * geometry.wavelength_A(microscope.energy_keV)
        * distance_A
        * (q[:, None] ** 2 + q**2)
    )
    return torch.from_numpy(
        np.where(kept[:, None] & kept, np.exp(1j * phase), 0.0).astype(np.complex64)
    )


def band_limited(transmission: torch.Tensor) -> torch.Tensor:
    """A transmission function (ny, nx) without the frequencies that are cut."""
    spectrum = torch.fft.fft2(transmission)
    for axis, n in enumerate(transmission.shape):
        cut = torch.from_numpy(np.flatnonzero(np.abs(np.fft.fftfreq(n)) >= KEPT / 2)).to(
            transmission.device
        )
        spectrum.index_fill_(axis, cut, 0)
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
    for one, own in zip(probe, slices, strict=True):
        one *= torch.view_as_real(own[0])
    wave = torch.view_as_complex(probe)
    for layer in range(1, len(slices[0])):
        wave = torch.fft.ifft2(torch.fft.fft2(wave) * propagator)
        for one, own in zip(wave, slices, strict=True):
            one *= own[layer]
    return wave
