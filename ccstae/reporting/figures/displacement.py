"""Displacements of a map, and the density of its dislocations."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ccstae.io.displacement import Displacement
from ccstae.reporting.figures import style


def draw(displacement: Displacement) -> Figure:
    """Components of u, and of the curl, on one scale each."""
    step_nm = displacement.step_A / 10
    drawn, panels = style.map_panels(4, displacement.u_A.shape)
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
        end = max(style.all_but_largest(values), 1e-12)
        for k, (panel, title) in enumerate(zip(pair, titles, strict=True)):
            nothing = ~np.isfinite(values[..., k])
            shown = style.image(panel, values[..., k], step_nm, end, vacuum=nothing)
            panel.set_title(title, fontsize=10)
        drawn.colorbar(shown, ax=list(pair), pad=0.02, aspect=16, extend="both", label=label)
    style.scale_bar(panels[0], displacement.u_A.shape[1] * step_nm)
    return drawn
