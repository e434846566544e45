"""The exact answer at every position of a scene: deformation, material, region, probe's share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.config.microscope import Microscope
from ccstae.config.run import Config
from ccstae.simulation import nuisance, optics
from ccstae.specimen.local import LocalScene
from ccstae.specimen.scene import Scene

Array = NDArray[np.float64]

_MAX_UNMIXED_SHARE = 0.02  # of the probe that a second material, vacuum, grain or core may hold
# Nuisances that are told as they are set.
_STORED = (
    "distortion_known",
    "precession_mrad",
    "halo",
    "dose_ramp",
    "masked",
    "dead_cross_px",
    "beam_stop_px",
    "charge_sharing",
    "probe_electrons",
    "probe_shift_px",
    "probe_halo",
    "pixel_size_error",
    "lattice_error",
)
REGIONS = ("background", "interior", "interface", "edge", "core", "boundary")


def exact_truth(config: Config, scene: Scene, positions: Array) -> dict[str, NDArray[np.generic]]:
    """What is exact at positions (Ry, Rx, 2) in Angstrom, by the name of its dataset.

    Returns:
        `F` and `F_probe` (Ry, Rx, 2, 2) at the point and averaged over the probe; `label` (Ry, Rx),
        -1 mixed, 0 vacuum, 1.. the materials; `region` (Ry, Rx), an index into `REGIONS`;
        `reference` (Ry, Rx); `share` (Ry, Rx, 1 + materials), each one's share of the probe. Of
        scenes that have them, `interface_steps` (Ry, Rx), signed distance from the interface, and
        of strain waves `wave/length_steps` (n) and `wave/band` (Ry, Rx).
    """
    win = optics.window(config.microscope, config.simulation)
    points, weights = optics.probe_shells(config.microscope, win)
    if config.microscope.nuisances.source_size_A > 0:
        points, weights = optics.probe_shells(config.microscope, win, shells=6, angles=8)
        blur, blur_weights = nuisance.source(config.microscope)
        points = (points[:, None] + blur).reshape(-1, 2)
        weights = np.outer(weights, blur_weights).ravel()
    if isinstance(scene, LocalScene):  # the beam meets one lattice and nothing of its neighbours
        points, weights = np.zeros((1, 2)), np.ones(1)
    ry, rx = positions.shape[:2]
    count = len(scene.crystals)
    averaged = np.empty((ry, rx, 2, 2))
    share = np.empty((ry, rx, count + 1))
    core = np.empty((ry, rx))
    grain_share = np.empty((ry, rx))  # of the probe, in the grain that holds most of it
    for row in range(ry):
        x = positions[row, :, None, :] + points
        material = scene.material(x)
        for m in range(count + 1):
            share[row, :, m] = (weights * (material == m)).sum(-1)
        core[row] = (weights * scene.core(x)).sum(-1)
        grain = scene.grain(x)
        # Of the grain that each point lies in.
        shares = (weights[None, :, None] * (grain[:, :, None] == grain[:, None, :])).sum(1)
        largest_grain = np.take_along_axis(grain, shares.argmax(-1)[:, None], 1)
        grain_share[row] = shares.max(-1)
        # What lies in the vacuum scatters nothing; where all does, the field's continuation is
        # averaged. Two grains have no mean.
        scatters = (material > 0) | (material == 0).all(-1, keepdims=True)
        weight = np.where(scatters, weights, 0.0) * (grain == largest_grain)
        # The pattern shows the mean of F^-T: disks lie at F^-T g.
        inverse = geometry.inverse_transpose(scene.deformation(x))
        mean = (weight[..., None, None] * inverse).sum(1) / weight.sum(-1)[:, None, None]
        averaged[row] = geometry.inverse_transpose(mean)
    min_share = 1 - _MAX_UNMIXED_SHARE
    pure = (share.max(-1) >= min_share) & (grain_share >= min_share)
    label = np.where(pure, share.argmax(-1), -1)
    region = np.full((ry, rx), REGIONS.index("interior"))
    steep = scene.gradient_per_A(positions) > scene.interior_gradient_per_A
    two_materials = (share[..., 1:] > _MAX_UNMIXED_SHARE).sum(-1) > 1
    # Later ones take precedence.
    region[steep | two_materials] = REGIONS.index("interface")
    region[grain_share < min_share] = REGIONS.index("boundary")
    region[share[..., 0] > _MAX_UNMIXED_SHARE] = REGIONS.index("edge")
    region[core > _MAX_UNMIXED_SHARE] = REGIONS.index("core")
    region[label == 0] = REGIONS.index("background")
    F = scene.deformation(positions)
    nuisances = config.microscope.nuisances
    if nuisances.distortion_known:
        # Disks are seen at A F^-T g = (A F^-T A^-1) (A g), where A g is the lattice that is told.
        A = np.array(nuisances.distortion)
        F, averaged = (np.linalg.inv(A).T @ one @ A.T for one in (F, averaged))
    resolved: dict[str, NDArray[np.generic]] = {}
    distance_A = scene.interface_distance_A(positions)
    if distance_A is not None:
        resolved["interface_steps"] = distance_A / scene.scan.step_A
    waves = scene.waves()
    if waves is not None:
        resolved["wave/length_steps"], resolved["wave/band"] = waves
    return {
        "F": F,
        "F_probe": averaged,
        "label": label.astype(np.int8),
        "region": region.astype(np.int8),
        "reference": scene.reference(positions) & (region == REGIONS.index("interior")),
        "share": share.astype(np.float32),
        **resolved,
    }


def stored(microscope: Microscope, scene: Scene, positions: Array) -> dict[str, Any]:
    """What the truth file says of the nuisances that are on."""
    nuisances = microscope.nuisances
    out: dict[str, Any] = {}
    if nuisances.drifts:
        out["centre_px"] = microscope.detector_px // 2 + nuisance.drift_px(
            microscope, scene.scan, positions
        )
    if nuisances.distorts:
        out["distortion"] = np.array(nuisances.distortion)
    if nuisances.source_size_A > 0:
        out["source_size_A"] = nuisances.source_size_A
    dead, hot = nuisance.bad_pixels(microscope)
    if nuisances.dead_px > 0:
        out["dead"] = dead
    if nuisances.hot_px > 0:
        out["hot"] = hot
        out["hot_level"] = nuisances.hot_level
    for name in _STORED:
        value = getattr(nuisances, name)
        if value != type(nuisances).model_fields[name].default:
            out[name] = value
    if nuisances.readout is not None:
        for name, value in nuisances.readout.model_dump().items():
            out[f"readout_{name}"] = value
    if scene.layers > 1:
        out["layers"] = scene.layers
        out["stacking"] = scene.stacking
        out["layer_distance_A"] = scene.layer_distance_A
    if not scene.tilt.none:
        out["tilt_mrad"] = np.array(scene.settings.tilt_mrad)
    return out
