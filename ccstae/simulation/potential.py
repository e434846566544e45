"""Transmission functions of atoms, on a grid, with every atom exactly where it is.

    V(k) = sum_j f_j(k) exp(-2 pi i k . x_j),    t(x) = exp(i sigma V(x)),

with abTEM's projected scattering factors f_j and interaction constant sigma. The sum over atoms is
a non-uniform Fourier transform: atoms are spread with a short kernel whose transform is divided out
(A. H. Barnett, J. F. Magland and L. af Klinteberg, SIAM J. Sci. Comput. 41, C479 (2019)). abTEM
itself shares an atom among four samples in proportion to their distance, which at 0.1 Angstrom
changes disk intensities by 1 % and recovered strain by 1e-4.

t is needed at low frequencies only. The same kernel, wider, takes it from the fine grid to one with
two samples per sample wanted; there its transform is divided out too. All of this is local, so a
large grid is built block by block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product
from math import gcd

import numpy as np
import torch
from abtem.core.energy import energy2sigma
from abtem.parametrizations import LobatoParametrization
from ase.data import chemical_symbols
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from ccstae.machine.device import ceil_div, side_by_side

Array = NDArray[np.float64]

REACH_A = 8.0  # farther from an atom its potential is not felt
# Highest frequency of V, per sample: what V^2 holds beyond the grid's reach then falls back onto
# frequencies that are cropped.
_BAND = 0.41
# Samples of the fine grid along a side of a block; bounds memory, not results.
_MAX_BLOCK = 5120
_LINES = 64  # about so many lines of the fine grid at a time: they stay in a processor's cache
_OVER = 2  # samples of the coarse grid to a sample that is wanted
_GROUP = 8  # samples of the coarse grid that share one dense product


@dataclass(frozen=True)
class Kernel:
    """exp(beta (sqrt(1 - z^2) - 1)), z = 2 x / width, of x in samples; for spectra up to `band`."""

    width: int
    band: float

    @property
    def beta(self) -> float:
        return 0.97 * np.pi * self.width * (1 - self.band)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        z2 = (x * (2 / self.width)) ** 2
        return torch.where(
            z2 <= 1, torch.exp(self.beta * (torch.sqrt((1 - z2).clamp_min(0)) - 1)), 0.0
        )

    def transform(self, k: Array) -> Array:
        """Its Fourier transform at k, per sample, by Gauss-Legendre quadrature."""
        z, weight = np.polynomial.legendre.leggauss(64)
        value = weight * np.exp(self.beta * (np.sqrt(1 - z**2) - 1)) * self.width / 2
        return np.asarray(np.cos(np.pi * self.width * k[:, None] * z) @ value)


_ATOMS = Kernel(10, _BAND)
_COARSE = Kernel(8, 1 / (2 * _OVER))


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
    """Transmission function (ny, nx), complex64, of atoms at `positions` (n, 2) in Angstrom from
    the first sample, periodic.

    `shape` is (ny, nx). It is built `refine` times finer and Fourier-cropped.
    """
    if len(positions) == 0:
        return torch.ones(shape, dtype=torch.complex64, device=device)
    step_A = sampling_A / refine
    margin = int(np.ceil(REACH_A / sampling_A))
    over = min(refine, _OVER)
    rows = _blocks(shape[0], _MAX_BLOCK // refine, margin, over)
    columns = _blocks(shape[1], _MAX_BLOCK // refine, margin, over)
    fine = rows[0].size * refine, columns[0].size * refine
    scale = energy2sigma(energy_keV * 1e3) / step_A**2
    symbols = {int(n): chemical_symbols[n] for n in np.unique(numbers)}
    factors = {
        n: _factor(symbol, fine, step_A, thermal_A.get(symbol, 0.0), scale, device)
        for n, symbol in symbols.items()
    }
    coarse = torch.empty(2, over * shape[0], over * shape[1], device=device)
    extent = np.array(shape[::-1]) * refine

    def build(blocks: list[tuple[_Block, _Block]]) -> None:
        builder = _Builder(fine, refine, factors, device)
        for row, column in blocks:
            first = np.array([column.first, row.first]) * refine
            from_first = (positions / step_A - first) % extent  # in samples of the fine grid
            near = (from_first < fine[::-1]).all(1)
            block = builder(from_first[near], numbers[near])
            coarse[:, row.in_whole, column.in_whole] = block[:, row.in_block, column.in_block]

    blocks = list(product(rows, columns))
    together = min(len(blocks), torch.get_num_threads())
    side_by_side(build, [blocks[n::together] for n in range(together)], device)
    return _cropped(torch.complex(*coarse), shape, refine)


@dataclass(frozen=True)
class _Block:
    """`count` samples from `start` along an axis, and those about them that are built with them."""

    start: int
    count: int
    size: int
    margin: int
    over: int

    @property
    def first(self) -> int:
        return self.start - self.margin

    @property
    def in_whole(self) -> slice:
        """Its samples on the coarse grid of the whole."""
        return slice(self.over * self.start, self.over * (self.start + self.count))

    @property
    def in_block(self) -> slice:
        """Its samples on the coarse grid of what is built."""
        return slice(self.over * self.margin, self.over * (self.margin + self.count))


def _blocks(n: int, most: int, margin: int, over: int) -> list[_Block]:
    """Blocks of one size along an axis of n samples; one that holds all has no margin and is
    periodic as the whole.
    """
    if n <= most:
        return [_Block(0, n, n, 0, over)]
    count = ceil_div(n, most - 2 * margin)
    edges = [n * i // count for i in range(count + 1)]
    size = fast_length(int(np.diff(edges).max()) + 2 * margin)
    return [_Block(a, b - a, size, margin, over) for a, b in pairwise(edges)]


def fast_length(n: int) -> int:
    """The next length whose transforms and products are fast: a multiple of 8 with no prime factor
    above 5.
    """
    return 8 * int(next_fast_len(ceil_div(int(n), 8), real=True))


def _parts(n: int, lines: int) -> Iterator[slice]:
    """The first n of something, so many lines at a time."""
    return (slice(start, min(start + lines, n)) for start in range(0, n, lines))


class _Builder:
    """Transmission functions of blocks of one shape (ny, nx), on the fine grid and periodic."""

    def __init__(
        self, shape: tuple[int, int], refine: int, factors: dict[int, torch.Tensor], device: str
    ):
        self.shape, self.refine, self.factors, self.device = shape, refine, factors, device
        # How many frequencies from 0 up are in the band.
        self.ky = int((np.fft.rfftfreq(shape[0]) < _BAND).sum())
        self.kx = int((np.fft.rfftfreq(shape[1]) < _BAND).sum())
        # Rows a little longer than needed: lines of a power of two would fall on one another in a
        # processor's cache.
        self.spectra = torch.empty(
            len(factors), self.kx, shape[0] + 8, dtype=torch.complex64, device=device
        )[:, :, : shape[0]]
        self.coarse = tuple(_OVER * n // refine for n in shape)
        self.to_y, self.to_x = (
            _to_coarse(group, group * refine // _OVER, _OVER / refine, device)
            for group in (gcd(n, _GROUP) for n in self.coarse)
        )

    def __call__(self, at: Array, numbers: NDArray[np.int64]) -> torch.Tensor:
        """Real and imaginary part (2, coarse ny, coarse nx) of the transmission function of atoms
        at (n, 2) samples (x, y).
        """
        waves = self._waves(self._spectrum(at, numbers))
        if self.refine <= _OVER:  # the fine grid is the coarse one
            return torch.cat([wave.clone() for _, wave in waves], 1)
        width = _COARSE.width
        reached, fine = self.to_y.shape  # coarse lines that a group of fine ones reaches
        group = reached - width  # coarse lines from one group to the next
        out = torch.zeros(2, self.coarse[0] + width, self.coarse[1], device=self.device)
        for rows, wave in waves:
            lines = self._along_x(wave)
            for start in range(0, lines.shape[1], fine):
                to = (rows.start + start) // fine * group
                out[:, to : to + reached] += self.to_y @ lines[:, start : start + fine]
        # Periodic: what reaches beyond the end belongs to the beginning.
        out[:, :width] += out[:, self.coarse[0] :]
        return out[:, : self.coarse[0]].roll(-(width // 2), 1)

    def _waves(self, spectrum: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """cos and sin of sigma V (2, rows, nx) some rows at a time, whole groups of them; the next
        ones overwrite them.
        """
        ny, nx = self.shape
        lines = max(1, _LINES // self.to_y.shape[1]) * self.to_y.shape[1]
        padded = torch.zeros(lines, nx // 2 + 1, dtype=torch.complex64, device=self.device)
        wave = torch.empty(2, lines, nx, device=self.device)
        for rows in _parts(ny, lines):
            count = rows.stop - rows.start
            padded[:count, : self.kx] = spectrum[:, rows].T
            phase = torch.fft.irfft(padded[:count], nx)
            torch.cos(phase, out=wave[0, :count])
            torch.sin(phase, out=wave[1, :count])
            yield rows, wave[:, :count]

    def _along_x(self, wave: torch.Tensor) -> torch.Tensor:
        """(2, rows, nx) taken to the coarse grid along x."""
        reached, fine = self.to_x.shape
        group = reached - _COARSE.width
        parts = wave.reshape(-1, fine) @ self.to_x.T
        parts = parts.view(2, wave.shape[1], -1, reached)  # (2, rows, group, coarse sample)
        out = torch.zeros(*parts.shape[:3], group, device=wave.device)
        # What a group reaches past its own coarse samples belongs to the n-th group after it.
        for n, piece in enumerate(parts.split(group, -1)):
            out[..., : piece.shape[-1]] += piece.roll(n, 2)
        return out.flatten(2).roll(-(_COARSE.width // 2), -1)

    def _spectrum(self, at: Array, numbers: NDArray[np.int64]) -> torch.Tensor:
        """sigma V at kx in [0, `_BAND`), transformed back along y: (kx, ny) complex64."""
        spectra = []  # of the elements that are there, along x alone, and their factors
        for along_x, (number, factor) in zip(self.spectra, self.factors.items(), strict=True):
            points = torch.from_numpy(at[numbers == number]).to(self.device)
            if len(points):
                for rows, lines in _spread(points, self.shape):
                    along_x[:, rows] = torch.fft.rfft(lines)[:, : self.kx].T
                spectra.append((along_x, factor))
        # Both signs of ky in turn, two real numbers a frequency; between them V is 0 at the
        # frequencies that are cut. Of the negative sign there is one less: ky = 0 has none.
        signs = slice(0, 2 * self.ky), slice(2 * (self.shape[0] + 1 - self.ky), 2 * self.shape[0])
        sizes = [2 * self.ky, 2 * self.ky - 2]
        for part in _parts(self.kx, _LINES):
            V = torch.zeros_like(self.spectra[0][part])
            V_real = torch.view_as_real(V).flatten(1)
            for along_x, factor in spectra:
                spectrum = torch.view_as_real(torch.fft.fft(along_x[part])).flatten(1)
                for sign, value in zip(signs, factor.split(sizes, 1), strict=True):
                    V_real[:, sign].addcmul_(spectrum[:, sign], value[part])
            self.spectra[0][part] = torch.fft.ifft(V)
        return self.spectra[0]


@lru_cache(maxsize=4)
def _factor(
    symbol: str, shape: tuple[int, int], step_A: float, thermal_A: float, scale: float, device: str
) -> torch.Tensor:
    """f(k) over the kernel, times `scale`, on a grid (ny, nx) at kx in [0, `_BAND`) and at ky >= 0,
    then < 0, in FFT order.

    (kx, 2 (2 ky - 1)) float32, each twice, for real and imaginary parts.
    """
    frequencies = [np.asarray(np.fft.rfftfreq(n), np.float64) for n in shape]
    ky, kx = [k[k < _BAND] for k in frequencies]
    # Factors are read from a table in q^2: they are smooth, and the grid has 1e7 points and more.
    table_q2 = np.linspace(0, (_BAND / step_A) ** 2 * 2.01, 400_001)
    table: Array = LobatoParametrization().projected_scattering_factor(symbol)(table_q2)  # type: ignore[misc]
    table = table * np.exp(-2 * np.pi**2 * thermal_A**2 * table_q2) * scale
    values = torch.from_numpy(np.asarray(table)).float()
    inverse_x = torch.from_numpy(1 / _ATOMS.transform(kx)).float()
    inverse_y = torch.from_numpy(1 / _ATOMS.transform(ky)).float()
    kx2 = torch.from_numpy((kx / step_A) ** 2 / table_q2[1])  # in steps of the table
    ky2 = torch.from_numpy((ky / step_A) ** 2 / table_q2[1])
    out = torch.empty(len(kx), 2 * len(ky) - 1, 2)
    for part in _parts(len(kx), _LINES):
        index = kx2[part, None] + ky2
        low = index.long()
        factor = torch.lerp(values[low], values[low + 1], (index - low).float())
        factor = factor * inverse_x[part, None] * inverse_y
        out[part] = torch.cat([factor, factor[:, 1:].flip(1)], 1)[..., None]
    return out.flatten(1).to(device)


def _to_coarse(group: int, fine: int, step: float, device: str) -> torch.Tensor:
    """Kernels (group + width, fine) from `fine` samples, `step` coarse ones apart, to the coarse
    ones from half a width before them.
    """
    width = _COARSE.width
    coarse = torch.arange(group + width).double() - width // 2
    return _COARSE(coarse[:, None] - torch.arange(fine).double() * step).float().to(device)


def _cropped(coarse: torch.Tensor, shape: tuple[int, int], refine: int) -> torch.Tensor:
    """From the coarse grid to (ny, nx), the kernel divided out."""
    spectrum = torch.fft.fft2(coarse)
    for axis, n in enumerate(shape):
        k = np.rint(np.fft.fftfreq(n) * n).astype(np.int64)
        kernel = _COARSE.transform(k / (_OVER * n)) if refine > _OVER else np.ones(n)
        inverse = (1 / (refine * kernel)).astype(np.float32)
        wanted = torch.from_numpy(k % coarse.shape[axis]).to(coarse.device)
        factor = torch.from_numpy(inverse).to(coarse.device)
        spectrum = spectrum.index_select(axis, wanted)
        spectrum = spectrum * (factor[:, None] if axis == 0 else factor)
    return torch.fft.ifft2(spectrum)


def _spread(at: torch.Tensor, shape: tuple[int, int]) -> Iterator[tuple[slice, torch.Tensor]]:
    """Sum of kernels at (n, 2) samples (x, y) on a periodic grid (ny, nx), some rows at a time."""
    width = _ATOMS.width
    first = torch.ceil(at - width / 2)
    reach = torch.arange(width, device=at.device)
    weight = _ATOMS(first[:, :, None] + reach - at[:, :, None]).float()  # (n, 2, w)
    column = (first[:, :1].long() + reach) % shape[1]
    top = first[:, 1].long() % shape[0]
    lines = min(_LINES, shape[0] - 2 * width)
    out = torch.empty(lines + 2 * width, shape[1], device=at.device)
    for rows in _parts(shape[0], lines):
        count = rows.stop - rows.start
        # Of each kernel the first row, counted from so far before `rows` that every kernel that
        # touches them lies behind.
        start = (top - rows.start + width) % shape[0]
        near = torch.nonzero(start < count + width).squeeze(1)
        row = start[near, None] + reach
        # The rows before and behind take what falls outside.
        out.zero_()
        flat = row[:, :, None] * shape[1] + column[near, None, :]
        kernel = weight[near, 1, :, None] * weight[near, 0, None, :]
        out.view(-1).index_add_(0, flat.reshape(-1), kernel.reshape(-1))
        yield rows, out[width : width + count]
