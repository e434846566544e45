"""Patterns as a method gets them: some positions down, noise levels across."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ccstae.io.calibration import Calibration
from ccstae.io.truth import Truth
from ccstae.reporting.figures import style


def positions(truth: Truth, materials: list[str]) -> dict[str, tuple[int, int]]:
    """One (row, column) of each kind: interior of each material, each further region, vacuum; the
    middle one of its kind.
    """
    kinds = {
        name: (truth.label == index) & (truth.region == truth.regions.index("interior"))
        for index, name in enumerate(materials, 1)
    }
    kinds |= {
        name: truth.region == i
        for i, name in enumerate(truth.regions)
        if name not in ("interior", "background")
    }
    kinds["vacuum"] = truth.label == 0
    chosen = {}
    for name, mask in kinds.items():
        places = np.argwhere(mask)
        if len(places):
            from_middle = ((places - np.median(places, axis=0)) ** 2).sum(1)
            row, column = places[np.argmin(from_middle)]
            chosen[name] = (int(row), int(column))
    return chosen


def draw(
    patterns: NDArray[np.float64], rows: list[str], columns: list[str], calibration: Calibration
) -> Figure:
    """`patterns` (rows, columns, Qy, Qx) in electrons per pixel, on one logarithmic scale."""
    q, n = calibration.pixel_size_inv_A, patterns.shape[-1]
    x, y = calibration.centre_px
    extent = ((-0.5 - x) * q, (n - 0.5 - x) * q, (n - 0.5 - y) * q, (-0.5 - y) * q)
    drawn = style.figure(1.5 * len(columns) + 1.3, 1.5 * len(rows) + 0.6)
    panels = drawn.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey=True)
    norm = LogNorm(0.03, patterns.max())
    for row, name, shown in zip(panels, rows, patterns, strict=True):
        for panel, title, pattern in zip(row, columns, shown, strict=True):
            image = panel.imshow(
                np.maximum(pattern, 1e-9), extent=extent, norm=norm, cmap=style.PATTERN_CMAP
            )
            panel.tick_params(length=2)
            if name == rows[0]:
                panel.set_title(title, fontsize=8)
        row[0].set_ylabel(f"{name}\n$q_y$ (1/Å)", fontsize=8)
    for panel in panels[-1]:
        panel.set_xlabel("$q_x$ (1/Å)", fontsize=8)
    drawn.colorbar(image, ax=panels, pad=0.01, aspect=30, extend="min", label="electrons per pixel")
    return drawn


def draw_dictionary(
    dictionary: NDArray[np.float32], calibration: Calibration, detector_px: int
) -> Figure:
    """Averaged patterns (entries, Ky, Kx) that a method has learned, each on its own logarithmic
    scale over five decades.
    """
    half = 0.5 * detector_px * calibration.pixel_size_inv_A
    columns = min(len(dictionary), 4)
    rows = math.ceil(len(dictionary) / columns)
    drawn = style.figure(2.9 * columns + 0.3, 2.75 * rows + 0.2)
    panels = drawn.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for number, (panel, entry) in enumerate(zip(panels.flat, dictionary, strict=False), 1):
        top = max(float(entry.max()), 1e-30)
        shown = panel.imshow(
            np.maximum(entry / top, 1e-9),
            extent=(-half, half, half, -half),
            norm=LogNorm(1e-5, 1),
            cmap=style.PATTERN_CMAP,
        )
        panel.set(title=f"entry {number}", xlabel="$q_x$ (1/Å)")
    for panel in panels.flat[len(dictionary) :]:
        panel.set_axis_off()
    for row in panels:
        row[0].set_ylabel("$q_y$ (1/Å)")
    drawn.colorbar(
        shown, ax=panels, pad=0.01, aspect=25, extend="min", label="intensity over maximum"
    )
    return drawn
