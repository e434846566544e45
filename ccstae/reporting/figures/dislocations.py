"""Circuits that do not close, and the dislocations found by them beside those that are there."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ccstae.evaluation.dislocations import Circuits, FoundDislocations
from ccstae.reporting.figures import style

Array = NDArray[np.float64]


def draw(
    position: Array,
    closures: dict[str, tuple[Circuits, FoundDislocations]],
    shape: tuple[int, int],
    shortest_A: float,
    step_nm: float,
) -> Figure:
    """One panel a method: size of the closure of the circuit round each cell, in shortest lattice
    vectors; the true lines stand at `position` (n, 2).
    """
    rows, columns = shape
    drawn = style.figure(2.1 * len(closures) + 0.9, 2.1 * max(0.5, rows / columns) + 0.6)
    panels = drawn.subplots(1, len(closures), squeeze=False)[0]
    for panel, (method, (circuits, found)) in zip(panels, closures.items(), strict=True):
        size = np.linalg.norm(circuits.closure_A, axis=-1) / shortest_A
        # Circuits stand at the cell in their middle; the scan's first position is half a step
        # inside its frame.
        low = circuits.cells / 2
        extent = np.array([low, low + size.shape[1], low + size.shape[0], low]) * step_nm
        shown = panel.imshow(
            np.ma.masked_invalid(size),
            extent=tuple(extent),
            cmap=style.cmap("cividis", style.FAILED_COLOUR),
            vmin=0,
            vmax=1.2,
        )
        true_nm, found_nm = (position + 0.5) * step_nm, (found.position + 0.5) * step_nm
        panel.scatter(*true_nm.T, s=60, facecolors="none", edgecolors="white", linewidths=1.2)
        panel.scatter(*found_nm.T, s=22, marker="x", color="#d55e00", linewidths=1.4)
        panel.set(xlim=(0, columns * step_nm), ylim=(rows * step_nm, 0), aspect="equal")
        style.frame(panel)
        panel.set_facecolor(style.VACUUM_COLOUR)
        panel.set_title(method, fontweight="bold", fontsize=9)
    drawn.colorbar(
        shown,
        ax=list(panels),
        pad=0.01,
        aspect=16,
        extend="max",
        label="closure / shortest lattice vector",
    )
    style.scale_bar(panels[0], columns * step_nm)
    return drawn
