"""A table of scores, and the forms it is written in: CSV for programs, Markdown and LaTeX for
people.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress

import numpy as np
import pandas as pd

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


def pivot(
    name: str,
    title: str,
    caption: str,
    frame: pd.DataFrame,
    keys: list[str],
    columns: list[str],
    unit: float = 1.0,
    best: str = "",
    across: str = "method",
) -> Table:
    """One row an entry of `keys`, one column an entry of `across` that has any value; `best` marks
    the `low`est or `high`est of each row.

    Values whose `not_run` is set are left out; a cell that has no others reads `not run`.
    """
    if "not_run" in frame:
        frame = frame.assign(value=frame["value"].mask(frame["not_run"].astype(bool)))
    columns = [name for name in columns if name in set(frame[across])]
    frame = frame.assign(
        level=[
            display.level(w, n)
            for w, n in zip(frame["background"], frame["electrons"], strict=True)
        ]
    )
    cells = {
        key: values.to_numpy()
        for key, values in frame.groupby([*keys, across], sort=False)["value"]
    }
    silent = (
        {key for key, flags in frame.groupby([*keys, across], sort=False)["not_run"] if flags.all()}
        if "not_run" in frame
        else set()
    )
    rank = [{value: i for i, value in enumerate(frame[key].unique())} for key in keys]
    shown = [key != "scene" or frame[key].nunique() > 1 for key in keys]
    order = sorted(
        {key[:-1] for key in cells}, key=lambda key: [r[k] for r, k in zip(rank, key, strict=True)]
    )
    rows: list[list[str]] = []
    marked: set[tuple[int, int]] = set()
    for key in order:
        found = {method: cells.get((*key, method), np.empty(0)) for method in columns}
        medians = {
            method: float(np.median(v))
            for method, v in found.items()
            if np.isfinite(v).any() and method != BOUND
        }
        if best and len(set(medians.values())) > 1:
            winner = (min if best == "low" else max)(medians, key=lambda method: medians[method])
            marked.add((len(rows), sum(shown) + columns.index(winner)))
        rows.append(
            [
                *map(str, compress(key, shown)),
                *(
                    "not run" if (*key, m) in silent else display.spread(v / unit)
                    for m, v in found.items()
                ),
            ]
        )
    columns_kept = [part for key in keys for part in (LEVEL if key == "level" else [key])]
    numbers = (
        frame.groupby([*columns_kept, across], sort=False)["value"]
        .agg(median="median", low="min", high="max")
        .reset_index()
    )
    return Table(
        name,
        title,
        caption,
        [*compress(keys, shown), *columns],
        rows,
        sum(shown),
        frozenset(marked),
        numbers,
    )


def markdown(table: Table) -> str:
    """The table as GitHub Markdown, best entries bold, with title and caption."""
    rows = [
        [f"**{cell}**" if (r, c) in table.best else cell for c, cell in enumerate(row)]
        for r, row in enumerate(table.rows)
    ]
    widths = [max(map(len, column)) for column in zip(table.head, *rows, strict=True)]
    left = [c < table.keys for c in range(len(widths))]

    def line(cells: list[str]) -> str:
        padded = (
            cell.ljust(w) if flush else cell.rjust(w)
            for cell, w, flush in zip(cells, widths, left, strict=True)
        )
        return "| " + " | ".join(padded) + " |"

    rule = (
        "|"
        + "|".join(
            "-" * (w + 2) if flush else "-" * (w + 1) + ":"
            for w, flush in zip(widths, left, strict=True)
        )
        + "|"
    )
    return (
        "\n".join(
            [f"**{table.title}.** {table.caption}", "", line(table.head), rule, *map(line, rows)]
        )
        + "\n"
    )


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
