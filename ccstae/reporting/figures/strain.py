"""Strain and rotation of one map."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ccstae import geometry
from ccstae.io.maps import Map
from ccstae.io.strain import step_of
from ccstae.reporting import display
from ccstae.reporting.figures import style

_PANEL_IN = 2.4
_SHOWN = 99.0  # percentile of the sizes at which a colour scale ends


def draw(answer: Map) -> Figure:
    """exx, eyy and exy on one scale, and the rotation, of a map against the reference wanted."""
    components = geometry.components(answer.F)
    nothing = np.asarray(~np.isfinite(components).all(-1))
    rows, columns = nothing.shape
    step_A = step_of(answer)
    step_nm = 1.0 if step_A is None else step_A / 10
    drawn = style.figure(4 * _PANEL_IN + 1.6, _PANEL_IN * max(0.4, rows / columns) + 0.8)
    drawn.set_layout_engine("constrained")
    panels = drawn.subplots(1, 4)
    for chosen, label in ((slice(0, 3), "strain / %"), (slice(3, 4), "rotation / mrad")):
        names = geometry.COMPONENTS[chosen]
        factor, _ = display.MAP_UNITS[names[0]]
        sizes = np.abs(components[~nothing][:, chosen])
        end = factor * style.strain_end(float(np.percentile(sizes, _SHOWN)) if sizes.size else 0.0)
        for name, panel in zip(names, panels[chosen], strict=True):
            values = factor * components[..., geometry.COMPONENTS.index(name)]
            shown = style.image(panel, values, step_nm, end, vacuum=nothing)
            panel.set_title(display.SYMBOLS[name], fontsize=12)
        drawn.colorbar(
            shown, ax=list(panels[chosen]), pad=0.02, aspect=16, extend="both", label=label
        )
    if step_A is not None:
        style.scale_bar(panels[0], columns * step_nm)
    return drawn
