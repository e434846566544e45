"""A table of scores, and the forms it is written in: CSV for programs, Markdown and LaTeX for
people.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import compress
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ccstae.reporting import display

BOUND = "bound"
LEVEL = ["background", "electrons"]
MAP = ["scene", "method", *LEVEL, "seed"]  # columns that tell one map


@dataclass(frozen=True)
class Table:
    """One table, ready to be written in any form."""

    name: str
    title: str
    caption: str
    head: list[str]
    rows: list[list[str]]
    keys: int
    """How many leading columns name the row; the scene is left out where there is only one."""
    best: frozenset[tuple[int, int]]
    """(row, column) of the best method of each row."""
    numbers: pd.DataFrame


def with_not_run(metrics: pd.DataFrame, not_run: pd.DataFrame | None) -> pd.DataFrame:
    """Scores with the column `not_run`: which belong to maps that no program could make."""
    maps = set() if not_run is None else set(not_run[MAP].itertuples(index=False, name=None))
    of_maps = [key in maps for key in metrics[MAP].itertuples(index=False, name=None)]
    return metrics.assign(not_run=of_maps)


def pivot(
    name: str,
    title: str,
    caption: str,
    frame: pd.DataFrame,
    keys: list[str],
    columns: list[str],
    unit: float | NDArray[np.float64] = 1.0,
    best: Literal["", "low", "high"] = "",
    never_best: frozenset[str] = frozenset(),
    across: str = "method",
) -> Table:
    """A table with one row an entry of `keys` and one column an entry of `across`.

    Args:
        name: Name of the table's files.
        title: Heading.
        caption: What the values are.
        frame: Long table: `value`, `background`, `electrons` and the columns of `keys` and
            `across`. Rows whose `not_run` (optional) is true lose their value; a cell that has no
            others reads `not run`. The median of `beside` (optional), in the same unit, stands
            behind the value in brackets where it is a number.
        keys: Columns of `frame` that name a row, `level` for background and electrons in words.
            Rows are sorted by them in the order in which their entries come in `frame`.
        columns: Entries of `across` in the order to be shown; those without any row are left out.
        unit: What `value` is divided by to be read, one number or one a row of `frame`.
        best: Whether the lowest or the highest median of a row is its best; none is marked where
            it is empty, or where all medians of the row are equal.
        never_best: Entries of `across` that are never marked best; nor is the bound.
        across: The column of `frame` whose entries are columns of the table.

    Returns:
        The table. Its `numbers` are in the units of `frame`.
    """
    if "not_run" in frame:
        frame = frame.assign(value=frame["value"].mask(frame["not_run"].astype(bool)))
    levels = [
        display.level(background, electrons)
        for background, electrons in zip(frame["background"], frame["electrons"], strict=True)
    ]
    frame = frame.assign(level=levels, read=frame["value"] / unit)
    beside = {}
    if "beside" in frame:
        aside = (frame["beside"] / unit).groupby([frame[key] for key in (*keys, across)]).median()
        beside = {key: f" ({display.number(value)})" for key, value in aside.dropna().items()}
    present = set(frame[across])
    columns = [column for column in columns if column in present]
    cells = frame.groupby([*keys, across], sort=False)
    values = {key: cell.to_numpy() for key, cell in cells["read"]}
    not_run = {key for key, flags in cells["not_run"] if flags.all()} if "not_run" in frame else ()

    is_shown = [key != "scene" or frame[key].nunique() > 1 for key in keys]
    rows: list[list[str]] = []
    marked: set[tuple[int, int]] = set()
    for row_key in _sorted_keys(frame, keys, {key[:-1] for key in values}):
        of_row = {column: values.get((*row_key, column), np.empty(0)) for column in columns}
        winner = _best(of_row, best, never_best | {BOUND})
        if winner is not None:
            marked.add((len(rows), sum(is_shown) + columns.index(winner)))
        texts = [
            "not run"
            if (*row_key, column) in not_run
            else display.spread(cell) + beside.get((*row_key, column), "")
            for column, cell in of_row.items()
        ]
        rows.append([*map(str, compress(row_key, is_shown)), *texts])

    key_columns = [column for key in keys for column in (LEVEL if key == "level" else [key])]
    numbers = (
        frame.groupby([*key_columns, across], sort=False)["value"]
        .agg(median="median", low="min", high="max")
        .reset_index()
    )
    return Table(
        name=name,
        title=title,
        caption=caption,
        head=[*compress(keys, is_shown), *columns],
        rows=rows,
        keys=sum(is_shown),
        best=frozenset(marked),
        numbers=numbers,
    )


def _sorted_keys(
    frame: pd.DataFrame, keys: list[str], row_keys: set[tuple[Hashable, ...]]
) -> list[tuple[Hashable, ...]]:
    """Row keys, each part of them in the order in which it first comes in the frame."""
    ranks = [{entry: rank for rank, entry in enumerate(frame[key].unique())} for key in keys]
    return sorted(
        row_keys,
        key=lambda row_key: [rank[part] for rank, part in zip(ranks, row_key, strict=True)],
    )


def _best(
    of_row: dict[str, NDArray[np.float64]], best: str, never_best: frozenset[str]
) -> str | None:
    """The column whose median is best; None where there is none or nothing to choose from."""
    medians = {
        column: float(np.nanmedian(cell))
        for column, cell in of_row.items()
        if column not in never_best and np.isfinite(cell).any()
    }
    if not best or len(set(medians.values())) < 2:
        return None
    choose = min if best == "low" else max
    return choose(medians, key=lambda column: medians[column])


def plain(table: Table) -> str:
    """The table's head and rows for a terminal, without title and caption."""
    rows = [[cell.replace(" ± ", "±") for cell in row] for row in table.rows]
    return "\n".join(map("  ".join, _aligned([table.head, *rows], table.keys)))


def _aligned(lines: list[list[str]], keys: int) -> list[list[str]]:
    """Cells padded to the width of their column: the first `keys` to the right, numbers to the
    left.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        [
            cell.ljust(width) if c < keys else cell.rjust(width)
            for c, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        for cells in lines
    ]


def markdown(table: Table) -> str:
    """The table as GitHub Markdown, best entries bold, with title and caption."""
    rows = [
        [f"**{cell}**" if (r, c) in table.best else cell for c, cell in enumerate(row)]
        for r, row in enumerate(table.rows)
    ]
    lines = _aligned([table.head, *rows], table.keys)
    head, *body = [f"| {' | '.join(cells)} |" for cells in lines]
    dashes = [
        "-" * (len(cell) + 2) if c < table.keys else "-" * (len(cell) + 1) + ":"
        for c, cell in enumerate(lines[0])
    ]
    rule = f"|{'|'.join(dashes)}|"
    return "\n".join([f"**{table.title}.** {table.caption}", "", head, rule, *body, ""])


def latex(table: Table) -> str:
    """The table as a LaTeX `table` for the booktabs package, best entries bold."""

    def text(cell: str) -> str:
        escaped = "".join(f"\\{c}" if c in "_%&#$" else c for c in cell)
        return "--" if cell == "-" else escaped.replace("±", r"$\pm$")

    def line(cells: list[str]) -> str:
        return " & ".join(cells) + r" \\"

    body = [
        line(
            [
                rf"\textbf{{{text(cell)}}}" if (r, c) in table.best else text(cell)
                for c, cell in enumerate(row)
            ]
        )
        for r, row in enumerate(table.rows)
    ]
    columns = "l" * table.keys + "r" * (len(table.head) - table.keys)
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{text(table.title)}. {text(table.caption).replace('`', '')}}}",
            rf"\label{{tab:{table.name.replace('_', '-')}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            line([text(cell) for cell in table.head]),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
