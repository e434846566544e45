"""One picture of a scene before it is paid for: truth at the point, atoms near a position, patterns
of a few positions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from ase.data.colors import jmol_colors
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.config.run import Config
from ccstae.errors import InputError
from ccstae.io import atomic
from ccstae.reporting import display
from ccstae.reporting.figures import style
from ccstae.simulation import nuisance, optics, simulate
from ccstae.specimen.build import build_scene
from ccstae.specimen.scene import Array, Scene

_SHOWN = 128  # positions of a map each way, at most; more are skipped over
_ATOMS_A = 18.0  # half the side of the view of the atoms
_SAMPLING_A = 0.1  # of the potential: a picture needs no finer one, and the time goes there
_MARKS = ("#009e73", "#d55e00", "#cc79a7")


def write(config: Config, id: str, out: Path, at: tuple[int, int] | None = None) -> None:
    """Draw a scene to one PNG. `at` is the (row, column) whose atoms are shown; none: the middle of
    the scan.
    """
    scene = build_scene(config, id)
    coarse = config.simulation.model_copy(
        update={"potential_sampling_A": max(config.simulation.potential_sampling_A, _SAMPLING_A)}
    )
    config = config.model_copy(update={"simulation": coarse})
    ry, rx = scene.scan.shape
    row, column = at or (ry // 2, rx // 2)
    if not (0 <= row < ry and 0 <= column < rx):
        raise InputError(
            f"--at: got row {row}, column {column}; expected a position of the {ry} x {rx} scan"
        )
    places = [(row, column), (ry // 2, rx // 6), (ry // 6, rx - 1 - rx // 6)]
    with style.styled():
        drawn = draw(config, scene, id, places)
        out = Path(out)
        with atomic.atomic(out) as temporary:
            drawn.savefig(temporary, format="png", dpi=130)


def draw(config: Config, scene: Scene, title: str, places: list[tuple[int, int]]) -> Figure:
    """Truth maps above; below the atoms at the first place and the patterns at every place."""
    drawn = style.figure(13.0, 6.4)
    panels = drawn.subplots(2, 5)
    every = [max(1, -(-n // _SHOWN)) for n in scene.scan.shape]
    positions = scene.positions[:: every[0], :: every[1]]
    material = scene.material(positions)
    parts = np.where(
        (material > 0)[..., None], geometry.components(scene.deformation(positions)), np.nan
    )
    extent = _extent(scene)
    for panel, name, values in zip(
        panels[0], geometry.COMPONENTS, np.moveaxis(parts, -1, 0), strict=False
    ):
        factor, unit = (1e2, "%") if name != "theta" else (np.rad2deg(1), "degrees")
        top = max(factor * float(np.nanmax(np.abs(values))), 1e-3)
        shown = panel.imshow(
            factor * values,
            extent=extent,
            cmap="RdBu_r",
            vmin=-top,
            vmax=top,
            interpolation="nearest",
        )
        panel.set(title=f"{display.SYMBOLS[name]} ({unit})")
        drawn.colorbar(shown, ax=panel, shrink=0.7)
    kinds = np.where(scene.core(positions), len(scene.crystals) + 1, material)
    panels[0, 4].imshow(
        kinds + 0.0, extent=extent, cmap="Set2", vmin=0, vmax=7, interpolation="nearest"
    )
    reference = scene.reference(positions).astype(float)
    panels[0, 4].contour(
        reference,
        levels=[0.5],
        colors="black",
        linewidths=1,
        linestyles="--",
        extent=extent,
        origin="upper",
    )
    panels[0, 4].set(title="material, core")
    for panel in panels[0]:
        for place, colour in zip(places, _MARKS, strict=False):
            panel.plot(*(scene.positions[place] / 10), "s", mfc="none", mec=colour, ms=6)
    panels[0, 0].set(xlabel="x (nm)", ylabel=f"{title}\ny (nm)")
    _atoms(panels[1, 0], scene, scene.positions[places[0]])
    for panel, place, colour in zip(panels[1, 1:4], places, _MARKS, strict=True):
        _pattern(
            panel,
            config,
            pattern(config, scene, place),
            f"row {place[0]}, column {place[1]}",
            colour,
        )
    m, win = config.microscope, optics.window(config.microscope, config.simulation)
    radius = geometry.disk_radius_inv_A(m.semiangle_mrad, m.energy_keV)
    points, weights = optics.probe_shells(m, win)
    text = [
        f"{scene.scan.shape[0]} x {scene.scan.shape[1]} positions, step {scene.scan.step_A:g} Å",
        f"field {np.ptp(scene.positions[..., 0]) / 10:.1f} x "
        f"{np.ptp(scene.positions[..., 1]) / 10:.1f} nm",
        f"{m.energy_keV:g} keV, {m.semiangle_mrad:g} mrad",
        f"probe radius (rms) {np.sqrt((weights * (points**2).sum(-1)).sum()):.1f} Å",
        f"disk radius {radius / m.pixel_size_inv_A:.2f} px",
        f"first ring at {np.linalg.norm(scene.nominal, axis=0).min() / m.pixel_size_inv_A:.1f} px",
        f"rotational symmetry {scene.symmetry}",
        "reference region dashed",
    ]
    if scene.layers > 1:
        text.append(f"{scene.layers} layers, {scene.stacking}")
    if not scene.tilt.none:
        text.append("tilt {:g}, {:g} mrad".format(*scene.settings.tilt_mrad))
    panels[1, 4].set_axis_off()
    panels[1, 4].text(
        0,
        0.95,
        "\n".join(text),
        va="top",
        transform=panels[1, 4].transAxes,
        linespacing=1.6,
        fontsize=8,
    )
    return drawn


def pattern(config: Config, scene: Scene, place: tuple[int, int]) -> NDArray[np.float32]:
    """The clean pattern (Qy, Qx) of one position, with what the detector adds."""
    renderer = simulate.renderer(config, scene)
    row, column = place
    drawn, slopes = renderer.tile(scene, scene.positions[row : row + 1, column : column + 1])
    nuisance.spoil(config.microscope, drawn, slopes)
    return drawn[0, 0]


def _extent(scene: Scene) -> tuple[float, float, float, float]:
    """Edges of the scan in nm: left, right, bottom, top of the image, rows running down."""
    half = scene.scan.step_A / 2
    low, high = (scene.positions[0, 0] - half) / 10, (scene.positions[-1, -1] + half) / 10
    return float(low[0]), float(high[0]), float(high[1]), float(low[1])


def _atoms(panel: Axes, scene: Scene, centre: Array) -> None:
    xyz, numbers = scene.atoms((*(centre - _ATOMS_A), *(centre + _ATOMS_A)))
    order = np.argsort(xyz[:, 2], kind="stable")
    for number in np.unique(numbers):
        chosen = order[numbers[order] == number]
        x, y = xyz[chosen, :2].T / 10
        panel.scatter(
            x,
            y,
            s=14,
            color=jmol_colors[number],
            edgecolors="black",
            linewidths=0.3,
            label=chemical_symbols[number],
        )
    low, high = (centre - _ATOMS_A) / 10, (centre + _ATOMS_A) / 10
    panel.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), aspect="equal", title="atoms (nm)")
    if len(numbers):
        panel.legend(loc="lower right", fontsize=6, frameon=True, framealpha=0.9)


def _pattern(
    panel: Axes, config: Config, values: NDArray[np.float32], title: str, colour: str
) -> None:
    half = 0.5 * len(values) * config.microscope.pixel_size_inv_A
    top = float(values.max())
    panel.imshow(
        np.maximum(values, 1e-12),
        extent=(-half, half, half, -half),
        norm=LogNorm(1e-5 * top, top),
        cmap=style.PATTERN_CMAP,
    )
    panel.set(title=title, xlabel="1/Å")
    for side in panel.spines.values():
        side.set(color=colour, linewidth=2)
