"""Displacements of a map, and the density of its dislocations."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ccstae.io.displacement import Displacement
from ccstae.reporting.figures import style

_PANEL_IN = 2.4
_SHOWN = 99.0  # percentile of the sizes at which a colour scale ends


def draw(displacement: Displacement) -> Figure:
    """Components of u, and of the curl, on one scale each."""
    rows, columns = displacement.u_A.shape[:2]
    step_nm = displacement.step_A / 10
    height_in = _PANEL_IN * max(0.4, rows / columns)
    drawn = style.figure(4 * _PANEL_IN + 1.6, height_in + 0.8)
    drawn.set_layout_engine("constrained")
    panels = drawn.subplots(1, 4)
    u_nm, curl_inv_nm = displacement.u_A / 10, 10 * displacement.curl_inv_A
    for values, pair, titles, label in (
        (u_nm, panels[:2], ("$u_x$", "$u_y$"), "displacement / nm"),
        (
            curl_inv_nm,
            panels[2:],
            ("Burgers vector, $x$", "Burgers vector, $y$"),
            "Burgers vector / area / nm$^{-1}$",
        ),
    ):
        sizes = np.abs(values[np.isfinite(values)])
        end = max(float(np.percentile(sizes, _SHOWN)) if sizes.size else 0.0, 1e-12)
        for k, (panel, title) in enumerate(zip(pair, titles, strict=True)):
            nothing = ~np.isfinite(values[..., k])
            shown = style.image(panel, values[..., k], step_nm, end, vacuum=nothing)
            panel.set_title(title, fontsize=10)
        drawn.colorbar(shown, ax=list(pair), pad=0.02, aspect=16, extend="both", label=label)
    style.scale_bar(panels[0], columns * step_nm)
    return drawn
