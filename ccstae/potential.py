"""Transmission functions of atoms, on a grid, with every atom exactly where it is.

    V(k) = sum_j f_j(k) exp(-2 pi i k . x_j),    t(x) = exp(i sigma V(x)),

with abTEM's projected scattering factors f_j and interaction constant sigma. The sum over atoms is a non-uniform Fourier
transform: atoms are spread with a short kernel whose transform is divided out (A. H. Barnett, J. F. Magland and L. af Klinteberg,
SIAM J. Sci. Comput. 41, C479 (2019)). abTEM itself shares an atom among four samples in proportion to their distance, which at
0.1 Angstrom changes disk intensities by 1 % and recovered strain by 1e-4.
"""

from __future__ import annotations

from collections.abc import Iterator

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
_LINES = 128  # of the fine grid at a time; bounds memory, not results


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
    fine = (shape[0] * refine, shape[1] * refine)
    spectrum = _spectrum(positions / (sampling_A / refine), numbers, fine, sampling_A / refine, thermal_A, device)
    spectrum *= energy2sigma(energy_keV * 1e3) * (refine / sampling_A) ** 2
    along_x = torch.empty(fine[0], shape[1], dtype=torch.complex64, device=device)
    for rows in _parts(fine[0]):
        phase = torch.fft.irfft(spectrum[:, rows].T, fine[1])
        along_x[rows] = _crop(torch.complex(phase.cos(), phase.sin()), shape[1])
    del spectrum
    out = torch.empty(shape, dtype=torch.complex64, device=device)
    for columns in _parts(shape[1]):
        out[:, columns] = _crop(along_x[:, columns].T, shape[0]).T
    return out


def _parts(n: int) -> Iterator[slice]:
    lines = min(_LINES, n // 2)
    return (slice(start, min(start + lines, n)) for start in range(0, n, lines))


def _crop(values: torch.Tensor, n: int) -> torch.Tensor:
    """The last axis of `values`, band limited and sampled at n points."""
    fine = values.shape[-1]
    keep = torch.from_numpy(np.rint(np.fft.fftfreq(n) * n).astype(np.int64) % fine).to(values.device)
    return torch.fft.ifft(torch.fft.fft(values).index_select(-1, keep)) * (n / fine)


def _spectrum(
    at: Array, numbers: NDArray[np.int64], shape: tuple[int, int], step_A: float, thermal_A: dict[str, float], device: str
) -> torch.Tensor:
    """V at kx in [0, `_BAND`), transformed back along y: (kx, ny) complex64, of atoms at (n, 2) samples (x, y) on a grid (ny, nx)."""
    kx, ky = (k[k < _BAND].astype(float) for k in map(np.fft.rfftfreq, shape[::-1]))
    inverse_x, inverse_y = (torch.from_numpy(1 / _kernel_transform(k)).float().to(device) for k in (kx, ky))
    kx2, ky2 = (torch.from_numpy((k / step_A) ** 2).to(device) for k in (kx, ky))
    # Factors are read from a table in q^2: they are smooth, and the grid has 1e7 points and more.
    table_q2 = np.linspace(0, (_BAND / step_A) ** 2 * 2.01, 400_001)
    factors = LobatoParametrization()
    total = torch.zeros(len(kx), shape[0], dtype=torch.complex64, device=device)
    own = torch.empty_like(total)
    for number in np.unique(numbers):
        symbol = chemical_symbols[number]
        table: Array = factors.projected_scattering_factor(symbol)(table_q2)  # type: ignore[misc]
        table = table * np.exp(-2 * np.pi**2 * thermal_A.get(symbol, 0.0) ** 2 * table_q2)
        values = torch.from_numpy(np.asarray(table)).float().to(device)
        points = torch.from_numpy(at[numbers == number]).to(device)
        for rows in _parts(shape[0]):
            own[:, rows] = torch.fft.rfft(_spread(points, shape, rows))[:, : len(kx)].T
        for part in _parts(len(kx)):
            index = (kx2[part, None] + ky2) * (1 / table_q2[1])
            low = index.long()
            factor = torch.lerp(values[low], values[low + 1], (index - low).float()) * inverse_x[part, None] * inverse_y
            spectrum = torch.fft.fft(own[part])
            total[part, : len(ky)] += spectrum[:, : len(ky)] * factor
            total[part, 1 - len(ky) :] += spectrum[:, 1 - len(ky) :] * factor[:, 1:].flip(1)  # negative ky
    for part in _parts(len(kx)):
        total[part] = torch.fft.ifft(total[part])
    return total


def _spread(at: torch.Tensor, shape: tuple[int, int], rows: slice) -> torch.Tensor:
    """Sum of kernels at (n, 2) samples (x, y) on some rows, at most ny - 2 `_WIDTH`, of a periodic grid (ny, nx), float32."""
    count = rows.stop - rows.start
    first = torch.ceil(at - _WIDTH / 2)
    # Of each kernel the first row, counted from so far before `rows` that every kernel that touches them lies behind.
    start = (first[:, 1] - rows.start + _WIDTH) % shape[0]
    near = torch.nonzero(start < count + _WIDTH).squeeze(1)
    at, first, start = at[near], first[near], start[near]
    reach = torch.arange(_WIDTH, device=at.device)
    weight = _kernel((first[:, :, None] + reach - at[:, :, None]) * (2 / _WIDTH)).float()  # (n, 2, w)
    row = start.long()[:, None] + reach
    column = (first[:, :1].long() + reach) % shape[1]
    # The rows before and behind take what falls outside.
    out = torch.zeros(count + 2 * _WIDTH, shape[1], device=at.device)
    flat = row[:, :, None] * shape[1] + column[:, None, :]
    out.view(-1).index_add_(0, flat.reshape(-1), (weight[:, 1, :, None] * weight[:, 0, None, :]).reshape(-1))
    return out[_WIDTH : _WIDTH + count]


def _kernel(z: torch.Tensor) -> torch.Tensor:
    """exp(beta (sqrt(1 - z^2) - 1)) for |z| <= 1, else 0."""
    return torch.where(z.abs() <= 1, torch.exp(_BETA * (torch.sqrt((1 - z**2).clamp_min(0)) - 1)), 0.0)


def _kernel_transform(k: Array) -> Array:
    """Fourier transform of the kernel at k, per sample, by Gauss-Legendre quadrature."""
    z, weight = np.polynomial.legendre.leggauss(64)
    value = weight * np.exp(_BETA * (np.sqrt(1 - z**2) - 1)) * _WIDTH / 2
    return np.asarray(np.cos(np.pi * _WIDTH * k[:, None] * z) @ value)
