"""Strain and rotation of one map."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ccstae import geometry
from ccstae.io.maps import Map
from ccstae.io.strain import step_nm_of, step_of
from ccstae.reporting import display
from ccstae.reporting.figures import style


def draw(answer: Map) -> Figure:
    """exx, eyy and exy on one scale, and the rotation, of a map against the reference wanted."""
    components = geometry.components(answer.F)
    nothing = np.asarray(~np.isfinite(components).all(-1))
    step_nm = step_nm_of(answer)
    drawn, panels = style.map_panels(4, nothing.shape)
    for chosen, label in ((slice(0, 3), "strain / %"), (slice(3, 4), "rotation / mrad")):
        names = geometry.COMPONENTS[chosen]
        factor, _ = display.MAP_UNITS[names[0]]
        end = factor * style.strain_end(style.all_but_largest(components[..., chosen]))
        for name, panel in zip(names, panels[chosen], strict=True):
            values = factor * components[..., geometry.COMPONENTS.index(name)]
            shown = style.image(panel, values, step_nm, end, vacuum=nothing)
            panel.set_title(display.SYMBOLS[name], fontsize=12)
        drawn.colorbar(
            shown, ax=list(panels[chosen]), pad=0.02, aspect=16, extend="both", label=label
        )
    if step_of(answer) is not None:
        style.scale_bar(panels[0], nothing.shape[1] * step_nm)
    return drawn
