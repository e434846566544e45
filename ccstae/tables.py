"""Tables of the scores: numbers as CSV, and the same made to be read as Markdown and LaTeX.

Entries for reading are the median over the seeds with half their range; errors are in units of 1e-4 (rotation: 1e-4 rad).
CSV files keep natural units, one line a method, with median, low and high over the seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import numpy as np
import pandas as pd

from ccstae import display, score, store
from ccstae.config import Config
from ccstae.geometry import COMPONENTS

HEADLINE_REGION = "interior"
BOUND = "bound"
LEVEL = ["background", "electrons"]
_COST = {"seconds": "seconds", "patterns_per_second": "patterns per second", "peak_memory_bytes": "peak memory (MB)"}


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


def make(config: Config, metrics: pd.DataFrame) -> list[Table]:
    """Every table of a run that its scores can fill."""
    methods = list(config.methods)
    inside = metrics[metrics["region"] == HEADLINE_REGION]
    noisy = inside[np.isfinite(inside["electrons"])]
    shown = score.shown_level(metrics)
    regional = metrics[(metrics["background"] == shown[0]) & (metrics["electrons"] == shown[1])]
    unit = display.STRAIN_UNIT
    everywhere = "Positions without an answer enter with the error of the no-strain answer."
    by_level = ["scene", "quantity", "level"]
    tables = [
        _table(
            "headline",
            "Error against noise",
            f"Root mean square error in the interior, in units of 1e-4 (theta: 1e-4 rad), beside the Cramer-Rao bound. {everywhere}",
            _with_bound(inside, "rmse"),
            by_level,
            [BOUND, *methods],
            unit,
            best="low",
        ),
        _table(
            "limit_ratio",
            "Error over the bound",
            "Robust standard deviation of error / bound, pattern by pattern, in the interior. 1 is the limit of any unbiased method "
            "that takes each pattern alone; one that pools patterns, uses a prior or shrinks towards no strain may go below it, at the "
            "price of bias.",
            _components(noisy, "limit_ratio"),
            by_level,
            methods,
        ),
        _table(
            "bias",
            "Bias",
            f"Mean error in the interior, in units of 1e-4 (theta: 1e-4 rad), beside the Cramer-Rao bound. {everywhere}",
            _with_bound(inside, "bias"),
            by_level,
            [BOUND, *methods],
            unit,
        ),
        _table(
            "coverage",
            "Stated against true uncertainty",
            "Share of interior errors, in percent, within 1.96 of the standard deviation that the method states; 95 is right.",
            _components(noisy, "coverage95"),
            by_level,
            methods,
            0.01,
        ),
        _table(
            "regions",
            f"Error by region at {display.level(*shown)}",
            f"Root mean square error in units of 1e-4 (theta: 1e-4 rad). `all` is the whole sample without vacuum. {everywhere}",
            _with_bound(regional, "rmse"),
            ["scene", "region", "quantity"],
            [BOUND, *methods],
            unit,
            best="low",
        ),
        _table(
            "failures",
            "Positions without an answer",
            "In percent of the positions of the interior and of the whole sample (`all`).",
            metrics[(metrics["metric"] == "failure_rate") & metrics["region"].isin([HEADLINE_REGION, "all"])],
            ["scene", "region", "level"],
            methods,
            0.01,
        ),
        _table(
            "labels",
            "Labels",
            "Share of unmixed positions, in percent, whose label (vacuum or material) is right under the best naming of the classes found.",
            metrics[metrics["metric"] == "accuracy"],
            ["scene", "level"],
            methods,
            0.01,
            best="high",
        ),
        _table(
            "cost",
            "Cost",
            "Time of one map, training included; median over levels and seeds with half the range.",
            _cost(metrics),
            ["scene", "quantity"],
            methods,
        ),
    ]
    return [table for table in tables if table.rows]


def _components(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    return frame[(frame["metric"] == metric) & frame["quantity"].isin(COMPONENTS)]


def _with_bound(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric with the bound as one more method; it is the same for every method and seed."""
    limit = _components(frame, "limit").drop_duplicates(["scene", "region", "quantity", *LEVEL])
    return pd.concat([_components(frame, metric), limit.assign(method=BOUND)])


def _cost(metrics: pd.DataFrame) -> pd.DataFrame:
    frame = metrics[metrics["metric"].isin(_COST)]
    in_MB = frame["value"].where(frame["metric"] != "peak_memory_bytes", frame["value"] / 1e6)
    return frame.assign(quantity=frame["metric"].map(_COST), value=in_MB)


def _table(
    name: str, title: str, caption: str, frame: pd.DataFrame, keys: list[str], columns: list[str], unit: float = 1.0, best: str = ""
) -> Table:
    """One row an entry of `keys`, one column a method that has any value; `best` marks the `low`est or `high`est of each row."""
    columns = [name for name in columns if name in set(frame["method"])]
    frame = frame.assign(level=[display.level(w, n) for w, n in zip(frame["background"], frame["electrons"], strict=True)])
    cells = {key: values.to_numpy() for key, values in frame.groupby([*keys, "method"], sort=False)["value"]}
    rank = [{value: i for i, value in enumerate(frame[key].unique())} for key in keys]
    shown = [key != "scene" or frame[key].nunique() > 1 for key in keys]
    order = sorted({key[:-1] for key in cells}, key=lambda key: [r[k] for r, k in zip(rank, key, strict=True)])
    rows: list[list[str]] = []
    marked: set[tuple[int, int]] = set()
    for key in order:
        found = {method: cells.get((*key, method), np.empty(0)) for method in columns}
        medians = {method: float(np.median(v)) for method, v in found.items() if len(v) and method != BOUND}
        if best and len(set(medians.values())) > 1:
            winner = (min if best == "low" else max)(medians, key=lambda method: medians[method])
            marked.add((len(rows), sum(shown) + columns.index(winner)))
        rows.append([*map(str, compress(key, shown)), *(display.spread(v / unit) for v in found.values())])
    columns_kept = [part for key in keys for part in (LEVEL if key == "level" else [key])]
    numbers = frame.groupby([*columns_kept, "method"], sort=False)["value"].agg(median="median", low="min", high="max").reset_index()
    return Table(name, title, caption, [*compress(keys, shown), *columns], rows, sum(shown), frozenset(marked), numbers)


def markdown(table: Table) -> str:
    """The table as GitHub Markdown, best entries bold, with title and caption."""
    rows = [[f"**{cell}**" if (r, c) in table.best else cell for c, cell in enumerate(row)] for r, row in enumerate(table.rows)]
    widths = [max(map(len, column)) for column in zip(table.head, *rows, strict=True)]
    left = [c < table.keys for c in range(len(widths))]

    def line(cells: list[str]) -> str:
        padded = (cell.ljust(w) if flush else cell.rjust(w) for cell, w, flush in zip(cells, widths, left, strict=True))
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 2) if flush else "-" * (w + 1) + ":" for w, flush in zip(widths, left, strict=True)) + "|"
    return "\n".join([f"**{table.title}.** {table.caption}", "", line(table.head), rule, *map(line, rows)]) + "\n"


def latex(table: Table) -> str:
    """The table as a LaTeX `table` for the booktabs package, best entries bold."""

    def text(cell: str) -> str:
        escaped = "".join(f"\\{c}" if c in "_%&#$" else c for c in cell)
        return "--" if cell == "-" else escaped.replace("±", r"$\pm$")

    def line(cells: list[str]) -> str:
        return " & ".join(cells) + r" \\"

    body = [
        line([rf"\textbf{{{text(cell)}}}" if (r, c) in table.best else text(cell) for c, cell in enumerate(row)])
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


def write(config: Config, metrics_path: Path, tables_dir: Path) -> None:
    """Write every table as csv, md and tex. InputError where the scores are missing or unreadable."""
    for table in make(config, score.read(metrics_path)):
        with store.atomic(Path(tables_dir) / f"{table.name}.csv") as temporary:
            table.numbers.to_csv(temporary, index=False, na_rep="nan", float_format="%.6g", lineterminator="\n")
        store.write_text(Path(tables_dir) / f"{table.name}.md", markdown(table))
        store.write_text(Path(tables_dir) / f"{table.name}.tex", latex(table))


def summary(metrics_path: Path) -> str:
    """A few lines for the terminal: interior rmse of exx (1e-4) by method and level, with the bound."""
    metrics = score.read(metrics_path)
    frame = _with_bound(metrics[(metrics["region"] == HEADLINE_REGION) & (metrics["quantity"] == "exx")], "rmse")
    levels = list(dict.fromkeys(zip(metrics["background"], metrics["electrons"], strict=True)))
    medians = frame.groupby(["scene", "method", *LEVEL], sort=False)["value"].median() / display.STRAIN_UNIT
    heads = ["clean" if np.isinf(n) else f"w{w:g} {display.power(n)}" for w, n in levels]
    scenes, methods = list(dict.fromkeys(metrics["scene"])), [BOUND, *dict.fromkeys(metrics["method"])]
    left, right = max(map(len, ["exx rmse, 1e-4", *methods])), max(10, *(len(head) + 2 for head in heads))
    lines = []
    for scene in scenes:
        lines += [scene] if len(scenes) > 1 else []
        lines.append("exx rmse, 1e-4".ljust(left) + "".join(head.rjust(right) for head in heads))
        for method in methods:
            values = (float(medians.get((scene, method, *level), np.nan)) for level in levels)
            lines.append(method.ljust(left) + "".join(display.number(v).rjust(right) for v in values))
    return "\n".join(lines)
