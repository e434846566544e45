"""Colours, markers and page of every figure. Methods of this package have colours of Okabe and Ito
and solid lines, all others broken lines; no two share a marker.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from ccstae.io import atomic

BOUND_COLOUR = "#000000"
VACUUM_COLOUR = "#d9d9d9"
FAILED_COLOUR = "#000000"
STRAIN_CMAP = "RdBu_r"
PATTERN_CMAP = "magma"
MIN_STRAIN_END = 1e-4
_MAP_IN = 2.4  # width of a map in a row of several

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "image.interpolation": "nearest",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.05,
    "figure.constrained_layout.h_pad": 0.05,
    "pdf.fonttype": 42,
    "svg.hashsalt": "ccstae",
}


@dataclass(frozen=True)
class Line:
    """How a method is drawn in every figure."""

    colour: str
    marker: str
    style: str = "-"


_PACKAGE_LINES = {
    "zero": Line("#7f7f7f", "", "--"),
    "com": Line("#e69f00", "s"),
    "template": Line("#0072b2", "^"),
    "cepstral": Line("#5c2d00", "P"),
    "ccstae": Line("#d55e00", "o"),
    "ccstae-2023": Line("#cc79a7", "v"),
    "ccstae-pooled": Line("#009e73", "D"),
}
# Chosen far from each other and from those above as trichromats, protanopes and deuteranopes see
# them (Machado et al., IEEE Trans. Vis. Comput. Graph. 15, 1291 (2009)).
_OTHER_COLOURS = ("#771155", "#00ccff", "#6666ff", "#ddcc77", "#330066", "#666633")
_OTHER_MARKERS = ("X", "<", "h", ">", "p", "d", "*")
_OTHER_STYLES = ("--", "-.", ":")


def lines(methods: Iterable[str]) -> dict[str, Line]:
    """The line of each method of a run: fixed for those of this package, the others in turn."""
    methods = list(methods)
    others = [method for method in methods if method not in _PACKAGE_LINES]
    return {
        method: _PACKAGE_LINES.get(method) or _other_line(others.index(method))
        for method in methods
    }


def _other_line(index: int) -> Line:
    rounds = index // len(_OTHER_COLOURS)  # a colour that comes again has another style
    return Line(
        _OTHER_COLOURS[index % len(_OTHER_COLOURS)],
        _OTHER_MARKERS[index % len(_OTHER_MARKERS)],
        _OTHER_STYLES[(index + rounds) % len(_OTHER_STYLES)],
    )


def strain_end(largest: float, bound: float = 0.0) -> float:
    """End of a strain map's colour scale (as strain, or radians): the largest strain to be shown,
    and three bounds more, so that noise about no strain does not saturate. Never below
    `MIN_STRAIN_END`, so that rounding errors show as nothing.
    """
    return max(largest + 3 * bound, MIN_STRAIN_END)


def figure(width_in: float, height_in: float) -> Figure:
    """An empty figure of the given size, not known to any window system."""
    return Figure(figsize=(width_in, height_in))


def map_panels(number: int, shape: tuple[int, ...]) -> tuple[Figure, NDArray[Any]]:
    """A figure of so many maps of a scan (Ry, Rx) side by side, and its panels."""
    rows, columns = shape[:2]
    drawn = figure(number * _MAP_IN + 1.6, _MAP_IN * max(0.4, rows / columns) + 0.8)
    drawn.set_layout_engine("constrained")
    return drawn, np.asarray(drawn.subplots(1, number))


def all_but_largest(values: NDArray[np.float64]) -> float:
    """The 99th percentile of the sizes of values, NaN left out, at which a colour scale ends."""
    sizes = np.abs(values[np.isfinite(values)])
    return float(np.percentile(sizes, 99)) if sizes.size else 0.0


def save(drawn: Figure, stem: Path, dpi: int = 160) -> None:
    """Write PNG and PDF, whole or not at all, with no date in them: the same figure gives the same
    bytes.
    """
    engine = drawn.get_layout_engine()
    if engine is not None:  # the layout is the costly part, and the same for every format
        engine.execute(drawn)
        drawn.set_layout_engine("none")
    drawn.set_dpi(dpi)
    # `savefig` would draw the whole figure once more before each, for a layout that is made.
    with atomic.atomic(stem.with_name(f"{stem.name}.png")) as temporary:
        FigureCanvasAgg(drawn).print_png(temporary, metadata={"Software": None})
    with atomic.atomic(stem.with_name(f"{stem.name}.pdf")) as temporary:
        FigureCanvasPdf(drawn).print_pdf(
            temporary, metadata={"CreationDate": None, "Producer": None, "Creator": None}
        )


def styled() -> AbstractContextManager[None]:
    """Context in which every figure is drawn."""
    return mpl.rc_context(RC)


def cmap(name: str, bad: str) -> Colormap:
    """A colour map that paints what has no value in `bad`."""
    return mpl.colormaps[name].with_extremes(bad=bad)


def image(
    axes: Axes,
    values: NDArray[np.float64],
    step_nm: float,
    end: float,
    *,
    vacuum: NDArray[np.bool_],
    failed: NDArray[np.bool_] | None = None,
) -> AxesImage:
    """A map on a scale from -`end` to `end`, vacuum in grey, positions without an answer in
    black.
    """
    shown = np.ma.masked_array(values, vacuum | ~np.isfinite(values))
    drawn = axes.imshow(
        shown,
        extent=extent(values.shape, step_nm),
        cmap=cmap(STRAIN_CMAP, VACUUM_COLOUR),
        vmin=-end,
        vmax=end,
    )
    if failed is not None and (failed & ~vacuum).any():
        black = np.ma.masked_array(np.ones(values.shape), ~(failed & ~vacuum))
        axes.imshow(
            black, extent=extent(values.shape, step_nm), cmap=ListedColormap([FAILED_COLOUR])
        )
    frame(axes)
    return drawn


def frame(axes: Axes) -> None:
    """A whole frame without ticks."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(True)


def extent(shape: tuple[int, ...], step_nm: float) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of a scan (rows, columns) in nm, row 0 at the top."""
    return 0.0, shape[1] * step_nm, shape[0] * step_nm, 0.0


def scale_bar(axes: Axes, width_nm: float) -> None:
    """A bar of a round length, about a quarter of the field, below the axes' lower left corner."""
    candidates = [m * 10.0**e for e in range(-1, 6) for m in (1, 2, 5)]
    length = max((c for c in candidates if c <= 0.35 * width_nm), default=candidates[0])
    fraction = length / width_nm
    axes.plot(
        [0, fraction],
        [-0.045, -0.045],
        color="black",
        lw=2.5,
        transform=axes.transAxes,
        clip_on=False,
        solid_capstyle="butt",
    )
    axes.text(
        fraction + 0.03, -0.045, f"{length:g} nm", transform=axes.transAxes, va="center", fontsize=8
    )


def over_seeds(panel: Axes, values: pd.DataFrame, line: Line, label: str, size: float) -> None:
    """The line of a method, medians over the seeds in a band of their range.

    Args:
        panel: on which to draw.
        values: columns `median`, `min` and `max`, over the index.
        line: of the method.
        label: in the legend.
        size: of the markers, points.
    """
    panel.fill_between(
        values.index, values["min"], values["max"], color=line.colour, alpha=0.2, lw=0
    )
    panel.plot(
        values.index,
        values["median"],
        linestyle=line.style,
        color=line.colour,
        marker=line.marker,
        ms=size,
        lw=1.3,
        mec="white",
        mew=0.5,
        label=label,
    )


def decades(panel: Axes) -> None:
    """Plain numbers on a logarithmic axis, at 1, 2 and 5 of each decade where few decades are
    shown.
    """
    low, high = panel.get_ylim()
    panel.yaxis.set_major_locator(
        LogLocator(subs=(1, 2, 5) if high / low < 300 else (1, 3), numticks=20)
    )
    panel.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.grid(True, which="major", color="#e6e6e6", lw=0.6)
    panel.set_axisbelow(True)
