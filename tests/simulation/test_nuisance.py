"""Nuisances do to the patterns what they say, their gradients follow, and the truth file tells of
them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from ccstae import geometry
from ccstae.config.run import Config, dump, load, parse
from ccstae.io.truth import Truth, read_truth
from ccstae.simulation import cell, nuisance, optics, simulate, truth
from ccstae.simulation.exact import exact_truth, stored
from ccstae.specimen.build import build_scene
from ccstae.specimen.scene import Scene

ROOT = Path(__file__).parents[2]
SMALL = {
    "semiangle_mrad": 5,
    "aperture_edge_mrad": 1 / 3,
    "pixel_size_inv_A": 0.013 * 5 / 3,
    "detector_px": 64,
}
ELLIPSE = [[1.02, 0.008], [0.008, 0.985]]
CORNER = np.array([[[100.0, 60.0]]])  # the last position of the scan


@cache
def made(
    scene: tuple[tuple[str, Any], ...] = (), **nuisances: Any
) -> tuple[Config, Scene, simulate.Renderer]:
    data = load(ROOT / "config" / "default.yaml").model_dump(mode="json")
    data["microscope"] |= SMALL | {
        "nuisances": {
            k: [list(row) for row in v] if isinstance(v, tuple) else v for k, v in nuisances.items()
        }
    }
    data["simulation"] |= {"potential_sampling_A": 0.1}
    data["scenes"] = {
        "made": {
            "kind": "ramp",
            "materials": ["WS2"],
            "scan": {"shape": [4, 6], "step_A": 40},
            **dict(scene),
        }
    }
    config = parse(data)
    scene = build_scene(config, "made")
    return (
        config,
        scene,
        simulate.Renderer(
            config, optics.window(config.microscope, config.simulation, scene.layers)
        ),
    )


def drawn(at: np.ndarray = CORNER, **nuisances: Any) -> tuple[np.ndarray, np.ndarray]:
    _, scene, drawer = made(**nuisances)
    pattern, gradient = drawer.tile(scene, at)
    return pattern[0, 0].astype(float), gradient[0, 0].astype(float)


def drift(x: float, y: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """A drift that is (x, y) pixels at the last position of the scan."""
    return ((2 * x, 2 * y), (0.0, 0.0))


def test_drift_of_whole_pixels_moves_the_pattern() -> None:
    still, _ = drawn()
    moved, _ = drawn(descan_px=drift(3, -2))
    # A drifting beam needs a wider band, and so the two are computed on different grids.
    assert np.abs(moved[:-2, 3:] - still[2:, :-3]).sum() < 1e-3


def test_drift_is_linear_and_none_in_the_middle() -> None:
    config, scene, _ = made(descan_px=((4.0, -1.0), (0.5, 2.0)))
    found = nuisance.drift_px(config.microscope, scene.scan, scene.positions)
    np.testing.assert_allclose(found[-1, -1] - found[-1, 0], (4, -1))
    np.testing.assert_allclose(found[-1, 0] - found[0, 0], (0.5, 2))
    np.testing.assert_allclose(found.mean((0, 1)), 0, atol=1e-12)
    np.testing.assert_allclose(np.diff(found, 2, axis=0), 0, atol=1e-12)


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"distortion": tuple(map(tuple, ELLIPSE))},
        {"scene": (("layers", 2), ("tilt_mrad", (20, -10)))},
    ],
    ids=["round", "elliptical", "tilted layers"],
)
def test_the_gradient_is_what_a_drift_changes(other: dict[str, Any]) -> None:
    """With a distortion too: the beam drifts before the detector distorts, and that is what a shift
    of the lattice does.
    """
    h = 0.02
    _, gradient = drawn(**other)
    for image, (x, y) in zip(gradient, ((h, 0.0), (0.0, h)), strict=True):
        difference = (
            drawn(descan_px=drift(x, y), **other)[0] - drawn(descan_px=drift(-x, -y), **other)[0]
        ) / (2 * h)
        # Where the slope changes fast the difference is a little blunter than the slope.
        assert np.abs(difference - image).sum() < 2e-3 * np.abs(image).sum()


def test_distortion_moves_disks_to_where_its_matrix_says() -> None:
    config, scene, drawer = made(distortion=tuple(map(tuple, ELLIPSE)))
    m = config.microscope
    pattern = drawn(distortion=tuple(map(tuple, ELLIPSE)))[0]
    F = exact_truth(config, scene, CORNER)["F_probe"][0, 0]
    G = geometry.inverse_transpose(F) @ scene.nominal
    hk = geometry.lattice_nodes(scene.nominal, 1.01 * np.linalg.norm(scene.nominal[:, 0]))
    y, x = np.mgrid[: m.detector_px, : m.detector_px] - m.detector_px // 2
    for g in hk @ G.T / m.pixel_size_inv_A:
        cx, cy = np.array(ELLIPSE) @ g
        near = pattern * (np.hypot(x - cx, y - cy) < 8)
        assert (near * x).sum() / near.sum() == pytest.approx(cx, abs=0.02)
        assert (near * y).sum() / near.sum() == pytest.approx(cy, abs=0.02)
    assert drawer.vacuum().sum() == pytest.approx(1, abs=1e-5)


def test_a_distortion_that_is_told_is_a_deformation_of_the_lattice_seen() -> None:
    """Disks lie at A F^-T g, which is F'^-T (A g); the gradient is that with a shift as seen."""
    A = np.array(ELLIPSE)
    settings: dict[str, Any] = {"distortion": tuple(map(tuple, ELLIPSE))}
    plain, scene, _ = made(**settings)
    known, _, _ = made(**settings, distortion_known=True)
    F, seen = (exact_truth(c, scene, CORNER)["F_probe"][0, 0] for c in (plain, known))
    lattice = simulate.calibration(known, scene).lattice_inv_A
    np.testing.assert_allclose(lattice, A @ scene.nominal)
    np.testing.assert_allclose(
        geometry.inverse_transpose(seen) @ lattice,
        A @ geometry.inverse_transpose(F) @ scene.nominal,
        rtol=1e-12,
    )
    assert np.abs(seen - F).max() > 1e-4
    pattern, along_seen = drawn(**settings, distortion_known=True)
    same, before = drawn(**settings)
    np.testing.assert_array_equal(pattern, same)
    np.testing.assert_allclose(
        np.einsum("ji,jqp->iqp", A, along_seen), before, atol=1e-6 * np.abs(before).max()
    )


LAYERS = (("materials", ("graphene",)), ("layers", 8), ("stacking", "AA"))


@pytest.mark.parametrize("precession_mrad", [0.0, 50.0])
def test_precession_is_the_mean_over_a_cone_of_tilted_beams(precession_mrad: float) -> None:
    """Of N layers that scatter weakly the disk at g has the intensity sin^2 N x / sin^2 x, with x =
    pi lambda d (g^2 / 2 + g . k) for a beam along k (interference of N equal amplitudes).
    """
    config, scene, _ = made(scene=LAYERS, precession_mrad=precession_mrad)
    _, one_layer, _ = made(scene=(*LAYERS, ("layers", 1)))
    # Fast electrons, which a crystal scatters less.
    microscope = config.microscope.model_copy(update={"energy_keV": 300.0})
    config = config.model_copy(update={"microscope": microscope})
    k = nuisance.cone(config.microscope)
    wavelength_A = geometry.wavelength_A(config.microscope.energy_keV)
    np.testing.assert_allclose(
        np.hypot(*k.T), precession_mrad * 1e-3 / wavelength_A, rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(k.mean(0), 0, atol=1e-12)
    hk, share = cell.intensities(config, scene, np.eye(2)[None], np.zeros((1, 2)), 0.6)
    hk_one, share_one = cell.intensities(config, one_layer, np.eye(2)[None], np.zeros((1, 2)), 0.6)
    of_one = dict(zip(map(tuple, hk_one), share_one[0, :, 0], strict=True))
    checked = 0
    for node, found in zip(map(tuple, hk), share[0, :, 0], strict=True):
        g = scene.nominal @ node
        if not any(node) or np.linalg.norm(g) > 0.5:
            continue
        x = np.pi * wavelength_A * scene.layer_distance_A * (g @ g / 2 + k @ g)
        interference = np.mean((np.sin(8 * x) / np.sin(x)) ** 2)
        assert interference > 60 if precession_mrad == 0 else interference < 45
        assert found == pytest.approx(interference * of_one[node], rel=0.08)
        checked += 1
    assert checked == 6


def test_one_layer_does_not_feel_a_precession() -> None:
    np.testing.assert_array_equal(drawn(precession_mrad=20.0)[0], drawn()[0])


def test_a_scenes_own_nuisances_take_the_place_of_the_microscopes() -> None:
    config, _, _ = made(dead_px=0.01)
    data = yaml.safe_load(dump(config))
    data["scenes"]["other"] = {**data["scenes"]["made"], "nuisances": {"dose_ramp": 50}}
    config = parse(data)
    assert config.of_scene("made").microscope.nuisances.dead_px == 0.01
    other = config.of_scene("other").microscope
    assert (other.nuisances.dead_px, other.nuisances.dose_ramp) == (0, 50)
    assert other.pixel_size_inv_A == config.microscope.pixel_size_inv_A
    assert parse(yaml.safe_load(dump(config))) == config


def test_no_distortion_is_the_plain_detector() -> None:
    _, _, drawer = made()
    config = made(distortion=((1.0, 1e-12), (0.0, 1.0)))[0]
    plain = drawer.vacuum()
    np.testing.assert_allclose(
        simulate.Renderer(config, drawer.win).vacuum(), plain, atol=1e-6 * plain.max()
    )


def test_source_size_is_an_average_over_positions() -> None:
    sigma = 6.0
    found, slope = drawn(source_size_A=sigma)
    x, weight = np.polynomial.hermite_e.hermegauss(5)
    points = CORNER + sigma * np.stack(np.meshgrid(x, x), -1)
    _, scene, drawer = made()
    patterns, slopes = drawer.tile(scene, points)
    weights = np.outer(weight, weight) / weight.sum() ** 2
    for one, many in ((found, patterns), (slope, slopes)):
        expected = np.einsum("ij,ij...->...", weights, many)
        assert np.abs(one - expected).sum() < 2e-4 * np.abs(expected).sum()


def test_truth_is_averaged_over_the_source_too() -> None:
    """F^-T is averaged, and the source's share of it is sigma^2 / 2 of its curvature, whatever the
    probe.
    """
    sigma = 15.0
    (plain, scene, _), (blurred, _, _) = made(), made(source_size_A=sigma)
    without, with_it = (
        geometry.inverse_transpose(exact_truth(c, scene, CORNER)["F_probe"][0, 0])
        for c in (plain, blurred)
    )

    def mean(d: tuple[float, float]) -> np.ndarray:
        return geometry.inverse_transpose(exact_truth(plain, scene, CORNER + d)["F_probe"][0, 0])

    h = 5.0
    curvature = sum(
        (mean(d) + mean((-d[0], -d[1])) - 2 * without) / h**2 for d in ((h, 0.0), (0.0, h))
    )
    np.testing.assert_allclose(with_it - without, sigma**2 / 2 * curvature, atol=2e-6)


def test_bad_pixels() -> None:
    config, _, _ = made(dead_px=0.02, hot_px=0.01, hot_level=0.005)
    dead, hot = nuisance.bad_pixels(config.microscope)
    assert (dead.sum(), hot.sum(), (dead & hot).sum()) == (82, 41, 0)
    patterns, gradient = np.full((2, 64, 64), 0.5, np.float32), np.ones((2, 2, 64, 64), np.float32)
    nuisance.spoil(config.microscope, patterns, gradient)
    assert (patterns[:, dead] == 0).all()
    np.testing.assert_allclose(patterns[:, hot], 0.505)
    assert (patterns[:, ~dead & ~hot] == 0.5).all()
    assert (gradient[..., dead] == 0).all()
    assert (gradient[..., ~dead] == 1).all()
    other, _ = nuisance.bad_pixels(made(dead_px=0.02, seed=2)[0].microscope)
    assert (other != dead).any()


def run(folder: Path, **nuisances: Any) -> tuple[Path, Truth]:
    config, _, _ = made(**nuisances)
    paths = [folder / name for name in ("made.h5", "exact.h5", "made.truth.h5")]
    simulate.write(config, "made", *paths[:2])
    truth.write(config, "made", *paths)
    return paths[2], read_truth(paths[2])


def test_the_truth_file_tells_of_them_and_the_bound_counts_them(tmp_path: Path) -> None:
    path, truth = run(tmp_path / "plain")
    with h5py.File(path) as file:
        assert "nuisance" not in file
    bad = {
        "dead_px": 0.05,
        "hot_px": 0.02,
        "descan_px": drift(1.5, 0.5),
        "distortion": tuple(map(tuple, ELLIPSE)),
        "source_size_A": 3.0,
    }
    path, spoilt = run(tmp_path / "spoilt", **bad)
    with h5py.File(path) as file:
        found = {name: value[()] for name, value in file["nuisance"].items()}
    assert found.keys() == {"centre_px", "dead", "hot", "hot_level", "distortion", "source_size_A"}
    np.testing.assert_allclose(found["centre_px"][-1, -1], (33.5, 32.5))
    np.testing.assert_allclose(found["distortion"], ELLIPSE)
    assert (found["dead"].sum(), found["source_size_A"]) == (205, 3)
    level = made()[0].levels[1].name
    assert np.median(spoilt.bound[level] / truth.bound[level]) > 1.02


def test_the_truth_file_tells_of_thickness_and_tilt(tmp_path: Path) -> None:
    specimen = {"layers": 2, "stacking": "ABC", "tilt_mrad": (20, -10)}
    config, scene, _ = made(scene=tuple(specimen.items()))
    with h5py.File(tmp_path / "stored.h5", "w") as file:
        for name, value in stored(config.microscope, scene, CORNER).items():
            file[name] = value
        found = {name: file[name][()] for name in file}
    assert found.pop("stacking") == b"ABC"
    assert found.pop("tilt_mrad").tolist() == [20, -10]
    assert found == {"layers": 2, "layer_distance_A": 6.16}
