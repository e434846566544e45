"""A finished run made by hand, its parts from `made_run`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from made_run import SHAPE, made_config, made_map, made_truth, noisy

from ccstae import geometry
from ccstae.config.levels import Level
from ccstae.config.run import Config, dump
from ccstae.evaluation import score
from ccstae.io import atomic, layout
from ccstae.io.calibration import Calibration, write_calibration
from ccstae.io.maps import write_map
from ccstae.io.truth import write_truth
from ccstae.reporting.figures import catalogue as figures


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that share what is made once for their module, or once for each of its parameters, run
    in one worker, so that no other makes it again. Where several workers run tests, the long ones
    begin first and the short ones fill the gaps, so that no worker ends long before another.
    """
    for item in items:
        if not isinstance(item, pytest.Function) or item.get_closest_marker("xdist_group"):
            continue
        group = _made_once(item)
        if group:
            item.add_marker(pytest.mark.xdist_group(group))
    if getattr(config.option, "loadgroup", False):
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """When a test begins: 0, 1 or 2."""
    if item.get_closest_marker("long"):
        return 0
    return 1 if item.get_closest_marker("xdist_group") else 2


def _made_once(item: pytest.Function) -> str | None:
    """What a test shares with others, named by the largest of the fixtures that it uses."""
    if "drawn_run" in item.fixturenames:
        return "drawn_run"
    of_module = [
        name
        for name, definitions in item._fixtureinfo.name2fixturedefs.items()
        if definitions[-1].scope == "module"
    ]
    if not of_module:
        return None
    given = getattr(item, "callspec", None)
    one = [str(given.params[name]) for name in of_module if given and name in given.params]
    return " ".join([item.module.__name__, *one])


@pytest.fixture(scope="session")
def make_run() -> Callable[[Path], Config]:
    """A function that writes truth and maps of the made run into a folder and returns its config.

    zero: no strain. com: 2 bounds of noise, NaN in 3 positions of the interior. template: 1.3
    bounds. ccstae: 1 bound, with covariance and labels (materials named the other way round).
    """

    def write(run_dir: Path) -> Config:
        made = made_config()
        truth = made_truth()
        write_truth(layout.truth_path(run_dir, "pair"), truth)
        for level in made.levels:
            limit = truth.bound.get(level.name, np.zeros((*SHAPE, 4)))
            for seed in made.seeds.test:
                com = noisy(truth, 2 * limit, seed)
                com[0, 10:13] = np.nan
                named = np.select(
                    [truth.label == 1, truth.label == 2, truth.label == -1], [2, 1, 1], 0
                ).astype(np.int8)
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
                    write_map(layout.map_path(run_dir, "pair", level.name, seed, method), answer)
        return made

    return write


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory, make_run: Callable[[Path], Config]) -> Path:
    """The made run, scored. Read only."""
    folder = tmp_path_factory.mktemp("results") / "made"
    made = make_run(folder)
    score.write(made, folder, folder / "metrics.csv")
    atomic.write_text(folder / "config.resolved.yaml", dump(made))
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
        file["patterns"] = np.broadcast_to(pattern / pattern.sum(), (*SHAPE, 24, 24)).astype(
            np.float32
        )
        write_calibration(file, Calibration(80, 3, 0.05, 32, (12, 12), lattice, 6), pattern)
    level = Level(background=0.25, electrons=1e5)
    found = np.stack([pattern, 0.5 * pattern]).astype(np.float32)
    write_map(
        layout.map_path(folder, "pair", level.name, 1, "ccstae"),
        made_map("ccstae", made_truth().F_probe, dictionary=found),
    )
