"""The report of one map of a scan of one's own: one HTML file that opens offline."""

from __future__ import annotations

import base64
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from bokeh.models.plots import GridPlot
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.acquisition.beams import bright_and_dark
from ccstae.errors import InputError
from ccstae.evaluation.reference import against
from ccstae.evaluation.split_half import Precision, middle_rows, split_half
from ccstae.io.atomic import write_text
from ccstae.io.calibration import disk_radius_px
from ccstae.io.counts import Counts, read_counts
from ccstae.io.maps import Map, read_map
from ccstae.io.strain import step_nm_of, step_of
from ccstae.reporting import display, linked_maps
from ccstae.reporting.figures import style
from ccstae.reporting.figures.patterns import draw_dictionary
from ccstae.reporting.linked_maps import Panel, Scale
from ccstae.reporting.strain import parse_reference

_TEMPLATES = Path(__file__).parent / "templates"
# How far the mean square over its stated variance may lie from 1, in standard errors of chi-square.
MAX_STANDARD_ERRORS = 3.0
# Ends of the scale of residuals over their standard errors, at the least: of 16,384 pixels of noise
# one lies beyond.
MIN_RESIDUAL_END = 4.0
Array = NDArray[np.float64]


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
    rows = middle_rows(counts.scan)
    precision, why_none = [], ""
    try:
        precision = split_half(counts_path, answer, rows)
    except InputError as error:
        why_none = str(error)
    answered = np.asarray(np.isfinite(answer.F).all((-1, -2)))
    seen = _seen(counts, answer.centre_px, answered)
    residual = deviations = None
    if answer.residual is not None:
        residual, deviations = _residual(answer.residual, seen, str(counts_path), str(map_path))
    script, places = linked_maps.embedded(
        {
            "scan": _of_scan(strained, answered, seen),
            "detector": _of_detector(seen, residual, deviations),
        }
    )
    dictionary = ""
    if answer.dictionary is not None:
        with style.styled():
            drawn = draw_dictionary(answer.dictionary, counts.calibration, counts.detector[1])
            dictionary = _png(drawn)
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
        script=script,
        places=places,
        scan_step=linked_maps.shown_step(counts.scan),
        detector_step=linked_maps.shown_step(counts.detector),
        stated=answer.covariance is not None,
        method=answer.attributes.get("method", "unknown"),
        spread=None if deviations is None else f"{np.sqrt(np.nanmean(deviations**2)):.2f}",
        dictionary=dictionary,
        precision=[_row(row) for row in precision],
        halved="" if rows == slice(0, counts.scan[0]) else f"{rows.start} to {rows.stop - 1}",
        why_none=why_none,
    )
    write_text(out, text)


def _words(found: str) -> str:
    """What a method found by itself, from JSON."""
    shown = {
        name.replace("_", " "): f"{value:.4g}" if isinstance(value, float) else value
        for name, value in json.loads(found).items()
        if value not in ("", None)
    }
    return "; ".join(f"{name}: {value}" for name, value in shown.items()) or "nothing"


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


@dataclass(frozen=True)
class Seen:
    """Sums over the patterns of a scan, in electrons."""

    mean: Array  # (Qy, Qx)
    mean_answered: Array  # (Qy, Qx), over the positions with an answer
    answered: int
    bright: Array  # (Ry, Rx), in the direct beam
    dark: Array  # (Ry, Rx), beside it


def _seen(counts: Counts, centre_px: Array | None, answered: NDArray[np.bool_]) -> Seen:
    """What the detector saw."""
    radius = disk_radius_px(counts.calibration) + 1.5
    mean, of_answered = np.zeros(counts.detector), np.zeros(counts.detector)
    bright, dark = np.zeros(counts.scan), np.zeros(counts.scan)
    nominal = np.array(counts.calibration.centre_px)
    beams = np.tile(nominal, (*counts.scan, 1)) if centre_px is None else centre_px
    beams = np.where(np.isfinite(beams), beams, nominal)
    for r, row in enumerate(counts.scan_rows()):
        mean += row.sum(0, dtype=np.float64)
        of_answered += row[answered[r]].sum(0, dtype=np.float64)
        bright[r], dark[r] = bright_and_dark(row, beams[r], radius)
    number = int(answered.sum())
    return Seen(mean / math.prod(counts.scan), of_answered / max(1, number), number, bright, dark)


def _residual(
    residual: NDArray[np.float32], seen: Seen, scan: str, made: str
) -> tuple[Array, Array]:
    """The residual of a map, and the same over the standard errors of what the model expects."""
    if residual.shape != seen.mean.shape:
        raise InputError(
            f"{made}: /residual has the shape {residual.shape}; expected that of the detector of "
            f"{scan}, {seen.mean.shape}"
        )
    number = max(1, seen.answered)
    expected = (seen.mean_answered - residual).clip(1 / number)
    return residual.astype(np.float64), residual / np.sqrt(expected / number)


def _of_scan(strained: Map, answered: NDArray[np.bool_], seen: Seen) -> GridPlot:
    """Strain and rotation, their stated deviations, labels, and virtual images."""
    components = geometry.components(strained.F)
    deviations = np.full(components.shape, np.nan)
    if strained.covariance is not None:
        variances = np.diagonal(strained.covariance, axis1=-2, axis2=-1)
        deviations = np.sqrt(np.where(variances > 0, variances, np.nan))
    label = answered.astype(float) if strained.label is None else strained.label.astype(float)
    label[~answered] = np.nan
    layers = {"label": label, "bright": seen.bright, "dark": seen.dark}
    tips = [("row, column", "@row, @column")]
    panels, stated = [], []
    scales = _scales(components, style.STRAIN_CMAP, "", True)
    of_deviations = _scales(deviations, "viridis", f"{_SIGMA}, stated / ", False)
    for k, name in enumerate(geometry.COMPONENTS):
        factor, unit = display.MAP_UNITS[name]
        layers[name], layers[f"{name}_deviation"] = (
            factor * components[..., k],
            factor * deviations[..., k],
        )
        tips.append((_LETTERS[name], f"@{name}{{0.000}} ± @{name}_deviation{{0.000}} {unit}"))
        panels.append(Panel(name, _LETTERS[name], scales[k]))
        stated.append(Panel(f"{name}_deviation", f"{_SIGMA}({_LETTERS[name]})", of_deviations[k]))
    tips += [("label", "@label"), ("bright, dark field", "@bright{0,0}, @dark{0,0}")]
    found = np.unique(label[answered]) if answered.any() else np.zeros(1)
    low, high = float(found[0]) - 0.5, float(found[-1]) + 0.5
    others = [
        Panel("label", "label", Scale(low, high, "viridis", "", steps=round(high - low))),
        Panel("bright", "virtual bright field", _electrons(seen.bright)),
        Panel("dark", "virtual dark field", _electrons(seen.dark)),
    ]
    rows = [panels, *([stated] if strained.covariance is not None else []), others]
    axes = ("column", "row") if step_of(strained) is None else ("x / nm", "y / nm")
    return linked_maps.linked(_single(layers), rows, tips, step_nm_of(strained), axes)


_SIGMA = "\N{GREEK SMALL LETTER SIGMA}"
_LETTERS = {"exx": "εxx", "eyy": "εyy", "exy": "εxy", "theta": "θ"}


def _scales(values: Array, palette: str, what: str, signed: bool) -> list[Scale]:
    """Of components (Ry, Rx, 4): one for all, 10 mrad beside 1 %, where rotations are no larger
    than strains; where they are, theirs is wider.
    """
    strain = style.strain_end(style.all_but_largest(values[..., :3])) if signed else 0.0
    strain = strain or style.all_but_largest(values[..., :3]) or 1.0
    ends = [strain] * 3 + [max(strain, style.all_but_largest(values[..., 3]))]
    scales = []
    for name, end in zip(geometry.COMPONENTS, ends, strict=True):
        factor, unit = display.MAP_UNITS[name]
        scales.append(Scale(-factor * end if signed else 0.0, factor * end, palette, what + unit))
    return scales


def _electrons(image: Array) -> Scale:
    """Of a virtual image."""
    low, high = float(image.min()), float(image.max())
    if low == high:
        low, high = min(0.0, low), max(1.0, high)
    return Scale(low, high, "gray", "electrons")


def _of_detector(seen: Seen, residual: Array | None, deviations: Array | None) -> GridPlot:
    """The mean pattern, and what is left of it beside the model."""
    positive = seen.mean[seen.mean > 0]
    low = float(np.quantile(positive, 0.05)) if positive.size else 1e-3
    top = max(float(seen.mean.max()), 2 * low)
    layers = {"mean": seen.mean.clip(low)}
    unit = "electrons per pixel"
    panels = [Panel("mean", "mean pattern", Scale(low, top, style.PATTERN_CMAP, unit, True))]
    tips = [("y, x", "@row, @column"), ("mean", "@mean{0.000}")]
    if residual is not None and deviations is not None:
        layers |= {"residual": residual, "deviations": deviations}
        end = style.all_but_largest(residual) or 1.0
        sure = max(MIN_RESIDUAL_END, style.all_but_largest(deviations))
        palette = style.STRAIN_CMAP
        panels += [
            Panel("residual", "mean residual", Scale(-end, end, palette, unit)),
            Panel("deviations", "over its standard error", Scale(-sure, sure, palette, "")),
        ]
        tips.append(("residual", "@residual{0.000}, @deviations{0.0} standard errors"))
    return linked_maps.linked(_single(layers), [panels], tips, 1.0, ("x / px", "y / px"))


def _single(layers: dict[str, Array]) -> dict[str, NDArray[np.float32]]:
    return {name: layer.astype(np.float32) for name, layer in layers.items()}


def _png(figure: Figure) -> str:
    """A figure as base64."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130, metadata={"Software": None})
    return base64.b64encode(stream.getvalue()).decode()
