"""Patterns of uniform lattices: against the window route, against published figures, and against
symmetry and conservation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import exact
import numpy as np
import pytest

from ccstae import geometry
from ccstae.config.run import Config, from_snakemake, load, parse
from ccstae.simulation import optics, simulate, uniform
from ccstae.simulation.exact import REGIONS, exact_truth
from ccstae.specimen.build import build_scene
from ccstae.specimen.local import LocalScene

ROOT = Path(__file__).parents[2]
SCAN = {"shape": [3, 6], "step_A": 40}
CONFIG = load(ROOT / "config" / "default.yaml")


def made(scene: dict[str, Any], **changes: Any) -> tuple[Config, Any]:
    data = CONFIG.model_dump(mode="json")
    for part, values in changes.items():
        data[part] |= values
    data["scenes"] = {"made": {"scan": SCAN, "materials": ["WS2"], **scene}}
    config = parse(data)
    return config, build_scene(config, "made")


STRAINED = {"kind": "uniform", "exx": 0.013, "eyy": -0.006, "exy": 0.004, "rotation_deg": 7}


@pytest.mark.parametrize("thermal", [{}, {"W": 0.06, "S": 0.1}], ids=["at rest", "warm"])
def test_it_is_the_window_route_on_a_uniform_crystal(thermal: dict[str, float]) -> None:
    materials = {"WS2": {**CONFIG.materials["WS2"].model_dump(mode="json"), "thermal_A": thermal}}
    config, scene = made(STRAINED, simulation={"potential_sampling_A": 0.04}, materials=materials)
    disks = simulate.renderer(config, scene)
    assert isinstance(disks, uniform.UniformRenderer)
    windows = simulate.Renderer(config, optics.window(config.microscope, config.simulation))
    one = scene.positions[:1, :1]
    (pattern, slope), (expected, expected_slope) = (
        drawer.tile(scene, one) for drawer in (disks, windows)
    )
    assert np.abs(pattern - expected).sum() < 1e-3 * expected.sum()
    assert np.abs(slope - expected_slope).sum() < 2e-3 * np.abs(expected_slope).sum()
    np.testing.assert_allclose(disks.vacuum(), windows.vacuum(), atol=3e-6)


@pytest.mark.parametrize(
    "specimen",
    [
        {"tilt_mrad": [30, -20]},
        {"layers": 3, "stacking": "ABC", "tilt_mrad": [20, -10]},
        {"layers": 5},
        {"layers": 3, "nuisances": {"precession_mrad": 20}},
    ],
    ids=str,
)
def test_it_is_the_window_route_on_a_tilted_specimen_of_layers(specimen: dict[str, Any]) -> None:
    config, scene = exact.made(
        {**STRAINED, **specimen}, microscope=exact.SMALL, materials=exact.WARM
    )
    config = config.of_scene("made")
    disks = simulate.renderer(config, scene)
    assert isinstance(disks, uniform.UniformRenderer)
    windows = simulate.Renderer(
        config, optics.window(config.microscope, config.simulation, scene.layers)
    )
    one = scene.positions[:1, :1]
    (pattern, slope), (expected, expected_slope) = (
        drawer.tile(scene, one) for drawer in (disks, windows)
    )
    assert np.abs(pattern - expected).sum() < 2e-3 * expected.sum()
    assert np.abs(slope - expected_slope).sum() < 3e-3 * np.abs(expected_slope).sum()
    assert disks.vacuum().sum() == pytest.approx(1, abs=1e-5)


def test_strain_does_not_depend_on_the_sampling_of_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Centroids of disks with structure are biased; half the sampling changes that by less than
    0.1e-4.
    """
    config, scene = exact.made(
        {**STRAINED, "layers": 3, "tilt_mrad": [20, -10]},
        microscope=exact.SMALL,
        materials=exact.WARM,
    )
    F, found = scene.F[0, 0], []  # type: ignore[attr-defined]
    hk = geometry.lattice_nodes(scene.nominal, 0.75)
    for sampling_A in (optics.MAX_SLICED_SAMPLING_A, optics.MAX_SLICED_SAMPLING_A / 2):
        monkeypatch.setattr(optics, "MAX_SLICED_SAMPLING_A", sampling_A)
        pattern = (
            simulate.renderer(config, scene)
            .tile(scene, scene.positions[:1, :1])[0][0, 0]
            .astype(float)
        )
        G = geometry.inverse_transpose(F) @ scene.nominal
        at = centroids(pattern, G, hk, config, 8.0) * config.microscope.pixel_size_inv_A
        fit = np.linalg.lstsq(np.column_stack([np.ones(len(hk)), hk]), at, rcond=None)[0][1:].T
        found.append(geometry.components(geometry.deformation_from_reciprocal(fit, scene.nominal)))
    assert np.abs(found[0] - geometry.components(F)).max() > 1e-4
    np.testing.assert_allclose(found[0], found[1], atol=0.1e-4)


def test_the_gradient_is_what_a_shift_changes() -> None:
    """Moving one disk by a hundredth of a pixel changes the image by the gradient times that."""
    config, scene = made(STRAINED)
    disks = uniform.UniformRenderer(config, scene)
    at, h = np.array([10.3, -7.8]), 0.01

    def image(x: float, y: float) -> Any:
        return disks._disks(np.array([[[x, y]]]), np.ones((1, 1, 1)))

    _, (along_x, along_y) = image(*at)[0][0], image(*at)[1][0]
    for step, gradient in (((h, 0), along_x), ((0, h), along_y)):
        difference = (image(*(at + step))[0][0] - image(*(at - step))[0][0]) / (2 * h)
        assert np.abs(difference - gradient).max() < 2e-3 * np.abs(gradient).max()


def centroids(
    pattern: np.ndarray, G: np.ndarray, hk: np.ndarray, config: Config, radius_px: float = 11.0
) -> np.ndarray:
    """Centre of mass round each expected disk, pixels from the detector's centre."""
    n, out = len(pattern), []
    y, x = np.mgrid[:n, :n] - n // 2
    for g in hk @ G.T / config.microscope.pixel_size_inv_A:
        near = np.hypot(x - g[0], y - g[1]) < radius_px
        out.append(
            [(pattern * near * x).sum(), (pattern * near * y).sum()] / (pattern * near).sum()
        )
    return np.array(out)


def test_disks_lie_where_the_deformation_says() -> None:
    config, scene = made({"kind": "rotation", "range_deg": 70})
    patterns, _ = simulate.renderer(config, scene).tile(scene, scene.positions)
    hk = geometry.lattice_nodes(scene.nominal, 1.01 * np.linalg.norm(scene.nominal[:, 0]))
    for i, j in ((0, 0), (1, 4), (2, 5)):
        G = geometry.inverse_transpose(scene.F[i, j]) @ scene.nominal
        expected = hk @ G.T / config.microscope.pixel_size_inv_A
        np.testing.assert_allclose(centroids(patterns[i, j], G, hk, config), expected, atol=5e-3)


def test_electrons_are_conserved() -> None:
    """What a large detector does not catch is what is scattered beyond it, and nothing is
    gained."""
    config, scene = made({"kind": "uniform"}, microscope={"detector_px": 1024})
    total = float(simulate.renderer(config, scene).tile(scene, scene.positions[:1, :1])[0].sum())
    assert 0.999 < total < 1 + 1e-6
    disks = uniform.UniformRenderer(config, scene)
    assert float(disks.vacuum().sum()) == pytest.approx(1, abs=1e-6)


def test_turning_the_crystal_by_60_degrees_turns_the_pattern() -> None:
    """A lattice turned by 120 degrees is itself, and by 60 degrees its disks trade intensities with
    their opposites.
    """
    config, scene = made({"kind": "uniform"})
    drawer = uniform.UniformRenderer(config, scene)
    F = geometry.rotation_matrix(np.deg2rad([0.0, 60.0, 120.0, 180.0]))
    same, sixty, third, half = drawer.patterns(F, np.ones(4))[0]
    np.testing.assert_allclose(third, same, atol=1e-8)
    np.testing.assert_allclose(half, sixty, atol=1e-8)
    assert np.abs(sixty - same).max() > 1e-6
    inner = same[1:, 1:]
    np.testing.assert_allclose(half[1:, 1:], inner[::-1, ::-1], atol=1e-8)


def test_vacuum_is_the_probe() -> None:
    config, scene = made({"kind": "uniform"})
    drawer = uniform.UniformRenderer(config, scene)
    np.testing.assert_allclose(
        drawer.patterns(np.eye(2)[None], np.zeros(1))[0][0], drawer.vacuum(), atol=1e-9
    )


def test_disks_that_touch_are_left_to_the_windows() -> None:
    config, scene = made({"kind": "uniform"}, microscope={"semiangle_mrad": 7})
    assert not uniform.applies(config, scene)
    drawer = simulate.renderer(config, scene)
    assert isinstance(drawer, simulate.Renderer)
    assert drawer.tile_A == 0


def test_the_published_geometry() -> None:
    """Rings at 37.7 and 65.5 px within 1 %, disks of 4 px, {11-20} disks of 1.2e-3 of the electrons
    within 25 %.
    """
    config = load(ROOT / "config" / "paper.yaml")
    m, material = config.microscope, config.materials["WS2"]
    assert (m.detector_px, config.scenes["published"].scan.shape) == (200, (64, 64))
    whole = from_snakemake([ROOT / "config" / "paper.yaml"], {"scan": {"shape": [256, 256]}})
    assert whole.scenes["published"].scan.shape == (256, 256)
    data = config.model_dump(mode="json")
    data["scenes"] = {"made": {"kind": "uniform", "materials": ["WS2"], "scan": SCAN}}
    small = parse(data)
    scene = build_scene(small, "made")
    pattern = simulate.renderer(small, scene).tile(scene, scene.positions[:1, :1])[0][0, 0]
    hk = geometry.lattice_nodes(scene.nominal, 1.01 * np.linalg.norm(scene.nominal @ [1, 1]))
    at = centroids(pattern, scene.nominal, hk, small)
    radius = np.linalg.norm(at, axis=1)
    np.testing.assert_allclose(radius[1:7], 37.7, rtol=0.01)
    np.testing.assert_allclose(radius[7:13], 65.5, rtol=0.01)
    y, x = np.mgrid[:200, :200] - 100
    held = np.array([pattern[np.hypot(x - a, y - b) < 9].sum() for a, b in at])
    np.testing.assert_allclose(held[7:13], 1.2e-3, rtol=0.25)
    assert material.a_A is not None
    middle = pattern[100, 100:]
    assert np.interp(-middle[0] / 2, -middle[:9], np.arange(9)) == pytest.approx(4, abs=0.3)


def test_truth_of_one_lattice_a_position_is_that_lattice() -> None:
    config, scene = made({"kind": "rotation"})
    assert isinstance(scene, LocalScene)
    truth = exact_truth(config, scene, scene.positions)
    np.testing.assert_allclose(truth["F_probe"], scene.F, atol=1e-12)
    assert (truth["label"] == 1).all()
    assert (truth["region"] == REGIONS.index("interior")).all()


def test_mixed_grains_are_marked_and_not_averaged() -> None:
    config, scene = made(
        {"kind": "polycrystal", "grains": 3, "scan": {"shape": [12, 12], "step_A": 15}}
    )
    truth = exact_truth(config, scene, scene.positions)
    boundary = truth["region"] == REGIONS.index("boundary")
    assert 0 < boundary.sum() < boundary.size / 2
    assert (truth["label"][boundary] == -1).all()
    assert (truth["label"][~boundary] == 1).all()
    assert not (truth["reference"] & boundary).any()
    nearest = (
        np.abs(truth["F_probe"][..., None, :, :] - scene.grain_deformation).max((-1, -2)).min(-1)
    )
    assert nearest.max() < 1e-12
