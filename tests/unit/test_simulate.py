"""Patterns of whole flakes: against abTEM's multislice of a larger cell, against truth, and against their own numerical settings."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import abtem
import ase
import numpy as np
import pytest
from abtem.waves import Waves
from scipy.ndimage import gaussian_filter

from ccstae import geometry, optics, scenes, simulate
from ccstae.config import Config, load, parse
from ccstae.scenes.base import Scene

ROOT = Path(__file__).parents[2]
DEFAULT = load(ROOT / "config" / "default.yaml")
# The default instrument with a probe smaller by 5 / 3 and as many pixels to a disk: the same physics in a smaller window.
SMALL = {"semiangle_mrad": 5, "aperture_edge_mrad": 1 / 3, "pixel_size_inv_A": 0.013 * 5 / 3, "detector_px": 76}


def made(scene: dict[str, Any], **changes: dict[str, Any]) -> tuple[Config, Scene]:
    data = DEFAULT.model_dump(mode="json")
    for part, values in changes.items():
        data[part] |= values
    data["scenes"] = {"made": data["scenes"].get(scene["kind"], {"materials": ["WS2"]}) | scene}
    config = parse(data)
    return config, scenes.build(config, "made")


# Vibrating atoms have no sharp cores, so that both ways converge on grids that are fast to test; at 300 K these are about right.
WARM = {
    name: {**DEFAULT.materials[name].model_dump(mode="json"), "thermal_A": {"W": 0.05, "S": 0.07, "Se": 0.07}} for name in ("WS2", "WSe2")
}
# abTEM's cell: three samples to a pixel, half again as wide as the window, 0.09 Angstrom between samples.
FACTOR, SAMPLES = 3, 1536
WIDTH_A = FACTOR / (0.013 * 5 / 3)
STEP_A = WIDTH_A / SAMPLES


@cache
def flake() -> tuple[Config, Scene]:
    """The heterostructure with a sharp interface at x = 120, an edge near y = 439, and a row of dislocations."""
    sharp = {"kind": "heterostructure", "interface_width_A": 0, "lattice_deg": 90, "dislocations": {"core_A": 12}}
    return made(sharp, microscope=SMALL, materials=WARM)


class OnGrid:
    """A scene whose atoms sit on samples of abTEM's grid, where abTEM too has them exactly: between samples it blurs them."""

    def __init__(self, scene: Scene):
        self.scene, self.thermal_A = scene, scene.thermal_A

    def atoms(self, box: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
        positions, numbers = self.scene.atoms(box)
        positions[:, :2] = np.round(positions[:, :2] / STEP_A) * STEP_A
        return positions, numbers


def windows(config: Config) -> simulate.Renderer:
    return simulate.Renderer(config, optics.window(config.microscope, config.simulation))


def patterns_at(config: Config, scene: Any, points: list[tuple[float, float]]) -> np.ndarray:
    """One tile a point, as points may be far apart."""
    drawer = windows(config)
    return np.stack([drawer.tile(scene, np.array([[point]], float))[0][0, 0] for point in points])


def abtem_pattern(config: Config, scene: OnGrid, point: tuple[float, float]) -> np.ndarray:
    """abTEM's multislice of the beam at the middle of a cell half again as wide as the window, binned on the detector here."""
    m = config.microscope
    corner = np.round((np.array(point) - WIDTH_A / 2) / STEP_A) * STEP_A
    positions, numbers = scene.atoms((*corner, *(corner + WIDTH_A)))
    q = np.fft.fftfreq(SAMPLES, STEP_A)
    beam = optics.aperture(m, np.hypot(q[:, None], q)).astype(complex)
    beam /= np.sqrt((beam**2).sum())
    shift = np.exp(-2j * np.pi * np.outer(point - corner, q))
    wave = np.fft.ifft2(beam * shift[0][:, None] * shift[1]) * SAMPLES**2  # abTEM's arrays are (x, y)
    height = 12.0
    at = positions - [*corner, positions[:, 2].min() - 2]
    atoms = ase.Atoms(numbers=numbers, positions=at, cell=[WIDTH_A, WIDTH_A, height])
    with abtem.config.set({"diagnostics.progress_bar": False, "fftw.planning_effort": "FFTW_ESTIMATE"}):
        factors = abtem.parametrizations.LobatoParametrization(sigmas=scene.thermal_A)
        cell = abtem.Potential(atoms, gpts=SAMPLES, slice_thickness=height, projection="infinite", parametrization=factors)
        waves = Waves(wave.astype(np.complex64), energy=m.energy_keV * 1e3, extent=WIDTH_A)
        exit_wave = np.asarray(waves.multislice(cell.build(lazy=False)).compute().array)
    intensity = np.fft.fftshift(np.abs(np.fft.fft2(exit_wave).T / SAMPLES**2) ** 2)
    spread = gaussian_filter(intensity, m.point_spread_px * FACTOR, truncate=8)
    pixel = SAMPLES // 2 + (np.arange(m.detector_px) - m.detector_px // 2)[:, None] * FACTOR + np.arange(-1, 2)
    return spread[pixel][:, :, pixel].sum((1, 3))


# Interior left and right, the round region of tension, the interface, a core and the lattice next to it, the edge, and a corner of both.
POSITIONS = [
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
]


@pytest.fixture(scope="module")
def pairs() -> tuple[np.ndarray, np.ndarray]:
    config, scene = flake()
    atoms = OnGrid(scene)
    return patterns_at(config, atoms, POSITIONS), np.stack([abtem_pattern(config, atoms, point) for point in POSITIONS])


def test_positions_are_of_every_kind() -> None:
    config, scene = flake()
    kinds = {simulate.REGIONS[i] for i in simulate.truth(config, scene, np.array(POSITIONS)[None])["region"].ravel()}
    assert kinds >= {"interior", "interface", "edge", "core"}


def test_whole_patterns_are_those_of_abtem(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    ours, exact = pairs
    assert (np.abs(ours - exact).sum((1, 2)) < 0.01 * exact.sum((1, 2))).all()


def test_bragg_disks_are_those_of_abtem(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    config, scene = flake()
    for ours, exact, point in zip(*pairs, POSITIONS, strict=True):
        G = lattice(config, scene, point)
        for near in disks(config, G, 2.5):  # narrower: in a core, a disk comes close to the direct beam's flank
            assert (ours * near).sum() == pytest.approx((exact * near).sum(), rel=5e-3, abs=1e-6)


def test_there_are_no_streaks_or_copies(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    """Outside the disks nothing is added to what the exact patterns hold there."""
    config, scene = flake()
    for ours, exact, point in zip(*pairs, POSITIONS, strict=True):
        G = lattice(config, scene, point)
        outside = ~np.any(disks(config, G), axis=0)
        assert np.abs(ours - exact)[outside].max() < 1e-6


def lattice(config: Config, scene: Scene, point: tuple[float, float]) -> np.ndarray:
    """Reciprocal vectors (columns) of the lattice that the probe meets; the point itself may lie next to a singularity."""
    return geometry.inverse_transpose(simulate.truth(config, scene, np.array([[point]]))["F_probe"][0, 0]) @ scene.nominal


def disks(config: Config, G: np.ndarray, margin_px: float = 3.5) -> list[np.ndarray]:
    """Masks of the disks that lie on the detector, the direct beam first."""
    m = config.microscope
    half = m.detector_px // 2
    radius = optics.aperture_radius_inv_A(m) / m.pixel_size_inv_A + margin_px
    y, x = np.mgrid[: m.detector_px, : m.detector_px] - half
    centres = geometry.lattice_nodes(G, (half - radius) * m.pixel_size_inv_A) @ G.T / m.pixel_size_inv_A
    return [np.hypot(x - cx, y - cy) < radius for cx, cy in centres]


def test_vacuum_is_the_probe_and_holds_every_electron() -> None:
    config, scene = flake()
    drawer = windows(config)
    vacuum = drawer.vacuum()
    assert vacuum.sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(patterns_at(config, scene, [(0.0, 700.0)])[0], vacuum, atol=1e-7)


def test_no_electron_is_made(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    totals = pairs[0].sum((1, 2))
    assert (totals <= 1 + 1e-6).all()
    assert (totals > 0.97).all()


def recovered(patterns: np.ndarray, F: np.ndarray, config: Config, scene: Scene) -> np.ndarray:
    """Strain and rotation (n, 4) of patterns (n, Qy, Qx): a lattice through the centroids of disks whose places are known roughly."""
    m, out = config.microscope, []
    half = m.detector_px // 2
    reach = optics.aperture_radius_inv_A(m) / m.pixel_size_inv_A + min(5.5, m.detector_px / 25)
    y, x = np.mgrid[: m.detector_px, : m.detector_px] - half
    hk = geometry.lattice_nodes(scene.nominal, (half - reach - 2) * m.pixel_size_inv_A)
    for pattern, guess in zip(patterns.astype(float), F, strict=True):
        G = geometry.inverse_transpose(guess) @ scene.nominal / m.pixel_size_inv_A
        for _ in range(2):
            at, mass = [], []
            for cx, cy in hk @ G.T:
                weight = pattern * np.clip(reach + 0.5 - np.hypot(x - cx, y - cy), 0, 1)
                at.append([(weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()])
                mass.append(weight.sum())
            root = np.sqrt(mass)[:, None]
            fit = np.linalg.lstsq(root * np.column_stack([np.ones(len(hk)), hk]), root * np.array(at), rcond=None)[0]
            G = fit[1:].T
        out.append(geometry.components(geometry.deformation_from_reciprocal(G * m.pixel_size_inv_A, scene.nominal)))
    return np.array(out)


@pytest.mark.parametrize(
    ("kind", "middle_A"),
    [("heterostructure", (-150.0, 60.0)), ("ramp", (0.0, 0.0))],
)
def test_centroids_recover_the_averaged_truth(kind: str, middle_A: tuple[float, float]) -> None:
    config, scene = made({"kind": kind})
    grid = np.stack(np.meshgrid(np.arange(6) - 2.5, np.arange(4) - 1.5), -1) * 25 + middle_A
    truth = simulate.truth(config, scene, grid)
    interior = truth["region"] == simulate.REGIONS.index("interior")
    assert interior.sum() > 15
    found = recovered(windows(config).tile(scene, grid)[0][interior], truth["F_probe"][interior], config, scene)
    error = found - geometry.components(truth["F_probe"][interior])
    assert np.sqrt((error**2).mean(0)).max() < 0.3e-4


POINT = (-130.3, 60.2)  # on the slope of the round region of tension


@pytest.mark.parametrize("finer", [{"potential_sampling_A": 0.05}, {"window_per_px": 4}], ids=["half the sampling", "twice the window"])
def test_strain_does_not_depend_on_the_numerical_settings(finer: dict[str, float]) -> None:
    config, scene = made({"kind": "heterostructure"}, microscope=SMALL)
    better, _ = made({"kind": "heterostructure"}, microscope=SMALL, simulation=finer)
    F = scene.deformation(np.array([POINT]))
    one, other = (recovered(patterns_at(c, scene, [POINT]), F, c, scene) for c in (config, better))
    assert np.abs(one - other).max() < 0.1e-4


def test_turning_the_crystal_by_60_degrees_turns_the_pattern() -> None:
    """About a metal atom, sixty degrees trade each disk for its opposite, and another sixty turn the pattern back into itself."""
    flat = {"kind": "heterostructure", "inclusions": [], "interface_A": 400}
    config, scene = made(flat, microscope=SMALL)
    patterns = []
    for turn in (0, 60, 120):
        _, turned = made({**flat, "lattice_deg": turn}, microscope=SMALL)
        patterns.append(patterns_at(config, turned, [(-300.0, -100.0)])[0])
    masses = [np.array([(p * near).sum() for near in disks(config, scene.nominal)]) for p in patterns]
    np.testing.assert_allclose(masses[2], masses[0], rtol=1e-3)
    np.testing.assert_allclose(patterns[1][1:, 1:][::-1, ::-1], patterns[0][1:, 1:], atol=2e-6)
    assert np.abs(masses[1] / masses[0] - 1).max() > 0.02


def test_patterns_do_not_depend_on_the_tiles() -> None:
    config, scene = made({"kind": "heterostructure"}, microscope=SMALL)
    together = windows(config).tile(scene, np.array([[[40.0, 0.0], [73.3, 0.0]]]))[0][0]
    apart = patterns_at(config, scene, [(40.0, 0.0), (73.3, 0.0)])
    assert np.abs(together - apart).sum() < 1e-4 * apart.sum()


def test_the_gradient_is_a_shift_by_a_pixel() -> None:
    """It moves everything by a pixel, and makes nothing."""
    config, scene = made({"kind": "heterostructure"}, microscope=SMALL)
    drawer = windows(config)
    patterns, gradient = drawer.tile(scene, np.array([[POINT]]))
    y, x = (np.arange(n) - n // 2 for n in gradient.shape[-2:])
    for image, coordinate in zip(gradient[0, 0], (x[None, :], y[:, None]), strict=True):
        assert (image * coordinate).sum() == pytest.approx(patterns.sum(), rel=1e-2)
        assert image.sum() == pytest.approx(0, abs=1e-3)


def small_run(tile_A: float = 80.0) -> Config:
    scene = {"kind": "ramp", "scan": {"shape": [2, 6], "step_A": 40}}
    return made(scene, microscope=SMALL, simulation={"tile_A": tile_A, "potential_sampling_A": 0.1})[0]


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_run()
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    simulate.simulate(config, "made", whole / "made.h5", whole / "optics.h5")
    drawn, plain = [], simulate.Renderer.tile

    def counted(self: simulate.Renderer, scene: Scene, positions: np.ndarray) -> Any:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(positions.shape)
        return plain(self, scene, positions)

    monkeypatch.setattr(simulate.Renderer, "tile", counted)
    with pytest.raises(KeyboardInterrupt):
        simulate.simulate(config, "made", stopped / "made.h5", stopped / "optics.h5")
    assert not (stopped / "made.h5").exists()
    drawn.clear()
    simulate.simulate(config, "made", stopped / "made.h5", stopped / "optics.h5")
    assert len(drawn) == 1
    for name in ("made.h5", "optics.h5"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(path.name for path in stopped.iterdir()) == ["made.h5", "optics.h5"]


def test_tiles_of_other_settings_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for tile_A in (80.0, 120.0):
        with monkeypatch.context() as patch:
            patch.setattr(simulate, "truth", stop)
            with pytest.raises(KeyboardInterrupt):
                simulate.simulate(small_run(tile_A), "made", tmp_path / "made.h5", tmp_path / "optics.h5")
        kept = list((tmp_path / ".made.h5.tiles").iterdir())
        assert len(kept) == 1
        assert len(list(kept[0].glob("*.npz"))) == {80.0: 3, 120.0: 2}[tile_A]


def test_tiles_cover_the_scan_once_and_fit_in_memory() -> None:
    positions = scenes.base.scan_positions(scenes.base.Scan(shape=(256, 250), step_A=2))
    for tile_A in (0.0, 260.0, 4000.0):
        seen = np.zeros((256, 250), int)
        for rows, columns in simulate.tiles_of(positions[: 256 if tile_A else 3], tile_A, 200):
            seen[rows, columns] += 1
            assert seen[rows, columns].size * 3 * 200**2 * 4 < 2**29
        assert (seen[: 256 if tile_A else 3] == 1).all()
