"""What a real instrument adds to the patterns: drift of the beam, distortion, source size, bad
pixels.

All are exact in the patterns and in their gradients, so that the limit holds with them on: a
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

# standard deviations of the point spread that are kept: a pixel then lacks 3e-7 of what is near it
_TAIL = 5.0


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
    n, own = microscope.detector_px, microscope.nuisances
    order = np.random.default_rng(own.seed).permutation(n * n)
    rank = np.empty(n * n, int)
    rank[order] = np.arange(n * n)
    dead, hot = round(own.dead_px * n * n), round(own.hot_px * n * n)
    return (rank < dead).reshape(n, n), ((rank >= dead) & (rank < dead + hot)).reshape(n, n)


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
    - j)_x) R((A u - j)_y). The slopes are those with a shift of the sample along x and y before the
    distortion.
    """
    n, half = microscope.detector_px, microscope.detector_px // 2
    A = np.array(microscope.nuisances.distortion)
    u = win.frequencies / microscope.pixel_size_inv_A
    at = np.stack(np.meshgrid(u, u), -1).reshape(-1, 2) @ A.T
    reach = int(np.ceil(0.5 + _TAIL * microscope.point_spread_px))
    on = np.flatnonzero((np.abs(at) < half + reach).all(-1))
    pixel = (
        np.rint(at[on]).astype(int)[:, None, :] + np.arange(-reach, reach + 1)[:, None]
    )  # (m, w, 2)
    value, slope = optics.response(microscope, at[on][:, None, :] - pixel)
    (vx, vy), (sx, sy) = np.moveaxis(value, 2, 0), np.moveaxis(slope, 2, 0)
    column, row = pixel[:, None, :, 0] + half, pixel[:, :, None, 1] + half
    inside = (column >= 0) & (column < n) & (row >= 0) & (row < n)
    sample = np.broadcast_to(on[:, None, None], inside.shape)[inside]
    index = torch.from_numpy(np.stack([(row * n + column)[inside], sample]))

    def sparse(left: Array, right: Array) -> Array:
        return (left[:, :, None] * right[:, None, :])[inside]

    landed = np.stack([sparse(vy, sx), sparse(sy, vx)])
    along = A.T @ landed
    response, x, y = (_csr(index, v, (n * n, len(at))) for v in (sparse(vy, vx), *along))
    return response, x, y


def _csr(index: torch.Tensor, values: Array, shape: tuple[int, int]) -> torch.Tensor:
    with (
        warnings.catch_warnings()
    ):  # torch says at its first sparse matrix that they are new, and unchecked
        warnings.simplefilter("ignore", UserWarning)
        return (
            torch.sparse_coo_tensor(index, torch.from_numpy(values).float(), shape)
            .coalesce()
            .to_sparse_csr()
        )


def stored(microscope: Microscope, scene: Scene, positions: Array) -> dict[str, Any]:
    """What the truth file says of the nuisances that are on."""
    own = microscope.nuisances
    out: dict[str, Any] = {}
    if own.drifts:
        out["centre_px"] = microscope.detector_px // 2 + drift_px(microscope, scene.scan, positions)
    if own.distorts:
        out["distortion"] = np.array(own.distortion)
    if own.source_size_A > 0:
        out["source_size_A"] = own.source_size_A
    dead, hot = bad_pixels(microscope)
    if own.dead_px > 0:
        out["dead"] = dead
    if own.hot_px > 0:
        out["hot"], out["hot_level"] = hot, own.hot_level
    if scene.layers > 1:
        out["layers"], out["stacking"], out["layer_distance_A"] = (
            scene.layers,
            scene.stacking,
            scene.layer_distance_A,
        )
    if not scene.tilt.none:
        out["tilt_mrad"] = np.array(scene.settings.tilt_mrad)
    return out
