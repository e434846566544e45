"""The physical limit: the Cramer-Rao bound of every pattern at every noise level.

The Fisher information of a pattern with expected counts m(q; F, t) is I_ab = sum_q (dm/da) (dm/db)
/ m over the four components of F and the two of the centre t. Every disk moves rigidly by d(F^-T) g
+ t and keeps its shape; a pixel belongs to the disk of its nearest reciprocal lattice node. The
centre is a nuisance parameter: the bound is the block of the inverse. Poisson likelihood and bound:
S. M. Kay, Fundamentals of Statistical Signal Processing: Estimation Theory (1993), chapter 3.

The bound holds for unbiased estimators that see one pattern and know everything but F and t.
Whatever pools patterns or uses a prior may go below it, at the price of bias.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.config.run import Config, Level
from ccstae.io import store
from ccstae.machine.progress import progress
from ccstae.simulation import noise

Array = NDArray[np.float64]


def write_limits(
    config: Config, id: str, scene_path: Path, optics_path: Path, truth_path: Path
) -> None:
    """Write the truth file: the truth of the simulation with the bound of every noise level."""
    levels = config.levels
    with store.opened(scene_path) as scene, store.opened(optics_path) as optics:
        calibration = store.read_calibration(scene)
        patterns = store.dataset(scene, "patterns", 4, "f")
        scan, detector = patterns.shape[:2], patterns.shape[2:]
        gradient = store.dataset(optics, "gradient", 5, "f", (*scan, 2, *detector))
        label, F_probe = (
            store.values(optics, "label", 2, "i", scan),
            store.values(optics, "F_probe", 4, "f", (*scan, 2, 2)),
        )
        limits = {level.name: np.full((*label.shape, 4), np.inf) for level in levels}
        for row in progress(range(label.shape[0]), label=f"limit {id} (rows)"):
            on_sample = np.flatnonzero(label[row] != 0)
            if len(on_sample) == 0:
                continue
            clean = store.clean_patterns(patterns, row)[on_sample]
            images = shift_images(gradient[row][on_sample], F_probe[row, on_sample], calibration)
            for level in levels:
                limits[level.name][row, on_sample] = bound(
                    clean, images, F_probe[row, on_sample], level, calibration
                )
        truth = store.Truth(
            F=store.values(optics, "F", 4, "f", (*scan, 2, 2)),
            F_probe=F_probe,
            label=label,
            region=store.values(optics, "region", 2, "iu", scan),
            regions=store.read_regions(optics),
            reference=store.values(optics, "reference", 2, "b", scan),
            symmetry=calibration.rotational_symmetry,
            limit=limits,
            dislocations=store.read_dislocations(optics),
        )
        extra = {"share": store.values(optics, "share", 3, "f")}
        if "nuisance" in optics:
            extra |= {
                f"nuisance/{name}": optics["nuisance"][name][()] for name in optics["nuisance"]
            }
        store.write_truth(truth_path, truth, extra)


def shift_images(
    gradient: NDArray[np.float32], F: Array, calibration: store.Calibration
) -> torch.Tensor:
    """Change of each pattern with its six shift amplitudes, (n, 6, Qy * Qx) float64.

    `gradient` (n, 2, Qy, Qx) is the change with a shift of one pixel along x and y. The first two
    images are a common shift; the other four are a shift along k by the component i of the disk's g
    (1/Angstrom), ordered (k, i) = xx, xy, yx, yy.
    """
    n, _, qy, qx = gradient.shape
    node = nearest_node(F, calibration, (qy, qx))  # (n, 2, P)
    g = torch.from_numpy(np.asarray(gradient, np.float64)).reshape(n, 2, qy * qx)
    return torch.cat([g, (g[:, :, None] * node[:, None]).reshape(n, 4, qy * qx)], 1)


def nearest_node(F: Array, calibration: store.Calibration, shape: tuple[int, int]) -> torch.Tensor:
    """Reciprocal lattice vector g = F^-T g0 (1/Angstrom) nearest to each pixel, (n, 2, Qy * Qx)
    float64.

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
    calibration: store.Calibration,
) -> Array:
    """Standard deviations of (exx, eyy, exy, theta), (n, 4): the Cramer-Rao bound of each pattern.
    Zero at the noise-free level.
    """
    if np.isinf(level.electrons):
        return np.zeros((len(patterns), 4))
    information = fisher(patterns, images, level)
    return np.asarray(
        np.sqrt(np.diagonal(covariance(information, F, calibration), axis1=-2, axis2=-1))
    )


def fisher(patterns: NDArray[np.float32], images: torch.Tensor, level: Level) -> Array:
    """Fisher information (n, 6, 6) of the six shift amplitudes of `shift_images`."""
    expected = torch.from_numpy(noise.expectation(patterns, level)).reshape(len(patterns), 1, -1)
    per_fraction = (
        level.electrons
        * (1 - level.background)
        / torch.from_numpy(patterns.sum((-1, -2), dtype=np.float64))
    )
    scaled = images * per_fraction[:, None, None]
    weighted = torch.where(expected > 0, scaled / expected, 0.0)
    return np.asarray((weighted @ scaled.transpose(1, 2)).numpy())


def covariance(information: Array, F: Array, calibration: store.Calibration) -> Array:
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
