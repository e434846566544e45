"""The truth file of a scene: what is exact there, with the bound of every noise level."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ccstae.config.run import Config
from ccstae.io.calibration import read_calibration
from ccstae.io.hdf5 import dataset, opened, values
from ccstae.io.scene import clean_patterns
from ccstae.io.truth import (
    Truth,
    read_dislocations,
    read_interface,
    read_regions,
    read_waves,
    write_truth,
)
from ccstae.machine.progress import progress
from ccstae.simulation.bound import bound, shift_images
from ccstae.simulation.camera import camera_of


def write(config: Config, scene_id: str, scene_path: Path, exact_path: Path, out: Path) -> None:
    """Write a scene's truth file.

    Args:
        config: of the run; its noise levels, and the scene's scan and nuisances, are used.
        scene_id: which of its scenes.
        scene_path: the clean patterns.
        exact_path: exact answers and the patterns' gradients, from `simulate`.
        out: where the truth file goes.

    Raises:
        InputError: where a file is missing or unfit, or the system takes no more.
    """
    levels = config.levels
    with opened(scene_path) as scene, opened(exact_path) as exact:
        calibration = read_calibration(scene)
        patterns = dataset(scene, "patterns", 4, "f")
        scan, detector = patterns.shape[:2], patterns.shape[2:]
        microscope = config.of_scene(scene_id).microscope
        camera = camera_of(microscope, calibration, config.scenes[scene_id].scan)
        gradient = dataset(exact, "gradient", 5, "f", (*scan, 2, *detector))
        label = values(exact, "label", 2, "i", scan)
        F_probe = values(exact, "F_probe", 4, "f", (*scan, 2, 2))
        # No electrons tell anything where there is no specimen.
        bounds = {level.name: np.full((*scan, 4), np.inf) for level in levels}
        for row in progress(range(scan[0]), label=f"truth {scene_id} (rows)"):
            on_sample = np.flatnonzero(label[row] != 0)
            if len(on_sample) == 0:
                continue
            clean = clean_patterns(patterns, row)[on_sample]
            F = F_probe[row, on_sample]
            images = shift_images(gradient[row][on_sample], F, calibration)
            for level in levels:
                bounds[level.name][row, on_sample] = bound(
                    clean, images, F, level, calibration, camera=camera.at((row, on_sample))
                )
        truth = Truth(
            F=values(exact, "F", 4, "f", (*scan, 2, 2)),
            F_probe=F_probe,
            label=label,
            region=values(exact, "region", 2, "iu", scan),
            regions=read_regions(exact),
            reference=values(exact, "reference", 2, "b", scan),
            symmetry=calibration.rotational_symmetry,
            bound=bounds,
            dislocations=read_dislocations(exact),
            interface_steps=read_interface(exact, scan),
            waves=read_waves(exact, scan),
        )
        extra = {"share": values(exact, "share", 3, "f")}
        for name in exact.get("nuisance", ()):
            extra[f"nuisance/{name}"] = exact["nuisance"][name][()]
        write_truth(out, truth, extra)
