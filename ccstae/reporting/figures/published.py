"""Mean absolute errors over all positions against background, beside what others published."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ccstae.reporting import display
from ccstae.reporting.figures import style
from ccstae.reporting.table import BOUND

PANELS = {
    "exx": display.SYMBOLS["exx"],
    "eyy": display.SYMBOLS["eyy"],
    "exy": display.SYMBOLS["exy"],
    "rotation as published (deg)": f"{display.SYMBOLS['theta']}, not wrapped",
}


def draw(frame: pd.DataFrame, lines: dict[str, style.Line]) -> Figure:
    """A panel a quantity, a line a method, medians over the seeds; published errors in grey.

    Args:
        frame: as `reporting.published.beside` gives it, of one scene, with `electrons` of 1e5 and
            of what was published without noise.
        lines: of the methods, in their order.
    """
    shown = frame[(frame["positions"] == "all") & np.isfinite(frame["electrons"])]
    others = [m for m in dict.fromkeys(shown["method"]) if m not in lines and m != BOUND]
    of_others = ("#555555", "s", "-"), ("#999999", "o", "--"), ("#bbbbbb", "^", ":")
    every = {
        BOUND: style.Line(style.BOUND_COLOUR, ""),
        **{m: style.Line(*line) for m, line in zip(others, of_others, strict=False)},
        **lines,
    }
    drawn = style.figure(7.4, 6.4)
    panels = drawn.subplots(2, 2, sharex=True)
    for panel, (quantity, title) in zip(panels.flat, PANELS.items(), strict=True):
        rows = shown[shown["quantity"] == quantity]
        unit = 1.0 if "deg" in quantity else display.STRAIN_UNIT
        for method, line in every.items():
            errors = rows[rows["method"] == method].groupby("background")["value"].median() / unit
            published = method in others
            panel.plot(
                errors.index,
                errors,
                linestyle=line.style,
                color=line.colour,
                marker=line.marker,
                ms=5,
                lw=2.2 if published else 1.8 if method == BOUND else 1.3,
                mec="white",
                mew=0.5,
                zorder=3 if published else 4 if method == BOUND else 2,
                label={BOUND: "bound, as mean absolute error", "zero": "no strain (zero)"}.get(
                    method, method
                ),
            )
        panel.set(
            title=title,
            ylabel="mae (degrees)" if unit == 1.0 else "mae ($10^{-4}$)",
            yscale="log",
        )
        style.decades(panel)
    for panel in panels[-1]:
        panel.set(xlabel="share of the electrons in the background, $w$")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 4))
    return drawn
