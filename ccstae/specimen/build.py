"""The scenes, one module a kind or family of kinds."""

from __future__ import annotations

import numpy as np

from ccstae import geometry
from ccstae.config.run import Config
from ccstae.errors import InputError, unknown
from ccstae.io import slips
from ccstae.io.calibration import Calibration, disk_radius_px
from ccstae.specimen.crystal import crystal
from ccstae.specimen.heterostructure import Heterostructure
from ccstae.specimen.local import Labelled, Rotation, Uniform
from ccstae.specimen.polycrystal import Polycrystal
from ccstae.specimen.ramp import Ramp
from ccstae.specimen.ripples import Ripples
from ccstae.specimen.scene import Scene

KINDS: dict[str, type[Scene]] = {
    "heterostructure": Heterostructure,
    "polycrystal": Polycrystal,
    "rotation": Rotation,
    "ramp": Ramp,
    "ripples": Ripples,
    "uniform": Uniform,
    "labelled": Labelled,
}


def build_scene(config: Config, scene_id: str) -> Scene:
    """The scene of a config entry.

    Args:
        config: of the run; its microscope, materials and the scene are used.
        scene_id: the entry under `scenes:`.

    Returns:
        The specimen: where its atoms are, and its exact deformation at any point.

    Raises:
        InputError: for an unknown id, a structure or array that cannot be read, a scene that cannot
            be built, or disks that overlap or miss the detector.
    """
    if scene_id not in config.scenes:
        raise InputError(unknown("scene", scene_id, config.scenes))
    settings = config.scenes[scene_id]
    crystals = [
        crystal(name, config.materials[name]).turned(settings.lattice_deg)
        for name in settings.materials
    ]
    try:
        scene = KINDS[settings.kind](settings, crystals)
        check_disks(config, scene)
    except InputError as error:
        raise InputError(f"scenes.{scene_id}: {error}") from None
    return scene


def reference_warning(scene_id: str, scene: Scene) -> str | None:
    """A line to show where the reference region of a scene is one column or one row of its scan;
    None where it is wider.

    The reference is a median over these positions, and noise moves that of few.
    """
    rows, columns = np.nonzero(scene.reference(scene.positions))
    for line, indices in (("column", columns), ("row", rows)):
        if len(np.unique(indices)) == 1:
            return (
                f"scene {scene_id}: the reference region holds {len(rows)} positions in one {line}"
            )
    return None


def check_disks(config: Config, scene: Scene) -> None:
    """Check the disks of every material of a scene.

    Raises:
        InputError: where they overlap at this convergence, are smaller than a pixel, or too few
            fall on the detector; with the slip of units that this looks like.
    """
    m = config.microscope
    shape = (m.detector_px, m.detector_px)
    half = m.detector_px / 2 * m.pixel_size_inv_A
    for crystal_of_scene in scene.crystals:
        calibration = Calibration(
            energy_keV=m.energy_keV,
            semiangle_mrad=m.semiangle_mrad,
            pixel_size_inv_A=m.pixel_size_inv_A,
            step_A=scene.settings.scan.step_A,
            centre_px=(m.detector_px // 2, m.detector_px // 2),
            lattice_inv_A=crystal_of_scene.reciprocal,
            rotational_symmetry=2,
        )
        radius = disk_radius_px(calibration) * m.pixel_size_inv_A
        nearest = slips.nearest_px(calibration) * m.pixel_size_inv_A
        if 2 * radius >= nearest:
            largest_mrad = nearest / 2 * geometry.wavelength_A(m.energy_keV) * 1e3
            wrong = (
                f"microscope.semiangle_mrad: the disks overlap at {m.semiangle_mrad:g} mrad; "
                f"expected less than {largest_mrad:.2f} mrad for these materials"
            )
        elif nearest + radius > half:
            wrong = (
                f"microscope: the first ring ({nearest:.3f} 1/A) leaves the detector ({half:.3f} "
                f"1/A); expected it inside"
            )
        elif (fault := slips.fault(calibration, shape)) is not None:
            wrong = f"microscope: {fault}"
        else:
            continue
        raise InputError(wrong + slips.looks_like(calibration, shape))
