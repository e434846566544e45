"""The picture of a calibration: everything that was found of a scan, to be looked at before a map
is made of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.patches import Circle
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.acquisition.calibration import Calibrated
from ccstae.io.atomic import atomic
from ccstae.reporting.figures import style

_CMAP = "magma"
_NODE_COLOUR, _SEEN_COLOUR = "#56b4e9", "#009e73"
# What is drawn of an ellipse is so many times what it is, or nobody saw it.
_EXAGGERATION = 10


def write(found: Calibrated, out: Path) -> None:
    """Draw a calibration to one PNG.

    Raises:
        InputError: where the system takes no more of it.
    """
    with style.styled():
        figure = style.figure(11.0, 6.8)
        axes = figure.subplots(2, 3)
        _mean(axes[0, 0], found)
        _probe(axes[0, 1], found)
        _ellipse(axes[0, 2], found)
        step_nm = found.calibration.step_A / 10
        _descan(axes[1, 0], found)
        for place, image, title in (
            (axes[1, 1], found.bright, "Virtual bright field"),
            (axes[1, 2], found.dark, "Virtual dark field"),
        ):
            low, high = np.quantile(image, (0.01, 0.99))
            shown = place.imshow(
                image, "gray", vmin=low, vmax=high, extent=style.extent(image.shape, step_nm)
            )
            place.set_title(title)
            style.frame(place)
            style.scale_bar(place, image.shape[1] * step_nm)
            figure.colorbar(shown, ax=place, fraction=0.046, label="electrons")
        with atomic(out) as temporary:
            figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})


def _mean(axes: Axes, found: Calibrated) -> None:
    image = found.mean - np.quantile(found.mean, 0.01)
    top = float(np.quantile(image, 0.985))  # faint disks show, the direct beam is white
    axes.imshow(image.clip(0), cmap=_CMAP, norm=PowerNorm(0.35, 0, max(top, 1e-12)))
    nodes = geometry.lattice_nodes(found.found.G, np.hypot(*image.shape))
    at = found.found.origin + nodes @ found.found.G.T
    seen = {tuple(node) for node in found.found.nodes.tolist()}
    for node, (x, y) in zip(nodes.tolist(), at, strict=True):
        if 0 <= x < image.shape[1] and 0 <= y < image.shape[0]:
            colour, width = (_SEEN_COLOUR, 1.0) if tuple(node) in seen else (_NODE_COLOUR, 0.5)
            axes.add_patch(Circle((x, y), found.radius_px, fill=False, ec=colour, lw=width))
    for vector in found.found.G.T:
        axes.annotate(
            "",
            (found.found.origin[0] + vector[0], found.found.origin[1] + vector[1]),
            (found.found.origin[0], found.found.origin[1]),
            arrowprops={"arrowstyle": "->", "color": "white", "lw": 1.2},
        )
    axes.set_title("Mean pattern; disks seen, nodes")
    axes.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    style.frame(axes)


def _probe(axes: Axes, found: Calibrated) -> None:
    height, width = found.probe.shape
    half = int(np.ceil(2.5 * found.radius_px + 2))
    extent = (-half - 0.5, half + 0.5, half + 0.5, -half - 0.5)
    padded = np.pad(found.probe, half)
    cut = padded[height // 2 : height // 2 + 2 * half + 1, width // 2 : width // 2 + 2 * half + 1]
    axes.imshow(cut / cut.max(), cmap=_CMAP, extent=extent)
    axes.add_patch(Circle((0, 0), found.radius_px, fill=False, ec=_SEEN_COLOUR, lw=1.2))
    origin = f"{int(found.vacuum.sum())} patterns of vacuum" if found.vacuum.any() else "no vacuum"
    axes.set_title(f"Probe ({origin}), radius {found.radius_px:.2f} px")
    axes.set(xlabel="px", ylabel="px")


def _ellipse(axes: Axes, found: Calibrated) -> None:
    angle = np.linspace(0, 2 * np.pi, 361)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    drawn = np.eye(2) + _EXAGGERATION * (found.distortion - np.eye(2))
    axes.plot(*circle, color="0.6", lw=1, ls="--", label="circle")
    axes.plot(*(drawn @ circle), color=style.lines(["ccstae"])["ccstae"].colour, label="as seen")
    values = np.linalg.eigvalsh(found.distortion)
    axes.set_title(
        "Ellipse: not told"
        if (found.distortion == np.eye(2)).all()
        else f"Ellipse of {values[1] / values[0] - 1:.2%}, drawn {_EXAGGERATION} times"
    )
    axes.set(aspect="equal", xticks=[], yticks=[], xlim=(-1.6, 1.6), ylim=(1.6, -1.6))
    axes.legend(loc="lower right", frameon=False)
    style.frame(axes)


def _descan(axes: Axes, found: Calibrated) -> None:
    """The surface through the beams, as arrows from its middle, and how far each beam is off it."""
    away = np.linalg.norm(found.beam_px - found.descan_px, axis=-1)
    off: NDArray[np.float64] = np.ma.masked_invalid(away)
    shown = axes.imshow(off, cmap="viridis", vmin=0)
    rows, columns = (
        np.unique(np.linspace(0, side - 1, min(side, 7)).round().astype(int))
        for side in found.descan_px.shape[:2]
    )
    grid = found.descan_px[np.ix_(rows, columns)]
    moved = grid - np.median(found.descan_px.reshape(-1, 2), axis=0)
    x, y = np.meshgrid(columns, rows)
    if np.abs(moved).max() > 0.01:
        axes.quiver(x, y, moved[..., 0], moved[..., 1], angles="xy", color="white", width=0.006)
    axes.set_title("Descan (arrows), beams off it")
    style.frame(axes)
    axes.figure.colorbar(shown, ax=axes, fraction=0.046, label="px")
