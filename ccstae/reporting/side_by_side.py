"""Methods side by side, one row each: accuracy and cost; what a program's own strain formula costs;
and which methods did not run, and why.
"""

from __future__ import annotations

import pandas as pd

from ccstae.config.run import Config
from ccstae.geometry import COMPONENTS
from ccstae.reporting import display
from ccstae.reporting.table import MAP, Table, pivot

_ERROR = "error / bound"
_BIAS = "bias / bound"
_FAILURES = "failures (%)"
_SPEED = "patterns/s"
_MEMORY = "peak memory (MB)"


def make(
    config: Config, metrics: pd.DataFrame, not_run: pd.DataFrame | None, speeds: pd.DataFrame | None
) -> list[Table]:
    """The tables; `metrics` is a run's scores with the column `not_run`, `speeds` what `throughput`
    measured.
    """
    seeds = display.average(len(config.seeds.test), "seed")
    by_own_formula = metrics[(metrics["region"] == "interior") & (metrics["metric"] == "own_rmse")]
    tables = [
        pivot(
            "comparison",
            "Methods side by side",
            "Interior. Error and bias over the bound: root mean square over the components of rmse "
            "/ bound and of bias / bound (none at the noise-free level). Failures: positions "
            "without an answer. Patterns per second and peak memory are those of the maps, each "
            f"made on one core with others beside it. Values are {seeds}."
            f"{display.control_note(config)}",
            method_summary(metrics),
            ["scene", "level", "method"],
            [_ERROR, _BIAS, _FAILURES, _SPEED, _MEMORY],
            across="column",
        ),
        pivot(
            "own_strain",
            "Error of the program's own strain formula",
            "Root mean square error in the interior, in units of 1e-4 (theta: 1e-4 rad), of the "
            "strain that a program from outside tells itself. Everywhere else its strain is taken "
            "from the lattice vectors that it fitted, as for every method. "
            f"Values are {seeds}.",
            by_own_formula,
            ["scene", "quantity", "level"],
            list(config.methods),
            display.STRAIN_UNIT,
        ),
    ]
    if speeds is not None and len(speeds):
        tables.append(_throughput(config, speeds))
    if not_run is not None and len(not_run):
        tables.append(_not_run(not_run))
    return tables


def error_over_bound(metrics: pd.DataFrame, metric: str = "rmse") -> pd.Series:
    """Root mean square over the components of `metric` / bound in the interior, one value a map,
    indexed by method; nan without noise.
    """
    frame = over_bound(metrics, metric)
    return pd.Series(frame["value"].to_numpy(), frame["method"])


def over_bound(metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    """As `error_over_bound`, with the columns that tell the map, and `value`."""
    inside = metrics[(metrics["region"] == "interior") & metrics["quantity"].isin(COMPONENTS)]
    inside = inside.set_index([*MAP, "quantity"])
    values = inside["value"][inside["metric"] == metric]
    bounds = inside["value"][inside["metric"] == "limit"]
    squares = (values / bounds.where(bounds > 0)) ** 2
    return (squares.groupby(level=MAP, sort=False).mean() ** 0.5).rename("value").reset_index()


def method_summary(metrics: pd.DataFrame) -> pd.DataFrame:
    """Long table of one value a map and `column`: accuracy in the interior and cost."""
    not_run = metrics[[*MAP, "not_run"]].drop_duplicates()
    frames = [
        over_bound(metrics, metric).assign(column=name)
        for name, metric in ((_ERROR, "rmse"), (_BIAS, "bias"))
    ]
    whole = metrics[metrics["quantity"] == "all"]
    for name, metric, region, unit in (
        (_FAILURES, "failure_rate", "interior", 0.01),
        (_SPEED, "patterns_per_second", "all", 1),
        (_MEMORY, "peak_memory_bytes", "all", 1e6),
    ):
        rows = whole[(whole["metric"] == metric) & (whole["region"] == region)]
        frames.append(rows[MAP].assign(value=rows["value"] / unit, column=name))
    return pd.concat(frames, ignore_index=True).merge(not_run, on=MAP)


def _throughput(config: Config, speeds: pd.DataFrame) -> Table:
    level = display.level(float(speeds["background"].iloc[0]), float(speeds["electrons"].iloc[0]))
    frames = []
    for cores, rows in speeds.groupby("cores"):
        on = "1 core" if cores == 1 else f"{cores} cores"
        frames.append(rows.assign(value=rows["patterns_per_second"], column=f"{_SPEED}, {on}"))
        frames.append(rows.assign(value=rows["peak_memory_bytes"] / 1e6, column=f"{_MEMORY}, {on}"))
    frame = pd.concat(frames, ignore_index=True)
    frame["method"] = pd.Categorical(frame["method"], list(config.methods), ordered=True)
    return pivot(
        "throughput",
        f"Speed at {level}",
        "Mapping alone, training included, without imports and files. The methods take turns, with "
        "the machine to themselves. Values are "
        f"{display.average(speeds['repeat'].nunique(), 'round')}.",
        frame.sort_values("method").astype({"method": str}),
        ["scene", "method"],
        sorted(set(frame["column"])),
        across="column",
    )


def _not_run(not_run: pd.DataFrame) -> Table:
    """Which methods did not run, on how many maps, and why."""
    counted = not_run.groupby(["method", "error"], sort=False).size().rename("maps").reset_index()
    rows = [
        [str(method), str(maps), str(error)]
        for method, error, maps in counted.itertuples(index=False, name=None)
    ]
    caption = (
        "Methods whose own environment is missing or whose program failed. "
        "Their maps hold no answer, and no score of theirs counts."
    )
    return Table(
        name="not_run",
        title="Not run",
        caption=caption,
        head=["method", "maps", "why"],
        rows=rows,
        keys=3,
        best=frozenset(),
        numbers=counted,
    )
