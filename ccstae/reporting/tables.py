"""Tables of the scores: numbers as CSV, and the same made to be read as Markdown and LaTeX.

Values for reading are the median over the seeds with half their range; errors are in units of 1e-4
(rotation: 1e-4 rad). CSV files keep natural units, one line a method, with median, low and high
over the seeds.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ccstae.config.run import Config
from ccstae.evaluation import published, throughput
from ccstae.geometry import COMPONENTS
from ccstae.io import atomic, layout
from ccstae.io.scores import read_not_run, read_scores
from ccstae.reporting import claims, display, resolution, robustness, scans, side_by_side
from ccstae.reporting import published as published_tables
from ccstae.reporting.table import (
    BOUND,
    LEVEL,
    MAP,
    Table,
    latex,
    markdown,
    pivot,
    plain,
    with_not_run,
)

_LABELS = {
    "accuracy": "vacuum and materials",
    "sample_accuracy": "vacuum or specimen",
    "material_accuracy": "materials",
}
_CORES = {
    "cores_found": "found (%)",
    "burgers_right": "with the right Burgers vector (%)",
    "cores_false": "false",
    "core_error": "distance (steps)",
}
HEADLINE_REGION = "interior"
_SPEED = "patterns/s"
_BOLD_ERROR = "Bold: the smallest error of the row, bound and controls apart."
_SUMMARY_HEAD = "exx rmse, 1e-4"
_COST = {
    "seconds": "seconds",
    "patterns_per_second": "patterns per second",
    "peak_memory_bytes": "peak memory (MB)",
}


def load(config: Config, metrics_path: Path) -> list[Table]:
    """Every table of a run, from its scores and the files beside them.

    Args:
        config: The run.
        metrics_path: The scores, `metrics.csv`. The maps that did not run (`not_run.csv`) and, if
            the run measures them, the speeds (`throughput.csv`) and what stands beside published
            errors (`published.csv`) are read from the same folder. Where `config/structures.yaml`
            has run, its scores are read from the folder of that run, beside this one's. What the
            maps of recorded scans tell of themselves is read from `precision` in the same folder.

    Returns:
        The tables that are not empty, the headline first.

    Raises:
        InputError: A file is missing or unreadable.
    """
    metrics_path, speeds = Path(metrics_path), None
    if config.throughput:
        speeds = throughput.read(metrics_path.with_name(layout.THROUGHPUT))
    tables = []
    if config.scored:
        tables = make(config, read_scores(metrics_path), read_not_run(metrics_path), speeds)
    if config.scans:
        tables.append(scans.table(config, metrics_path.parent))
    if not published.scenes(config):
        return tables
    measured = published.read(metrics_path.with_name(layout.PUBLISHED))
    structures_path = metrics_path.parent.with_name("structures") / layout.METRICS
    structures = read_scores(structures_path) if structures_path.is_file() else None
    of_claims = claims.table(config, measured, structures)
    first = [] if of_claims is None else [of_claims]
    return [*first, *published_tables.tables(config, measured), *tables]


def make(
    config: Config,
    metrics: pd.DataFrame,
    not_run: pd.DataFrame | None = None,
    speeds: pd.DataFrame | None = None,
) -> list[Table]:
    """Every table of a run that its scores can fill.

    Args:
        config: The run; its methods give the columns and their order.
        metrics: The scores, as `score.read` gives them (columns `score.COLUMNS`).
        not_run: The maps that no program could make, as `score.read_not_run` gives them; their
            cells read `not run`.
        speeds: Timed rounds, as `throughput.read` gives them.

    Returns:
        The tables that are not empty, the headline first.
    """
    methods = list(config.methods)
    controls = display.controls(config)
    metrics = with_not_run(metrics, not_run)
    inside = metrics[metrics["region"] == HEADLINE_REGION]
    noisy = inside[np.isfinite(inside["electrons"])]
    shown = display.shown_level(metrics)
    regional = metrics[(metrics["background"] == shown[0]) & (metrics["electrons"] == shown[1])]
    unit = display.STRAIN_UNIT
    unanswered = "Positions without an answer enter with the error of the no-strain answer."
    values = f"Values are {display.average(len(config.seeds.test), 'seed')}."
    values += display.control_note(config)
    maps = display.average(len(config.levels) * len(config.seeds.test), "map")
    by_level = ["scene", "quantity", "level"]
    tables = [
        _headline(inside, regional, methods, controls, f"{unanswered} {values}"),
        pivot(
            "limit_ratio",
            "Error over the bound",
            "Robust standard deviation of error / bound, pattern by pattern, in the interior. 1 is "
            "the limit of any unbiased method that takes each pattern alone; one that pools "
            "patterns, uses a prior or shrinks towards no strain may go below it, at the price of "
            f"bias. {values}",
            _components(noisy, "limit_ratio"),
            by_level,
            methods,
        ),
        pivot(
            "bias",
            "Bias",
            f"Mean error in the interior, in units of 1e-4 (theta: 1e-4 rad), beside the "
            f"Cramer-Rao bound. {unanswered} {values}",
            _with_bound(inside, "bias"),
            by_level,
            [BOUND, *methods],
            unit,
        ),
        pivot(
            "gain",
            "Strain shown of the strain there is",
            "Slope of answer over truth in the interior, in percent; `all` is one slope for all "
            "components. 100 is right whatever the noise; smoothing, and answers that lean towards "
            f"no strain, show less. {values}",
            inside[inside["metric"] == "gain"],
            by_level,
            methods,
            0.01,
        ),
        *resolution.make(config, metrics),
        pivot(
            "dislocations",
            "Dislocations",
            "From circuits in each map that do not close. Found: of the dislocations with a "
            "circuit round them on the sample, those with one in the map within a scan step. "
            "False: dislocations in the map that are none. Distance: root mean square of those "
            f"found. {values}",
            _cores(metrics),
            by_level,
            methods,
        ),
        pivot(
            "coverage",
            "Stated against true uncertainty",
            "Share of interior errors, in percent, within 1.96 of the standard deviation that the "
            f"method states; 95 is right. {values}",
            _components(noisy, "coverage95"),
            by_level,
            methods,
            0.01,
        ),
        pivot(
            "self_precision",
            "Precision without truth",
            "What a map tells of its error where there is no truth, over its true error: root mean "
            "square deviation from the median of the neighbours (the strain precision of quantEM "
            "0.1.10) over rmse, in the interior, in percent. 100 is right. Less: the map is surer "
            "than it may be, as neighbours share its errors or it is biased. More: strain that "
            f"varies between neighbours is taken for error. {values}",
            _self_precision(noisy[~noisy["method"].isin(controls)]),
            by_level,
            methods,
            0.01,
        ),
        pivot(
            "regions",
            f"Error by region at {display.level(*shown)}",
            "Root mean square error, and in brackets the bias, in units of 1e-4 (theta: 1e-4 rad). "
            f"`all` is the whole sample without vacuum. {unanswered} {values} {_BOLD_ERROR}",
            _with_bias(regional),
            ["scene", "region", "quantity"],
            [BOUND, *methods],
            unit,
            best="low",
            never_best=controls,
        ),
        pivot(
            "failures",
            "Positions without an answer",
            "In percent of the positions of the interior and of the whole sample (`all`). "
            f"{values}",
            metrics[
                (metrics["metric"] == "failure_rate")
                & metrics["region"].isin([HEADLINE_REGION, "all"])
            ],
            ["scene", "region", "level"],
            methods,
            0.01,
        ),
        pivot(
            "labels",
            "Labels",
            "Share of unmixed positions, in percent, whose label is right under the best naming of "
            f"the classes found. {values} Bold: the largest share of the row.",
            metrics[metrics["quantity"] == "label"].replace({"metric": _LABELS}),
            ["scene", "metric", "level"],
            methods,
            0.01,
            best="high",
            never_best=controls,
        ),
        pivot(
            "cost",
            "Cost",
            f"Time of one map, training included, over all levels and seeds. Values are {maps}.",
            _cost(metrics),
            ["scene", "quantity"],
            methods,
        ),
    ]
    if robustness.is_matrix(config):
        tables.insert(0, robustness.table(config, metrics))
    tables += side_by_side.make(config, metrics, not_run, speeds)
    return [table for table in tables if table.rows]


def _headline(
    inside: pd.DataFrame,
    at_shown_level: pd.DataFrame,
    methods: list[str],
    controls: frozenset[str],
    notes: str,
) -> Table:
    """Errors at every level, and below them the speed at the level that stands for the run."""
    errors = _with_bias(inside)
    speeds = at_shown_level[at_shown_level["metric"] == "patterns_per_second"]
    frame = pd.concat([errors, speeds.assign(quantity=_SPEED)], ignore_index=True)
    table = pivot(
        "headline",
        "Error against noise",
        f"Root mean square error in the interior, and in brackets the bias, in units of 1e-4 "
        f"(theta: 1e-4 rad), beside the Cramer-Rao bound; `{_SPEED}` is the patterns that a method "
        f"maps in a second, training included. {notes} {_BOLD_ERROR}",
        frame,
        ["scene", "quantity", "level"],
        [BOUND, *methods],
        np.where(frame["quantity"] == _SPEED, 1.0, display.STRAIN_UNIT),
        best="low",
        never_best=controls,
    )
    is_speed = [_SPEED in row[: table.keys] for row in table.rows]
    return replace(
        table,
        best=frozenset((r, c) for r, c in table.best if not is_speed[r]),
        # Files for programs hold each number once: speeds are in the table `cost`.
        numbers=table.numbers[table.numbers["quantity"] != _SPEED],
    )


def _components(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    return frame[(frame["metric"] == metric) & frame["quantity"].isin(COMPONENTS)]


def _with_bias(metrics: pd.DataFrame) -> pd.DataFrame:
    """The rmse of every method and its bias, in the column `beside`, with the bound."""
    of_row = [*MAP, "region", "quantity"]
    bias = _components(metrics, "bias").set_index(of_row)["value"]
    frame = _with_bound(metrics, "rmse")
    return frame.join(bias.rename("beside"), on=of_row)


def _with_bound(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric with the bound as one more method; it is the same for every method and seed."""
    bound = _components(frame, "limit").drop_duplicates(["scene", "region", "quantity", *LEVEL])
    bound = bound.assign(method=BOUND, not_run=False)
    return pd.concat([_components(frame, metric), bound], ignore_index=True)


def _self_precision(noisy: pd.DataFrame) -> pd.DataFrame:
    """The precision that a map tells of itself over its rmse."""
    of_row = [*MAP, "quantity"]
    error = _components(noisy, "rmse").set_index(of_row)["value"]
    told = _components(noisy, "self_precision")
    told = told.join(error.rename("error"), on=of_row)
    return told.assign(value=told["value"] / told["error"].where(told["error"] > 0))


def _cores(metrics: pd.DataFrame) -> pd.DataFrame:
    """Scores of dislocations in the scenes that have any, shares in percent."""
    frame = metrics[metrics["metric"].isin(_CORES)]
    frame = frame[frame["scene"].isin(frame["scene"][frame["metric"] == "cores_found"])]
    percent = frame["metric"].isin(("cores_found", "burgers_right"))
    return frame.assign(
        quantity=frame["metric"].map(_CORES),
        value=frame["value"].where(~percent, 100 * frame["value"]),
    )


def _cost(metrics: pd.DataFrame) -> pd.DataFrame:
    frame = metrics[metrics["metric"].isin(_COST)]
    in_MB = frame["value"].where(frame["metric"] != "peak_memory_bytes", frame["value"] / 1e6)
    return frame.assign(quantity=frame["metric"].map(_COST), value=in_MB)


def write(config: Config, metrics_path: Path, tables_dir: Path) -> None:
    """Write every table of a run as `<name>.csv`, `<name>.md` and `<name>.tex`.

    Args:
        config: The run.
        metrics_path: The scores, `metrics.csv`; `load` says what else is read from its folder.
        tables_dir: Folder of the tables; made where there is none.

    Raises:
        InputError: A file is missing or unreadable.
    """
    for table in load(config, metrics_path):
        with atomic.atomic(Path(tables_dir) / f"{table.name}.csv") as temporary:
            table.numbers.to_csv(
                temporary, index=False, na_rep="nan", float_format="%.6g", lineterminator="\n"
            )
        atomic.write_text(Path(tables_dir) / f"{table.name}.md", markdown(table))
        atomic.write_text(Path(tables_dir) / f"{table.name}.tex", latex(table))


def summary(metrics_path: Path) -> str:
    """A run's main result for the terminal.

    Args:
        metrics_path: The scores, `metrics.csv`; `not_run.csv` beside it is read where it is there.

    Returns:
        Lines of text. For each scene a table with a line a method: interior rmse of exx (1e-4) at
        each level and the patterns mapped per second. Below it what the values are, why one may
        lie below the bound, and why methods did not run. Nothing where no scene is scored.

    Raises:
        InputError: The scores are missing or unreadable.
    """
    metrics, not_run = read_scores(metrics_path), read_not_run(metrics_path)
    if metrics.empty:
        return ""
    metrics = with_not_run(metrics, not_run)
    frame = _summary_columns(metrics)
    scenes = list(dict.fromkeys(metrics["scene"]))
    lines = []
    for scene in scenes:
        of_scene = frame[frame["scene"] == scene].rename(columns={"method": _SUMMARY_HEAD})
        columns = list(dict.fromkeys(of_scene["column"]))
        table = pivot("summary", "", "", of_scene, [_SUMMARY_HEAD], columns, across="column")
        lines += [scene] if len(scenes) > 1 else []
        lines.append(plain(table))
    seeds = display.average(metrics["seed"].nunique(), "seed")
    lines += [
        f"Errors are {seeds}; {_SPEED} is the median over all maps.",
        "An error may lie below the bound: few seeds scatter, and pooling uses many patterns.",
    ]
    lines += [f"not run: {error}" for error in dict.fromkeys(not_run["error"])]
    return "\n".join(lines)


def scan_summary(config: Config, metrics_path: Path) -> str:
    """The table of recorded scans for the terminal; empty where there are none.

    Raises:
        InputError: A file is missing or unreadable.
    """
    return plain(scans.table(config, Path(metrics_path).parent)) if config.scans else ""


def _summary_columns(metrics: pd.DataFrame) -> pd.DataFrame:
    """Long table of the values of `summary` by scene, method and `column`, the bound first."""
    inside = metrics[(metrics["region"] == HEADLINE_REGION) & (metrics["quantity"] == "exx")]
    errors = _with_bound(inside, "rmse").sort_values(
        "method", key=lambda method: method != BOUND, kind="stable"
    )
    heads = [
        "clean" if np.isinf(electrons) else f"w{background:g} {display.power(electrons)}"
        for background, electrons in zip(errors["background"], errors["electrons"], strict=True)
    ]
    errors = errors.assign(column=heads, value=errors["value"] / display.STRAIN_UNIT)
    speeds = metrics[(metrics["metric"] == "patterns_per_second") & ~metrics["not_run"]]
    speeds = speeds.groupby(["scene", "method"], sort=False, as_index=False).agg(
        value=("value", "median"), background=("background", "first")
    )
    # One value a method for all levels: the level that a table asks for is not shown.
    speeds = speeds.assign(column=_SPEED, electrons=np.inf, not_run=False)
    return pd.concat([errors, speeds], ignore_index=True)
