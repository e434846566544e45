"""Error against noise: one panel a component, the bound and the no-strain control in each."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from ccstae.geometry import COMPONENTS
from ccstae.reporting import display
from ccstae.reporting.figures import style

_BIAS_ROOM = 5.0  # the panels end so far below the smallest rmse: a smaller bias tells nothing


def series(metrics: pd.DataFrame, axis: str) -> pd.DataFrame:
    """The scores along `axis` (background or electrons) at the value of the other that has the most
    noisy levels on it.
    """
    other = "electrons" if axis == "background" else "background"
    noisy: pd.DataFrame = metrics[np.isfinite(metrics["electrons"])]
    levels = noisy[[axis, other]].drop_duplicates().groupby(other)[axis].count()
    if levels.empty:
        return noisy
    longest = levels[levels == levels.max()].index
    chosen = longest.max() if other == "electrons" else longest.min()
    along: pd.DataFrame = noisy[noisy[other] == chosen]
    return along


def draw(metrics: pd.DataFrame, lines: dict[str, style.Line], axis: str) -> Figure:
    """Interior rmse of one scene along `axis`, a line a method, and below it the size of its bias,
    dotted; bands span the seeds. `metrics` is as `series` gives it.
    """
    inside = metrics[metrics["region"] == "interior"]
    drawn = style.figure(7.4, 6.0)
    panels = drawn.subplots(2, 2, sharex=True)
    for panel, component in zip(panels.flat, COMPONENTS, strict=True):
        rows = inside[inside["quantity"] == component]
        bounds = rows[rows["metric"] == "limit"]
        bound = bounds.groupby(axis)["value"].median() / display.STRAIN_UNIT
        panel.plot(
            bound.index, bound, color=style.BOUND_COLOUR, lw=1.8, label="Cramér-Rao bound", zorder=4
        )
        for method, line in lines.items():
            errors = rows[(rows["metric"] == "rmse") & (rows["method"] == method)]
            over_seeds = errors.groupby(axis)["value"].agg(["median", "min", "max"])
            over_seeds = over_seeds / display.STRAIN_UNIT
            label = "no strain (zero)" if method == "zero" else method
            style.over_seeds(panel, over_seeds, line, label, 6)
        unit = "$10^{-4}$ rad" if component == "theta" else "$10^{-4}$"
        panel.set(title=display.SYMBOLS[component], ylabel=f"rmse ({unit})", yscale="log")
        low, _ = panel.get_ylim()
        _biases(panel, rows, lines, axis)
        panel.set_ylim(bottom=low / _BIAS_ROOM)
        style.decades(panel)
    for panel in panels[-1]:
        _level_axis(panel, axis, sorted(set(inside[axis])))
    handles, labels = panels[0, 0].get_legend_handles_labels()
    handles.append(Line2D([], [], color="#444444", ls=":", lw=1))
    labels.append("size of the bias")
    drawn.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 5))
    return drawn


def _biases(panel: Axes, rows: pd.DataFrame, lines: dict[str, style.Line], axis: str) -> None:
    """The size of every method's bias but the control's, whose error is all bias."""
    for method, line in lines.items():
        biases = rows[(rows["metric"] == "bias") & (rows["method"] == method)]
        size = biases.groupby(axis)["value"].median().abs() / display.STRAIN_UNIT
        if method != "zero":
            panel.plot(size.index, size, color=line.colour, ls=":", lw=1, zorder=1)


def _level_axis(panel: Axes, axis: str, values: list[float]) -> None:
    if axis == "background":
        panel.set(
            xlabel="share of the electrons in the background, $w$",
            xticks=values,
            xticklabels=[f"{v:g}" for v in values],
        )
    else:
        panel.set(
            xlabel="electrons per pattern",
            xscale="log",
            xticks=values,
            xticklabels=[f"${display.power_math(v)}$" for v in values],
        )
        panel.xaxis.set_minor_formatter(NullFormatter())
