"""Patterns of uniform lattices, one lattice a position, without a window: a sum of disks.

Under a probe whose disks stay apart, a phase object that repeats with the lattice sends |T_hk|^2 of the electrons into the disk
at g = F^-T G0 (h, k), with T_hk the Fourier coefficients of the transmission function of one deformed cell,

    V_hk = sum_j f_j(g) exp(-2 pi i (h, k) . x_j) / area,    t = exp(i sigma V),    T = FFT(t) / samples.

f_j are abTEM's projected scattering factors. This is what `simulate.Renderer` tends to on a uniform crystal; a test holds the two
against each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from abtem.core.energy import energy2sigma
from abtem.parametrizations import LobatoParametrization
from ase.data import chemical_symbols
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from ccstae import geometry, optics
from ccstae.config import Config
from ccstae.scenes.base import Array, Scene
from ccstae.scenes.local import LocalScene

_BATCH = 64  # patterns per batch; bounds memory, not results
_SAMPLES = 4  # per pixel, of the integral over a pixel
_NODES = 7  # of the interpolation between offsets of a disk; its error is 1e-6 of the disk
_TAIL = 5.0  # standard deviations of aperture edge and point spread beyond which a disk is cut
_FINER = 4  # a cell is so small that it is sampled this much more finely than a specimen
_APART = 8.0  # least gap of two disks in standard deviations of the aperture's edge: their amplitudes then multiply to 1e-9


def applies(config: Config, scene: LocalScene) -> bool:
    """Whether the scene can be rendered so: it is one layer, and all disks are well apart."""
    radius = optics.aperture_radius_inv_A(config.microscope)
    edge = radius * config.microscope.aperture_edge_mrad / config.microscope.semiangle_mrad
    G = geometry.inverse_transpose(scene.F) @ scene.nominal
    nearest = min(float(np.linalg.norm(G @ hk, axis=-1).min()) for hk in ((1, 0), (0, 1), (1, 1), (1, -1)))
    return scene.layers == 1 and nearest > 2 * radius + _APART * edge


class UniformRenderer:
    """Turns beam positions of a LocalScene into patterns; the same calls as `simulate.Renderer`."""

    def __init__(self, config: Config, scene: LocalScene):
        self.config, self.scene = config, scene
        self.tile_A = config.simulation.tile_A
        m = config.microscope
        edge_px = optics.aperture_radius_inv_A(m) * m.aperture_edge_mrad / m.semiangle_mrad / m.pixel_size_inv_A
        reach = optics.aperture_radius_inv_A(m) / m.pixel_size_inv_A + _TAIL * edge_px
        self.half = int(np.ceil(reach + 1 + _TAIL * m.point_spread_px))
        # A disk on the pixels round it, and its gradients, at Chebyshev nodes of its offset from the middle of a pixel.
        samples = np.arange(-np.ceil(reach * _SAMPLES), np.ceil(reach * _SAMPLES) + 1) / _SAMPLES
        q = samples * m.pixel_size_inv_A
        intensity = optics.aperture(m, np.hypot(q[:, None], q)) ** 2
        intensity /= intensity.sum()
        pixels = np.arange(-self.half, self.half + 1)
        self.nodes = 0.5 * np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
        R, S = np.moveaxis(np.array([optics.response(m, samples + node - pixels[:, None]) for node in self.nodes]), 1, 0)
        images = np.stack(
            [np.einsum("aik,kl,bjl->abij", left, intensity, right, optimize=True) for left, right in ((R, R), (R, S), (S, R))], 2
        )
        images[np.abs(images) < 1e-15] = 0.0  # what has no meaning, and would be slow to multiply
        self.table = torch.from_numpy(images.reshape(_NODES**2, -1).astype(np.float32))
        self.sigma = energy2sigma(m.energy_keV * 1e3)

    def vacuum(self) -> NDArray[np.float32]:
        """The vacuum probe on the detector, (Qy, Qx), sums to 1."""
        return self._disks(np.zeros((1, 1, 2)), np.ones((1, 1)))[0][0]

    def tile(self, _: Scene, positions: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Patterns (Ry, Rx, Qy, Qx) of a block of positions and their gradients (Ry, Rx, 2, Qy, Qx) with a shift in x, y (1/px)."""
        lead, n = positions.shape[:2], self.config.microscope.detector_px
        at = self.scene.nearest(positions)
        F = self.scene.F[at].reshape(-1, 4)
        # Many positions may share a lattice; each lattice is rendered once.
        kinds, which = np.unique(np.column_stack([F, self.scene.label[at].ravel()]), axis=0, return_inverse=True)
        out = np.empty((len(kinds), n, n), np.float32)
        gradient = np.empty((len(kinds), 2, n, n), np.float32)
        for start in range(0, len(kinds), _BATCH):
            part = slice(start, start + _BATCH)
            out[part], gradient[part] = self.patterns(kinds[part, :4].reshape(-1, 2, 2), kinds[part, 4])
        which = which.ravel()
        return out[which].reshape(*lead, n, n), gradient[which].reshape(*lead, 2, n, n)

    def patterns(self, F: Array, label: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Patterns (B, Qy, Qx) and gradients (B, 2, Qy, Qx) of the lattices F (B, 2, 2); label 0 is vacuum."""
        hk, T = self.coefficients(F)
        weight = np.abs(T) ** 2
        direct = (hk == 0).all(-1)
        weight[label == 0] = direct
        G = geometry.inverse_transpose(F) @ self.scene.nominal
        return self._disks(np.einsum("bij,nj->bni", G, hk) / self.config.microscope.pixel_size_inv_A, weight)

    def coefficients(self, F: Array) -> tuple[NDArray[np.int64], NDArray[np.complex128]]:
        """(h, k), shape (n, 2), of the disks that may reach the detector, and T_hk (B, n) of the cells deformed by F (B, 2, 2)."""
        crystal = self.scene.crystals[0]
        size = np.linalg.norm(crystal.cell, axis=0) / (self.config.simulation.potential_sampling_A / _FINER)
        shape = [next_fast_len(int(np.ceil(n))) for n in size]
        h, k = (np.rint(np.fft.fftfreq(n) * n) for n in shape)
        hk = np.stack(np.meshgrid(h, k, indexing="ij"), -1)
        G = geometry.inverse_transpose(F) @ self.scene.nominal
        metric = np.swapaxes(G, 1, 2) @ G
        quadratic = np.stack([hk[..., 0] ** 2, 2 * hk[..., 0] * hk[..., 1], hk[..., 1] ** 2]).reshape(3, -1)
        g2 = (np.stack([metric[:, 0, 0], metric[:, 0, 1], metric[:, 1, 1]], -1) @ quadratic).reshape(-1, *hk.shape[:2])
        # A tilt shifts an atom at height z by z times the lean: by g . lean of a period.
        lean = self.scene.tilt.lean
        leaning = np.einsum("i,bij,hkj->bhk", lean, G, hk) if lean.any() else 0.0
        V = np.zeros(g2.shape, complex)
        factors = LobatoParametrization()
        for number in np.unique(crystal.numbers):
            symbol = chemical_symbols[number]
            own = crystal.numbers == number
            phases = (hk @ x + z * leaning for x, z in zip(crystal.basis[own], crystal.height_A[own], strict=True))
            structure = sum(np.exp(-2j * np.pi * phase) for phase in phases)
            damping = np.exp(-2 * np.pi**2 * self.scene.thermal_A.get(symbol, 0.0) ** 2 * g2)
            scattering: Any = factors.projected_scattering_factor(symbol)
            V += scattering(g2) * damping * structure
        V /= np.abs(np.linalg.det(F @ crystal.cell))[:, None, None]
        t = np.exp(1j * self.sigma * np.fft.ifft2(V).real * (shape[0] * shape[1]))
        T = np.fft.fft2(t) / (shape[0] * shape[1])
        m = self.config.microscope
        reach = (m.detector_px / 2 + self.half + 1) * m.pixel_size_inv_A
        near = g2.min(0) < 2 * reach**2
        near[near] = (np.abs(np.einsum("bij,nj->bni", G, hk[near])).max(-1) < reach).any(0)
        return hk[near].astype(np.int64), T[:, near]

    def _disks(self, centre_px: Array, weight: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Disks at (B, n, 2) pixels (x, y) from the detector's centre, weights (B, n), on the detector, with their gradients."""
        size, half, count = self.config.microscope.detector_px, self.half, len(centre_px)
        pixel = np.rint(centre_px)
        at = torch.from_numpy(pixel.astype(np.int64)) + size // 2
        keep = ((at > -half) & (at < size + half)).all(-1)
        cx, cy = np.moveaxis(_interpolation(self.nodes, centre_px - pixel), 2, 0)
        factors = torch.from_numpy((weight[..., None, None] * cy[..., :, None] * cx[..., None, :]).astype(np.float32))
        images = factors[keep].reshape(-1, len(self.nodes) ** 2) @ self.table
        # Patches are added up on an image with room for every disk that touches the detector.
        wide = size + 4 * half
        patch = torch.arange(half, 3 * half + 1)
        index = (
            ((torch.arange(count)[:, None] * wide + at[..., 1])[..., None, None] + patch[:, None]) * wide + at[..., 0, None, None] + patch
        )
        index = index[keep].reshape(len(images), -1)
        parts = images.reshape(len(images), 3, -1)
        out = torch.zeros(3, count * wide * wide)
        for i in range(3):
            out[i].index_add_(0, index.ravel(), parts[:, i].ravel())
        inner = slice(2 * half, 2 * half + size)
        out = out.reshape(3, count, wide, wide)[:, :, inner, inner]
        # Interpolation may leave -1e-9 of a disk where there is nothing.
        return out[0].clamp(min=0).numpy(), out[1:].transpose(0, 1).numpy()


def _interpolation(nodes: Array, x: Array) -> Array:
    """Values at x (...) of the polynomials that are 1 at one node and 0 at the others, (..., nodes)."""
    degree = len(nodes)
    basis = [np.cos(k * np.arccos(np.clip(2 * t, -1, 1))) for t in (nodes, x) for k in range(degree)]
    at_nodes, at_x = np.stack(basis[:degree]), np.stack(basis[degree:], -1)
    scale = np.where(np.arange(degree) == 0, 1.0, 2.0) / degree
    return np.asarray((at_x * scale) @ at_nodes)
