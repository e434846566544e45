"""A finished run made by hand: small truth, and maps whose errors are known."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ccstae import config, figures, files, geometry, limit, noise, score, simulate, store
from ccstae.config import Level

SHAPE = (12, 16)
LIMIT = (1e-3, 2e-3, 1e-3, 5e-4)  # of the noisy level of w = 0.25; the other levels scale it
LEVELS = {(0.0, 1e5): 0.5, (0.25, 1e5): 1.0, (0.0, 1e4): 2.0}
METHODS = ("zero", "com", "template", "ccstae")


def drawn_counts(given: config.Config, scene: str, folder: Path) -> Path:
    """Counts of a scene at the config's first level and seed 1, simulated, with its truth, into a folder laid out as a run's."""
    clean, optics, level = folder / "scenes" / f"{scene}.h5", folder / "optics.h5", given.levels[0].name
    counts = folder / "counts" / scene / f"{level}.1.h5"
    simulate.simulate(given, scene, clean, optics)
    limit.write_limits(given, scene, clean, optics, score.truth_path(folder, scene))
    noise.draw(given, scene, level, 1, clean, counts)
    return counts


def made_config() -> config.Config:
    """Two materials, one scene, the levels above and the noise-free one, four methods."""
    return config.parse(
        {
            "name": "made",
            "materials": {
                "WS2": {"prototype": "mx2-2h", "species": ["W", "S"], "a_A": 3.153},
                "WSe2": {"prototype": "mx2-2h", "species": ["W", "Se"], "a_A": 3.282},
            },
            "scenes": {"pair": {"kind": "heterostructure", "materials": ["WS2", "WSe2"], "scan": {"shape": list(SHAPE)}}},
            "noise": {
                "clean": {"electrons": float("inf")},
                "background": {"background": [0, 0.25], "electrons": 1e5},
                "dose": {"electrons": 1e4},
            },
            "seeds": {"test": [1, 2]},
            "methods": dict.fromkeys(METHODS),
        }
    )


def made_truth() -> store.Truth:
    """Two rows of vacuum at the bottom, one of edge; WS2 left, WSe2 right of an interface two columns wide; strain everywhere."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    right = x >= 8
    F = geometry.deformation(0.03 * right + 0.004 * np.sin(y), 0.01 * right + 0.003 * np.cos(x), 0.002 * np.sin(x + y), 0.01 * np.cos(y))
    F[x < 3] = np.eye(2)
    label = np.where(right, 2, 1).astype(np.int8)
    label[:, 7:9] = -1
    label[10:] = 0
    region = np.full(SHAPE, 1, np.int8)
    region[:, 7:9], region[9], region[10:] = 2, 3, 0
    return store.Truth(
        F=F,
        F_probe=F,
        label=label,
        region=region,
        regions=("background", "interior", "interface", "edge"),
        reference=(x < 3) & (y < 9),
        symmetry=6,
        limit={Level(background=w, electrons=n).name: np.full((*SHAPE, 4), LIMIT) * s for (w, n), s in LEVELS.items()},
    )


def made_map(method: str, F: np.ndarray, **extra: Any) -> store.Map:
    attributes = {"method": method, "settings": {"device": "cpu"}, "seconds": 2.0, "device": "cpu", "peak_memory_bytes": 3_000_000}
    return store.Map(F, {**attributes, "versions": {"numpy": np.__version__}}, **extra)


def noisy(truth: store.Truth, scale: np.ndarray, seed: int) -> np.ndarray:
    """The truth with Gaussian errors of the given standard deviations in its components, none in the reference region."""
    error = np.random.default_rng(seed).normal(size=(*SHAPE, 4)) * scale
    error[truth.reference] = 0
    return geometry.deformation(*np.moveaxis(geometry.components(truth.F_probe) + error, -1, 0))


@pytest.fixture(scope="session")
def make_run() -> Callable[[Path], config.Config]:
    """A function that writes truth and maps of the made run into a folder and returns its config.

    zero: no strain. com: 2 bounds of noise, NaN in 3 positions of the interior. template: 1.3 bounds. ccstae: 1 bound,
    with covariance and labels (materials named the other way round).
    """

    def write(run_dir: Path) -> config.Config:
        made = made_config()
        truth = made_truth()
        store.write_truth(score.truth_path(run_dir, "pair"), truth)
        for level in made.levels:
            limit = truth.limit.get(level.name, np.zeros((*SHAPE, 4)))
            for seed in made.seeds.test:
                com = noisy(truth, 2 * limit, seed)
                com[0, 10:13] = np.nan
                named = np.select([truth.label == 1, truth.label == 2, truth.label == -1], [2, 1, 1], 0).astype(np.int8)
                maps = {
                    "zero": made_map("zero", np.broadcast_to(np.eye(2), (*SHAPE, 2, 2))),
                    "com": made_map("com", com),
                    "template": made_map("template", noisy(truth, 1.3 * limit, 100 + seed)),
                    "ccstae": made_map(
                        "ccstae",
                        noisy(truth, limit, 200 + seed),
                        covariance=np.maximum(limit, 1e-9)[..., None] ** 2 * np.eye(4),
                        label=named,
                    ),
                }
                for method, answer in maps.items():
                    store.write_map(score.map_path(run_dir, "pair", level, seed, method), answer)
        return made

    return write


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory, make_run: Callable[[Path], config.Config]) -> Path:
    """The made run, scored. Read only."""
    folder = tmp_path_factory.mktemp("results") / "made"
    made = make_run(folder)
    score.score(made, folder, folder / "metrics.csv")
    files.write_text(folder / "config.resolved.yaml", config.dump(made))
    return folder


@pytest.fixture(scope="session")
def drawn_run(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made run with a scene file, a learned dictionary and its figures. Read only."""
    folder = tmp_path_factory.mktemp("drawn") / "made"
    shutil.copytree(run_dir, folder)
    _add_scene(folder)
    figures.write(made_config(), folder, folder / "figures")
    return folder


def _add_scene(folder: Path) -> None:
    y, x = np.mgrid[:24, :24] - 12
    pattern = (np.hypot(x, y) < 4) + 1e-3 * (np.abs(np.hypot(x, y) - 9) < 1)
    lattice = geometry.reciprocal(3.153 * np.array([[1, -0.5], [0, np.sqrt(0.75)]]))
    with h5py.File(folder / "scenes" / "pair.h5", "w") as file:
        file["patterns"] = np.broadcast_to(pattern / pattern.sum(), (*SHAPE, 24, 24)).astype(np.float32)
        store.write_calibration(file, store.Calibration(80, 3, 0.05, 32, (12, 12), lattice, 6), pattern)
    level = Level(background=0.25, electrons=1e5)
    found = np.stack([pattern, 0.5 * pattern]).astype(np.float32)
    store.write_map(score.map_path(folder, "pair", level, 1, "ccstae"), made_map("ccstae", made_truth().F_probe, dictionary=found))
