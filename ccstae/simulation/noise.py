"""Controlled noise: counts of a pattern under a diffuse background and a finite dose.

counts = Poisson(N ((1 - w) I + w B)), with I the clean pattern normalised to sum 1, N the electrons
per pattern and B a Lorentzian round the direct beam, the noise model of the published CC-ST-AE
work. Where nuisances are on, the camera (camera.py) makes something else of it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae.config.levels import Level
from ccstae.config.run import Config
from ccstae.io.calibration import read_calibration, read_probe
from ccstae.io.counts import write_counts
from ccstae.io.hdf5 import dataset, opened
from ccstae.io.scene import clean_patterns
from ccstae.machine.progress import progress
from ccstae.simulation.camera import COUNTING, Camera, camera_of, told

CLEAN_ELECTRONS = 1e11
"""Scale of the noise-free level: its counts are the expectation times this, rounded."""


def expectation(
    pattern: NDArray[np.floating], level: Level, camera: Camera = COUNTING
) -> NDArray[np.float64]:
    """Expected counts N ((1 - w) I + w B) of clean patterns, of any sum, at a noise level.

    Args:
        pattern: clean patterns, shape (..., Qy, Qx).
        level: gives w and N; the noise-free level counts as CLEAN_ELECTRONS.
        camera: at the patterns' positions.

    Returns:
        Expected counts, shape (..., Qy, Qx), of sum N where no nuisance is on: the electrons that
        the pixels see, before any is shared or read out.
    """
    electrons = min(level.electrons, CLEAN_ELECTRONS)
    clean = np.asarray(pattern, np.float64)
    clean = camera.scattered(clean / clean.sum((-1, -2), keepdims=True))
    around = camera.background(clean.shape[-2:])
    share = (1 - level.background) * clean + level.background * around
    return camera.expected(share, electrons)


def pattern_counts(
    pattern: NDArray[np.floating],
    level: Level,
    seed: int,
    scene: str,
    index: int,
    camera: Camera = COUNTING,
) -> NDArray[np.uint32] | NDArray[np.float32]:
    """Counts (Qy, Qx) of one clean pattern, by the camera at its position.

    The generator is counter-based (Philox), keyed by seed, scene and level, its counter started at
    the pattern's index in the scan: the counts are the same bytes whatever the order, chunk size or
    number of processes. At the noise-free level the camera counts, and the dose is the same
    everywhere.
    """
    if level.name == "clean":
        return np.rint(expectation(pattern, level, camera.noise_free)).astype(np.uint32)
    expected = expectation(pattern, level, camera)
    key = hashlib.sha256(f"{seed}/{scene}/{level.name}".encode()).digest()[:16]
    philox = np.random.Philox(key=int.from_bytes(key, "little"), counter=[0, 0, 0, index])
    generator = np.random.Generator(philox)
    return camera.read(generator.poisson(expected).astype(np.uint32), generator)


def write(
    config: Config, scene: str, level_name: str, seed: int, scene_path: Path, counts_path: Path
) -> None:
    """Write the counts of a whole scene at one level and seed, with the calibration and no truth.

    Args:
        config: of the run; its noise levels are used.
        scene: which of its scenes; part of what the noise is drawn from.
        level_name: one of its noise levels, such as `clean` or `w0.25_n100000`.
        seed: of the noise.
        scene_path: the clean patterns.
        counts_path: where the counts go.

    Raises:
        InputError: where the level is unknown, the scene file is missing or unfit, or the system
            takes no more.
    """
    level = config.level(level_name)
    scan, microscope = config.scenes[scene].scan, config.of_scene(scene).microscope
    with opened(scene_path) as file:
        patterns = dataset(file, "patterns", 4, "f")
        calibration, probe = read_calibration(file), read_probe(file, patterns.shape[2:])
        height, width = patterns.shape[:2]
        camera = camera_of(microscope, calibration, scan)

        def row_counts(row: int) -> NDArray[Any]:
            clean = clean_patterns(patterns, row)
            return np.stack(
                [
                    pattern_counts(
                        clean[i], level, seed, scene, row * width + i, camera.at((row, i))
                    )
                    for i in range(width)
                ]
            )

        label = f"noise {scene} {level_name} seed {seed} (rows)"
        rows = (row_counts(row) for row in progress(range(height), label=label))
        known, recorded = told(microscope, calibration, probe)
        write_counts(counts_path, rows, patterns.shape, known, recorded, camera.mask)
