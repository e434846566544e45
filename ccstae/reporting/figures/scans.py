"""Maps of a recorded scan, by every method."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ccstae.geometry import COMPONENTS, components
from ccstae.io.maps import Map
from ccstae.io.strain import step_nm_of, step_of
from ccstae.reporting import display
from ccstae.reporting.figures import style

_PANEL_IN = 1.9


def draw(strained: dict[str, Map]) -> Figure:
    """One row a component, one column a method; all panels of a row share their colour scale.

    Args:
        strained: map against the reference wanted, by method.
    """
    first = next(iter(strained.values()))
    shape, step_nm = first.F.shape[:2], step_nm_of(first)
    height_in = _PANEL_IN * max(0.4, shape[0] / shape[1])
    size = _PANEL_IN * len(strained) + 1.2, (height_in + 0.1) * len(COMPONENTS) + 0.6
    drawn = style.figure(*size)
    drawn.set_layout_engine("constrained", w_pad=0.03, h_pad=0.02)
    panels = drawn.subplots(len(COMPONENTS), len(strained), squeeze=False)
    values = {method: components(answer.F) for method, answer in strained.items()}
    for c, name in enumerate(COMPONENTS):
        factor, unit = display.MAP_UNITS[name]
        of_all = np.stack([of_method[..., c] for of_method in values.values()])
        end = factor * style.strain_end(style.all_but_largest(of_all))
        for panel, of_method in zip(panels[c], values.values(), strict=True):
            nothing = np.asarray(~np.isfinite(of_method).all(-1))
            shown = style.image(panel, factor * of_method[..., c], step_nm, end, vacuum=nothing)
        panels[c, 0].set_ylabel(display.SYMBOLS[name], fontsize=12)
        drawn.colorbar(shown, ax=list(panels[c]), pad=0.02, aspect=12, extend="both", label=unit)
    for panel, method in zip(panels[0], strained, strict=True):
        panel.set_title(method, fontweight="bold", fontsize=10 if len(method) < 16 else 8)
    if step_of(first) is not None:
        style.scale_bar(panels[-1, 0], shape[1] * step_nm)
    return drawn
