"""The robustness matrix: every method against every nuisance, for runs whose scenes have nuisances
of their own.

A cell holds three numbers of a method in a scene at a level, over the interior:

    error       root mean square over the components of rmse / bound
    held        share of the errors within 1.96 of the standard deviation that the method states
    wrong       share of the positions where a component is off by more than 5 of these

A method may state no deviation; it then has the first alone.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from ccstae.config.run import Config
from ccstae.geometry import COMPONENTS
from ccstae.reporting import display, side_by_side
from ccstae.reporting.table import LEVEL, MAP, Table

KEYS = ("scene", *LEVEL, "method")
ERROR, HELD, WRONG = "error_over_bound", "held", "confident_wrong"
MIN_HELD, MAX_HELD = 0.90, 0.98
"""95 % intervals hold a share between these: about two standard deviations of a share of 160."""
MAX_WRONG = 0.01
"""A share of confident wrong answers that a user would not meet in most scans."""
NOT_HELD_MARK, WRONG_MARK = "~", "!"


def is_matrix(config: Config) -> bool:
    """Whether a run has noise, and scenes with nuisances of their own."""
    noisy = any(math.isfinite(level.electrons) for level in config.levels)
    return noisy and any(scene.nuisances is not None for scene in config.scored.values())


def numbers(metrics: pd.DataFrame) -> pd.DataFrame:
    """One row a scene, level and method, with the columns `ERROR`, `HELD` and `WRONG`: medians over
    the seeds, and nan where a method has none.

    Args:
        metrics: the scores of a run, with the column `not_run`.
    """
    noisy = metrics[np.isfinite(metrics["electrons"]) & (metrics["region"] == "interior")]
    held = noisy[(noisy["metric"] == "coverage95") & noisy["quantity"].isin(COMPONENTS)]
    wrong = noisy[noisy["metric"] == "confident_wrong"]
    of_map = side_by_side.over_bound(noisy, "rmse").set_index(MAP)["value"].to_frame(ERROR)
    of_map[HELD] = held.groupby(MAP)["value"].mean()
    of_map[WRONG] = wrong.set_index(MAP)["value"]
    not_run = noisy.groupby(MAP)["not_run"].any()
    of_map = of_map.mask(not_run.reindex(of_map.index))
    return of_map.groupby(level=list(KEYS), sort=False).median().reset_index()


def not_held(cells: pd.DataFrame) -> pd.Series:
    """Which cells have 95 % intervals that hold too few or too many errors."""
    return (cells[HELD] < MIN_HELD) | (cells[HELD] > MAX_HELD)


def confident_wrong(cells: pd.DataFrame) -> pd.Series:
    """Which cells have too many answers that are wrong and sure."""
    return cells[WRONG] > MAX_WRONG


def table(config: Config, metrics: pd.DataFrame) -> Table:
    """The matrix as a table: a row a scene and level, a column a method, error over the bound with
    the marks of the figure.

    Args:
        config: of the run; its methods give the order of the columns.
        metrics: as in `numbers`.
    """
    cells = numbers(metrics)
    marks = np.where(not_held(cells), f" {NOT_HELD_MARK}", "")
    marks = marks + np.where(confident_wrong(cells), f" {WRONG_MARK}", "")
    shown = [
        display.number(error) + mark if np.isfinite(error) else "not run"
        for error, mark in zip(cells[ERROR], marks, strict=True)
    ]
    by_key = dict(zip(cells[[*KEYS]].itertuples(index=False, name=None), shown, strict=True))
    methods = [method for method in config.methods if method in set(cells["method"])]
    seeds = display.average(len(config.seeds.test), "seed").partition(" with")[0]
    rows = [
        [scene, display.level(level.background, level.electrons)]
        + [by_key.get((scene, level.background, level.electrons, m), "-") for m in methods]
        for level in config.levels
        if np.isfinite(level.electrons)
        for scene in config.scored
    ]
    return Table(
        name="robustness",
        title="Robustness",
        caption="Interior: root mean square over the components of rmse / bound, where the bound "
        f"knows of the nuisance. `{NOT_HELD_MARK}`: fewer than {100 * MIN_HELD:.0f} % or more than "
        f"{100 * MAX_HELD:.0f} % of the errors lie within the 95 % intervals that the method "
        f"states. `{WRONG_MARK}`: more than {100 * MAX_WRONG:.0f} % of the positions are off by "
        "more than 5 of the standard deviations that it states. Methods that state none have no "
        "marks. Positions without an answer enter with the error of the no-strain answer. Values "
        f"are {seeds}.",
        head=["nuisance", "level", *methods],
        rows=rows,
        keys=2,
        best=frozenset(),
        numbers=cells,
    )
