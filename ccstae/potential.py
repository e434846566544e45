"""Transmission functions of atoms, on a grid, with every atom exactly where it is.

    V(k) = sum_j f_j(k) exp(-2 pi i k . x_j),    t(x) = exp(i sigma V(x)),

with abTEM's projected scattering factors f_j and interaction constant sigma. The sum over atoms is a non-uniform Fourier
transform: atoms are spread with a short kernel whose transform is divided out (A. H. Barnett, J. F. Magland and L. af Klinteberg,
SIAM J. Sci. Comput. 41, C479 (2019)). abTEM itself shares an atom among four samples in proportion to their distance, which at
0.1 Angstrom changes disk intensities by 1 % and recovered strain by 1e-4.
"""

from __future__ import annotations

import numpy as np
import torch
from abtem.core.energy import energy2sigma
from abtem.parametrizations import LobatoParametrization
from ase.data import chemical_symbols
from numpy.typing import NDArray

Array = NDArray[np.float64]

_WIDTH = 8  # samples that the kernel spans; with the band below its error is 1e-6
_BAND = 1 / 3  # highest frequency of V, per sample: two thirds of Nyquist's
_BETA = 0.97 * np.pi * _WIDTH * (1 - _BAND)
_ROWS = 512  # of the fine grid at a time; bounds memory, not results
_ATOMS = 100_000  # at a time, likewise


def transmission(
    positions: Array,
    numbers: NDArray[np.int64],
    shape: tuple[int, int],
    sampling_A: float,
    refine: int,
    energy_keV: float,
    thermal_A: dict[str, float],
    device: str = "cpu",
) -> torch.Tensor:
    """Transmission function (ny, nx), complex64, of atoms at `positions` (n, 2) in Angstrom from the first sample, periodic.

    `shape` is (ny, nx). It is built `refine` times finer and Fourier-cropped, which is exact for the frequencies kept.
    """
    if len(positions) == 0:
        return torch.ones(shape, dtype=torch.complex64, device=device)
    step = sampling_A / refine
    fine = (shape[0] * refine, shape[1] * refine)
    phase = _phase(positions / step, numbers, fine, step, energy_keV, thermal_A, device)
    rows = []
    for start in range(0, fine[0], _ROWS):
        part = phase[start : start + _ROWS]
        rows.append(_crop(torch.polar(torch.ones_like(part), part), shape[1]))
    along_x = torch.cat(rows)
    return torch.cat([_crop(part.T.contiguous(), shape[0]).T for part in along_x.split(_ROWS, 1)], 1).contiguous()


def _crop(values: torch.Tensor, n: int) -> torch.Tensor:
    """The last axis of `values`, band limited and sampled at n points."""
    fine = values.shape[-1]
    keep = torch.from_numpy(np.rint(np.fft.fftfreq(n) * n).astype(np.int64) % fine).to(values.device)
    return torch.fft.ifft(torch.fft.fft(values).index_select(-1, keep)) * (n / fine)


def _phase(
    at: Array,
    numbers: NDArray[np.int64],
    shape: tuple[int, int],
    step_A: float,
    energy_keV: float,
    thermal_A: dict[str, float],
    device: str,
) -> torch.Tensor:
    """sigma V (ny, nx) of atoms at (n, 2) samples (x, y)."""
    ky, kx = np.fft.fftfreq(shape[0]).astype(float), np.fft.rfftfreq(shape[1]).astype(float)
    inverse = [torch.from_numpy(np.where(np.abs(k) < _BAND, 1 / _kernel_transform(k), 0.0)).float().to(device) for k in (ky, kx)]
    q2 = torch.from_numpy((ky / step_A) ** 2)[:, None] + torch.from_numpy((kx / step_A) ** 2)
    factors = LobatoParametrization()
    total = torch.zeros((len(ky), len(kx)), dtype=torch.complex64, device=device)
    # Factors are read from a table in q^2: they are smooth, and the grid has 1e7 points and more.
    table_q2 = np.linspace(0, (_BAND / step_A) ** 2 * 2.01, 400_001)
    index = (q2 / table_q2[1]).clamp_max(len(table_q2) - 2)
    low = index.long()
    share = (index - low).float().to(device)
    low = low.to(device)
    for number in np.unique(numbers):
        symbol = chemical_symbols[number]
        table: Array = factors.projected_scattering_factor(symbol)(table_q2)  # type: ignore[misc]
        table = table * np.exp(-2 * np.pi**2 * thermal_A.get(symbol, 0.0) ** 2 * table_q2)
        values = torch.from_numpy(np.asarray(table)).float().to(device)
        spread = _spread(torch.from_numpy(at[numbers == number]).to(device), shape)
        total += torch.fft.rfft2(spread) * torch.lerp(values[low], values[low + 1], share)
    total *= inverse[0][:, None]
    total *= inverse[1]
    return torch.fft.irfft2(total, s=shape) * (energy2sigma(energy_keV * 1e3) / step_A**2)


def _spread(at: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Sum of kernels at (n, 2) samples (x, y) on a periodic grid (ny, nx), float32."""
    out = torch.zeros(shape[0] * shape[1], device=at.device)
    reach = torch.arange(_WIDTH, device=at.device)
    for part in at.split(_ATOMS):
        first = torch.ceil(part - _WIDTH / 2)
        near = first[:, :, None] + reach  # (n, 2, w)
        weight = _kernel((near - part[:, :, None]) * (2 / _WIDTH)).float()
        index = near.long()
        flat = (index[:, 1] % shape[0])[:, :, None] * shape[1] + (index[:, 0] % shape[1])[:, None, :]
        out.index_add_(0, flat.reshape(-1), (weight[:, 1, :, None] * weight[:, 0, None, :]).reshape(-1))
    return out.reshape(shape)


def _kernel(z: torch.Tensor) -> torch.Tensor:
    """exp(beta (sqrt(1 - z^2) - 1)) for |z| <= 1, else 0."""
    return torch.where(z.abs() <= 1, torch.exp(_BETA * (torch.sqrt((1 - z**2).clamp_min(0)) - 1)), 0.0)


def _kernel_transform(k: Array) -> Array:
    """Fourier transform of the kernel at k, per sample, by Gauss-Legendre quadrature."""
    z, weight = np.polynomial.legendre.leggauss(64)
    value = weight * np.exp(_BETA * (np.sqrt(1 - z**2) - 1)) * _WIDTH / 2
    return np.asarray(np.cos(np.pi * _WIDTH * k[:, None] * z) @ value)
