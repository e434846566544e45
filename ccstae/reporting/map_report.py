"""The report of one map of a scan of one's own: one HTML file that opens offline."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path

import jinja2
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.errors import InputError
from ccstae.evaluation.reference import against
from ccstae.evaluation.split_half import Precision, split_half
from ccstae.io.atomic import write_text
from ccstae.io.calibration import disk_radius_px
from ccstae.io.counts import Counts, read_counts
from ccstae.io.maps import Map, read_map
from ccstae.io.strain import step_nm_of, step_of
from ccstae.reporting import display
from ccstae.reporting.figures import strain as strain_figure
from ccstae.reporting.figures import style
from ccstae.reporting.figures.patterns import draw_dictionary
from ccstae.reporting.strain import parse_reference

_TEMPLATES = Path(__file__).parent / "templates"
_PANEL_IN = 2.4
# How far the mean square over its stated variance may lie from 1, in standard errors of chi-square.
MAX_STANDARD_ERRORS = 3.0


def write(map_path: Path, counts_path: Path, out: Path, reference: str | None = None) -> None:
    """Write the report of a map.

    Args:
        map_path: the map.
        counts_path: the scan it was made of, which is mapped again by halves.
        out: the HTML file.
        reference: as `strain.parse_reference` takes it.

    Raises:
        InputError: where map or scan cannot be read, or do not belong together.
    """
    answer = read_map(map_path, complete=False)
    counts = read_counts(counts_path)
    if counts.scan != answer.F.shape[:2]:
        raise InputError(
            f"{counts_path}: a scan of {counts.scan}; expected that of {map_path}, "
            f"{answer.F.shape[:2]}"
        )
    strained = against(answer, parse_reference(reference))
    precision, why_none = [], ""
    try:
        precision = split_half(counts_path, answer)
    except InputError as error:
        why_none = str(error)
    answered = np.isfinite(answer.F).all((-1, -2))
    pictures = [
        ("Strain and rotation", strain_figure.draw),
        ("Stated standard deviations, labels", _stated),
    ]
    with style.styled():
        drawn = [(title, _png(draw(strained))) for title, draw in pictures]
        drawn.insert(0, ("What the detector saw", _png(_seen(counts, answer))))
        if answer.dictionary is not None:
            entries = draw_dictionary(answer.dictionary, counts.calibration, counts.detector[1])
            drawn.append(("Averaged patterns that the method learned", _png(entries)))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True
    )
    text = environment.get_template("map_report.html.j2").render(
        name=map_path.name,
        facts={
            "method": answer.attributes.get("method", "unknown"),
            "settings": answer.attributes.get("settings", "{}"),
            "scan": f"{counts.scan[0]} x {counts.scan[1]} positions",
            "without an answer": f"{(~answered).sum()} of {answered.size}",
            "reference": reference or "the commonest lattice",
            "found by the method": _words(str(answer.attributes.get("found", "{}"))),
        },
        pictures=drawn,
        precision=[_row(row) for row in precision],
        why_none=why_none,
        stated=answer.covariance is not None,
    )
    write_text(out, text)


def _words(found: str) -> str:
    """What a method found by itself, from JSON."""
    pairs = json.loads(found).items()
    return "; ".join(f"{name}: {value}" for name, value in pairs if value != "") or "nothing"


def _row(row: Precision) -> list[str]:
    """Of the table of split-half precision."""
    spread = MAX_STANDARD_ERRORS * math.sqrt(2 / row.positions)
    if math.isnan(row.chi_square):
        verdict = "states none"
    else:
        verdict = "yes" if abs(row.chi_square - 1) <= spread else "no"
    unit = 1 / display.STRAIN_UNIT
    return [
        row.region,
        row.component,
        str(row.positions),
        f"{unit * row.rms_difference / 2:.2f}",
        f"{unit * row.stated_difference / 2:.2f}",
        f"{row.chi_square:.2f} (1 ± {spread:.2f})",
        display.number(100 * row.coverage95),
        verdict,
    ]


def _png(figure: Figure) -> str:
    """A figure as base64."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130, metadata={"Software": None})
    return base64.b64encode(stream.getvalue()).decode()


def _seen(counts: Counts, answer: Map) -> Figure:
    """Mean pattern, virtual bright and dark field."""
    mean, bright, total = _sums(counts, answer.centre_px)
    step_nm = step_nm_of(answer)
    drawn = style.figure(3 * (_PANEL_IN + 0.7), _PANEL_IN + 0.6)
    drawn.set_layout_engine("constrained")
    panels = drawn.subplots(1, 3)
    positive = mean[mean > 0]
    low = float(np.quantile(positive, 0.05)) if positive.size else 1e-3
    top = max(float(mean.max()), 2 * low)
    shown = panels[0].imshow(mean.clip(low), style.PATTERN_CMAP, norm=LogNorm(low, top))
    panels[0].set_title("mean pattern")
    drawn.colorbar(shown, ax=panels[0], label="electrons per pixel")
    for panel, image, title in (
        (panels[1], bright, "virtual bright field"),
        (panels[2], total - bright, "virtual dark field"),
    ):
        shown = panel.imshow(image, "gray", extent=style.extent(image.shape, step_nm))
        panel.set_title(title)
        drawn.colorbar(shown, ax=panel, label="electrons")
    for panel in panels:
        style.frame(panel)
    if step_of(answer) is not None:
        style.scale_bar(panels[1], counts.scan[1] * step_nm)
    return drawn


def _sums(
    counts: Counts, centre_px: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean pattern (Qy, Qx), electrons in the direct beam and in all, (Ry, Rx)."""
    y, x = np.indices(counts.detector)
    radius = disk_radius_px(counts.calibration) + 1.5
    mean, bright, total = np.zeros(counts.detector), np.zeros(counts.scan), np.zeros(counts.scan)
    for r, row in enumerate(counts.scan_rows()):
        mean += row.sum(0, dtype=np.float64) / math.prod(counts.scan)
        for c, pattern in enumerate(row):
            at = counts.calibration.centre_px if centre_px is None else centre_px[r, c]
            total[r, c] = pattern.sum(dtype=np.float64)
            bright[r, c] = pattern[np.hypot(x - at[0], y - at[1]) <= radius].sum(dtype=np.float64)
    return mean, bright, total


def _stated(strained: Map) -> Figure:
    """Stated standard deviations of the components, and labels or answers."""
    answered = np.asarray(np.isfinite(strained.F).all((-1, -2)))
    step_nm = step_nm_of(strained)
    extent = style.extent(answered.shape, step_nm)
    drawn, panels = style.map_panels(5, answered.shape)
    deviations = np.full((*answered.shape, 4), np.nan)
    if strained.covariance is not None:
        variances = np.diagonal(strained.covariance, axis1=-2, axis2=-1)
        deviations = np.sqrt(np.where(variances >= 0, variances, np.nan)) / display.STRAIN_UNIT
    end = style.all_but_largest(deviations) or 1.0
    colours = style.cmap("viridis", style.VACUUM_COLOUR)
    for k, name in enumerate(geometry.COMPONENTS):
        shown = panels[k].imshow(
            np.ma.masked_invalid(deviations[..., k]), colours, vmin=0, vmax=end, extent=extent
        )
        panels[k].set_title(display.SYMBOLS[name], fontsize=12)
    drawn.colorbar(shown, ax=list(panels[:4]), extend="max", label="$10^{-4}$, $10^{-4}$ rad")
    label = answered.astype(int) if strained.label is None else strained.label.astype(int)
    shown = panels[4].imshow(
        np.ma.masked_array(label, ~answered), colours, interpolation="nearest", extent=extent
    )
    panels[4].set_title("label; grey: no answer")
    drawn.colorbar(shown, ax=panels[4], ticks=np.unique(label))
    for panel in panels:
        style.frame(panel)
    if step_of(strained) is not None:
        style.scale_bar(panels[0], answered.shape[1] * step_nm)
    return drawn
