"""The table of recorded scans: what each method's map tells of its own error."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from ccstae.config.run import Config
from ccstae.evaluation import precision
from ccstae.geometry import COMPONENTS
from ccstae.io import layout
from ccstae.reporting import display
from ccstae.reporting.table import Table

_CAPTION = (
    "Of recorded scans, which have no truth. Precision: of the whole map, from two maps of half "
    "the electrons each, and what the method states of it, in units of 1e-4 (theta: 1e-4 rad). "
    "Chi-square: mean square of the halves' difference over its stated variance; 1 is right. "
    "Covered: share of these differences, in percent, within 1.96 of their stated deviation; 95 is "
    "right. Neighbours: root mean square deviation of the map from the median of its neighbours "
    "(the strain precision of quantEM 0.1.10), in the unit of the precision; strain that varies "
    "between neighbours is in it. Answers: share of all positions, in percent, vacuum among them."
)
# Columns: heading, metric, and what values are divided by to be read.
_OF_COMPONENT = {
    "precision": ("precision", display.STRAIN_UNIT),
    "stated": ("stated_precision", display.STRAIN_UNIT),
    "chi-square": ("chi_square", 1.0),
    "covered (%)": ("coverage95", 0.01),
    "neighbours": ("self_precision", display.STRAIN_UNIT),
}
_OF_MAP = {"answers (%)": ("answers", 0.01), "patterns/s": ("patterns_per_second", 1.0)}


def table(config: Config, run_dir: Path) -> Table:
    """One row for each scan, method and component.

    Args:
        config: the run.
        run_dir: its folder, with what `ccstae precision` wrote.

    Raises:
        InputError: a file is missing or unreadable.
    """
    rows, numbers = [], []
    for scan in config.scans:
        for method in config.mapping_scans:
            told = precision.read(layout.of_scan(run_dir, layout.PRECISION, scan, method))
            numbers += [(scan, method, *key, value) for key, value in told.items()]
            for component in COMPONENTS:
                cells = [
                    display.number(told.get((component, metric), math.nan) / unit)
                    for metric, unit in _OF_COMPONENT.values()
                ]
                of_map = [
                    display.number(told[("all", metric)] / unit)
                    for metric, unit in _OF_MAP.values()
                ]
                if component != COMPONENTS[0]:  # said once a map
                    of_map = [""] * len(of_map)
                rows.append([scan, method, component, *cells, *of_map])
    return Table(
        name="scans",
        title="Recorded scans",
        caption=_CAPTION,
        head=["scan", "method", "quantity", *_OF_COMPONENT, *_OF_MAP],
        rows=rows,
        keys=3,
        best=frozenset(),
        numbers=pd.DataFrame(numbers, columns=["scan", "method", *precision.COLUMNS]),
    )
