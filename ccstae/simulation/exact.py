"""The exact answer at every position of a scene: deformation, material, region, share of the
probe."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.config.run import Config
from ccstae.simulation import nuisance, optics
from ccstae.specimen.local import LocalScene
from ccstae.specimen.scene import Scene

Array = NDArray[np.float64]

_MIXED = 0.02  # a material or the vacuum counts when it holds more than this share of the probe
REGIONS = ("background", "interior", "interface", "edge", "core", "boundary")


def exact_truth(config: Config, scene: Scene, positions: Array) -> dict[str, NDArray[np.generic]]:
    """F at the point and averaged over the probe, label, region, and each material's share of the
    probe.
    """
    win = optics.window(config.microscope, config.simulation)
    points, weights = optics.probe_shells(config.microscope, win)
    if config.microscope.nuisances.source_size_A > 0:
        points, weights = optics.probe_shells(config.microscope, win, shells=6, angles=8)
        blur, blur_weights = nuisance.source(config.microscope)
        points, weights = (
            (points[:, None] + blur).reshape(-1, 2),
            np.outer(weights, blur_weights).ravel(),
        )
    if isinstance(scene, LocalScene):  # the beam meets one lattice and nothing of its neighbours
        points, weights = np.zeros((1, 2)), np.ones(1)
    ry, rx = positions.shape[:2]
    count = len(scene.crystals)
    averaged = np.empty((ry, rx, 2, 2))
    share = np.empty((ry, rx, count + 1))
    core = np.empty((ry, rx))
    own = np.empty((ry, rx))  # share of the probe in the grain that holds most of it
    for row in range(ry):
        x = positions[row, :, None, :] + points
        material = scene.material(x)
        for m in range(count + 1):
            share[row, :, m] = (weights * (material == m)).sum(-1)
        core[row] = (weights * scene.core(x)).sum(-1)
        grain = scene.grain(x)
        shares = (weights[None, :, None] * (grain[:, :, None] == grain[:, None, :])).sum(
            1
        )  # of the grain of each point
        most = np.take_along_axis(grain, shares.argmax(-1)[:, None], 1)
        own[row] = shares.max(-1)
        # What lies in the vacuum scatters nothing; where all does, the field's continuation is
        # averaged. Two grains have no mean.
        weight = np.where((material > 0) | (material == 0).all(-1, keepdims=True), weights, 0.0) * (
            grain == most
        )
        mean = (weight[..., None, None] * geometry.inverse_transpose(scene.deformation(x))).sum(
            1
        ) / weight.sum(-1)[:, None, None]
        averaged[row] = geometry.inverse_transpose(mean)
    pure = (share.max(-1) >= 1 - _MIXED) & (own >= 1 - _MIXED)
    label = np.where(pure, share.argmax(-1), -1)
    region = np.full((ry, rx), REGIONS.index("interior"))
    region[scene.gradient_per_A(positions) > scene.interior_gradient_per_A] = REGIONS.index(
        "interface"
    )
    region[(share[..., 1:] > _MIXED).sum(-1) > 1] = REGIONS.index("interface")
    region[own < 1 - _MIXED] = REGIONS.index("boundary")
    region[share[..., 0] > _MIXED] = REGIONS.index("edge")
    region[core > _MIXED] = REGIONS.index("core")
    region[label == 0] = REGIONS.index("background")
    return {
        "F": scene.deformation(positions),
        "F_probe": averaged,
        "label": label.astype(np.int8),
        "region": region.astype(np.int8),
        "reference": scene.reference(positions) & (region == REGIONS.index("interior")),
        "share": share.astype(np.float32),
    }
