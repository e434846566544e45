"""Error beside resolution: whoever averages over neighbours errs less and shows less.

The resolution of a map is the wavelength at which its modulation transfer function falls to one
half, in a scene with strain waves, and the 10 to 90 % width of the interface in a scene with one.
Both are in scan steps.

Entries of a run whose ids differ in the number at their end alone (`template-gauss-1`,
`template-gauss-1_5`) are one method at several widths, a family: a line in the figure. It begins
with the entry that the family's id goes on from (`template`), if the run has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from ccstae.config.run import Config
from ccstae.evaluation.resolution import WAVE
from ccstae.reporting import display, side_by_side
from ccstae.reporting.table import MAP, Table, pivot

TRUTH = "truth"
HALF = "wavelength at half (steps)"
WIDTH = "10 to 90 % width (steps)"
ERROR, BIAS, RESOLUTION = "error / bound", "bias / bound", "resolution (steps)"
MEASURE = "measure"
_OF_A_FAMILY = re.compile(r"(.*[A-Za-z])[-_]?(\d+(?:_\d+)?)")
_METRICS = {"mtf_half_wavelength": HALF, "width_10_90": WIDTH, "width_10_90_truth": WIDTH}


@dataclass(frozen=True)
class Family:
    """One method at several widths."""

    base: str | None
    """The entry that it smooths, if the run has it: its width is zero."""
    widths: dict[str, str]
    """The width, as its id tells it, by the id of each entry."""

    @property
    def members(self) -> list[str]:
        """Ids of the base and of all widths."""
        return [*([] if self.base is None else [self.base]), *self.widths]


def families(methods: Iterable[str]) -> dict[str, Family]:
    """The families among entries of a run, by what their ids have in common.

    >>> found = families(["zero", "template", "template-gauss-1", "template-gauss-1_5", "a-2023"])
    >>> found["template-gauss"].base, list(found), found["template-gauss"].widths
    ('template', ['template-gauss'], {'template-gauss-1': '1', 'template-gauss-1_5': '1.5'})
    """
    methods = list(methods)
    widths: dict[str, dict[str, str]] = {}
    for method in methods:
        found = _OF_A_FAMILY.fullmatch(method)
        if found:
            widths.setdefault(found[1], {})[method] = found[2].replace("_", ".")
    several = {}
    for family, of_family in widths.items():
        bases = [m for m in methods if m not in of_family and family.startswith(f"{m}-")]
        if len(of_family) > 1:
            several[family] = Family(max(bases, key=len, default=None), of_family)
    return several


def numbers(metrics: pd.DataFrame) -> pd.DataFrame:
    """One row a map with noise and a resolution.

    Args:
        metrics: the scores of a run, with the column `not_run`.

    Returns:
        The columns of `MAP`, `MEASURE`, `RESOLUTION`, and root mean square over the components of
        rmse and of bias over the bound in the interior, `ERROR` and `BIAS`.
    """
    made = metrics[~metrics["not_run"].astype(bool)]
    rows = made[
        ((made["metric"] == "mtf_half_wavelength") & (made["quantity"] == "all"))
        | ((made["metric"] == "width_10_90") & (made["quantity"] == "exx"))
    ]
    frame = rows[MAP].assign(**{MEASURE: rows["metric"].map(_METRICS), RESOLUTION: rows["value"]})
    for name, metric in ((ERROR, "rmse"), (BIAS, "bias")):
        over = side_by_side.over_bound(made, metric).rename(columns={"value": name})
        frame = frame.merge(over, on=MAP)
    return frame[np.isfinite(frame[ERROR])]


def make(config: Config, metrics: pd.DataFrame) -> list[Table]:
    """The tables; `metrics` is a run's scores with the column `not_run`."""
    values = f"Values are {display.average(len(config.seeds.test), 'seed')}."
    controls = display.controls(config)
    methods = list(config.methods)
    shown = display.level(*display.shown_level(metrics))
    return [
        pivot(
            "resolution",
            "Resolution",
            "In scan steps, against that of the truth. Wavelength at half: where the strain waves "
            "of a scene are shown with half of their amplitude; the scene's shortest wavelength "
            "where all are shown better. Width: over which the strain goes from 10 to 90 % of its "
            f"step at an interface, never below 0.8. No value: the strain is not shown. {values}",
            _resolutions(metrics),
            ["scene", MEASURE, "quantity", "level"],
            [TRUTH, *methods],
        ),
        pivot(
            "equal_resolution",
            "Error at equal resolution",
            "Interior. Error and bias over the bound: root mean square over the components of rmse "
            "/ bound and of bias / bound. The resolution is the wavelength at half of the strain "
            "waves, or the width of the interface (exx). Behind them, for every method at several "
            "widths: its error / bound where its resolution is the same, from the widths next to "
            f"it; no value where it is never as fine or as coarse. {values}",
            _at_equal_resolution(config, metrics),
            ["scene", "level", "method"],
            [RESOLUTION, ERROR, BIAS, *families(methods)],
            across="column",
        ),
        pivot(
            "mtf",
            f"Modulation transfer at {shown}",
            "Shown amplitude of the strain waves over the true one, in percent, against their "
            f"wavelength in scan steps; `all` is one for all components. {values}",
            transfer(metrics[~metrics["method"].isin(controls)]),
            ["scene", "quantity", "wavelength"],
            methods,
            0.01,
        ),
    ]


def _resolutions(metrics: pd.DataFrame) -> pd.DataFrame:
    """Rows of every measure of resolution, those of the truth once."""
    frame = metrics[metrics["metric"].isin(_METRICS)]
    of_truth = frame["metric"] == "width_10_90_truth"
    method = frame["method"].mask(of_truth, TRUTH)
    frame = frame.assign(
        **{MEASURE: frame["metric"].map(_METRICS)},
        method=method,
        not_run=frame["not_run"].astype(bool) & ~of_truth,
    )
    return frame.drop_duplicates([*MAP, MEASURE, "quantity"])


def transfer(metrics: pd.DataFrame) -> pd.DataFrame:
    """Rows of the modulation transfer function, at the level that stands for the run, with the
    `wavelength` of each in scan steps.
    """
    background, electrons = display.shown_level(metrics)
    frame = metrics[
        (metrics["metric"] == "mtf")
        & (metrics["background"] == background)
        & (metrics["electrons"] == electrons)
    ]
    return frame.assign(wavelength=frame["region"].str.removeprefix(WAVE).astype(float))


def _at_equal_resolution(config: Config, metrics: pd.DataFrame) -> pd.DataFrame:
    """Long table of one value a map and `column`: resolution, error, bias, and the error of every
    family at the same resolution.
    """
    maps = numbers(metrics[~metrics["method"].isin(display.controls(config))])
    of_run = families(config.methods)
    single = maps[~maps["method"].isin([m for family in of_run.values() for m in family.widths])]
    frames = [
        single[MAP].assign(column=name, value=single[name]) for name in (RESOLUTION, ERROR, BIAS)
    ]
    by_counts = [column for column in MAP if column != "method"]
    for (name, family), (_, group) in product(of_run.items(), maps.groupby(by_counts, sort=False)):
        others = group[group["method"].isin(single["method"]) & (group["method"] != family.base)]
        of_family = group[group["method"].isin(family.members)]
        error = error_at(of_family, others[RESOLUTION].to_numpy())
        frames.append(others[MAP].assign(column=name, value=error))
    frame = pd.concat(frames, ignore_index=True)
    order = pd.Categorical(frame["method"], list(config.methods), ordered=True)
    return frame.assign(order=order).sort_values("order", kind="stable").drop(columns="order")


def error_at(of_family: pd.DataFrame, resolution: np.ndarray) -> np.ndarray:
    """Error over the bound of a family at resolutions (n,), linear in its logarithm between the
    widths; nan beyond them. Of widths with one resolution the one that errs least counts.
    """
    best = of_family.groupby(RESOLUTION)[ERROR].min()
    if best.empty:
        return np.full(len(resolution), np.nan)
    at = np.interp(resolution, best.index, np.log(best), left=np.nan, right=np.nan)
    return np.asarray(np.exp(at))
