"""How levels, quantities and numbers are written for people: one wording in tables, figures and
report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

STRAIN_UNIT = 1e-4  # errors are shown in units of 1e-4 (strain) and 1e-4 rad (rotation)

SYMBOLS = {
    "exx": r"$\varepsilon_{xx}$",
    "eyy": r"$\varepsilon_{yy}$",
    "exy": r"$\varepsilon_{xy}$",
    "theta": r"$\theta$",
}
NAMES = {
    "exx": "strain exx",
    "eyy": "strain eyy",
    "exy": "shear exy",
    "theta": "rotation theta (rad)",
}


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


def spread(values: Iterable[float]) -> str:
    """Median and half the range of the values, `1.23 ± 0.04`; the median alone where all values are
    one.
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
