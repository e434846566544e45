"""Tables of the scores: numbers as CSV, and the same made to be read as Markdown and LaTeX.

Entries for reading are the median over the seeds with half their range; errors are in units of 1e-4
(rotation: 1e-4 rad). CSV files keep natural units, one line a method, with median, low and high
over the seeds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ccstae.config.run import Config
from ccstae.evaluation import score, throughput
from ccstae.geometry import COMPONENTS
from ccstae.io import atomic, layout
from ccstae.reporting import display, side_by_side
from ccstae.reporting.table import BOUND, LEVEL, MAP, Table, latex, markdown, pivot

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
_COST = {
    "seconds": "seconds",
    "patterns_per_second": "patterns per second",
    "peak_memory_bytes": "peak memory (MB)",
}


def load(config: Config, metrics_path: Path) -> list[Table]:
    """Every table of a run, from its scores and what stands beside them. InputError where they are
    missing or unreadable.
    """
    speeds = (
        throughput.read(Path(Path(metrics_path).parent, layout.THROUGHPUT))
        if config.throughput
        else None
    )
    return make(config, score.read(metrics_path), score.read_not_run(metrics_path), speeds)


def make(
    config: Config,
    metrics: pd.DataFrame,
    not_run: pd.DataFrame | None = None,
    speeds: pd.DataFrame | None = None,
) -> list[Table]:
    """Every table of a run that its scores can fill; maps in `not_run` read `not run` instead of
    the scores of no answer.
    """
    methods = list(config.methods)
    metrics = metrics.assign(not_run=_among(metrics, not_run))
    inside = metrics[metrics["region"] == HEADLINE_REGION]
    noisy = inside[np.isfinite(inside["electrons"])]
    shown = score.shown_level(metrics)
    regional = metrics[(metrics["background"] == shown[0]) & (metrics["electrons"] == shown[1])]
    unit = display.STRAIN_UNIT
    everywhere = "Positions without an answer enter with the error of the no-strain answer."
    by_level = ["scene", "quantity", "level"]
    tables = [
        pivot(
            "headline",
            "Error against noise",
            f"Root mean square error in the interior, in units of 1e-4 (theta: 1e-4 rad), beside "
            f"the Cramer-Rao bound. {everywhere}",
            _with_bound(inside, "rmse"),
            by_level,
            [BOUND, *methods],
            unit,
            best="low",
        ),
        pivot(
            "limit_ratio",
            "Error over the bound",
            "Robust standard deviation of error / bound, pattern by pattern, in the interior. 1 is "
            "the limit of any unbiased method "
            "that takes each pattern alone; one that pools patterns, uses a prior or shrinks "
            "towards no strain may go below it, at the "
            "price of bias.",
            _components(noisy, "limit_ratio"),
            by_level,
            methods,
        ),
        pivot(
            "bias",
            "Bias",
            f"Mean error in the interior, in units of 1e-4 (theta: 1e-4 rad), beside the "
            f"Cramer-Rao bound. {everywhere}",
            _with_bound(inside, "bias"),
            by_level,
            [BOUND, *methods],
            unit,
        ),
        pivot(
            "gain",
            "Strain shown of the strain there is",
            "Slope of answer over truth in the interior, in percent; `all` is one slope for all "
            "components. 100 is right whatever the "
            "noise; smoothing, and answers that lean towards no strain, show less.",
            inside[inside["metric"] == "gain"],
            by_level,
            methods,
            0.01,
        ),
        pivot(
            "dislocations",
            "Dislocations",
            "From circuits in each map that do not close. Found: of the dislocations with a "
            "circuit round them on the sample, those with "
            "one in the map within a scan step. False: dislocations in the map that are none. "
            "Distance: root mean square of those found.",
            _cores(metrics),
            ["scene", "quantity", "level"],
            methods,
        ),
        pivot(
            "coverage",
            "Stated against true uncertainty",
            "Share of interior errors, in percent, within 1.96 of the standard deviation that the "
            "method states; 95 is right.",
            _components(noisy, "coverage95"),
            by_level,
            methods,
            0.01,
        ),
        pivot(
            "regions",
            f"Error by region at {display.level(*shown)}",
            f"Root mean square error in units of 1e-4 (theta: 1e-4 rad). `all` is the whole sample "
            f"without vacuum. {everywhere}",
            _with_bound(regional, "rmse"),
            ["scene", "region", "quantity"],
            [BOUND, *methods],
            unit,
            best="low",
        ),
        pivot(
            "failures",
            "Positions without an answer",
            "In percent of the positions of the interior and of the whole sample (`all`).",
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
            "the classes found.",
            metrics[metrics["quantity"] == "label"].replace({"metric": _LABELS}),
            ["scene", "metric", "level"],
            methods,
            0.01,
            best="high",
        ),
        pivot(
            "cost",
            "Cost",
            "Time of one map, training included; median over levels and seeds with half the range.",
            _cost(metrics),
            ["scene", "quantity"],
            methods,
        ),
    ]
    tables += side_by_side.make(config, metrics, not_run, speeds)
    return [table for table in tables if table.rows]


def _among(metrics: pd.DataFrame, not_run: pd.DataFrame | None) -> list[bool]:
    """Which scores belong to maps that no program could make."""
    maps = set() if not_run is None else set(not_run[MAP].itertuples(index=False, name=None))
    return [key in maps for key in metrics[MAP].itertuples(index=False, name=None)]


def _components(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    return frame[(frame["metric"] == metric) & frame["quantity"].isin(COMPONENTS)]


def _with_bound(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric with the bound as one more method; it is the same for every method and seed."""
    limit = _components(frame, "limit").drop_duplicates(["scene", "region", "quantity", *LEVEL])
    return pd.concat([_components(frame, metric), limit.assign(method=BOUND)])


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
    """Write every table as csv, md and tex. InputError where the scores are missing or
    unreadable."""
    for table in load(config, metrics_path):
        with atomic.atomic(Path(tables_dir) / f"{table.name}.csv") as temporary:
            table.numbers.to_csv(
                temporary, index=False, na_rep="nan", float_format="%.6g", lineterminator="\n"
            )
        atomic.write_text(Path(tables_dir) / f"{table.name}.md", markdown(table))
        atomic.write_text(Path(tables_dir) / f"{table.name}.tex", latex(table))


def summary(metrics_path: Path) -> str:
    """A few lines for the terminal: interior rmse of exx (1e-4) by method and level, with the
    bound.
    """
    metrics, not_run = score.read(metrics_path), score.read_not_run(metrics_path)
    frame = _with_bound(
        metrics[(metrics["region"] == HEADLINE_REGION) & (metrics["quantity"] == "exx")], "rmse"
    )
    levels = list(dict.fromkeys(zip(metrics["background"], metrics["electrons"], strict=True)))
    medians = (
        frame.groupby(["scene", "method", *LEVEL], sort=False)["value"].median()
        / display.STRAIN_UNIT
    )
    heads = ["clean" if np.isinf(n) else f"w{w:g} {display.power(n)}" for w, n in levels]
    scenes, methods = (
        list(dict.fromkeys(metrics["scene"])),
        [BOUND, *dict.fromkeys(metrics["method"])],
    )
    left, right = (
        max(map(len, ["exx rmse, 1e-4", *methods])),
        max(10, *(len(head) + 2 for head in heads)),
    )
    lines = []
    for scene in scenes:
        lines += [scene] if len(scenes) > 1 else []
        lines.append("exx rmse, 1e-4".ljust(left) + "".join(head.rjust(right) for head in heads))
        for method in methods:
            values = (float(medians.get((scene, method, *level), np.nan)) for level in levels)
            lines.append(
                method.ljust(left) + "".join(display.number(v).rjust(right) for v in values)
            )
    lines += [f"not run: {error}" for error in dict.fromkeys(not_run["error"])]
    return "\n".join(lines)
