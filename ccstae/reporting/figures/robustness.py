"""The robustness matrix as a picture: a panel a level, a row a nuisance, a column a method."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ccstae.reporting import display, robustness
from ccstae.reporting.figures import style

_CMAP = "YlOrRd"
_LOW, _HIGH = 1.0, 30.0  # ends of the colour scale, in bounds
_DARK = 0.62  # of the colour scale, from which on text is white
_NOT_RUN_COLOUR = "#eeeeee"


def draw(
    cells: pd.DataFrame, scenes: list[str], levels: list[tuple[float, float]], methods: list[str]
) -> Figure:
    """The heat map of `robustness.numbers`: error over the bound, marked where the stated
    deviations do not tell the errors.

    Args:
        cells: one row a scene, level and method.
        scenes: of the rows, from the top.
        levels: (background, electrons) of the panels.
        methods: of the columns.
    """
    width = 1.9 + 0.62 * len(methods) * len(levels)
    drawn = style.figure(max(width, 5.5), 1.6 + 0.25 * len(scenes))
    panels = drawn.subplots(1, len(levels), sharey=True, squeeze=False)[0]
    norm = LogNorm(_LOW, _HIGH)
    colours = style.cmap(_CMAP, _NOT_RUN_COLOUR)
    for panel, level in zip(panels, levels, strict=True):
        here = cells[(cells["background"] == level[0]) & (cells["electrons"] == level[1])]
        here = here.set_index(["scene", "method"]).reindex(
            pd.MultiIndex.from_product([scenes, methods], names=["scene", "method"])
        )
        shape = (len(scenes), len(methods))
        error = here[robustness.ERROR].to_numpy(float).reshape(shape)
        not_held = robustness.not_held(here).to_numpy().reshape(shape)
        wrong = robustness.confident_wrong(here).to_numpy().reshape(shape)
        image = panel.imshow(np.ma.masked_invalid(error), norm=norm, cmap=colours, aspect="auto")
        for (row, column), value in np.ndenumerate(error):
            known = np.isfinite(value)
            dark = known and norm(np.clip(value, _LOW, _HIGH)) > _DARK
            ink = "white" if dark else "#222222"
            text = display.number(value) if known else "-"
            panel.text(column - 0.04, row, text, ha="center", va="center", fontsize=7.5, color=ink)
            for marked, marker, filled in (
                (not_held[row, column], "o", False),
                (wrong[row, column], "X", True),
            ):
                if marked:
                    panel.plot(
                        column + (0.28 if marker == "o" else 0.41),
                        row,
                        marker=marker,
                        ms=4.2,
                        color=ink,
                        mfc=ink if filled else "none",
                        mew=0.7,
                        lw=0,
                    )
        panel.set(title=display.level_math(*level))
        panel.set_xticks(range(len(methods)), methods, rotation=40, ha="right")
        panel.set_yticks(range(len(scenes)), [scene.replace("-", " ") for scene in scenes])
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        panel.set_xticks(np.arange(-0.5, len(methods)), minor=True)
        panel.set_yticks(np.arange(-0.5, len(scenes)), minor=True)
        panel.grid(which="minor", color="white", lw=1.2)
        panel.tick_params(which="minor", length=0)
    bar = drawn.colorbar(image, ax=panels, extend="max", shrink=0.6, pad=0.015, aspect=30)
    ticks = (1, 2, 3, 5, 10, 20, 30)
    bar.set_ticks(list(ticks), labels=[str(tick) for tick in ticks])
    bar.minorticks_off()
    bar.outline.set_visible(False)
    bar.set_label("rmse over the bound")
    handles = [
        Line2D([], [], marker="o", color="#222222", mfc="none", mew=0.7, ms=4.2, lw=0),
        Line2D([], [], marker="X", color="#222222", mew=0.7, ms=4.2, lw=0),
    ]
    labels = [
        f"95 % intervals hold < {100 * robustness.MIN_HELD:.0f} % or "
        f"> {100 * robustness.MAX_HELD:.0f} %",
        f"> {100 * robustness.MAX_WRONG:.0f} % wrong by more than 5 stated deviations",
    ]
    drawn.legend(handles, labels, loc="outside lower center", ncols=2, handletextpad=0.3)
    return drawn
