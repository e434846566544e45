"""What a real instrument adds: drift of the beam, distortion, source size, bad pixels.

All are exact in the patterns and in their gradients, so that the bound holds with them on: a
gradient is the change with a shift on an undistorted detector, in which the lattice is known.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ccstae.config.microscope import Microscope
from ccstae.config.scenes import Scan
from ccstae.simulation import optics
from ccstae.specimen.scene import Scene

Array = NDArray[np.float64]

# Cut of the point spread, in its standard deviations: a pixel then lacks 3e-7 of what is near it.
_MAX_TAIL = 5.0


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


def spoil(
    microscope: Microscope, patterns: NDArray[np.float32], gradient: NDArray[np.float32]
) -> None:
    """Apply dead and hot pixels to patterns (..., Qy, Qx) and their gradients, in place."""
    dead, hot = bad_pixels(microscope)
    patterns[..., dead] = 0
    gradient[..., dead] = 0
    patterns[..., hot] += microscope.nuisances.hot_level


def distorted_response(
    microscope: Microscope, win: optics.Window
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Response of the pixels to the window's samples on a distorted detector, and its slopes:
    sparse (detector_px^2, samples^2).

    A sample at u pixels from the direct beam lands at A u and counts in the pixel at j with R((A u
    - j)_x) R((A u - j)_y). The slopes are those with a shift of the sample before the distortion.
    """
    n, half = microscope.detector_px, microscope.detector_px // 2
    A = np.array(microscope.nuisances.distortion)
    u = win.frequencies / microscope.pixel_size_inv_A
    at = np.stack(np.meshgrid(u, u), -1).reshape(-1, 2) @ A.T
    reach = int(np.ceil(0.5 + _MAX_TAIL * microscope.point_spread_px))
    on = np.flatnonzero((np.abs(at) < half + reach).all(-1))
    # The pixels near each of the m samples that land on the detector, (m, w, 2).
    pixel = np.rint(at[on]).astype(int)[:, None, :] + np.arange(-reach, reach + 1)[:, None]
    value, slope = optics.response(microscope, at[on][:, None, :] - pixel)
    (vx, vy), (sx, sy) = np.moveaxis(value, 2, 0), np.moveaxis(slope, 2, 0)
    column, row = pixel[:, None, :, 0] + half, pixel[:, :, None, 1] + half
    inside = (column >= 0) & (column < n) & (row >= 0) & (row < n)
    sample = np.broadcast_to(on[:, None, None], inside.shape)[inside]
    index = torch.from_numpy(np.stack([(row * n + column)[inside], sample]))

    def sparse(left: Array, right: Array) -> Array:
        return (left[:, :, None] * right[:, None, :])[inside]

    # Slopes with a shift of where the sample lands, then with one before the distortion.
    landed = np.stack([sparse(vy, sx), sparse(sy, vx)])
    along_x, along_y = A.T @ landed
    shape = (n * n, len(at))
    return (
        _csr(index, sparse(vy, vx), shape),
        _csr(index, along_x, shape),
        _csr(index, along_y, shape),
    )


def _csr(index: torch.Tensor, values: Array, shape: tuple[int, int]) -> torch.Tensor:
    # Torch says at its first sparse matrix that they are new, and unchecked.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        matrix = torch.sparse_coo_tensor(index, torch.from_numpy(values).float(), shape)
        return matrix.coalesce().to_sparse_csr()


def stored(microscope: Microscope, scene: Scene, positions: Array) -> dict[str, Any]:
    """What the truth file says of the nuisances that are on."""
    nuisances = microscope.nuisances
    out: dict[str, Any] = {}
    if nuisances.drifts:
        out["centre_px"] = microscope.detector_px // 2 + drift_px(microscope, scene.scan, positions)
    if nuisances.distorts:
        out["distortion"] = np.array(nuisances.distortion)
    if nuisances.source_size_A > 0:
        out["source_size_A"] = nuisances.source_size_A
    dead, hot = bad_pixels(microscope)
    if nuisances.dead_px > 0:
        out["dead"] = dead
    if nuisances.hot_px > 0:
        out["hot"] = hot
        out["hot_level"] = nuisances.hot_level
    if scene.layers > 1:
        out["layers"] = scene.layers
        out["stacking"] = scene.stacking
        out["layer_distance_A"] = scene.layer_distance_A
    if not scene.tilt.none:
        out["tilt_mrad"] = np.array(scene.settings.tilt_mrad)
    return out
