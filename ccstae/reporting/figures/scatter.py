"""Predicted against true, position by position."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ccstae.evaluation.metrics import Compared
from ccstae.geometry import COMPONENTS
from ccstae.reporting import display
from ccstae.reporting.figures import style

_ELSEWHERE = "#b0b0b0"


def draw(
    answers: dict[str, list[Compared]],
    lines: dict[str, style.Line],
    bound: NDArray[np.float64] | None,
    sample: NDArray[np.bool_],
    interior: NDArray[np.bool_],
) -> Figure:
    """One row a method, one column a component; all seeds. bound (Ry, Rx, 4), None without
    noise.
    """
    drawn = style.figure(8.2, 1.95 * len(answers) + 0.7)
    panels = drawn.subplots(len(answers), 4, squeeze=False, sharex="col", sharey="col")
    size, alpha = _marks(int(sample.sum()) * max(map(len, answers.values())))
    for c, component in enumerate(COMPONENTS):
        factor, unit = display.MAP_UNITS[component]
        truth = factor * next(iter(answers.values()))[0].truth[sample, c]
        median_bound = 0.0 if bound is None else factor * float(np.median(bound[interior, c]))
        low, high = truth.min(), truth.max()
        margin = max(0.15 * (high - low) + 4 * median_bound, factor * style.MIN_STRAIN_END)
        ends = np.array([low - margin, high + margin])
        for panel, (method, repeats) in zip(panels[:, c], answers.items(), strict=True):
            colours = ((sample & ~interior, _ELSEWHERE), (interior, lines[method].colour))
            for positions, colour in colours:
                x = factor * np.concatenate([one.truth[positions, c] for one in repeats])
                y = factor * np.concatenate([one.answer[positions, c] for one in repeats])
                panel.scatter(
                    x,
                    np.clip(y, *ends),
                    s=size,
                    color=colour,
                    alpha=alpha,
                    lw=0,
                    rasterized=True,
                )
            panel.plot(ends, ends, color="black", lw=0.8, zorder=4)
            for shift in () if bound is None else (-1.96 * median_bound, 1.96 * median_bound):
                panel.plot(ends, ends + shift, color="black", lw=0.7, ls=":", zorder=4)
            panel.set(xlim=ends, ylim=ends)
            panel.locator_params(nbins=5)
            panel.set_box_aspect(1)
        panels[0, c].set_title(f"{display.SYMBOLS[component]} ({unit})")
        panels[-1, c].set_xlabel(f"true ({unit})")
    for row, method in zip(panels, answers, strict=True):
        row[0].set_ylabel(f"{method}\npredicted")
    handles = [
        Line2D([], [], color="black", lw=0.8, label="predicted = true"),
        Line2D([], [], color="black", lw=0.7, ls=":", label="±1.96 bounds"),
        Line2D([], [], color=_ELSEWHERE, marker="o", ms=4, lw=0, label="outside the interior"),
    ]
    drawn.legend(handles=handles, loc="outside upper center", ncols=3)
    return drawn


def _marks(count: int) -> tuple[float, float]:
    """Area (square points) and opacity of the points of a panel with so many of them: large enough
    to be seen, faint enough to show where they crowd.
    """
    crowding = 1 / np.sqrt(max(count, 1))
    return float(np.clip(200 * crowding, 5, 12)), float(np.clip(10 * crowding, 0.2, 0.6))
