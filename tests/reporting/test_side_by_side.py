"""Methods side by side: what did not run says so and counts for nothing; own formulas and speeds
have tables of their own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_run import SHAPE, made_config, made_map, made_truth

from ccstae import geometry
from ccstae.config.methods import Method
from ccstae.config.run import Config
from ccstae.evaluation import score, throughput
from ccstae.io import layout
from ccstae.io.maps import write_map
from ccstae.io.scores import read_scores
from ccstae.io.truth import write_truth
from ccstae.reporting import side_by_side, tables
from ccstae.reporting.figures import speed, style

WHY = "methods.absent: environment py4dstem missing: no wheel"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps with a constant error of 1e-3 in exx; `peer` tells a strain of its own twice as wrong;
    `absent` could not run.
    """
    folder = tmp_path_factory.mktemp("peers")
    write_truth(folder / "scenes" / "pair.truth.h5", made_truth())
    loaded = settings()
    wrong = geometry.components(made_truth().F_probe)
    wrong[~made_truth().reference, 0] += 1e-3
    own = wrong.copy()
    own[~made_truth().reference, 0] += 1e-3
    F = geometry.deformation(*np.moveaxis(wrong, -1, 0))
    for level in loaded.levels:
        for seed in loaded.seeds.test:
            failed = made_map("absent", np.full((*SHAPE, 2, 2), np.nan))
            failed.attributes.update(error=WHY, seconds=0.0, peak_memory_bytes=0)
            for answer in (
                made_map("zero", np.broadcast_to(np.eye(2), (*SHAPE, 2, 2))),
                made_map("peer", F, own_strain=own),
                failed,
            ):
                method = answer.attributes["method"]
                write_map(layout.map_path(folder, "pair", level.name, seed, method), answer)
    score.write(loaded, folder, folder / "metrics.csv")
    rows = [
        ("pair", 0.25, 1e5, m, n, r, 2.0, 96.0 * n + r, 3_000_000)
        for m in ("zero", "peer")
        for n in (1, 2)
        for r in range(3)
    ]
    pd.DataFrame(rows, columns=list(throughput.COLUMNS)).to_csv(
        Path(folder, layout.THROUGHPUT), index=False
    )
    return folder


def settings() -> Config:
    peer = Method(command="python peer.py", environment="py4dstem")
    methods = {"zero": Method(), "peer": peer, "absent": peer}
    return made_config().model_copy(update={"methods": methods, "throughput": "w0.25_n100000"})


@pytest.fixture(scope="module")
def made(run_dir: Path) -> dict[str, tables.Table]:
    return {table.name: table for table in tables.load(settings(), run_dir / "metrics.csv")}


def test_a_method_that_did_not_run_says_so_and_wins_nothing(
    made: dict[str, tables.Table], run_dir: Path
) -> None:
    headline = made["headline"]
    column = headline.head.index("absent")
    assert {row[column] for row in headline.rows} == {"not run"}
    assert column not in {c for _, c in headline.best}
    assert next(row for row in made["comparison"].rows if row[1] == "absent")[2:] == ["not run"] * 5
    assert made["not_run"].rows == [["absent", "8", WHY]]
    assert WHY in tables.summary(run_dir / "metrics.csv")


def test_its_scores_are_those_of_no_answer(run_dir: Path) -> None:
    metrics = read_scores(run_dir / "metrics.csv").set_index("method")
    absent = metrics.loc["absent"]
    assert (absent[absent["metric"] == "failure_rate"]["value"] == 1).all()
    assert (absent[absent["metric"] == "patterns_per_second"]["value"] == 0).all()
    both = [
        metrics.loc[m][metrics.loc[m]["metric"] == "rmse"]["value"].to_numpy()
        for m in ("absent", "zero")
    ]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-6)


def test_side_by_side_is_over_the_bound(made: dict[str, tables.Table]) -> None:
    table = made["comparison"]
    row = dict(
        zip(
            table.head,
            next(r for r in table.rows if r[:2] == ["w 0.25, 1e5 e", "peer"]),
            strict=True,
        )
    )
    # The error is 1e-3 in one component, whose bound is 1e-3, at the share of the interior that is
    # no reference.
    share = float(np.mean(~made_truth().reference[(made_truth().region == 1)]))
    assert float(row["error / bound"]) == pytest.approx(np.sqrt(share / 4), rel=0.01)
    assert float(row["bias / bound"]) == pytest.approx(share / 2, rel=0.01)
    assert float(row["patterns/s"]) == 96


def test_the_own_formula_has_a_table_of_its_own(made: dict[str, tables.Table]) -> None:
    own, exact = (
        {tuple(r[:2]): r[t.head.index("peer")] for r in t.rows}
        for t in (made["own_strain"], made["headline"])
    )
    at = ("exx", "w 0.25, 1e5 e")
    assert float(own[at]) == pytest.approx(2 * float(exact[at].split()[0]), rel=0.01)


def test_speeds_on_one_core_and_on_all(made: dict[str, tables.Table]) -> None:
    table = made["throughput"]
    assert table.head[1:] == [
        "patterns/s, 1 core",
        "patterns/s, 2 cores",
        "peak memory (MB), 1 core",
        "peak memory (MB), 2 cores",
    ]
    assert dict(zip(table.head, table.rows[1], strict=True))["patterns/s, 2 cores"] == "193 ± 1"


def test_accuracy_against_speed_is_drawn(run_dir: Path) -> None:
    metrics = read_scores(run_dir / "metrics.csv")
    speeds = throughput.read(Path(run_dir, layout.THROUGHPUT))
    drawn = speed.draw(
        side_by_side.error_over_bound(metrics[metrics["background"] == 0.25]),
        speeds,
        style.lines(["peer"]),
    )
    assert [text.get_text() for text in drawn.legends[0].texts] == [
        "peer",
        "Cramér-Rao bound",
        "open: 2 cores",
    ]
