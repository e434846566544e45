"""Controlled noise: counts of a pattern under a diffuse background and a finite dose.

counts = Poisson(N ((1 - w) I + w B)), with I the clean pattern normalised to sum 1, N the electrons
per pattern and B a Lorentzian round the direct beam, the noise model of the published CC-ST-AE
work.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccstae.config.levels import Level
from ccstae.config.run import Config
from ccstae.io.calibration import read_calibration, read_probe
from ccstae.io.counts import write_counts
from ccstae.io.hdf5 import dataset, opened
from ccstae.io.scene import clean_patterns
from ccstae.machine.progress import progress

CLEAN_ELECTRONS = 1e11
"""Scale of the noise-free level: its counts are the expectation times this, rounded."""

_HALF_WIDTH = 0.01  # cycles per pixel, half width of the published background


@lru_cache(maxsize=4)
def background(shape: tuple[int, int]) -> NDArray[np.float64]:
    """B(q) = 1 / (1 + |q|^2 / 0.01^2), normalised to sum 1, (Qy, Qx); q in cycles per pixel of the
    FFT grid, zero at n // 2.

    Source: the public code of the CC-ST-AE authors (Auto4DSTEM).
    """
    qy = np.fft.fftshift(np.fft.fftfreq(shape[0]))
    qx = np.fft.fftshift(np.fft.fftfreq(shape[1]))
    profile = 1 / (1 + (qy[:, None] ** 2 + qx[None, :] ** 2) / _HALF_WIDTH**2)
    return np.asarray(profile / profile.sum())


def expectation(pattern: NDArray[np.floating], level: Level) -> NDArray[np.float64]:
    """Expected counts N ((1 - w) I + w B) of clean patterns, of any sum, at a noise level.

    Args:
        pattern: clean patterns, shape (..., Qy, Qx).
        level: gives w and N; the noise-free level counts as CLEAN_ELECTRONS.

    Returns:
        Expected counts, shape (..., Qy, Qx), of sum N.
    """
    electrons = min(level.electrons, CLEAN_ELECTRONS)
    clean = np.asarray(pattern, np.float64)
    clean = clean / clean.sum((-1, -2), keepdims=True)
    return np.asarray(
        electrons
        * ((1 - level.background) * clean + level.background * background(clean.shape[-2:]))
    )


def pattern_counts(
    pattern: NDArray[np.floating], level: Level, seed: int, scene: str, index: int
) -> NDArray[np.unsignedinteger]:
    """Counts (Qy, Qx) of one clean pattern.

    The generator is counter-based (Philox), keyed by seed, scene and level, its counter started at
    the pattern's index in the scan: the counts are the same bytes whatever the order, chunk size or
    number of processes.
    """
    expected = expectation(pattern, level)
    if level.name == "clean":
        return np.rint(expected).astype(np.uint32)
    key = hashlib.sha256(f"{seed}/{scene}/{level.name}".encode()).digest()[:16]
    philox = np.random.Philox(key=int.from_bytes(key, "little"), counter=[0, 0, 0, index])
    return np.random.Generator(philox).poisson(expected).astype(np.uint32)


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
    with opened(scene_path) as file:
        patterns = dataset(file, "patterns", 4, "f")
        calibration, probe = read_calibration(file), read_probe(file, patterns.shape[2:])
        height, width = patterns.shape[:2]

        def row_counts(row: int) -> NDArray[np.unsignedinteger]:
            clean = clean_patterns(patterns, row)
            first = row * width
            return np.stack(
                [pattern_counts(clean[i], level, seed, scene, first + i) for i in range(width)]
            )

        label = f"noise {scene} {level_name} seed {seed} (rows)"
        rows = (row_counts(row) for row in progress(range(height), label=label))
        write_counts(counts_path, rows, patterns.shape, calibration, probe)
