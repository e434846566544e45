"""The gate: what turns it red, what leaves it green, and what it says."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from ccstae import cli
from ccstae.errors import InputError
from ccstae.gate import baseline
from ccstae.gate import compare as regress
from ccstae.geometry import COMPONENTS
from ccstae.io.scores import COLUMNS

SEEDS = range(1, 13)
LIMIT = {"exx": 1.6e-3, "eyy": 1.5e-3, "exy": 1.0e-3, "theta": 1.0e-3}


def scores(seeds: range | tuple[int, ...] = SEEDS) -> pd.DataFrame:
    """Scores as a small run has them: scatter of 10 % from seed to seed, the same for the same
    seed, and none without noise.
    """
    rows: list[tuple[object, ...]] = []
    for method, quality in (("zero", 10.0), ("com", 2.0), ("ccstae", 1.2)):
        for w, n in ((0.0, math.inf), (0.0, 1e5), (0.5, 1e5)):
            for seed in seeds:
                draw = np.random.default_rng([seed, int(100 * w), len(method)])
                for region in ("interior", "interface", "all"):
                    for q in COMPONENTS:
                        scatter = draw.normal(size=3) * (method != "zero" and math.isfinite(n))
                        limit = 0.0 if math.isinf(n) else LIMIT[q] * (1 + 2 * w)
                        rmse = (
                            1e-2
                            if method == "zero"
                            else 1e-4 * quality
                            if math.isinf(n)
                            else quality * limit * (1 + 0.1 * scatter[0])
                        )
                        bias = (
                            -5e-3
                            if method == "zero"
                            else 2e-5
                            if math.isinf(n)
                            else 0.2 * limit * scatter[1]
                        )
                        found = {"rmse": rmse, "bias": bias, "limit": limit}
                        found["rmse_over_limit"] = rmse / limit if limit else math.nan
                        found["limit_ratio"] = (
                            quality * (1 + 0.1 * scatter[2]) if limit else math.nan
                        )
                        if method == "ccstae":
                            found["coverage95"] = 0.95 + 0.01 * scatter[2] if limit else math.nan
                        rows += [
                            (*("pair", method, w, n, seed, region, q), name, value)
                            for name, value in found.items()
                        ]
                    rows.append(("pair", method, w, n, seed, region, "all", "failure_rate", 0.02))
                if method == "ccstae":
                    rows.append(("pair", method, w, n, seed, "all", "label", "accuracy", 0.99))
                rows.append(("pair", method, w, n, seed, "all", "all", "seconds", 2.0))
    return pd.DataFrame(rows, columns=list(COLUMNS))


ROLES = baseline.Roles(
    controls=("zero",), watched=("ccstae-2023",), watched_noise_free=("encoder",)
)
BASELINE = regress.make_baseline(scores(), {"python": "3.11"}, ROLES)
RUN = scores((1, 2, 3))


def breaches(frame: pd.DataFrame) -> dict[str, str]:
    return {row.metric: row.verdict for row in regress.compare(frame, BASELINE) if row.breach}


def scaled(frame: pd.DataFrame, factor: float, **where: object) -> pd.DataFrame:
    """The scores with every error of the chosen rows multiplied."""
    chosen = frame["metric"].isin(["rmse", "bias", "rmse_over_limit", "limit_ratio"])
    for column, value in where.items():
        chosen &= frame[column] == value
    return frame.assign(value=frame["value"].where(~chosen, frame["value"] * factor))


def test_the_same_run_is_green() -> None:
    rows = regress.compare(RUN, BASELINE)
    assert {row.verdict for row in rows} == {"good"}
    assert regress.conclusion(rows) == f"as accurate as the baseline in {len(rows)} entries"


def test_other_seeds_are_green() -> None:
    for first in range(100, 160, 3):
        assert breaches(scores((first, first + 1, first + 2))) == {}


def test_an_error_worse_by_a_tenth_is_red() -> None:
    assert (
        breaches(scaled(RUN, 1.1, method="ccstae"))["pair ccstae clean interior exx rmse"]
        == "worse"
    )


def test_an_error_worse_by_a_tenth_under_noise_alone_is_red_with_the_same_seeds() -> None:
    found = breaches(scaled(RUN, 1.1, method="ccstae", electrons=1e5))
    assert set(found) == {
        f"pair ccstae {w} all pooled rmse_over_limit seed={s}"
        for w in ("w0.00_n100000", "w0.50_n100000")
        for s in (1, 2, 3)
    }


def test_an_error_worse_by_a_third_is_red_with_any_seeds() -> None:
    found = breaches(scaled(scores((100, 101, 102)), 1.33, method="com", electrons=1e5))
    assert "pair com noisy all pooled rmse_over_limit" in found


def test_one_component_that_doubles_at_one_level_is_red() -> None:
    found = breaches(
        scaled(scores((100, 101, 102)), 2.0, method="com", background=0.5, quantity="exy")
    )
    assert found == {"pair com w0.50_n100000 interior exy rmse": "worse"}


@pytest.mark.parametrize("factor", [0.99, 1.01])
@pytest.mark.parametrize(
    ("method", "metric"), [("zero", "rmse"), ("zero", "bias"), ("zero", "limit")]
)
def test_a_fingerprint_may_not_move_either_way(method: str, metric: str, factor: float) -> None:
    chosen = (
        (RUN["metric"] == metric)
        & (RUN["quantity"] == "exx")
        & ((RUN["method"] == method) | (metric == "limit"))
    )
    found = breaches(RUN.assign(value=RUN["value"].where(~chosen, RUN["value"] * factor)))
    assert found
    assert set(found.values()) == {"changed"}
    assert all(" exx " in key for key in found)


def test_a_bias_that_changes_its_sign_is_seen_in_the_control_alone() -> None:
    chosen = RUN["metric"] == "bias"
    found = breaches(RUN.assign(value=RUN["value"].where(~chosen, -RUN["value"])))
    assert {key.split()[1] for key in found} == {"zero"}


def test_better_is_green_and_asks_for_a_new_baseline() -> None:
    rows = regress.compare(scaled(RUN, 0.8, method="ccstae"), BASELINE)
    assert not any(row.breach for row in rows)
    assert "better beyond tolerance: make a new baseline with --update" in regress.conclusion(rows)


@pytest.mark.parametrize("share", [0.9, 1.0])
def test_coverage_may_not_move_either_way(share: float) -> None:
    chosen = RUN["metric"] == "coverage95"
    found = breaches(RUN.assign(value=RUN["value"].where(~chosen, 0.85 if share < 1 else 1.02)))
    assert {key.split()[-1] for key in found} == {"coverage95"}


def test_failures_and_wrong_labels_are_red() -> None:
    for metric, value in (("failure_rate", 0.3), ("accuracy", 0.7)):
        chosen = (RUN["metric"] == metric) & (RUN["method"] == "ccstae")
        found = breaches(RUN.assign(value=RUN["value"].where(~chosen, value)))
        assert found
        assert all(key.endswith(metric) for key in found)


def test_an_outlier_in_one_seed_of_three_is_green_and_in_two_red() -> None:
    run = scores((100, 101, 102))
    lost = (
        (run["method"] == "com")
        & (run["metric"] == "rmse")
        & (run["quantity"] == "exx")
        & (run["electrons"] == 1e5)
    )
    for seeds, expected in (([101], set()), ([101, 102], {"worse"})):
        found = breaches(
            run.assign(
                value=run["value"].where(~(lost & run["seed"].isin(seeds)), 5 * run["value"])
            )
        )
        assert set(found.values()) == expected


def test_seeds_that_share_their_noise_are_red() -> None:
    one = RUN[RUN["seed"] == 1]
    found = breaches(pd.concat([RUN[RUN["seed"] != 2], one.assign(seed=2)]))
    assert found["pair com noisy all pooled rmse_over_limit"] == "seeds alike"


def test_slower_is_told_and_green() -> None:
    rows = regress.compare(
        RUN.assign(value=RUN["value"].where(RUN["metric"] != "seconds", 9.0)), BASELINE
    )
    assert not any(row.breach for row in rows)
    assert [row.metric for row in rows if row.verdict == "slower"] == [
        f"pair {m} every all all seconds" for m in ("ccstae", "com")
    ]


def test_a_method_that_rounds_its_own_way_is_watched_but_must_answer() -> None:
    def renamed(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(method=frame["method"].replace("com", "ccstae-2023"))

    baseline = regress.make_baseline(renamed(scores()), {}, ROLES)
    rows = regress.compare(renamed(scaled(RUN, 2.0, method="com")), baseline)
    assert not any(row.breach for row in rows)
    assert any(row.verdict == "watched" for row in rows)
    lost = renamed(RUN.assign(value=RUN["value"].where(RUN["metric"] != "failure_rate", 0.5)))
    assert "pair ccstae-2023 clean all all failure_rate" in [
        row.metric for row in regress.compare(lost, baseline) if row.breach
    ]


def test_of_a_net_without_refinement_the_noise_free_errors_alone_are_watched() -> None:
    def renamed(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(method=frame["method"].replace("com", "encoder"))

    baseline = regress.make_baseline(renamed(scores()), {}, ROLES)
    clean = (
        np.isinf(RUN["electrons"]) & (RUN["method"] == "com") & RUN["metric"].isin(["rmse", "bias"])
    )
    rows = regress.compare(
        renamed(RUN.assign(value=RUN["value"].where(~clean, 2 * RUN["value"]))), baseline
    )
    assert not any(row.breach for row in rows)
    assert any(row.verdict == "watched" for row in rows)
    assert any(
        row.breach for row in regress.compare(renamed(scaled(RUN, 2.0, method="com")), baseline)
    )


CHANGES: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "a missing method": (lambda f: f[f["method"] != "com"], "missing"),
    "a missing level": (lambda f: f[f["background"] != 0.5], "missing"),
    "a missing metric": (lambda f: f[f["metric"] != "coverage95"], "missing"),
    "no rows at all": (lambda f: f[:0], "missing"),
    "a method more": (
        lambda f: pd.concat([f, f[f["method"] == "com"].assign(method="new")]),
        "not in the baseline",
    ),
    "a scene more": (lambda f: pd.concat([f, f.assign(scene="new")]), "not in the baseline"),
    "no number": (
        lambda f: f.assign(
            value=f["value"].where((f["method"] != "com") | (f["seed"] != 2), math.nan)
        ),
        "not a number",
    ),
    "infinity": (
        lambda f: f.assign(value=f["value"].where(f["metric"] != "rmse", math.inf)),
        "not a number",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_missing_unknown_or_no_number_is_red(change: str) -> None:
    edit, verdict = CHANGES[change]
    assert verdict in breaches(edit(RUN)).values()


def test_a_baseline_says_what_it_holds(tmp_path: Path) -> None:
    entry = BASELINE.entries["pair com w0.00_n100000 interior exx rmse"]
    values = scores()[
        lambda f: (
            (f.method == "com")
            & (f.region == "interior")
            & (f.quantity == "exx")
            & (f.metric == "rmse")
        )
    ]
    values = values[(values.background == 0) & (values.electrons == 1e5)].value
    assert entry.value == pytest.approx(values.median(), rel=1e-5)
    assert entry.spread == pytest.approx(values.std(), rel=1e-5)
    assert entry.tolerance == pytest.approx(max(0.6 * values.median(), 3 * values.std()), rel=1e-5)
    assert (entry.better, entry.gate) == ("lower", True)
    path = tmp_path / "baseline.yaml"
    baseline.write_baseline(path, BASELINE)
    assert baseline.read_baseline(path) == BASELINE


def test_the_difference_of_two_baselines_reads_well(tmp_path: Path) -> None:
    other = regress.make_baseline(
        scaled(scores(), 1.1, method="com", background=0.5, quantity="exy", region="interior"),
        {"python": "3.11"},
        ROLES,
    )
    lines = []
    for number, made in enumerate((BASELINE, other)):
        baseline.write_baseline(tmp_path / f"{number}.yaml", made)
        lines.append((tmp_path / f"{number}.yaml").read_text().splitlines())
    before, after = lines
    changed = [line for line in after if line not in before]
    assert len(before) == len(after)
    assert all(
        "com w0.50_n100000 interior exy" in line or "com noisy interior pooled" in line
        for line in changed
    )
    assert 1 <= len(changed) <= 4
    assert before[-1].startswith("  pair zero")


@pytest.mark.parametrize(("seeds", "better"), [(6, "lower"), (12, "same"), (24, "lower")])
def test_false_breaches_are_as_many_as_foretold(seeds: int, better: baseline.Better) -> None:
    """Entries of normal values: tolerances of three spreads told by few seeds, then runs of
    three."""
    draw, entries = np.random.default_rng(seeds), 400_000
    made, now = draw.normal(size=(entries, seeds)), np.median(draw.normal(size=(entries, 3)), 1)
    worse = now - np.median(made, 1)
    share = np.mean((np.abs(worse) if better == "same" else worse) > 3 * made.std(1, ddof=1))
    entry = baseline.BaselineEntry(value=0.0, spread=0.2, tolerance=0.6, better=better, gate=True)
    known = baseline.Baseline(environment={}, seeds=seeds, entries={"a": entry, "b": entry})
    assert baseline.false_breaches(known) / 2 == pytest.approx(share, rel=0.15)


def test_what_cannot_breach_by_chance_is_not_foretold_to() -> None:
    entry = baseline.BaselineEntry(value=1.0, spread=0.5, tolerance=0.1, better="same", gate=True)
    still = {
        "a": entry.model_copy(update={"gate": False}),
        "b": entry.model_copy(update={"spread": 0.0}),
        "c seed=1": entry,
    }
    assert baseline.false_breaches(baseline.Baseline(environment={}, seeds=12, entries=still)) == 0


def test_a_baseline_takes_seeds_enough_and_numbers() -> None:
    with pytest.raises(InputError, match="has 3 seeds; expected at least 6"):
        regress.make_baseline(RUN, {}, ROLES)
    with pytest.raises(InputError, match="expected finite numbers"):
        regress.make_baseline(scores().assign(value=math.nan), {}, ROLES)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with scores, provenance and a baseline."""
    scores().to_csv(tmp_path / "many.csv", index=False, na_rep="nan")
    RUN.to_csv(tmp_path / "metrics.csv", index=False, na_rep="nan")
    (tmp_path / "provenance.json").write_text(
        json.dumps({name: f"the {name}" for name in regress.ENVIRONMENT})
    )
    first = baseline.Baseline(roles=ROLES, environment={}, seeds=0, entries={})
    (tmp_path / "baseline.yaml").write_text(yaml.safe_dump(first.model_dump(mode="json")))
    regress.update(tmp_path / "many.csv", tmp_path / "baseline.yaml")
    return tmp_path


def ended(folder: Path, *words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(
        sys,
        "argv",
        ["ccstae", "regress", "--metrics", "metrics.csv", "--baseline", "baseline.yaml", *words],
    )
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_the_command_says_the_same_in_text_markdown_and_json(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = ("--markdown", "out.md", "--json", "out.json")
    assert ended(run, *outputs, monkeypatch=monkeypatch) == 0
    assert "as accurate as the baseline" in capsys.readouterr().out
    assert json.loads((run / "out.json").read_text())["passed"] is True
    scaled(RUN, 1.1, method="ccstae").to_csv(run / "metrics.csv", index=False, na_rep="nan")
    assert ended(run, *outputs, monkeypatch=monkeypatch) == 1
    text, markdown, data = (
        capsys.readouterr().out,
        (run / "out.md").read_text(),
        json.loads((run / "out.json").read_text()),
    )
    worst = "pair ccstae clean interior exx rmse"
    assert data["passed"] is False
    assert data["rows"][0]["breach"] is True
    assert next(row for row in data["rows"] if row["metric"] == worst)["change"] == "+10.0 %"
    for said in (text, markdown):
        line = next(line for line in said.splitlines() if worst in line)
        assert all(part in line for part in ("0.00012", "0.000132", "+10.0 %", "6e-06", "worse"))
        assert data["conclusion"] in said
    assert all(len(line) <= 200 for line in text.splitlines())


def test_a_baseline_is_written_when_asked_and_never_else(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (run / "baseline.yaml").read_text()
    scaled(scores(), 1.2).to_csv(run / "metrics.csv", index=False, na_rep="nan")
    assert ended(run, monkeypatch=monkeypatch) == 1
    assert (run / "baseline.yaml").read_text() == before
    assert ended(run, "--update", monkeypatch=monkeypatch) == 0
    after = yaml.safe_load((run / "baseline.yaml").read_text())
    assert after["environment"]["cpu"] == "the cpu"
    assert after["seeds"] == len(SEEDS)
    assert after["roles"] == ROLES.model_dump(mode="json")
    assert ended(run, monkeypatch=monkeypatch) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entries: [", "not valid YAML"),
        (
            "environment: {}\nseeds: 2\nentries: {a b: {value: .nan, spread: 0, tolerance: 1, "
            "better: lower, gate: true}}",
            "entries.a b.value",
        ),
        (
            "environment: {}\nseeds: 2\nentries: {a b: {value: 1, spread: -1, tolerance: 1, "
            "better: lower, gate: true}}",
            "entries.a b.spread",
        ),
        (
            "environment: {}\nseeds: 2\nentries: {a b: {value: 1, spread: 0, tolerance: 1, better: "
            "more, gate: true}}",
            "entries.a b.better",
        ),
        ("environment: {}\nentries: {}", "seeds"),
    ],
)
def test_an_unfit_baseline_is_named(
    text: str,
    message: str,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (run / "baseline.yaml").write_text(text)
    assert ended(run, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "baseline.yaml" in said
    assert said.count("\n") == 1
