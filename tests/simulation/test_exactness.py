"""Patterns of every kind of scene against abTEM's multislice of the same atoms, at ten positions
each.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import exact as exact_support
import h5py
import numpy as np
import pytest
from exact import (
    SAMPLES,
    SMALL,
    WARM,
    WIDTH_A,
    OnGrid,
    abtem_pattern,
    agrees,
    disks,
    lattice,
    made,
    patterns_at,
)

from ccstae import geometry
from ccstae.config.run import Config
from ccstae.simulation import simulate, uniform
from ccstae.simulation.exact import REGIONS, exact_truth
from ccstae.specimen.scene import Scene

HERE = {"scan": {"shape": [16, 16], "step_A": 40}}


class Case(NamedTuple):
    scene: dict[str, Any]
    points: list[tuple[float, float]]
    regions: set[str]
    """Kinds of positions that are among them."""


CASES = {
    # Interior left and right, the round region of tension, the interface, a core and the lattice
    # next to it, the edge, a corner of both.
    "dislocations": Case(
        {
            "kind": "heterostructure",
            "interface_width_A": 0,
            "lattice_deg": 90,
            "dislocations": {"core_A": 12},
        },
        [
            (-450.0, -300.0),
            (-80.3, 120.9),
            (-301.7, 0.2),
            (400.1, -212.5),
            (250.6, 77.7),
            (120.0, 33.3),
            (108.0, -61.9),
            (124.0, 0.0),
            (-200.0, 438.0),
            (130.0, 437.0),
        ],
        {"interior", "interface", "edge", "core"},
    ),
    # A graded interface between x = 0 and 120 in a triangle with a corner at (0, -520) and an edge
    # at y = 260; the ripple lies on its left.
    "graded, rippled, triangular": Case(
        {
            **HERE,
            "kind": "heterostructure",
            "interface_A": 60,
            "relaxation_A": 400,
            "edges": 3,
            "edge_offset_A": 260,
            "reference_A": [-320, -320, -200, 160],
            "inclusions": [],
            "ripple": {
                "height_A": 10,
                "wavelength_A": 200,
                "centre_A": [-60, 0],
                "direction_deg": 20,
            },
        },
        [
            (-60.0, 0.0),
            (-100.3, 60.9),
            (-20.7, 10.2),
            (-130.1, 112.5),
            (25.6, 77.7),
            (60.0, 33.3),
            (111.0, -61.9),
            (200.0, 150.0),
            (-120.0, 262.0),
            (58.0, 262.0),
        ],
        {"interior", "interface", "edge"},
    ),
    "polycrystal": Case(
        {**HERE, "kind": "polycrystal", "grains": 10},
        [],  # five on boundaries and five elsewhere, chosen below
        {"interior", "boundary"},
    ),
    "ramp": Case(
        {**HERE, "kind": "ramp"},
        [
            (0.0, 0.0),
            (300.0, 300.0),
            (-300.0, 300.0),
            (300.0, -300.0),
            (-300.0, -300.0),
            (151.3, -20.2),
            (-77.7, 201.1),
            (20.5, -250.9),
            (-190.4, -100.6),
            (99.9, 99.9),
        ],
        {"interior"},
    ),
    "tilted layers": Case(
        {
            "kind": "heterostructure",
            "interface_width_A": 0,
            "lattice_deg": 90,
            "dislocations": {"core_A": 12},
            "layers": 3,
            "tilt_mrad": [20, -10],
        },
        [(124.0, 0.0), (130.0, 437.0)],
        {"edge", "core"},
    ),
}


class Compared(NamedTuple):
    config: Config
    scene: Scene
    points: list[tuple[float, float]]
    ours: np.ndarray
    exact: np.ndarray


def grains(scene: Any) -> list[tuple[float, float]]:
    """Five positions on boundaries of grains, the first where three meet or nearly so, and five
    deep in a grain.
    """
    points = scene.positions.reshape(-1, 2)
    distance = scene._seeds.query(points, 3)[0]
    on = (
        np.argsort(distance[:, 2] - distance[:, 0])[:1].tolist()
        + np.argsort(distance[:, 1] - distance[:, 0])[:40:10].tolist()
    )
    deep = np.argsort(distance[:, 0] - distance[:, 1])[:100:20].tolist()
    return [tuple(points[i]) for i in on + deep]


def windowed(settings: dict[str, Any], points: list[tuple[float, float]]) -> Compared:
    config, scene = made(settings, microscope=SMALL, materials=WARM)
    points = points or grains(scene)
    atoms = OnGrid(scene)
    return Compared(
        config,
        scene,
        points,
        patterns_at(config, atoms, points),
        np.stack([abtem_pattern(config, atoms, p) for p in points]),
    )


# Lattice vectors in samples of abTEM's grid, on which their atoms lie too: nearly that of WS2, and
# turned by a right angle.
CELLS = [((28, q), (-14, s)) for q, s in ((0, 24), (3, 24), (-3, 24), (1, 25), (2, 23))] + [
    ((26, 0), (-13, 24)),
    ((27, 0), (-12, 24)),
]
CELLS += [((-y1, x1), (-y2, x2)) for (x1, y1), (x2, y2) in CELLS[3:6]]


def one_lattice_a_position(folder: Path) -> Compared:
    """Ten lattices, given as arrays in HDF5 and npy files."""
    cells = WIDTH_A / SAMPLES * np.swapaxes(np.array(CELLS, float), 1, 2)
    parts = geometry.components(
        cells @ np.linalg.inv(made({"kind": "uniform"})[1].crystals[0].cell)
    ).reshape(2, 5, 4)
    files = {}
    for name, values in zip(
        ("exx", "eyy", "exy", "rotation"), np.moveaxis(parts, -1, 0), strict=True
    ):
        path = folder / f"{name}{'.h5' if name == 'exx' else '.npy'}"
        if name == "exx":
            with h5py.File(path, "w") as file:
                file["strain/xx"] = values
        else:
            np.save(path, values)
        files[name] = {"path": str(path), "sha256": sha256(path.read_bytes()).hexdigest()}
    files["exx"]["dataset"] = "strain/xx"
    settings = {
        "kind": "labelled",
        "scan": {"shape": [2, 5], "step_A": 40},
        "reference_A": [-100, -40, -60, 0],
        **files,
    }
    config, scene = made(settings, microscope=SMALL, materials=WARM)
    drawer = simulate.renderer(config, scene)
    assert isinstance(drawer, uniform.UniformRenderer)
    points = [tuple(point) for point in scene.positions.reshape(-1, 2)]
    ours = drawer.tile(scene, scene.positions)[0].reshape(10, 76, 76)
    return Compared(
        config,
        scene,
        points,
        ours,
        np.stack([abtem_pattern(config, scene, point) for point in points]),
    )


@pytest.fixture(scope="module", params=[*CASES, "labelled"])
def compared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    if request.param == "labelled":
        return one_lattice_a_position(tmp_path_factory.mktemp("labels"))
    return windowed(*CASES[request.param][:2])


def test_patterns_are_those_of_abtem(compared: Compared) -> None:
    """Of Bragg disks within 0.5 %, of the whole within 1 %, and no streak or copy outside the
    disks.
    """
    for ours, exact, point in zip(compared.ours, compared.exact, compared.points, strict=True):
        whole, disk, outside = agrees(
            ours, exact, compared.config, lattice(compared.config, compared.scene, point)
        )
        assert whole < 0.01, point
        assert disk < 0.005, point
        assert outside < 1e-6, point


def silicon(layers: int) -> tuple[Config, Scene]:
    """Warm silicon along [110], strained so that 36 x 25 of its centred cells fill abTEM's."""
    a_A, cells = 5.431, np.array([36, 25])
    stretch = WIDTH_A / cells / (a_A * np.array([0.5**0.5, 1.0])) - 1
    material = {
        "structure": str(Path(__file__).parents[2] / "config" / "structures" / "silicon.vasp"),
        "thermal_A": {"Si": 0.0764},
    }
    scene = {
        "kind": "uniform",
        "materials": ["silicon"],
        "scan": {"shape": [2, 2], "step_A": 40},
        "lattice_deg": -float(np.degrees(np.arctan2(2, 2**0.5))),  # the short side along x
        "exx": float(stretch[0]),
        "eyy": float(stretch[1]),
        "layers": layers,
    }
    return made(scene, microscope=SMALL, materials={"silicon": material})


def test_thick_silicon_is_that_of_abtem(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 3 nm its pattern is dynamical: a fifth of the electrons has left the direct beam. On this
    grid of abTEM's every atom lies on a sample.
    """
    monkeypatch.setattr(exact_support, "FINER", 1800)
    config, scene = silicon(8)
    drawer = simulate.renderer(config, scene)
    assert isinstance(drawer, uniform.UniformRenderer)
    ours = drawer.tile(scene, scene.positions[:1, :1])[0][0, 0]
    point = (float(scene.positions[0, 0, 0]), float(scene.positions[0, 0, 1]))
    expected = abtem_pattern(config, scene, point)
    whole, disk, outside = agrees(ours, expected, config, lattice(config, scene, point))
    assert ours[disks(config, lattice(config, scene, point))[0]].sum() < 0.85
    assert whole < 0.01
    assert disk < 0.005
    assert outside < 1e-6


def test_positions_are_of_every_kind(compared: Compared, request: pytest.FixtureRequest) -> None:
    regions = exact_truth(compared.config, compared.scene, np.array(compared.points)[None])[
        "region"
    ].ravel()
    case = CASES.get(request.node.callspec.params["compared"])
    assert {REGIONS[i] for i in regions} >= (case.regions if case else {"interface"})


def test_no_electron_is_made(compared: Compared) -> None:
    totals = compared.ours.sum((1, 2))
    assert (totals <= 1 + 1e-6).all()
    assert (totals > 0.9).all()
