"""Tables hold the scores, in the units they state, with the best and the bound where they
belong."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_run import made_config

from ccstae import geometry
from ccstae.config.methods import Method
from ccstae.config.run import load
from ccstae.io.scores import COLUMNS, read_scores
from ccstae.reporting import display, tables


@pytest.fixture(scope="module")
def made(run_dir: Path) -> dict[str, tables.Table]:
    loaded = load(run_dir / "config.resolved.yaml")
    return {
        table.name: table for table in tables.make(loaded, read_scores(run_dir / "metrics.csv"))
    }


def row(table: tables.Table, *key: str) -> dict[str, str]:
    found = [r for r in table.rows if tuple(r[: table.keys]) == key]
    assert len(found) == 1
    return dict(zip(table.head, found[0], strict=True))


def test_every_table_is_made(made: dict[str, tables.Table]):
    assert list(made) == [
        "headline",
        "limit_ratio",
        "bias",
        "gain",
        "coverage",
        "self_precision",
        "regions",
        "failures",
        "labels",
        "cost",
        "comparison",
    ]


def test_headline_is_the_interior_rmse_beside_the_bound(
    made: dict[str, tables.Table], run_dir: Path
):
    metrics = read_scores(run_dir / "metrics.csv")
    chosen = metrics[
        (metrics.region == "interior")
        & (metrics.quantity == "eyy")
        & (metrics.metric == "rmse")
        & (metrics.background == 0.25)
    ]
    low, high = sorted(chosen[chosen.method == "template"].value * 1e4)
    found = row(made["headline"], "eyy", "w 0.25, 1e5 e")
    error, _, bias = found["template"].rstrip(")").partition(" (")
    median, half_range = map(float, error.split(" ± "))
    assert median == pytest.approx((low + high) / 2, abs=0.06)
    assert half_range == pytest.approx((high - low) / 2, abs=0.06)
    biases = metrics[
        (metrics.region == "interior")
        & (metrics.quantity == "eyy")
        & (metrics.metric == "bias")
        & (metrics.background == 0.25)
        & (metrics.method == "template")
    ]
    assert float(bias) == pytest.approx(biases.value.median() * 1e4, abs=0.06)
    assert found["bound"] == "20.0"  # 2e-3 in units of 1e-4
    assert made["headline"].head == [
        "quantity",
        "level",
        "bound",
        "zero",
        "com",
        "template",
        "ccstae",
    ]
    assert [r[1] for r in made["headline"].rows[:4]] == [
        "clean",
        "w 0.00, 1e5 e",
        "w 0.25, 1e5 e",
        "w 0.00, 1e4 e",
    ]
    assert [r[0] for r in made["headline"].rows[:16:4]] == ["exx", "eyy", "exy", "theta"]


def test_headline_has_the_speed_at_the_level_that_is_shown(
    made: dict[str, tables.Table], run_dir: Path
):
    table = made["headline"]
    assert [r[:2] for r in table.rows[16:]] == [["patterns/s", "w 0.25, 1e5 e"]]
    speeds = row(table, "patterns/s", "w 0.25, 1e5 e")
    assert (speeds["com"], speeds["bound"]) == ("96.0", "-")  # 12 x 16 patterns in 2 seconds
    assert all(r < 16 for r, _ in table.best)  # the smallest speed is not the best
    assert set(table.numbers["quantity"]) == {"exx", "eyy", "exy", "theta"}


def test_the_best_is_marked_and_is_never_the_bound_nor_the_control(made: dict[str, tables.Table]):
    table = made["headline"]
    assert table.head[2:4] == ["bound", "zero"]
    assert len(table.best) == 16
    for r, column in table.best:
        medians = [float(cell.split(" ")[0]) for cell in table.rows[r][4:]]
        assert column - 4 == int(np.argmin(medians))
    at = table.rows.index(next(x for x in table.rows if x[:2] == ["exy", "w 0.25, 1e5 e"]))
    assert (at, table.head.index("ccstae")) in table.best


def test_controls_are_never_the_best():
    """Where there is no strain, a control that answers none has no error; so has one under another
    name.
    """
    methods = {"zero": None, "com": None, "silent": {"method": "zero"}, "template": None}
    settings = made_config()
    settings = settings.model_copy(
        update={"methods": {name: Method(**(entry or {})) for name, entry in methods.items()}}
    )
    errors = dict(zip(methods, (0.0, 3e-4, 0.0, 2e-4), strict=True))
    metrics = pd.DataFrame(
        [
            ("pair", method, 0.25, 1e5, 1, "interior", component, metric, value)
            for method, error in errors.items()
            for component in geometry.COMPONENTS
            for metric, value in (("rmse", error), ("limit", 1e-4))
        ],
        columns=list(COLUMNS),
    )
    by_name = {table.name: table for table in tables.make(settings, metrics)}
    for name in ("headline", "regions"):
        table = by_name[name]
        assert len(table.rows) == 4
        assert table.best == {(r, table.head.index("template")) for r in range(4)}


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ([1], "Values are of one seed."),
        ([1, 2], "Values are the mean of two seeds with half their range."),
        ([1, 2, 3], "Values are the median of 3 seeds with half their range."),
    ],
)
def test_captions_say_what_values_are_of(run_dir: Path, seeds: list[int], words: str):
    settings = made_config()
    settings = settings.model_copy(
        update={"seeds": settings.seeds.model_copy(update={"test": seeds})}
    )
    for table in tables.make(settings, read_scores(run_dir / "metrics.csv")):
        assert words in table.caption or table.name == "cost"
        assert "median over" not in table.caption


def test_the_bound_stands_where_the_first_method_did_not_run(run_dir: Path):
    metrics = read_scores(run_dir / "metrics.csv")
    not_run = metrics[metrics["method"] == "zero"][[*COLUMNS[:5]]].drop_duplicates()
    made = tables.make(made_config(), metrics, not_run.assign(error="no wheel"))
    found = row(made[0], "eyy", "w 0.25, 1e5 e")
    assert (found["bound"], found["zero"]) == ("20.0", "not run")


def test_ratio_table_leaves_out_the_noise_free_level_and_finds_the_injected_ratios(
    made: dict[str, tables.Table],
):
    numbers = made["limit_ratio"].numbers
    assert np.isfinite(numbers.electrons).all()
    # A third of the interior is reference without error, which the median absolute deviation takes
    # in.
    ratio = numbers.groupby("method")["median"].median()
    assert ratio["template"] / ratio["ccstae"] == pytest.approx(1.3, abs=0.15)
    assert ratio["com"] / ratio["ccstae"] == pytest.approx(2.0, abs=0.25)


def test_failures_are_in_percent(made: dict[str, tables.Table], run_dir: Path):
    found = row(made["failures"], "all", "clean")
    assert float(found["com"].split(" ")[0]) == pytest.approx(
        100 * 3 / 160, abs=0.005
    )  # 10 rows of 16 are sample
    assert float(found["zero"].split(" ")[0]) == 0


def test_labels_and_coverage_only_of_methods_that_give_them(made: dict[str, tables.Table]):
    assert made["labels"].head == ["metric", "level", "ccstae"]
    assert all(
        row(made["labels"], kind, "clean")["ccstae"] == "100"
        for kind in ("vacuum and materials", "vacuum or specimen", "materials")
    )
    assert made["coverage"].head == ["quantity", "level", "ccstae"]


def test_cost(made: dict[str, tables.Table]):
    assert row(made["cost"], "patterns per second")["com"] == "96.0"
    assert row(made["cost"], "peak memory (MB)")["zero"] == "3.00"


def test_written_tables(run_dir: Path, tmp_path: Path):
    loaded = load(run_dir / "config.resolved.yaml")
    tables.write(loaded, run_dir / "metrics.csv", tmp_path)
    names = {p.name for p in tmp_path.iterdir()}
    assert {f"headline.{kind}" for kind in ("csv", "md", "tex")} <= names
    numbers = pd.read_csv(tmp_path / "headline.csv")
    assert list(numbers.columns) == [
        "scene",
        "quantity",
        "background",
        "electrons",
        "method",
        "median",
        "low",
        "high",
    ]
    bound = numbers[
        (numbers.method == "bound") & (numbers.quantity == "theta") & (numbers.background == 0.25)
    ]
    assert bound["median"].item() == pytest.approx(5e-4)
    lines = [
        line for line in (tmp_path / "headline.md").read_text().splitlines() if line.startswith("|")
    ]
    assert len({line.count("|") for line in lines}) == 1
    assert len({len(line) for line in lines}) == 1
    tex = (tmp_path / "failures.tex").read_text()
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 1
    assert "_" not in tex.replace(r"\_", "").replace("\\label{tab:failures}", "")
    assert len({line.count("&") for line in tex.splitlines() if line.endswith(r"\\")}) == 1


def test_writing_twice_gives_the_same_bytes(run_dir: Path, tmp_path: Path):
    loaded = load(run_dir / "config.resolved.yaml")
    for name in ("a", "b"):
        tables.write(loaded, run_dir / "metrics.csv", tmp_path / name)
    first = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    assert first == {p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()}


def test_summary_is_six_lines_for_four_methods_and_what_they_are(run_dir: Path):
    lines = tables.summary(run_dir / "metrics.csv").splitlines()
    table, notes = lines[:6], lines[6:]
    assert [line.split()[0] for line in table[1:]] == ["bound", "zero", "com", "template", "ccstae"]
    assert table[1].split()[1:] == ["0", "5.00", "10.0", "20.0", "-"]
    assert len({len(line) for line in table}) == 1
    assert max(map(len, lines)) <= 100
    assert notes == [
        "Errors are the mean of two seeds with half their range; patterns/s is the median over all "
        "maps.",
        "An error may lie below the bound: few seeds scatter, and pooling uses many patterns.",
    ]


def test_summary_gives_spread_and_speed(run_dir: Path):
    metrics = read_scores(run_dir / "metrics.csv")
    chosen = metrics[
        (metrics.region == "interior")
        & (metrics.quantity == "exx")
        & (metrics.metric == "rmse")
        & (metrics.background == 0.25)
        & (metrics.method == "template")
    ]
    lines = tables.summary(run_dir / "metrics.csv").splitlines()
    template = next(line.split() for line in lines if line.startswith("template"))
    assert template[-3] == display.spread(chosen.value * 1e4).replace(" ", "")
    assert "±" in template[-3]
    assert template[-1] == "96.0"
    assert lines[0].endswith("patterns/s")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.1234, "0.123"),
        (1.234, "1.23"),
        (9.996, "10.0"),
        (12.34, "12.3"),
        (123.4, "123"),
        (-2.5, "-2.50"),
        (-1e-9, "0.000"),
        (math.nan, "-"),
    ],
)
def test_numbers(value: float, text: str):
    assert display.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(1e5, "1e5"), (2.5e4, "2.5e4"), (math.inf, "inf"), (300, "3e2")]
)
def test_powers(value: float, text: str):
    assert display.power(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (1, "of one round"),
        (2, "the mean of two rounds with half their range"),
        (5, "the median of 5 rounds with half their range"),
    ],
)
def test_average(count: int, text: str):
    assert display.average(count, "round") == text


def test_spread():
    assert display.spread([1.0, 3.0, 2.0]) == "2.00 ± 1.00"
    assert display.spread([4.0, 4.0]) == "4.00"
    assert display.spread([math.nan]) == "-"
    assert display.spread([-12.0, 12.2]) == "0.1 ± 12.1"
    assert display.spread([-12.1, 12.0]) == "0.0 ± 12.1"
