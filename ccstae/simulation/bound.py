"""The physical limit: the Cramer-Rao bound of every pattern at every noise level.

The Fisher information of a pattern with expected counts m(q; F, t) is I_ab = sum_q (dm/da) (dm/db)
/ m over the four components of F and the two of the centre t; bad pixels take no part in the sum.
Every disk moves rigidly by d(F^-T) g + t and keeps its shape; a pixel belongs to the disk of its
nearest reciprocal lattice node. The centre is a nuisance parameter: the bound is the block of the
inverse. Poisson likelihood and bound: S. M. Kay, Fundamentals of Statistical Signal Processing:
Estimation Theory (1993), chapter 3.

The bound holds for unbiased estimators that see one pattern and know everything but F and t.
Whatever pools patterns or uses a prior may go below it, at the price of bias.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.config.levels import Level
from ccstae.io.calibration import Calibration
from ccstae.simulation import noise
from ccstae.simulation.camera import COUNTING, Camera

Array = NDArray[np.float64]


def shift_images(gradient: NDArray[np.float32], F: Array, calibration: Calibration) -> torch.Tensor:
    """Change of each pattern with its six shift amplitudes, (n, 6, Qy * Qx) float64.

    `gradient` (n, 2, Qy, Qx) is the change with a shift of one pixel along x and y. The first two
    images are a common shift; the other four are a shift along k by the component i of the disk's g
    (1/Angstrom), ordered (k, i) = xx, xy, yx, yy.
    """
    n, _, qy, qx = gradient.shape
    node = nearest_node(F, calibration, (qy, qx))  # (n, 2, P)
    g = torch.from_numpy(np.asarray(gradient, np.float64)).reshape(n, 2, qy * qx)
    return torch.cat([g, (g[:, :, None] * node[:, None]).reshape(n, 4, qy * qx)], 1)


def nearest_node(F: Array, calibration: Calibration, shape: tuple[int, int]) -> torch.Tensor:
    """Reciprocal lattice vector g = F^-T g0 in 1/Angstrom nearest to each pixel, (n, 2, Qy * Qx).

    It is one of the four corners of the cell that the pixel lies in, as the nominal vectors are the
    lattice's shortest.
    """
    x, y = np.meshgrid(
        np.arange(shape[1]) - calibration.centre_px[0],
        np.arange(shape[0]) - calibration.centre_px[1],
    )
    q = torch.from_numpy(np.stack([x.ravel(), y.ravel()]) * calibration.pixel_size_inv_A)  # (2, P)
    G = torch.from_numpy(geometry.inverse_transpose(F) @ calibration.lattice_inv_A)  # (n, 2, 2)
    corner = torch.floor(torch.linalg.inv(G) @ q)
    first = G @ corner
    best, least = first, ((first - q) ** 2).sum(1, keepdim=True)
    for h, k in ((1, 0), (0, 1), (1, 1)):
        node = first + (h * G[:, :, 0] + k * G[:, :, 1])[:, :, None]
        distance = ((node - q) ** 2).sum(1, keepdim=True)
        best, least = torch.where(distance < least, node, best), torch.minimum(distance, least)
    return best


def bound(
    patterns: NDArray[np.float32],
    images: torch.Tensor,
    F: Array,
    level: Level,
    calibration: Calibration,
    good: NDArray[np.bool_] | None = None,
    camera: Camera = COUNTING,
) -> Array:
    """The Cramer-Rao bound of each pattern at a noise level.

    Args:
        patterns: clean patterns, shape (n, Qy, Qx).
        images: their changes with the six shift amplitudes, from `shift_images`.
        F: their deformations, shape (n, 2, 2).
        level: of the noise.
        calibration: of instrument and specimen.
        good: where a pixel tells something, shape (Qy, Qx); everywhere where it is left out.
        camera: at the patterns' positions.

    Returns:
        Standard deviations of (exx, eyy, exy, theta), shape (n, 4), theta in radians; zero at the
        noise-free level.
    """
    if np.isinf(level.electrons):
        return np.zeros((len(patterns), 4))
    information = fisher(patterns, images, level, good, camera)
    return np.asarray(
        np.sqrt(np.diagonal(covariance(information, F, calibration), axis1=-2, axis2=-1))
    )


def fisher(
    patterns: NDArray[np.float32],
    images: torch.Tensor,
    level: Level,
    good: NDArray[np.bool_] | None = None,
    camera: Camera = COUNTING,
) -> Array:
    """Fisher information (n, 6, 6) of the six shift amplitudes of `shift_images`, from the good
    pixels (Qy, Qx).
    """
    expected = torch.from_numpy(noise.expectation(patterns, level, camera))
    expected = expected.reshape(len(patterns), 1, -1)
    # What the pixels see of the share that moves: of what is scattered into disks.
    per_fraction = (
        level.electrons
        * (1 - level.background)
        * (1 - camera.halo_share)
        / torch.from_numpy(patterns.sum((-1, -2), dtype=np.float64))
    )
    seen = torch.from_numpy(camera.seen(patterns)).reshape(len(patterns), 1, -1)
    scaled = images * per_fraction[:, None, None] * seen
    weighted = torch.where(expected > 0, scaled / expected, 0.0)
    if good is not None:
        weighted = weighted * torch.from_numpy(good).reshape(-1)
    return np.asarray((weighted @ scaled.transpose(1, 2)).numpy())


def covariance(information: Array, F: Array, calibration: Calibration) -> Array:
    """Covariance (n, 4, 4) of (exx, eyy, exy, theta) from the information of the shift amplitudes.

    A disk sits at (t + F^-T g0) / pixel, so d position / dF_ij = -(F^-T)_kj g_i / pixel, with g =
    F^-T g0.
    """
    n = len(F)
    inverse = geometry.inverse_transpose(F)
    to_shift = np.zeros((n, 6, 6))  # columns: t_x, t_y (pixels), then F_xx, F_xy, F_yx, F_yy
    to_shift[:, 0, 0] = to_shift[:, 1, 1] = 1.0
    for column, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1)), 2):
        for k in range(2):
            to_shift[:, 2 + 2 * k + i, column] = -inverse[:, k, j] / calibration.pixel_size_inv_A
    full = np.linalg.inv(np.swapaxes(to_shift, 1, 2) @ information @ to_shift)
    jacobian = geometry.components_jacobian(F)
    return np.asarray(jacobian @ full[:, 2:, 2:] @ np.swapaxes(jacobian, 1, 2))
