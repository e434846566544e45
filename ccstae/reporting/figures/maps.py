"""Maps of every method beside the truth, and what is left of them after taking the truth away."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ccstae.evaluation.metrics import Compared
from ccstae.geometry import COMPONENTS
from ccstae.reporting import display
from ccstae.reporting.figures import style

_RESIDUAL_BOUNDS = 4.0  # the residual's colour scale ends at so many bounds
_MIN_RESIDUAL_END = 1e-6  # where there is no noise: smaller residuals are rounding errors
_PANEL_IN = 1.6


def draw(
    answers: dict[str, Compared],
    bound: NDArray[np.float64] | None,
    vacuum: NDArray[np.bool_],
    interior: NDArray[np.bool_],
    step_nm: float,
) -> Figure:
    """Two rows a component (map, residual), truth and bound in the first column, then one column a
    method.

    bound (Ry, Rx, 4), None without noise. All panels of a row share their colour scale.
    """
    rows, columns = vacuum.shape
    height_in = _PANEL_IN * max(0.4, rows / columns)
    drawn = style.figure(_PANEL_IN * (len(answers) + 1) + 1.0, (height_in + 0.15) * 8 + 0.5)
    drawn.set_layout_engine("constrained", w_pad=0.03, h_pad=0.02)
    panels = drawn.subplots(8, len(answers) + 1)
    for c in range(len(COMPONENTS)):
        _map_row(drawn, panels[2 * c], answers, c, bound, vacuum, interior, step_nm)
        _residual_row(drawn, panels[2 * c + 1], answers, c, bound, vacuum, interior, step_nm)
    for panel, name in zip(panels[0], ["truth", *answers], strict=True):
        panel.set_title(name, fontweight="bold", fontsize=10 if len(name) < 16 else 8)
    patches = [Patch(facecolor=style.VACUUM_COLOUR, label="vacuum")] if vacuum.any() else []
    if any((answer.failed & ~vacuum).any() for answer in answers.values()):
        patches.append(Patch(facecolor=style.FAILED_COLOUR, label="no answer"))
    if patches:
        drawn.legend(handles=patches, loc="outside upper center", ncols=2, fontsize=10)
    style.scale_bar(panels[-1, 0], columns * step_nm)
    return drawn


def _map_row(
    drawn: Figure,
    panels: NDArray[np.object_],
    answers: dict[str, Compared],
    c: int,
    bound: NDArray[np.float64] | None,
    vacuum: NDArray[np.bool_],
    interior: NDArray[np.bool_],
    step_nm: float,
) -> None:
    """Component c of the truth and of every answer."""
    factor, unit = display.MAP_UNITS[COMPONENTS[c]]
    truth = next(iter(answers.values())).truth[..., c]
    median_bound = 0.0 if bound is None else float(np.median(bound[interior, c]))
    end = factor * style.strain_end(style.all_but_largest(truth[~vacuum]), median_bound)
    shown = style.image(panels[0], factor * truth, step_nm, end, vacuum=vacuum)
    panels[0].set_ylabel(display.SYMBOLS[COMPONENTS[c]], fontsize=12)
    for panel, answer in zip(panels[1:], answers.values(), strict=True):
        values = factor * answer.answer[..., c]
        style.image(panel, values, step_nm, end, vacuum=vacuum, failed=answer.failed)
    drawn.colorbar(shown, ax=list(panels), pad=0.01, aspect=12, extend="both", label=unit)


def _residual_row(
    drawn: Figure,
    panels: NDArray[np.object_],
    answers: dict[str, Compared],
    c: int,
    bound: NDArray[np.float64] | None,
    vacuum: NDArray[np.bool_],
    interior: NDArray[np.bool_],
    step_nm: float,
) -> None:
    """The bound of component c, and what is left of every answer."""
    factor = 1 / display.STRAIN_UNIT
    if bound is None:
        errors = np.stack([answer.error[interior, c] for answer in answers.values()])
        end = factor * max(style.all_but_largest(errors), _MIN_RESIDUAL_END)
        drawn_bound, title = np.zeros(vacuum.shape), "no noise: bound 0"
    else:
        drawn_bound = bound[..., c]
        rms_bound = _rms(bound[interior, c])
        end = factor * _RESIDUAL_BOUNDS * rms_bound
        title = f"bound (1 s.d.) {display.number(factor * rms_bound)}"
    shown = style.image(panels[0], factor * drawn_bound, step_nm, end, vacuum=vacuum)
    _small_title(panels[0], title)
    panels[0].set_ylabel("residual", fontsize=10)
    for panel, answer in zip(panels[1:], answers.values(), strict=True):
        error = factor * answer.error[..., c]
        style.image(panel, error, step_nm, end, vacuum=vacuum, failed=answer.failed)
        rmse, bias = _rms(error[interior]), float(error[interior].mean())
        _small_title(panel, f"rmse {display.number(rmse)} (bias {display.number(bias)})")
    unit = "$10^{-4}$ rad" if COMPONENTS[c] == "theta" else "$10^{-4}$"
    drawn.colorbar(shown, ax=list(panels), pad=0.01, aspect=12, extend="both", label=unit)


def _small_title(panel: Axes, text: str) -> None:
    panel.set_title(text, fontsize=8, pad=3)


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
