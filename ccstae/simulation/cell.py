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

from functools import cache, partial
from typing import Any

import numpy as np
from abtem.core.energy import energy2sigma
from abtem.parametrizations import LobatoParametrization
from ase.data import chemical_symbols
from numpy.typing import NDArray
from scipy.fft import fft2, ifft2, next_fast_len

from ccstae import geometry
from ccstae.config.run import Config
from ccstae.simulation import multislice, nuisance, optics
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
    reach = partial(_within, G, reach_inv_A)
    if scene.layers == 1:
        hk = _indices(fine)
        T = np.fft.fft2(_transmission(config, scene, F, fine, layers == 0)) / np.prod(fine)
        near = reach(hk)
        return hk[near].astype(np.int64), np.abs(T[:, near][..., None]) ** 2
    shape = _shape(cell, optics.MAX_SLICED_SAMPLING_A)
    hk = _indices(shape)
    near = reach(hk)
    shares = [
        _multislice(config, scene, one_F[None], one_G, layers, directions, fine, hk)[near]
        for one_F, one_G in zip(F, G, strict=True)
    ]
    return hk[near].astype(np.int64), np.array(shares)


def _within(G: Array, reach_inv_A: float, hk: Array) -> NDArray[np.bool_]:
    """Which disks (h, k) (*shape, 2) may lie within reach along x and y for any lattice G (B, 2,
    2).
    """
    return np.asarray((np.abs(np.einsum("bij,hkj->bhki", G, hk)).max(-1) < reach_inv_A).any(0))


def _multislice(
    config: Config,
    scene: Scene,
    F: Array,
    G: Array,
    layers: Array,
    directions: Array,
    fine: tuple[int, ...],
    hk: Array,
) -> Array:
    """Shares of the electrons (h, k, m) in the disks `hk` of one cell F (1, 2, 2) with reciprocal
    vectors G, for m directions of the beam's cone: the mean over the precession.
    """
    shape = hk.shape[:2]
    in_band = np.outer(*(np.abs(np.fft.fftfreq(n)) < multislice.KEPT_BAND / 2 for n in shape))
    # A negative index counts from the end of the finer grid, where the same frequency lies.
    row, column = hk[:, 0, 0].astype(int), hk[0, :, 1].astype(int)

    @cache
    def transmission(kind: bytes) -> NDArray[np.complex64]:
        chosen = layers == kinds.index(kind)
        T = fft2(_transmission(config, scene, F, fine, chosen)[0]) / np.prod(fine)
        t = ifft2(T[row][:, column] * in_band) * np.prod(shape)
        return np.asarray(t, np.complex64)

    kinds = _kinds(scene, layers)
    wavelength_A = geometry.wavelength_A(config.microscope.energy_keV)
    cone = nuisance.cone(config.microscope)
    out = np.zeros((*shape, len(directions)))
    for incident in cone:
        # (m, h, k, 2)
        q = np.einsum("ij,hkj->hki", G, hk) + (directions + incident)[:, None, None]
        phase = -np.pi * wavelength_A * scene.layer_distance_A * (q**2).sum(-1)
        P = np.where(in_band, np.exp(1j * phase), 0.0).astype(np.complex64)
        wave = transmission(kinds[0])[None]
        for kind in kinds[1:]:
            wave = ifft2(fft2(wave) * P) * transmission(kind)
        out += np.moveaxis(np.abs(fft2(wave) / np.prod(shape)) ** 2, 0, -1) / len(cone)
    return out


def _kinds(scene: Scene, layers: Array) -> list[bytes]:
    """Of each layer what its transmission function follows from: layers alike have equal ones."""
    crystal = scene.crystals[0]
    lean = np.outer(crystal.height_A, scene.tilt.lean)
    atoms = np.column_stack([crystal.numbers, crystal.basis, lean])
    return [atoms[layers == n].tobytes() for n in range(scene.layers)]


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
