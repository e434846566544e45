"""Maps of every method beside the truth, and what is left of them after taking the truth away."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ccstae.evaluation.score import Compared
from ccstae.geometry import COMPONENTS
from ccstae.reporting import display
from ccstae.reporting.figures import style

_SCALE = {"exx": (1e2, "%"), "eyy": (1e2, "%"), "exy": (1e2, "%"), "theta": (1e3, "mrad")}
_RESIDUAL_BOUNDS = 4.0  # the residual's colour scale ends at so many bounds


def draw(
    answers: dict[str, Compared],
    limit: NDArray[np.float64] | None,
    vacuum: NDArray[np.bool_],
    interior: NDArray[np.bool_],
    step_nm: float,
) -> Figure:
    """Two rows a component (map, residual), truth and bound in the first column, then one column a
    method.

    limit (Ry, Rx, 4), None without noise. All panels of a row share their colour scale.
    """
    truth = next(iter(answers.values())).truth
    rows, columns = truth.shape[:2]
    panel_in = 1.6
    height = panel_in * max(0.4, rows / columns)
    drawn = style.figure(panel_in * (len(answers) + 1) + 1.2, (height + 0.22) * 8 + 0.3)
    panels = drawn.subplots(8, len(answers) + 1)
    for c, component in enumerate(COMPONENTS):
        factor, unit = _SCALE[component]
        upper, lower = panels[2 * c], panels[2 * c + 1]
        full = factor * _end(np.abs(truth[~vacuum, c]))
        left = upper[0]
        shown = style.image(left, factor * truth[..., c], step_nm, full, vacuum=vacuum)
        left.set_ylabel(display.SYMBOLS[component], fontsize=11)
        scale, rest_unit = (1e4, "$10^{-4}$ rad") if component == "theta" else (1e4, "$10^{-4}$")
        errors = {m: answer.error[..., c] for m, answer in answers.items()}
        bound = (
            _rms(limit[interior, c])
            if limit is not None
            else _end(np.abs(np.stack(list(errors.values()))[:, interior])) / _RESIDUAL_BOUNDS
        )
        rest = scale * _RESIDUAL_BOUNDS * bound
        values = np.zeros(vacuum.shape) if limit is None else limit[..., c]
        shown_rest = style.image(lower[0], scale * values, step_nm, rest, vacuum=vacuum)
        lower[0].set_title(
            "bound (1 s.d.)" + ("" if limit is None else f" {display.number(scale * bound)}"),
            fontsize=7.5,
            pad=3,
        )
        lower[0].set_ylabel("residual")
        for panel, below, (method, answer) in zip(
            upper[1:], lower[1:], answers.items(), strict=True
        ):
            style.image(
                panel,
                factor * answer.answer[..., c],
                step_nm,
                full,
                vacuum=vacuum,
                failed=answer.failed,
            )
            style.image(
                below, scale * errors[method], step_nm, rest, vacuum=vacuum, failed=answer.failed
            )
            below.set_title(
                f"rmse {display.number(scale * _rms(errors[method][interior]))}",
                fontsize=7.5,
                pad=3,
            )
        drawn.colorbar(shown, ax=list(upper), pad=0.01, aspect=12, extend="both", label=unit)
        drawn.colorbar(
            shown_rest, ax=list(lower), pad=0.01, aspect=12, extend="both", label=rest_unit
        )
    for panel, name in zip(panels[0], ["truth", *answers], strict=True):
        panel.set_title(name, fontweight="bold", fontsize=9 if len(name) < 16 else 7)
    style.scale_bar(panels[-1, 0], columns * step_nm)
    return drawn


def _end(values: NDArray[np.float64]) -> float:
    """End of a colour scale: what all but the largest 1 % stay below."""
    return max(float(np.percentile(values[np.isfinite(values)], 99)), 1e-9)


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
