"""What a real instrument adds: drift of the beam, distortion, source size, precession, pixels that
see nothing.

All are exact in the patterns and in their gradients, so that the bound holds with them on: a
gradient is the change with a shift on an undistorted detector, in which the lattice is known, or,
where methods are told the lattice of the distorted one, on that. What comes after the electrons
have reached the camera, camera.py does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.config.microscope import Microscope
from ccstae.config.scenes import Scan

Array = NDArray[np.float64]

# Directions of the beam on the cone of a precession, of which the pattern is the mean. Some are
# enough where a disk's rocking curve is wider than the step from one to the next.
_PRECESSION_STEPS = 12


def drift_px(microscope: Microscope, scan: Scan, positions: Array) -> Array:
    """How far the direct beam (x, y) has drifted at positions (..., 2) in Angstrom: linear, none at
    the middle of the scan.
    """
    ry, rx = scan.shape
    share = positions / (np.array([rx - 1, ry - 1]) * scan.step_A)
    return np.asarray(share @ np.array(microscope.nuisances.descan_px))


def source(microscope: Microscope) -> tuple[Array, Array]:
    """Points (n, 2) in Angstrom and weights that sum to 1 of the source: Gauss-Hermite, exact to
    the fifth power of the distance.
    """
    size = microscope.nuisances.source_size_A
    if size == 0:
        return np.zeros((1, 2)), np.ones(1)
    x, weight = np.polynomial.hermite_e.hermegauss(3)
    points = np.stack(np.meshgrid(x, x), -1).reshape(-1, 2) * size
    return points, np.outer(weight, weight).ravel() / weight.sum() ** 2


def bad_pixels(microscope: Microscope) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks (Qy, Qx) of dead and hot pixels, never both, the same for every pattern."""
    nuisances = microscope.nuisances
    n = microscope.detector_px
    order = np.random.default_rng(nuisances.seed).permutation(n * n)
    flat = np.empty(n * n, int)
    flat[order] = np.arange(n * n)
    rank = flat.reshape(n, n)
    dead, hot = round(nuisances.dead_px * n * n), round(nuisances.hot_px * n * n)
    return rank < dead, (rank >= dead) & (rank < dead + hot)


def blind_pixels(microscope: Microscope) -> NDArray[np.bool_]:
    """Mask (Qy, Qx) of the pixels that see no electrons: dead ones, those of a cross through the
    middle of the detector, and those behind the beam stop and its arm.
    """
    nuisances, n = microscope.nuisances, microscope.detector_px
    blind, _ = bad_pixels(microscope)
    first = n // 2 - nuisances.dead_cross_px // 2
    cross = slice(first, first + nuisances.dead_cross_px)
    blind[cross] = True
    blind[:, cross] = True
    y, x = np.mgrid[:n, :n] - n // 2
    radius = nuisances.beam_stop_px
    if radius > 0:
        blind |= (np.hypot(x, y) <= radius) | ((np.abs(x) <= radius / 2) & (y < 0))
    return blind


def cone(microscope: Microscope) -> Array:
    """Directions (n, 2) in 1/Angstrom in which the beam comes in: one along the axis, or evenly
    round the cone of the precession.
    """
    nuisances = microscope.nuisances
    if nuisances.precession_mrad == 0:
        return np.zeros((1, 2))
    turn = 2 * np.pi * np.arange(_PRECESSION_STEPS) / _PRECESSION_STEPS
    tilt = nuisances.precession_mrad * 1e-3 / geometry.wavelength_A(microscope.energy_keV)
    return tilt * np.stack([np.cos(turn), np.sin(turn)], -1)


def spoil(
    microscope: Microscope, patterns: NDArray[np.float32], gradient: NDArray[np.float32]
) -> None:
    """Apply blind and hot pixels to patterns (..., Qy, Qx) and their gradients, in place."""
    blind, (_, hot) = blind_pixels(microscope), bad_pixels(microscope)
    patterns[..., blind] = 0
    gradient[..., blind] = 0
    patterns[..., hot] += microscope.nuisances.hot_level
