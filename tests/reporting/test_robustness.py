"""The robustness matrix: errors over the bound, and marks where stated deviations fail."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ccstae.config.run import Config, load, parse
from ccstae.io.scores import COLUMNS
from ccstae.reporting import robustness, tables
from ccstae.reporting.figures import catalogue, style
from ccstae.reporting.figures import robustness as figure

ROOT = Path(__file__).parents[2]
LIMIT = 1e-3
# Error over the bound of the two seeds, share held and share wrong, by scene and method.
CELLS = {
    ("none", "template"): ((1.5, 1.7), math.nan, math.nan),
    ("none", "ccstae"): ((1.0, 1.2), 0.95, 0.0),
    ("descan", "template"): ((3.0, 3.0), math.nan, math.nan),
    ("descan", "ccstae"): ((20.0, 24.0), 0.30, 0.4),
    ("dead-cross", "template"): ((1.8, 1.8), math.nan, math.nan),
    ("dead-cross", "ccstae"): ((1.1, 1.1), 0.99, 0.0),
}


@pytest.fixture(scope="module")
def config() -> Config:
    data = load(ROOT / "config" / "robustness-gate.yaml").model_dump(mode="json")
    data["seeds"] = {"test": [1, 2]}
    data["scenes"] = {name: data["scenes"][name] for name, _ in CELLS}
    return parse(data)


@pytest.fixture(scope="module")
def metrics() -> pd.DataFrame:
    rows = []
    for (scene, method), (errors, held, wrong) in CELLS.items():
        for seed, error in enumerate(errors, 1):
            key = (scene, method, 0.25, 1e5, seed, "interior")
            for component in ("exx", "eyy", "exy", "theta"):
                rows.append((*key, component, "rmse", error * LIMIT))
                rows.append((*key, component, "limit", LIMIT))
                if math.isfinite(held):
                    rows.append((*key, component, "coverage95", held))
            if math.isfinite(wrong):
                rows.append((*key, "all", "confident_wrong", wrong))
    return pd.DataFrame(rows, columns=list(COLUMNS)).assign(not_run=False)


def test_cells_are_medians_over_seeds_with_marks(config: Config, metrics: pd.DataFrame) -> None:
    table = robustness.table(config, metrics)
    assert table.head == ["nuisance", "level", "template", "ccstae"]
    assert [(row[0], *row[2:]) for row in table.rows] == [
        ("none", "1.60", "1.10"),
        ("descan", "3.00", "22.0 ~ !"),
        ("dead-cross", "1.80", "1.10 ~"),
    ]
    assert set(table.numbers) == {
        "scene",
        "background",
        "electrons",
        "method",
        robustness.ERROR,
        robustness.HELD,
        robustness.WRONG,
    }


def test_a_map_that_did_not_run_has_no_cell(config: Config, metrics: pd.DataFrame) -> None:
    of_template = (metrics["method"] == "template") & (metrics["scene"] == "descan")
    table = robustness.table(config, metrics.assign(not_run=of_template))
    assert table.rows[1][2:] == ["not run", "22.0 ~ !"]


def test_only_runs_with_nuisances_of_scenes_have_a_matrix(config: Config) -> None:
    assert robustness.is_matrix(config)
    assert not robustness.is_matrix(load(ROOT / "config" / "default.yaml"))
    assert [entry.name for entry in catalogue.overview(config)] == ["robustness"]


def test_the_table_is_among_those_of_a_run(config: Config, metrics: pd.DataFrame) -> None:
    made = tables.make(config, metrics.drop(columns="not_run"))
    assert made[0].name == "robustness"


def test_the_figure_has_a_cell_for_each_number(config: Config, metrics: pd.DataFrame) -> None:
    cells = robustness.numbers(metrics)
    with style.styled():
        drawn = figure.draw(cells, list(config.scenes), [(0.25, 1e5)], ["template", "ccstae"])
    panel = drawn.axes[0]
    shown = np.array([text.get_text() for text in panel.texts]).reshape(3, 2).tolist()
    assert shown == [["1.60", "1.10"], ["3.00", "22.0"], ["1.80", "1.10"]]
    assert len(panel.lines) == 3
    np.testing.assert_allclose(panel.images[0].get_array()[1], [3, 22])
