"""The exact answer: total strain, elastic strain of each material, materials, regions and the
bound.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.io.truth import Truth
from ccstae.reporting import display
from ccstae.reporting.figures import style

_MATERIALS = (
    "#56b4e9",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#f0e442",
    "#0072b2",
    "#d55e00",
    "#8c510a",
)
_REGIONS = {
    "background": style.VACUUM_COLOUR,
    "interior": "#a6d8f0",
    "interface": "#e69f00",
    "edge": "#cc79a7",
    "core": "#000000",
    "boundary": "#0072b2",
}
_MIXED = "#7f7f7f"


def elastic(truth: Truth, lattice_A: list[float]) -> NDArray[np.float64]:
    """Components (Ry, Rx, 4) of F (a_1 / a_m), the deformation of each position against the free
    lattice a_m of its material m.

    Total F is against the first material's lattice a_1, so F a_1 = F_m a_m. NaN in vacuum and where
    materials mix.
    """
    ratio = np.array([np.nan, *(lattice_A[0] / a for a in lattice_A)])  # index is the label
    pure = np.where(truth.label > 0, truth.label, 0)
    return geometry.components(
        geometry.regauge(truth.F_probe, truth.reference) * ratio[pure][..., None, None]
    )


def draw(
    truth: Truth,
    materials: list[str],
    lattice_A: list[float] | None,
    bound: NDArray[np.float64] | None,
    step_nm: float,
) -> Figure:
    """Total strain above; below elastic strain (where lattice parameters are known), materials and
    regions, bound of exx.
    """
    vacuum = truth.label == 0
    total = geometry.components(geometry.regauge(truth.F_probe, truth.reference))
    rows, columns = vacuum.shape
    drawn = style.figure(10.6, 2 * (1.95 * max(0.4, rows / columns) + 0.95))
    panels = drawn.subplots(2, 5)
    for c, component in enumerate(geometry.COMPONENTS):
        title = f"total {display.SYMBOLS[component]}"
        _strain(drawn, panels[0, c], component, total[..., c], vacuum, step_nm, title)
    of_material = None if lattice_A is None or len(materials) < 2 else elastic(truth, lattice_A)
    for c, panel in enumerate(panels[1, :3]):
        if of_material is None:
            panel.set_axis_off()
            continue
        component = geometry.COMPONENTS[c]
        title = f"elastic {display.SYMBOLS[component]}"
        _strain(drawn, panel, component, of_material[..., c], vacuum, step_nm, title)
        mixed = np.ma.masked_array(np.ones(vacuum.shape), truth.label >= 0)
        panel.imshow(
            mixed, extent=style.extent(vacuum.shape, step_nm), cmap=ListedColormap([_MIXED])
        )
    if bound is None:
        panels[1, 3].set_axis_off()
    else:
        _bound(drawn, panels[1, 3], bound[..., 0], vacuum, step_nm)
    names = ["vacuum", *materials, "mixed"]
    colours = [style.VACUUM_COLOUR, *_MATERIALS[: len(materials)], _MIXED]
    _classes(
        panels[0, 4],
        np.where(truth.label < 0, len(materials) + 1, truth.label),
        names,
        colours,
        "material",
        step_nm,
    )
    colours = [
        _REGIONS.get(name, _MATERIALS[i % len(_MATERIALS)]) for i, name in enumerate(truth.regions)
    ]
    _classes(
        panels[1, 4],
        truth.region,
        ["vacuum" if n == "background" else n for n in truth.regions],
        colours,
        "region",
        step_nm,
    )
    y, x = ((np.arange(n) + 0.5) * step_nm for n in vacuum.shape)
    panels[1, 4].contour(
        x, y, truth.reference, levels=[0.5], colors="black", linewidths=1.0, linestyles="--"
    )
    style.scale_bar(panels[0, 0], columns * step_nm)
    return drawn


def _strain(
    drawn: Figure,
    panel: Axes,
    component: str,
    values: NDArray[np.float64],
    vacuum: NDArray[np.bool_],
    step_nm: float,
    title: str,
) -> None:
    factor, unit = display.MAP_UNITS[component]
    end = style.strain_end(float(np.nanmax(np.abs(values[~vacuum]))))
    shown = style.image(panel, factor * values, step_nm, factor * end, vacuum=vacuum)
    panel.set_title(f"{title} ({unit})")
    _scale(drawn, panel, shown)


def _bound(
    drawn: Figure,
    panel: Axes,
    bound: NDArray[np.float64],
    vacuum: NDArray[np.bool_],
    step_nm: float,
) -> None:
    values = np.ma.masked_array(bound / display.STRAIN_UNIT, vacuum)
    shown = panel.imshow(
        values,
        extent=style.extent(vacuum.shape, step_nm),
        cmap=style.cmap("cividis", style.VACUUM_COLOUR),
    )
    style.frame(panel)
    panel.set_title(f"bound of {display.SYMBOLS['exx']} ($10^{{-4}}$)")
    _scale(drawn, panel, shown)


def _scale(drawn: Figure, panel: Axes, shown: AxesImage) -> None:
    below = panel.inset_axes((0.0, -0.15, 1.0, 0.055))
    drawn.colorbar(shown, cax=below, orientation="horizontal")
    below.locator_params(nbins=5)


def _classes(
    panel: Axes,
    index: NDArray[np.integer],
    names: list[str],
    colours: list[str],
    title: str,
    step_nm: float,
) -> None:
    """A map of classes with a legend of those that occur."""
    panel.imshow(
        index,
        extent=style.extent(index.shape, step_nm),
        cmap=ListedColormap(colours),
        vmin=-0.5,
        vmax=len(names) - 0.5,
    )
    style.frame(panel)
    panel.set_title(title)
    patches = [Patch(facecolor=colours[i], label=names[i]) for i in np.unique(index)]
    panel.legend(
        handles=patches,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.02),
        ncols=2,
        handlelength=1,
        columnspacing=0.9,
    )
