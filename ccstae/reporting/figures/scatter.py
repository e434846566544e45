"""Predicted against true, position by position."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ccstae.evaluation.score import Compared
from ccstae.geometry import COMPONENTS
from ccstae.reporting import display
from ccstae.reporting.figures import style

_SCALE = {"exx": (1e2, "%"), "eyy": (1e2, "%"), "exy": (1e2, "%"), "theta": (1e3, "mrad")}
_ELSEWHERE = "#b0b0b0"


def draw(
    answers: dict[str, list[Compared]],
    limit: NDArray[np.float64] | None,
    sample: NDArray[np.bool_],
    interior: NDArray[np.bool_],
) -> Figure:
    """One row a method, one column a component; all seeds. limit (Ry, Rx, 4), None without
    noise."""
    lines = style.lines(answers)
    drawn = style.figure(8.2, 1.95 * len(answers) + 0.7)
    panels = drawn.subplots(len(answers), 4, squeeze=False, sharex="col", sharey="col")
    for c, component in enumerate(COMPONENTS):
        factor, unit = _SCALE[component]
        truth = next(iter(answers.values()))[0].truth[..., c]
        low, high = factor * truth[sample].min(), factor * truth[sample].max()
        margin = 0.15 * (high - low) + (
            0 if limit is None else 4 * factor * float(np.median(limit[interior, c]))
        )
        ends = np.array([low - margin, high + margin])
        for row, (method, repeats) in zip(panels, answers.items(), strict=True):
            panel = row[c]
            for positions, colour, size in (
                (sample & ~interior, _ELSEWHERE, 3),
                (interior, lines[method].colour, 3),
            ):
                for answer in repeats:
                    x, y = factor * answer.truth[positions, c], factor * answer.answer[positions, c]
                    panel.scatter(
                        x, np.clip(y, *ends), s=size, color=colour, alpha=0.5, lw=0, rasterized=True
                    )
            panel.plot(ends, ends, color="black", lw=0.8, zorder=4)
            if limit is not None:
                s = 1.96 * factor * float(np.median(limit[interior, c]))
                for shift in (-s, s):
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
