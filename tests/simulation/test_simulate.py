"""Patterns of whole flakes against truth and against their own numerical settings;
test_exactness.py holds them against abTEM.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exact import SMALL, WARM, disks, made, patterns_at

from ccstae import geometry
from ccstae.config.run import Config, dump
from ccstae.io import atomic
from ccstae.simulation import optics, simulate
from ccstae.simulation.exact import REGIONS, exact_truth
from ccstae.specimen.scene import Scene


@cache
def flake() -> tuple[Config, Scene]:
    """The heterostructure with a sharp interface at x = 120, an edge near y = 439, and a row of
    dislocations.
    """
    sharp = {
        "kind": "heterostructure",
        "interface_width_A": 0,
        "lattice_deg": 90,
        "dislocations": {"core_A": 12},
    }
    return made(sharp, microscope=SMALL, materials=WARM)


def windows(config: Config) -> simulate.Renderer:
    return simulate.Renderer(config, optics.window(config.microscope, config.simulation))


def test_vacuum_is_the_probe_and_holds_every_electron() -> None:
    config, scene = flake()
    drawer = windows(config)
    vacuum = drawer.vacuum()
    assert vacuum.sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(patterns_at(config, scene, [(0.0, 700.0)])[0], vacuum, atol=1e-7)


def test_electrons_are_conserved() -> None:
    """A detector that reaches far enough catches all of them, in a core and at an edge too."""
    config, scene = made(
        {
            "kind": "heterostructure",
            "interface_width_A": 0,
            "lattice_deg": 90,
            "dislocations": {"core_A": 12},
        },
        microscope=SMALL | {"detector_px": 400},
        materials=WARM,
    )
    totals = patterns_at(config, scene, [(124.0, 0.0), (-200.0, 438.0)]).sum((1, 2), dtype=float)
    np.testing.assert_allclose(totals, 1, atol=1e-3)


def recovered(patterns: np.ndarray, F: np.ndarray, config: Config, scene: Scene) -> np.ndarray:
    """Strain and rotation (n, 4) of patterns (n, Qy, Qx): a lattice through the centroids of disks
    whose places are known roughly.
    """
    m, out = config.microscope, []
    half = m.detector_px // 2
    reach = geometry.disk_radius_inv_A(m.semiangle_mrad, m.energy_keV) / m.pixel_size_inv_A + min(
        5.5, m.detector_px / 25
    )
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
            fit = np.linalg.lstsq(
                root * np.column_stack([np.ones(len(hk)), hk]), root * np.array(at), rcond=None
            )[0]
            G = fit[1:].T
        out.append(
            geometry.components(
                geometry.deformation_from_reciprocal(G * m.pixel_size_inv_A, scene.nominal)
            )
        )
    return np.array(out)


@pytest.mark.parametrize(
    ("kind", "middle_A"),
    [("heterostructure", (-150.0, 60.0)), ("ramp", (0.0, 0.0))],
)
def test_centroids_recover_the_averaged_truth(kind: str, middle_A: tuple[float, float]) -> None:
    config, scene = made({"kind": kind})
    grid = np.stack(np.meshgrid(np.arange(6) - 2.5, np.arange(4) - 1.5), -1) * 25 + middle_A
    truth = exact_truth(config, scene, grid)
    interior = truth["region"] == REGIONS.index("interior")
    assert interior.sum() > 15
    found = recovered(
        windows(config).tile(scene, grid)[0][interior], truth["F_probe"][interior], config, scene
    )
    error = found - geometry.components(truth["F_probe"][interior])
    assert np.sqrt((error**2).mean(0)).max() < 0.3e-4


POINT = (-130.3, 60.2)  # on the slope of the round region of tension


@pytest.mark.parametrize(
    "finer",
    [{"potential_sampling_A": 0.03}, {"window_per_px": 4}],
    ids=["half the sampling", "twice the window"],
)
def test_strain_does_not_depend_on_the_numerical_settings(finer: dict[str, float]) -> None:
    config, scene = made({"kind": "heterostructure"}, microscope=SMALL)
    better, _ = made({"kind": "heterostructure"}, microscope=SMALL, simulation=finer)
    F = scene.deformation(np.array([POINT]))
    one, other = (recovered(patterns_at(c, scene, [POINT]), F, c, scene) for c in (config, better))
    assert np.abs(one - other).max() < 0.1e-4


def test_turning_the_crystal_by_60_degrees_turns_the_pattern() -> None:
    """About a metal atom, sixty degrees trade each disk for its opposite, and another sixty turn
    the pattern back into itself.
    """
    flat = {"kind": "heterostructure", "inclusions": [], "interface_A": 400}
    config, scene = made(flat, microscope=SMALL)
    patterns = []
    for turn in (0, 60, 120):
        _, turned = made({**flat, "lattice_deg": turn}, microscope=SMALL)
        patterns.append(patterns_at(config, turned, [(-300.0, -100.0)])[0])
    masses = [
        np.array([(p * near).sum() for near in disks(config, scene.nominal)]) for p in patterns
    ]
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


def small_run(tile_A: float = 80.0, columns: int = 6) -> Config:
    scene = {"kind": "ramp", "scan": {"shape": [2, columns], "step_A": 40}}
    return made(
        scene, microscope=SMALL, simulation={"tile_A": tile_A, "potential_sampling_A": 0.1}
    )[0]


def test_a_run_that_was_killed_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_run(columns=16)
    (tmp_path / "config.yaml").write_text(dump(config))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    words = [
        "simulate",
        str(tmp_path / "config.yaml"),
        "made",
        "--out",
        str(killed / "made.h5"),
        "--exact",
        str(killed / "exact.h5"),
    ]
    run = subprocess.Popen(
        [sys.executable, "-c", "from ccstae.cli import main; main()", *words],
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(killed.glob(".made.h5.tiles/*/*.done")) and time.monotonic() < deadline:
        time.sleep(0.005)
    run.kill()
    assert run.wait() == -signal.SIGKILL
    done = list(killed.glob(".made.h5.tiles/*/*.done"))
    assert 0 < len(done) < 8
    assert not (killed / "made.h5").exists()

    drawn, plain = [], simulate.Renderer.tile

    def counted(self: simulate.Renderer, scene: Scene, positions: np.ndarray) -> Any:
        drawn.append(positions.shape)
        return plain(self, scene, positions)

    monkeypatch.setattr(simulate.Renderer, "tile", counted)
    simulate.write(config, "made", killed / "made.h5", killed / "exact.h5")
    assert len(drawn) == 8 - len(done)
    simulate.write(config, "made", whole / "made.h5", whole / "exact.h5")
    for name in ("made.h5", "exact.h5"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert sorted(path.name for path in killed.iterdir()) == ["exact.h5", "made.h5"]


@pytest.mark.skipif(sys.platform != "linux", reason="room is set aside on Linux")
def test_room_is_set_aside_without_a_change_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with open(path, "wb") as handle:
        handle.write(b"head")
        handle.truncate(2**20)
    before = path.read_bytes()
    assert path.stat().st_blocks * 512 < 2**19
    atomic.reserve(path)
    assert path.stat().st_blocks * 512 >= 2**20
    assert path.read_bytes() == before


def test_half_of_the_files_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ended between its two last steps has one file in its place and the other not: no
    tile counts as done.
    """
    config, plain = small_run(), simulate._publish
    scene_path, exact_path = tmp_path / "made.h5", tmp_path / "exact.h5"

    def once(part: Path, path: Path) -> None:
        plain(part, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(simulate, "_publish", once)
        with pytest.raises(KeyboardInterrupt):
            simulate.write(config, "made", scene_path, exact_path)
    assert not scene_path.exists()
    simulate.write(config, "made", scene_path, exact_path)
    again = [path.read_bytes() for path in (scene_path, exact_path)]
    simulate.write(config, "made", tmp_path / "whole" / "made.h5", tmp_path / "whole" / "exact.h5")
    assert again == [
        (tmp_path / "whole" / path.name).read_bytes() for path in (scene_path, exact_path)
    ]


def test_tiles_of_other_settings_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for tile_A in (80.0, 120.0):
        with monkeypatch.context() as patch:
            patch.setattr(simulate, "_publish", stop)
            with pytest.raises(KeyboardInterrupt):
                simulate.write(
                    small_run(tile_A), "made", tmp_path / "made.h5", tmp_path / "exact.h5"
                )
        kept = list((tmp_path / ".made.h5.tiles").iterdir())
        assert len(kept) == 1
        assert len(list(kept[0].glob("*.done"))) == {80.0: 3, 120.0: 2}[tile_A]


def test_tiles_cover_the_scan_once_and_fit_in_memory() -> None:
    positions = geometry.scan_positions((256, 250), 2)
    for tile_A in (0.0, 260.0, 4000.0):
        seen = np.zeros((256, 250), int)
        for rows, columns in simulate.tiles_of(positions[: 256 if tile_A else 3], tile_A, 200):
            seen[rows, columns] += 1
            assert seen[rows, columns].size * 3 * 200**2 * 4 <= 2**29
        assert (seen[: 256 if tile_A else 3] == 1).all()


def test_tiles_are_of_nearly_one_size() -> None:
    positions = geometry.scan_positions((32, 33), 32)
    sizes = {
        (rows.stop - rows.start, columns.stop - columns.start)
        for rows, columns in simulate.tiles_of(positions, 400.0, 128)
    }
    assert sizes == {(10, 11), (11, 11)}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("specimen", [{}, {"layers": 2}], ids=["one layer", "two layers"])
def test_a_gpu_gives_the_same_patterns(specimen: dict[str, int]) -> None:
    config, scene = made(
        {"kind": "heterostructure", **specimen},
        microscope=SMALL,
        simulation={"potential_sampling_A": 0.1},
    )
    positions = np.array([[POINT, (120.0, 33.3)]])
    on_cpu, on_gpu = (
        simulate.renderer(config, scene, device).tile(scene, positions)
        for device in ("cpu", "cuda")
    )
    for expected, found in zip(on_cpu, on_gpu, strict=True):
        assert np.abs(found - expected).sum() < 1e-5 * np.abs(expected).sum()
