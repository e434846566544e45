"""How levels, quantities and numbers are written for people: one wording in tables, figures and
report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from ccstae.config.run import Config

STRAIN_UNIT = 1e-4  # errors are shown in units of 1e-4 (strain) and 1e-4 rad (rotation)

SYMBOLS = {
    "exx": r"$\varepsilon_{xx}$",
    "eyy": r"$\varepsilon_{yy}$",
    "exy": r"$\varepsilon_{xy}$",
    "theta": r"$\theta$",
}
MAP_UNITS = {"exx": (1e2, "%"), "eyy": (1e2, "%"), "exy": (1e2, "%"), "theta": (1e3, "mrad")}
"""What a component is multiplied by in maps of it, and the unit that it then has."""


def controls(config: Config) -> frozenset[str]:
    """The entries of a run that are no rivals, those that answer no strain everywhere (method
    `zero`) and those `with_truth`: shown beside the others, never best.
    """
    return with_truth(config) | frozenset(
        name
        for name, entry in config.methods.items()
        if entry.command is None and (entry.method or name) == "zero"
    )


def with_truth(config: Config) -> frozenset[str]:
    """The entries of a run whose maps are made with what no method may see."""
    return frozenset(name for name in config.methods if config.control(name))


def control_note(config: Config) -> str:
    """A sentence that names the entries `with_truth`; nothing where there are none."""
    names = [f"`{name}`" for name in config.methods if name in with_truth(config)]
    if not names:
        return ""
    were = "is a control that was" if len(names) == 1 else "are controls that were"
    return f" {' and '.join(names)} {were} given what no method sees."


def power(value: float) -> str:
    """100000 as `1e5`, 25000 as `2.5e4`, infinity as `inf`."""
    if math.isinf(value):
        return "inf"
    mantissa, exponent = f"{value:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def power_math(value: float) -> str:
    """100000 as `10^5`, 25000 as `2.5 x 10^4`, in TeX mathematics without the dollar signs."""
    mantissa, exponent = power(value).split("e")
    return f"10^{{{exponent}}}" if mantissa == "1" else rf"{mantissa}\times10^{{{exponent}}}"


def level(background: float, electrons: float) -> str:
    """`clean`, or for example `w 0.25, 1e5 e`: the background's share and the electrons per
    pattern.
    """
    return "clean" if math.isinf(electrons) else f"w {background:.2f}, {power(electrons)} e"


def level_math(background: float, electrons: float) -> str:
    """As `level`, for figures."""
    return (
        "noise-free"
        if math.isinf(electrons)
        else f"$w = {background:g}$, ${power_math(electrons)}$ e"
    )


def number(value: float) -> str:
    """Three digits that count: 0.123, 1.23, 12.3, 123; `0` for nothing at all; `-` where there is
    no value.
    """
    if not math.isfinite(value):
        return "-"
    return "0" if value == 0 else f"{value:z.{_decimals(value)}f}"


def average(count: int, what: str) -> str:
    """How `spread` draws `count` values together, in words to follow "Values are": `of one seed`,
    `the mean of two seeds with half their range`, `the median of 3 seeds with half their range`.
    """
    if count == 1:
        return f"of one {what}"
    mean = f"the mean of two {what}s" if count == 2 else f"the median of {count} {what}s"
    return f"{mean} with half their range"


def spread(values: Iterable[float]) -> str:
    """Median and half the range of the values, `1.23 ± 0.04`; the median alone where all values are
    equal. The median of two values is their mean.
    """
    finite = sorted(v for v in values if math.isfinite(v))
    if not finite:
        return "-"
    n = len(finite)
    median = 0.5 * (finite[(n - 1) // 2] + finite[n // 2])
    if finite[0] == finite[-1]:
        return number(median)
    half_range = 0.5 * (finite[-1] - finite[0])
    decimals = _decimals(max(abs(median), half_range))
    return f"{median:z.{decimals}f} ± {half_range:.{decimals}f}"


def _decimals(value: float) -> int:
    size = abs(value)
    return 3 if size < 0.9995 else 2 if size < 9.995 else 1 if size < 99.95 else 0


def shown_level(metrics: pd.DataFrame) -> tuple[float, float]:
    """(background, electrons) of the level that stands for a run where only one is shown: w nearest
    0.25 at the highest noisy dose.
    """
    levels = metrics[["background", "electrons"]].drop_duplicates()
    noisy = levels[np.isfinite(levels["electrons"])]
    levels = noisy if len(noisy) else levels
    highest = levels[levels["electrons"] == levels["electrons"].max()]
    row = highest.loc[(highest["background"] - 0.25).abs().idxmin()]
    return float(row["background"]), float(row["electrons"])
