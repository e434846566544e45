"""What a small error costs in resolution: error against resolution, and the modulation transfer
function.
"""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from ccstae.reporting import display
from ccstae.reporting import resolution as resolutions
from ccstae.reporting.figures import style
from ccstae.reporting.resolution import ERROR, MEASURE, RESOLUTION
from ccstae.reporting.table import LEVEL

_COLUMNS = 3
_ROOM = 1.15  # between the outermost points and the frame
_MIN_SPAN = 3.0  # from end to end of an axis: methods that are alike shall look alike
_TICKS = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 50)
_QUANTITIES = ("exx", "exy", "theta", "all")
_AXES = {
    resolutions.HALF: "wavelength shown at half (scan steps)",
    resolutions.WIDTH: "10 to 90 % width of the interface (scan steps)",
}


def draw(
    maps: pd.DataFrame, lines: dict[str, style.Line], true_width: float | None = None
) -> Figure:
    """Error over the bound in the interior against resolution, one panel a noise level, a line a
    method as its width varies, and a point for every other one.

    Args:
        maps: rows of `reporting.resolution.numbers` of one scene.
        lines: of the methods to be drawn.
        true_width: of the interface, marked where it is given.
    """
    levels = maps[LEVEL].drop_duplicates().to_numpy(float)
    columns = min(_COLUMNS, len(levels))
    rows = math.ceil(len(levels) / columns)
    drawn = style.figure(3.1 * columns + 0.6 + 1.5 * (columns == 1), 2.9 * rows + 0.9)
    panels = drawn.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    families = resolutions.families(lines)
    in_families = {method for family in families.values() for method in family.widths}
    single = [method for method in lines if method not in in_families]
    for panel, (background, electrons) in zip(panels.flat, levels, strict=False):
        of_level = maps[(maps["background"] == background) & (maps["electrons"] == electrons)]
        points = of_level.groupby("method")[[RESOLUTION, ERROR]].median()
        for family in families.values():
            _family(panel, points.reindex(family.members).dropna(), family, lines)
        for method in [method for method in single if method in points.index]:
            _method(panel, of_level[of_level["method"] == method], lines[method])
        if true_width is not None:
            panel.axvline(true_width, color="#999999", lw=1, ls=":")
        panel.set_title(display.level_math(background, electrons))
        _log_axes(panel, maps)
    for panel in panels.flat[len(levels) :]:
        panel.set_axis_off()
    for panel in panels[:, 0]:
        panel.set_ylabel("rmse over the bound")
    measure = str(maps[MEASURE].iloc[0])
    drawn.supxlabel(_AXES[measure], fontsize=9)
    shown = set(maps["method"])
    handles = [
        Line2D([], [], color=lines[m].colour, marker=lines[m].marker or "o", lw=0, ms=8, label=m)
        for m in single
        if m in shown
    ]
    for name, family in families.items():
        line = lines[next(iter(family.widths))]
        handles.append(
            Line2D([], [], color=line.colour, ls=line.style, marker=line.marker, ms=4.5, label=name)
        )
    if true_width is not None:
        handles.append(Line2D([], [], color="#999999", lw=1, ls=":", label="truth"))
    drawn.legend(handles=handles, loc="outside upper center", ncols=4 if columns > 1 else 2)
    return drawn


def draw_transfer(metrics: pd.DataFrame, lines: dict[str, style.Line]) -> Figure:
    """Modulation transfer function of one scene at one noise level, a panel a component; bands span
    the seeds.

    Args:
        metrics: rows of the metric `mtf` with their `wavelength` in scan steps.
        lines: of the methods to be drawn.
    """
    shown = [q for q in _QUANTITIES if q in set(metrics["quantity"])]
    drawn = style.figure(7.4, 6.0)
    panels = drawn.subplots(2, 2, sharex=True, sharey=True)
    for panel, quantity in zip(panels.flat, shown, strict=False):
        rows = metrics[metrics["quantity"] == quantity]
        for level in (0.5, 1.0):
            panel.axhline(level, color="#bbbbbb", lw=0.8, ls=":" if level < 1 else "-", zorder=0)
        for method, line in lines.items():
            over_seeds = (
                rows[rows["method"] == method]
                .groupby("wavelength")["value"]
                .agg(["median", "min", "max"])
            )
            style.over_seeds(panel, over_seeds, line, method, 5)
        lengths = sorted(set(metrics["wavelength"]))
        panel.set(
            title=display.SYMBOLS.get(quantity, "all together"),
            xscale="log",
            xticks=lengths,
            xticklabels=[f"{length:g}" for length in lengths],
        )
        panel.minorticks_off()
        panel.set_ylim(-0.05, max(1.15, min(1.5, panel.get_ylim()[1])))
    for panel in panels[-1]:
        panel.set_xlabel("wavelength (scan steps)")
    for panel in panels[:, 0]:
        panel.set_ylabel("amplitude shown over true")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 4))
    return drawn


def _family(
    panel: Axes, points: pd.DataFrame, family: resolutions.Family, lines: dict[str, style.Line]
) -> None:
    """A method at its widths, which stand beside their points."""
    line = lines[next(iter(family.widths))]
    panel.plot(
        points[RESOLUTION],
        points[ERROR],
        color=line.colour,
        ls=line.style,
        marker=line.marker or "o",
        ms=4.5,
        lw=1.3,
        mec="white",
        mew=0.5,
        zorder=2,
    )
    for method, width in family.widths.items():
        if method in points.index:
            x, y = points.loc[method, [RESOLUTION, ERROR]]
            panel.annotate(
                width,
                (x, y),
                (3, 3),
                textcoords="offset points",
                fontsize=6.5,
                color=line.colour,
            )


def _method(panel: Axes, maps: pd.DataFrame, line: style.Line) -> None:
    """A method of one width: its median, and bars that span the seeds."""
    x, y = maps[RESOLUTION], maps[ERROR]
    panel.errorbar(
        x.median(),
        y.median(),
        xerr=[[x.median() - x.min()], [x.max() - x.median()]],
        yerr=[[y.median() - y.min()], [y.max() - y.median()]],
        color=line.colour,
        marker=line.marker or "o",
        ms=8,
        mec="black",
        mew=0.6,
        lw=0.8,
        zorder=3,
    )


def _log_axes(panel: Axes, points: pd.DataFrame) -> None:
    """Logarithmic axes with plain numbers, with room round the points wherever they lie."""
    x, y = _log_axis(points[RESOLUTION]), _log_axis(points[ERROR])
    panel.set(xscale="log", yscale="log", xlim=x, ylim=y)
    for axis, (low, high) in ((panel.xaxis, x), (panel.yaxis, y)):
        ticks = [tick for tick in _TICKS if low <= tick <= high]
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_minor_locator(NullLocator())
    panel.grid(True, which="major", color="#e6e6e6", lw=0.6)
    panel.set_axisbelow(True)


def _log_axis(values: pd.Series) -> tuple[float, float]:
    """Ends of a logarithmic axis that holds the values."""
    low, high = float(values.min()) / _ROOM, float(values.max()) * _ROOM
    return low, max(high, _MIN_SPAN * low)
