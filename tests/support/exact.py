"""The exact answer for patterns: abTEM's multislice of the same atoms in a cell half again as wide
as the window.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import abtem
import ase
import numpy as np
from abtem.waves import Waves
from scipy.ndimage import gaussian_filter

from ccstae import geometry
from ccstae.config.run import Config, load, parse
from ccstae.simulation import optics, simulate
from ccstae.simulation.exact import exact_truth
from ccstae.specimen.build import build_scene
from ccstae.specimen.scene import Atoms, Box, Scene

ROOT = Path(__file__).parents[2]
DEFAULT = load(ROOT / "config" / "default.yaml")
# The default instrument with a probe smaller by 5 / 3 and as many pixels to a disk: the same
# physics in a smaller window.
SMALL = {
    "semiangle_mrad": 5,
    "aperture_edge_mrad": 1 / 3,
    "pixel_size_inv_A": 0.013 * 5 / 3,
    "detector_px": 76,
}
# Vibrating atoms have no sharp cores, so that both ways converge on grids that are fast to test; at
# 300 K these are about right.
WARM = {
    name: {
        **DEFAULT.materials[name].model_dump(mode="json"),
        "thermal_A": {"W": 0.05, "S": 0.07, "Se": 0.07},
    }
    for name in ("WS2", "WSe2")
}
# abTEM's cell: three samples to a pixel, half again as wide as the window, 0.12 Angstrom between
# samples.
FACTOR = 3
WIDTH_A = FACTOR / (0.013 * 5 / 3)
SAMPLES = 1200
FINER = 1500  # for several layers: abTEM keeps two thirds of the frequencies


def made(scene: dict[str, Any], **changes: dict[str, Any]) -> tuple[Config, Scene]:
    """A config like the default one with the one scene `made`, and that scene."""
    data = DEFAULT.model_dump(mode="json")
    for part, values in changes.items():
        data[part] |= values
    data["scenes"] = {"made": data["scenes"].get(scene["kind"], {"materials": ["WS2"]}) | scene}
    config = parse(data)
    return config, build_scene(config, "made")


def step_A(scene: Scene) -> float:
    """Distance of abTEM's samples."""
    return WIDTH_A / (SAMPLES if scene.layers == 1 else FINER)


class OnGrid:
    """A scene whose atoms sit on samples of abTEM's grid, where abTEM too has them exactly: between
    samples it blurs them.
    """

    def __init__(self, scene: Scene):
        self.scene = scene
        self.step_A = step_A(scene)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.scene, name)

    def slices(self, box: Box) -> list[Atoms]:
        return [
            (np.column_stack([np.round(x[:, :2] / self.step_A) * self.step_A, x[:, 2]]), z)
            for x, z in self.scene.slices(box)
        ]


def patterns_at(config: Config, scene: Any, points: list[tuple[float, float]]) -> np.ndarray:
    """One tile a point, as points may be far apart."""
    drawer = simulate.Renderer(
        config, optics.window(config.microscope, config.simulation, scene.layers)
    )
    return np.stack([drawer.tile(scene, np.array([[point]], float))[0][0, 0] for point in points])


def abtem_pattern(config: Config, scene: Any, point: tuple[float, float]) -> np.ndarray:
    """abTEM's multislice of the beam at the middle of its cell, one slice a layer, binned on the
    detector here.
    """
    m = config.microscope
    step = step_A(scene)
    samples = round(WIDTH_A / step)
    corner = np.round((np.array(point) - WIDTH_A / 2) / step) * step
    layers = scene.slices((*corner, *(corner + WIDTH_A)))
    distance = scene.layer_distance_A or 1.0
    q = np.fft.fftfreq(samples, step)
    beam = optics.aperture(m, np.hypot(q[:, None], q)).astype(complex)
    beam /= np.sqrt((beam**2).sum())
    shift = np.exp(-2j * np.pi * np.outer(point - corner, q))
    wave = (
        np.fft.ifft2(beam * shift[0][:, None] * shift[1]) * samples**2
    )  # abTEM's arrays are (x, y)
    at = np.concatenate(
        [
            np.column_stack([x[:, :2] - corner, np.full(len(x), (n + 0.5) * distance)])
            for n, (x, _) in enumerate(layers)
        ]
    )
    numbers = np.concatenate([z for _, z in layers])
    atoms = ase.Atoms(
        numbers=numbers, positions=at, cell=[WIDTH_A, WIDTH_A, len(layers) * distance]
    )
    with abtem.config.set(
        {"diagnostics.progress_bar": False, "fftw.planning_effort": "FFTW_ESTIMATE"}
    ):
        factors = abtem.parametrizations.LobatoParametrization(sigmas=scene.thermal_A)
        cell = abtem.Potential(
            atoms,
            gpts=samples,
            slice_thickness=distance,
            projection="infinite",
            parametrization=factors,
        )
        assert len(cell) == len(layers)
        waves = Waves(wave.astype(np.complex64), energy=m.energy_keV * 1e3, extent=WIDTH_A)
        exit_wave = np.asarray(waves.multislice(cell.build(lazy=False)).compute().array)
    intensity = np.fft.fftshift(np.abs(np.fft.fft2(exit_wave).T / samples**2) ** 2)
    spread = gaussian_filter(intensity, m.point_spread_px * FACTOR, truncate=8)
    pixel = (
        samples // 2
        + (np.arange(m.detector_px) - m.detector_px // 2)[:, None] * FACTOR
        + np.arange(-1, 2)
    )
    return spread[pixel][:, :, pixel].sum((1, 3))


def lattice(config: Config, scene: Scene, point: tuple[float, float]) -> np.ndarray:
    """Reciprocal vectors (columns) of the lattice that the probe meets; the point itself may lie
    next to a singularity.
    """
    return (
        geometry.inverse_transpose(exact_truth(config, scene, np.array([[point]]))["F_probe"][0, 0])
        @ scene.nominal
    )


def disks(config: Config, G: np.ndarray, margin_px: float = 3.5) -> list[np.ndarray]:
    """Masks of the disks that lie on the detector, the direct beam first."""
    m = config.microscope
    half = m.detector_px // 2
    radius = (
        geometry.disk_radius_inv_A(m.semiangle_mrad, m.energy_keV) / m.pixel_size_inv_A + margin_px
    )
    y, x = np.mgrid[: m.detector_px, : m.detector_px] - half
    centres = (
        geometry.lattice_nodes(G, (half - radius) * m.pixel_size_inv_A) @ G.T / m.pixel_size_inv_A
    )
    return [np.hypot(x - cx, y - cy) < radius for cx, cy in centres]


def agrees(
    ours: np.ndarray, exact: np.ndarray, config: Config, G: np.ndarray
) -> tuple[float, float, float]:
    """Relative L1 difference of two patterns, that of the worst disk's intensity, and the most that
    a pixel outside the disks differs.
    """
    worst = 0.0
    for near in disks(
        config, G, 2.5
    ):  # narrower: in a core, a disk comes close to the direct beam's flank
        held = (exact * near).sum()
        worst = max(worst, (abs((ours * near).sum() - held) - 1e-6) / held)
    outside = ~np.any(disks(config, G), axis=0)
    difference = np.abs(ours - exact)
    return float(difference.sum() / exact.sum()), float(worst), float(difference[outside].max())
