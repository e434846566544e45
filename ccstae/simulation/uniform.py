"""Patterns of uniform lattices, one lattice a position, without a window: a sum of disks.

Under a probe whose disks stay apart, each direction of its cone is diffracted by itself, and a
pattern is the sum of the disks at g = F^-T G0 (h, k) with the shares of the electrons that one
deformed cell sends into each (cell.py). With one layer a disk is the aperture; with several the
share changes across it, and is interpolated between Chebyshev nodes of the direction. This is what
`simulate.Renderer` tends to on a uniform crystal; a test holds the two against each other.
"""

from __future__ import annotations

from math import factorial

import numpy as np
import torch
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.config.run import Config
from ccstae.simulation import cell, optics
from ccstae.specimen.local import LocalScene
from ccstae.specimen.scene import Array, Scene

_MAX_BATCH = 64  # patterns per batch; bounds memory, not results
_SAMPLES = 4  # per pixel, of the integral over a pixel
_NODES = 7  # of the interpolation between offsets of a disk; its error is 1e-6 of the disk
_MAX_TAIL = 5.0  # standard deviations of aperture edge and point spread beyond which a disk is cut
_DIRECTION_TOLERANCE = 1e-4  # of a disk, by which the interpolation between directions may be wrong
# Gap of two disks in standard deviations of the aperture's edge: amplitudes multiply to 1e-9.
_MIN_GAP = 8.0


def applies(config: Config, scene: LocalScene) -> bool:
    """Whether the scene can be rendered so: all disks are well apart."""
    m = config.microscope
    radius = geometry.disk_radius_inv_A(m.semiangle_mrad, m.energy_keV)
    edge = radius * m.aperture_edge_mrad / m.semiangle_mrad
    G = geometry.inverse_transpose(scene.F) @ scene.nominal
    nearest = min(
        float(np.linalg.norm(G @ hk, axis=-1).min()) for hk in ((1, 0), (0, 1), (1, 1), (1, -1))
    )
    return nearest > 2 * radius + _MIN_GAP * edge


class UniformRenderer:
    """Turns beam positions of a LocalScene into patterns; the same calls as `simulate.Renderer`."""

    def __init__(self, config: Config, scene: LocalScene):
        self.config, self.scene = config, scene
        self.tile_A = config.simulation.tile_A
        m = config.microscope
        radius = geometry.disk_radius_inv_A(m.semiangle_mrad, m.energy_keV)
        edge_px = radius * m.aperture_edge_mrad / m.semiangle_mrad / m.pixel_size_inv_A
        reach = radius / m.pixel_size_inv_A + _MAX_TAIL * edge_px
        self.half = int(np.ceil(reach + 1 + _MAX_TAIL * m.point_spread_px))
        # The parts of a disk, one for each node of the direction, on the pixels round it, and their
        # gradients, at Chebyshev nodes of the disk's offset from the middle of a pixel.
        last = np.ceil(reach * _SAMPLES)
        samples = np.arange(-last, last + 1) / _SAMPLES  # of a disk along an axis, in pixels
        q = samples * m.pixel_size_inv_A
        intensity = optics.aperture(m, np.hypot(q[:, None], q)) ** 2
        intensity /= intensity.sum()
        # A part is the disk's intensity times the polynomial that is 1 at its node (y, x).
        within = _chebyshev(_directions(config, scene, q[-1]))
        polynomials = _interpolation(within, samples / (2 * samples[-1])).T  # (node, sample)
        parts = polynomials[:, None, :, None] * polynomials[:, None, :] * intensity
        parts = parts.reshape(-1, len(samples), len(samples))
        self.directions = np.stack(np.meshgrid(within, within), -1).reshape(-1, 2) * 2 * q[-1]
        # Response R of each pixel to each sample, and its slope S, at each node of the offset.
        self.nodes = _chebyshev(_NODES)
        pixels = np.arange(-self.half, self.half + 1)
        responses = [optics.response(m, samples + node - pixels[:, None]) for node in self.nodes]
        R, S = np.moveaxis(np.array(responses), 1, 0)
        # Pattern, change along x, change along y: (part, node y, node x, which, pixel y, pixel x).
        images = np.stack(
            [
                np.einsum("aik,tkl,bjl->tabij", along_y, parts, along_x, optimize=True)
                for along_y, along_x in ((R, R), (R, S), (S, R))
            ],
            3,
        )
        images[np.abs(images) < 1e-15] = 0.0  # what has no meaning, and would be slow to multiply
        self.table = torch.from_numpy(images.reshape(len(parts) * _NODES**2, -1).astype(np.float32))
        self.reach = (m.detector_px / 2 + self.half + 1) * m.pixel_size_inv_A

    def vacuum(self) -> NDArray[np.float32]:
        """The vacuum probe on the detector, (Qy, Qx), sums to 1."""
        patterns, _ = self._disks(np.zeros((1, 1, 2)), np.ones((1, 1, len(self.directions))))
        return patterns[0]

    def tile(self, _: Scene, positions: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Patterns (Ry, Rx, Qy, Qx) of a block of positions and their gradients (Ry, Rx, 2, Qy, Qx)
        with a shift in x, y (1/px).
        """
        lead, n = positions.shape[:2], self.config.microscope.detector_px
        at = self.scene.nearest(positions)
        F = self.scene.F[at].reshape(-1, 4)
        # Many positions may share a lattice; each lattice is rendered once.
        labelled = np.column_stack([F, self.scene.label[at].ravel()])
        lattices, which = np.unique(labelled, axis=0, return_inverse=True)
        out = np.empty((len(lattices), n, n), np.float32)
        gradient = np.empty((len(lattices), 2, n, n), np.float32)
        for start in range(0, len(lattices), _MAX_BATCH):
            part = slice(start, start + _MAX_BATCH)
            each_F, label = lattices[part, :4].reshape(-1, 2, 2), lattices[part, 4]
            out[part], gradient[part] = self.patterns(each_F, label)
        which = which.ravel()
        return out[which].reshape(*lead, n, n), gradient[which].reshape(*lead, 2, n, n)

    def patterns(self, F: Array, label: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Patterns (B, Qy, Qx), gradients (B, 2, Qy, Qx) of lattices F (B, 2, 2); 0 is vacuum."""
        hk, weight = cell.intensities(self.config, self.scene, F, self.directions, self.reach)
        weight[label == 0] = (hk == 0).all(-1)[:, None]
        G = geometry.inverse_transpose(F) @ self.scene.nominal
        centre_px = np.einsum("bij,nj->bni", G, hk) / self.config.microscope.pixel_size_inv_A
        return self._disks(centre_px, weight)

    def _disks(
        self, centre_px: Array, weight: Array
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Disks at (B, n, 2) pixels (x, y) from the detector's centre, weights (B, n, directions),
        with their gradients.
        """
        size, half, count = self.config.microscope.detector_px, self.half, len(centre_px)
        pixel = np.rint(centre_px)
        at = torch.from_numpy(pixel.astype(np.int64)) + size // 2
        touches = ((at > -half) & (at < size + half)).all(-1)
        # A disk is the table's rows, weighted with the share in each direction and with the
        # polynomials of its offset from the middle of its pixel.
        x, y = np.moveaxis(_interpolation(self.nodes, centre_px - pixel), 2, 0)
        offset = (y[..., :, None] * x[..., None, :]).reshape(*x.shape[:2], 1, -1)
        factors = torch.from_numpy((weight[..., None] * offset).astype(np.float32))
        images = factors[touches].reshape(-1, len(self.table)) @ self.table
        # Patches are added up on an image with room for every disk that touches the detector.
        wide = size + 4 * half
        patch = torch.arange(half, 3 * half + 1)
        row = (torch.arange(count)[:, None] * wide + at[..., 1])[..., None, None] + patch[:, None]
        column = at[..., 0, None, None] + patch
        index = (row * wide + column)[touches].reshape(len(images), -1)
        parts = images.reshape(len(images), 3, -1)
        out = torch.zeros(3, count * wide * wide)
        for i in range(3):
            out[i].index_add_(0, index.ravel(), parts[:, i].ravel())
        inner = slice(2 * half, 2 * half + size)
        out = out.reshape(3, count, wide, wide)[:, :, inner, inner]
        # Interpolation may leave -1e-9 of a disk where there is nothing.
        return out[0].clamp(min=0).numpy(), out[1:].transpose(0, 1).numpy()


def _directions(config: Config, scene: Scene, radius_inv_A: float) -> int:
    """How many nodes the interpolation across a disk needs, each way.

    Between the first and the last layer the phase changes by 2 pi lambda g d (layers - 1) times the
    distance k from the middle of the disk at g. Interpolation of exp(i p k) at n Chebyshev nodes of
    |k| <= 1 is wrong by at most p^n / (2^(n - 1) n!).
    """
    m = config.microscope
    g = m.detector_px / 2 * m.pixel_size_inv_A
    p = (
        2
        * np.pi
        * geometry.wavelength_A(m.energy_keV)
        * g
        * scene.layer_distance_A
        * (scene.layers - 1)
        * radius_inv_A
    )
    n = 1
    while p**n / (2 ** (n - 1) * factorial(n)) > _DIRECTION_TOLERANCE:
        n += 1
    return n


def _chebyshev(n: int) -> Array:
    """Nodes of the interpolation on [-1/2, 1/2]."""
    return np.asarray(0.5 * np.cos(np.pi * (np.arange(n) + 0.5) / n))


def _interpolation(nodes: Array, x: Array) -> Array:
    """Values at x (...) of the polynomials that are 1 at one node and 0 at the others, (...,
    nodes).
    """
    count = len(nodes)

    def chebyshev(t: Array, axis: int) -> Array:
        """T_k(2 t) = cos(k arccos(2 t)), k = 0 to count - 1, along a new axis."""
        angle = np.arccos(np.clip(2 * t, -1, 1))
        return np.stack([np.cos(k * angle) for k in range(count)], axis)

    # The polynomials are orthogonal over the nodes, with the weights 1 / count and 2 / count.
    scale = np.where(np.arange(count) == 0, 1.0, 2.0) / count
    return np.asarray((chebyshev(x, -1) * scale) @ chebyshev(nodes, 0))
