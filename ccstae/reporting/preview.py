"""One picture of a scene before it is paid for: truth at the point, atoms near a position, patterns
of a few positions.
"""

from __future__ import annotations

import math
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

_MAX_POSITIONS = 128  # of a map each way; of a larger scan only every so many are drawn
_ATOMS_HALF_SIDE_A = 18.0  # of the view of the atoms
_MIN_SAMPLING_A = 0.1  # of the potential: a picture needs no finer one, and the time goes there
_MARK_COLOURS = ("#009e73", "#d55e00", "#cc79a7")


def write(config: Config, scene_id: str, out: Path, at: tuple[int, int] | None = None) -> None:
    """Draw a scene to one PNG, before anything is simulated for good.

    Args:
        config: The run that holds the scene.
        scene_id: Name of the scene.
        out: The PNG file.
        at: (row, column) of the position whose atoms and pattern are shown first; the middle of
            the scan where left out.

    Raises:
        InputError: The scene cannot be built, or `at` is no position of its scan.
    """
    config = config.of_scene(scene_id)
    scene = build_scene(config, scene_id)
    coarse = config.simulation.model_copy(
        update={
            "potential_sampling_A": max(config.simulation.potential_sampling_A, _MIN_SAMPLING_A)
        }
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
        drawn = draw(config, scene, scene_id, places)
        with atomic.atomic(Path(out)) as temporary:
            drawn.savefig(temporary, format="png", dpi=130)


def draw(config: Config, scene: Scene, title: str, places: list[tuple[int, int]]) -> Figure:
    """Truth maps above; below the atoms at the first place and the patterns at every place."""
    drawn = style.figure(13.0, 6.4)
    panels = drawn.subplots(2, 5)
    row_step, column_step = (math.ceil(n / _MAX_POSITIONS) for n in scene.scan.shape)
    positions = scene.positions[::row_step, ::column_step]
    _strains(drawn, panels[0, :4], scene, positions)
    _materials(panels[0, 4], scene, positions)
    for panel in panels[0]:
        for place, colour in zip(places, _MARK_COLOURS, strict=True):
            panel.plot(*(scene.positions[place] / 10), "s", mfc="none", mec=colour, ms=6)
    panels[0, 0].set(xlabel="x (nm)", ylabel=f"{title}\ny (nm)")
    _atoms(panels[1, 0], scene, scene.positions[places[0]])
    for panel, place, colour in zip(panels[1, 1:4], places, _MARK_COLOURS, strict=True):
        where = f"row {place[0]}, column {place[1]}"
        _pattern(panel, config, pattern(config, scene, place), where, colour)
    panels[1, 4].set_axis_off()
    panels[1, 4].text(
        0,
        0.95,
        "\n".join(_facts(config, scene)),
        va="top",
        transform=panels[1, 4].transAxes,
        linespacing=1.6,
        fontsize=8,
    )
    return drawn


def _strains(drawn: Figure, panels: NDArray[np.object_], scene: Scene, positions: Array) -> None:
    """Strains and rotation at the points of the scan, not averaged over the probe."""
    on_sample = (scene.material(positions) > 0)[..., None]
    strains = geometry.components(scene.deformation(positions))
    strains = np.where(on_sample, strains, np.nan)
    for c, (panel, name) in enumerate(zip(panels, geometry.COMPONENTS, strict=True)):
        factor, unit = (np.rad2deg(1), "degrees") if name == "theta" else (1e2, "%")
        end = factor * style.strain_end(float(np.nanmax(np.abs(strains[..., c]))))
        shown = panel.imshow(
            factor * strains[..., c],
            extent=_extent(scene),
            cmap=style.STRAIN_CMAP,
            vmin=-end,
            vmax=end,
        )
        panel.set(title=f"{display.SYMBOLS[name]} ({unit})")
        drawn.colorbar(shown, ax=panel, shrink=0.7)


def _materials(panel: Axes, scene: Scene, positions: Array) -> None:
    """Materials, cores of dislocations, and the outline of the reference region."""
    kinds = np.where(scene.core(positions), len(scene.crystals) + 1, scene.material(positions))
    extent = _extent(scene)
    panel.imshow(kinds.astype(float), extent=extent, cmap="Set2", vmin=0, vmax=7)
    panel.contour(
        scene.reference(positions).astype(float),
        levels=[0.5],
        colors="black",
        linewidths=1,
        linestyles="--",
        extent=extent,
        origin="upper",
    )
    panel.set(title="material, core")


def _facts(config: Config, scene: Scene) -> list[str]:
    """Lines of text: scan, microscope, and what the pattern looks like on the detector."""
    microscope = config.microscope
    window = optics.window(microscope, config.simulation)
    points, weights = optics.probe_shells(microscope, window)
    probe_radius_A = np.sqrt((weights * (points**2).sum(-1)).sum())
    disk_radius_px = (
        geometry.disk_radius_inv_A(microscope.semiangle_mrad, microscope.energy_keV)
        / microscope.pixel_size_inv_A
    )
    ring_px = np.linalg.norm(scene.nominal, axis=0).min() / microscope.pixel_size_inv_A
    width_nm, height_nm = np.ptp(scene.positions, axis=(0, 1)) / 10
    rows, columns = scene.scan.shape
    lines = [
        f"{rows} x {columns} positions, step {scene.scan.step_A:g} Å",
        f"field {width_nm:.1f} x {height_nm:.1f} nm",
        f"{microscope.energy_keV:g} keV, {microscope.semiangle_mrad:g} mrad",
        f"probe radius (rms) {probe_radius_A:.1f} Å",
        f"disk radius {disk_radius_px:.2f} px",
        f"first ring at {ring_px:.1f} px",
        f"rotational symmetry {scene.symmetry}",
        "reference region dashed",
    ]
    if scene.layers > 1:
        lines.append(f"{scene.layers} layers, {scene.stacking}")
    if not scene.tilt.none:
        lines.append("tilt {:g}, {:g} mrad".format(*scene.settings.tilt_mrad))
    return lines


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
    xyz, numbers = scene.atoms((*(centre - _ATOMS_HALF_SIDE_A), *(centre + _ATOMS_HALF_SIDE_A)))
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
    low, high = (centre - _ATOMS_HALF_SIDE_A) / 10, (centre + _ATOMS_HALF_SIDE_A) / 10
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
