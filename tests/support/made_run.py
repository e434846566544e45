"""The parts of a run made by hand: small truth, and maps whose errors are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ccstae import geometry
from ccstae.config.levels import Level
from ccstae.config.run import Config, parse
from ccstae.io import layout
from ccstae.io.maps import Map
from ccstae.io.truth import Truth
from ccstae.simulation import noise, simulate
from ccstae.simulation import truth as truth_file

SHAPE = (12, 16)
LIMIT = (1e-3, 2e-3, 1e-3, 5e-4)  # of the noisy level of w = 0.25; the other levels scale it
LEVELS = {(0.0, 1e5): 0.5, (0.25, 1e5): 1.0, (0.0, 1e4): 2.0}
METHODS = ("zero", "com", "template", "ccstae")


def drawn_counts(given: Config, scene: str, folder: Path) -> Path:
    """Counts of a scene at the config's first level and seed 1, simulated, with its truth, into a
    folder laid out as a run's.
    """
    clean, optics, level = (
        folder / "scenes" / f"{scene}.h5",
        folder / "exact.h5",
        given.levels[0].name,
    )
    counts = folder / "counts" / scene / f"{level}.1.h5"
    simulate.write(given, scene, clean, optics)
    truth_file.write(given, scene, clean, optics, layout.truth_path(folder, scene))
    noise.write(given, scene, level, 1, clean, counts)
    return counts


def made_config() -> Config:
    """Two materials, one scene, the levels above and the noise-free one, four methods."""
    return parse(
        {
            "name": "made",
            "materials": {
                "WS2": {"prototype": "mx2-2h", "species": ["W", "S"], "a_A": 3.153},
                "WSe2": {"prototype": "mx2-2h", "species": ["W", "Se"], "a_A": 3.282},
            },
            "scenes": {
                "pair": {
                    "kind": "heterostructure",
                    "materials": ["WS2", "WSe2"],
                    "scan": {"shape": list(SHAPE)},
                }
            },
            "noise": {
                "clean": {"electrons": float("inf")},
                "background": {"background": [0, 0.25], "electrons": 1e5},
                "dose": {"electrons": 1e4},
            },
            "seeds": {"test": [1, 2]},
            "methods": dict.fromkeys(METHODS),
        }
    )


def made_truth() -> Truth:
    """Two rows of vacuum at the bottom, one of edge; WS2 left, WSe2 right of an interface two
    columns wide; strain everywhere.
    """
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    right = x >= 8
    F = geometry.deformation(
        0.03 * right + 0.004 * np.sin(y),
        0.01 * right + 0.003 * np.cos(x),
        0.002 * np.sin(x + y),
        0.01 * np.cos(y),
    )
    F[x < 3] = np.eye(2)
    label = np.where(right, 2, 1).astype(np.int8)
    label[:, 7:9] = -1
    label[10:] = 0
    region = np.full(SHAPE, 1, np.int8)
    region[:, 7:9], region[9], region[10:] = 2, 3, 0
    return Truth(
        F=F,
        F_probe=F,
        label=label,
        region=region,
        regions=("background", "interior", "interface", "edge"),
        reference=(x < 3) & (y < 9),
        symmetry=6,
        bound={
            Level(background=w, electrons=n).name: np.full((*SHAPE, 4), LIMIT) * s
            for (w, n), s in LEVELS.items()
        },
    )


def made_map(method: str, F: np.ndarray, **extra: Any) -> Map:
    attributes = {
        "method": method,
        "settings": {"device": "cpu"},
        "seconds": 2.0,
        "device": "cpu",
        "peak_memory_bytes": 3_000_000,
    }
    return Map(F, {**attributes, "versions": {"numpy": np.__version__}}, **extra)


def noisy(truth: Truth, scale: np.ndarray, seed: int) -> np.ndarray:
    """The truth with Gaussian errors of the given standard deviations in its components, none in
    the reference region.
    """
    error = np.random.default_rng(seed).normal(size=(*SHAPE, 4)) * scale
    error[truth.reference] = 0
    return geometry.deformation(*np.moveaxis(geometry.components(truth.F_probe) + error, -1, 0))
