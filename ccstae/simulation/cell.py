"""Diffraction by one deformed cell of a uniform lattice: how much of the beam is in each disk.

A phase object that repeats with the lattice sends |T_hk|^2 of the electrons into the disk at g =
F^-T G0 (h, k), with T_hk the Fourier coefficients of the transmission function of one cell,

    V_hk = sum_j f_j(g) exp(-2 pi i (h, k) . x_j) / area,
    t = exp(i sigma V),
    T = FFT(t) / samples.

f_j are abTEM's projected scattering factors. Several layers are slices of a multislice
(multislice.py) that is done for one cell and each direction q of the beam's cone by itself: the
wave is exp(2 pi i q . x) times what repeats with the lattice, and spreads with P(g) = exp(-i pi
lambda d |g + q|^2).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from abtem.core.energy import energy2sigma
from abtem.parametrizations import LobatoParametrization
from ase.data import chemical_symbols
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from ccstae import geometry
from ccstae.config.run import Config
from ccstae.simulation import multislice, optics
from ccstae.specimen.scene import Array, Scene

_FINER = 5  # a cell is so small that it is sampled this much more finely than a specimen


def intensities(
    config: Config, scene: Scene, F: Array, directions: Array, reach_inv_A: float
) -> tuple[NDArray[np.int64], Array]:
    """Which disks may lie within reach, and how much of the beam goes into each.

    Args:
        config: of the run; its microscope and sampling are used.
        scene: whose crystal the cell is.
        F: the lattices' deformations, shape (B, 2, 2).
        directions: of the incident beam, shape (m, 2), in 1/Angstrom.
        reach_inv_A: how far along x and y a disk's middle may lie.

    Returns:
        (h, k) of the disks, shape (n, 2), and their shares of the electrons, shape (B, n, m); one
        layer has one share for all directions, (B, n, 1).
    """
    cell = scene.crystals[0].cell
    G = geometry.inverse_transpose(F) @ scene.nominal
    fine = _shape(cell, config.simulation.potential_sampling_A / _FINER)
    layers = np.floor(
        scene.crystals[0].height_A / (scene.layer_distance_A or np.inf) + scene.layers / 2
    )
    slices = [
        np.fft.fft2(_transmission(config, scene, F, fine, layers == n)) / np.prod(fine)
        for n in range(scene.layers)
    ]
    if len(slices) == 1:
        hk, amplitude = _indices(fine), slices[0][..., None]
    else:
        shape = _shape(cell, optics.MAX_SLICED_SAMPLING_A)
        hk = _indices(shape)
        in_band = np.outer(*(np.abs(np.fft.fftfreq(n)) < multislice.KEPT_BAND / 2 for n in shape))
        # A negative index counts from the end of the finer grid, where the same frequency lies.
        row, column = hk[:, 0, 0].astype(int), hk[0, :, 1].astype(int)
        objects = [np.fft.ifft2(T[:, row][:, :, column] * in_band) * np.prod(shape) for T in slices]
        # (B, m, h, k, 2)
        q = np.einsum("bij,hkj->bhki", G, hk)[:, None] + directions[:, None, None]
        phase = (
            -np.pi
            * geometry.wavelength_A(config.microscope.energy_keV)
            * scene.layer_distance_A
            * (q**2).sum(-1)
        )
        P = np.where(in_band, np.exp(1j * phase), 0.0)
        wave = objects[0][:, None]
        for t in objects[1:]:
            wave = np.fft.ifft2(np.fft.fft2(wave) * P) * t[:, None]
        amplitude = np.moveaxis(np.fft.fft2(wave) / np.prod(shape), 1, -1)
    near = (np.abs(np.einsum("bij,hkj->bhki", G, hk)).max(-1) < reach_inv_A).any(0)
    return hk[near].astype(np.int64), np.abs(amplitude[:, near]) ** 2


def _shape(cell: Array, sampling_A: float) -> tuple[int, ...]:
    """Samples along the lattice vectors (columns) of a cell."""
    least = np.ceil(np.linalg.norm(cell, axis=0) / sampling_A)
    return tuple(int(next_fast_len(int(n))) for n in least)


def _indices(shape: tuple[int, ...]) -> Array:
    """(h, k) of the samples of a Fourier transform, (*shape, 2)."""
    index = [np.rint(np.fft.fftfreq(n) * n) for n in shape]
    return np.stack(np.meshgrid(*index, indexing="ij"), -1)


def _transmission(
    config: Config, scene: Scene, F: Array, shape: tuple[int, ...], chosen: NDArray[np.bool_]
) -> NDArray[np.complex128]:
    """Transmission functions (B, *shape) of the cell's `chosen` atoms, in cells deformed by
    F (B, 2, 2).
    """
    crystal, hk = scene.crystals[0], _indices(shape)
    G = geometry.inverse_transpose(F) @ scene.nominal
    # |g|^2 = (h, k) G^T G (h, k)^T, as one product of matrices.
    metric = np.swapaxes(G, 1, 2) @ G
    metric_terms = np.stack([metric[:, 0, 0], metric[:, 0, 1], metric[:, 1, 1]], -1)
    h, k = hk[..., 0], hk[..., 1]
    index_terms = np.stack([h**2, 2 * h * k, k**2]).reshape(3, -1)
    g2 = (metric_terms @ index_terms).reshape(-1, *shape)
    # A tilt shifts an atom at height z by z times the lean: by g . lean of a period.
    lean = scene.tilt.lean
    leaning = np.einsum("i,bij,hkj->bhk", lean, G, hk) if lean.any() else 0.0
    V = np.zeros(g2.shape, complex)
    factors = LobatoParametrization()
    for number in np.unique(crystal.numbers[chosen]):
        symbol = chemical_symbols[number]
        same = chosen & (crystal.numbers == number)
        phases = (
            hk @ x + z * leaning
            for x, z in zip(crystal.basis[same], crystal.height_A[same], strict=True)
        )
        structure = sum(np.exp(-2j * np.pi * phase) for phase in phases)
        damping = np.exp(-2 * np.pi**2 * scene.thermal_A.get(symbol, 0.0) ** 2 * g2)
        scattering: Any = factors.projected_scattering_factor(symbol)
        V += scattering(g2) * damping * structure
    V /= np.abs(np.linalg.det(F @ crystal.cell))[:, None, None]
    sigma = energy2sigma(config.microscope.energy_keV * 1e3)
    return np.exp(1j * sigma * np.fft.ifft2(V).real * np.prod(shape))
