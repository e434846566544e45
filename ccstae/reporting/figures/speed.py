"""Accuracy against speed at one noise level: a point a method, on one core and on all."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ccstae.reporting.figures import style


def draw(errors: pd.Series, speeds: pd.DataFrame, lines: dict[str, style.Line]) -> Figure:
    """`errors`: error over the bound of each map, indexed by method; `speeds`: rows of
    `throughput`; `lines`: the methods to be drawn, if they have both. Bars span seeds and rounds.
    """
    drawn = style.figure(6.4, 4.4)
    panel = drawn.subplots()
    most = speeds["cores"].max()
    measured = set(speeds["method"]) & set(errors.index)
    for method in [method for method in lines if method in measured]:
        line = lines[method]
        error = errors[[method]].groupby(level=0).agg(["median", "min", "max"]).iloc[0]
        rates = (
            speeds[speeds["method"] == method]
            .groupby("cores")["patterns_per_second"]
            .agg(["median", "min", "max"])
        )
        panel.plot(
            rates["median"],
            [error["median"]] * len(rates),
            color=line.colour,
            lw=0.8,
            alpha=0.6,
        )
        for cores, rate in rates.iterrows():
            panel.errorbar(
                rate["median"],
                error["median"],
                xerr=[[rate["median"] - rate["min"]], [rate["max"] - rate["median"]]],
                yerr=[[error["median"] - error["min"]], [error["max"] - error["median"]]],
                color=line.colour,
                marker=line.marker or "o",
                markerfacecolor=line.colour if cores == 1 else "white",
                ms=6,
                lw=0.8,
                label=method if cores == 1 else None,
            )
    panel.axhline(1, color=style.BOUND_COLOUR, lw=1.2)
    panel.set(
        xscale="log", yscale="log", xlabel="patterns per second", ylabel="rmse over the bound"
    )
    low, high = panel.get_ylim()
    ticks = [tick for tick in (0.5, 1, 1.5, 2, 3, 5, 10, 20, 50) if low <= tick <= high]
    panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
    handles, _ = panel.get_legend_handles_labels()
    handles += [Line2D([], [], color=style.BOUND_COLOUR, lw=1.2, label="Cramér-Rao bound")]
    if most > 1:
        handles += [
            Line2D(
                [], [], color="black", marker="o", mfc="white", lw=0, label=f"open: {most} cores"
            )
        ]
    drawn.legend(handles=handles, loc="outside right upper")
    return drawn
