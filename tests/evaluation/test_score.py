"""Scores against values computed by hand."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_run import LIMIT, SHAPE, made_map, made_truth, noisy

from ccstae import geometry
from ccstae.config.levels import Level
from ccstae.config.run import load
from ccstae.errors import InputError
from ccstae.evaluation import score
from ccstae.evaluation.metrics import component_metrics, label_accuracy, regions, score_map
from ccstae.evaluation.resolution import gain
from ccstae.io import layout
from ccstae.io.maps import Map, read_map, write_map
from ccstae.io.scores import COLUMNS, read_scores
from ccstae.io.truth import DislocationLines, Truth, read_truth, write_truth

NOISY = Level(background=0.25, electrons=1e5)
CLEAN = Level(background=0, electrons=math.inf)


def scores(truth: Truth, answer: Map, level: Level = NOISY) -> dict[tuple[str, str, str], float]:
    return {row[:3]: row[3] for row in score_map(truth, level, answer)}


def shifted(truth: Truth, component: int, error: np.ndarray | float) -> np.ndarray:
    """The truth with an error in one component everywhere but in the reference region."""
    parts = geometry.components(truth.F_probe)
    parts[..., component] += np.where(truth.reference, 0, error)
    return geometry.deformation(*np.moveaxis(parts, -1, 0))


def test_the_truth_scores_zero_error():
    truth = made_truth()
    found = scores(truth, made_map("x", truth.F_probe))
    assert (
        max(
            abs(v)
            for (_, q, m), v in found.items()
            if m in ("bias", "mae", "rmse", "p95", "robust_std")
        )
        < 1e-12
    )
    assert found["all", "all", "failure_rate"] == 0


@pytest.mark.parametrize("component", range(4))
def test_a_constant_error_gives_its_metrics_in_one_component_alone(component: int):
    truth = made_truth()
    truth = replace(truth, reference=truth.reference & (np.arange(SHAPE[1]) < 1))
    found = scores(truth, made_map("x", shifted(truth, component, -3e-3)))
    name = geometry.COMPONENTS[component]
    assert found["interface", name, "bias"] == pytest.approx(-3e-3, rel=1e-9)
    for metric in ("mae", "rmse", "p95"):
        assert found["interface", name, metric] == pytest.approx(3e-3, rel=1e-9)
    assert found["interface", name, "robust_std"] == pytest.approx(0, abs=1e-12)
    assert found["interface", name, "limit"] == pytest.approx(LIMIT[component])
    assert found["interface", name, "rmse_over_limit"] == pytest.approx(
        3e-3 / LIMIT[component], rel=1e-9
    )
    others = [found["interface", other, "rmse"] for other in geometry.COMPONENTS if other != name]
    assert max(others) < 1e-12


def test_metrics_of_a_component_by_hand():
    error = np.array([1.0, -1.0, 3.0, 5.0])
    limit = np.array([1.0, 1.0, 2.0, 2.0])
    found = component_metrics(error, limit, np.array([1.0, 0.5, 2.0, np.nan]))
    assert found["bias"] == 2
    assert found["mae"] == 2.5
    assert found["rmse"] == 3
    assert found["p95"] == pytest.approx(
        4.7
    )  # linear between the third (3) and the fourth (5) of 4: position 2.85
    assert found["robust_std"] == pytest.approx(
        1.482602218505602 * 2
    )  # median 2, deviations 1, 3, 1, 3
    assert found["limit"] == pytest.approx(math.sqrt(2.5))
    assert found["rmse_over_limit"] == pytest.approx(3 / math.sqrt(2.5))
    assert found["limit_ratio"] == pytest.approx(
        1.482602218505602 * 0.75
    )  # 1, -1, 1.5, 2.5: median 1.25, deviations .25 2.25 .25 1.25
    assert (
        found["coverage95"] == 0.5
    )  # 1 and 1.5 deviations are covered, 2 deviations and no answer are not


def test_limit_ratio_is_one_for_an_efficient_method_whatever_the_spread_of_the_bound():
    rng = np.random.default_rng(0)
    limit = rng.uniform(1e-4, 5e-3, 100_000)
    found = component_metrics(rng.normal(size=limit.size) * limit, limit, None)
    assert found["limit_ratio"] == pytest.approx(1, abs=0.01)
    assert found["rmse_over_limit"] == pytest.approx(1, abs=0.01)


def test_no_answer_counts_with_the_error_of_no_strain():
    truth = made_truth()
    inside = regions(truth)["interior"] & ~truth.reference
    failed = np.zeros(SHAPE, bool)
    rows, columns = np.nonzero(inside)
    failed[rows[::7], columns[::7]] = True
    F = shifted(truth, 0, 1e-3)
    F[failed] = np.nan
    found = scores(truth, made_map("x", F))
    interior = regions(truth)["interior"]
    strain = geometry.components(truth.F_probe)[..., 0]
    error = np.where(failed, -strain, np.where(truth.reference, 0, 1e-3))[interior]
    assert found["interior", "all", "failure_rate"] == pytest.approx(failed.sum() / interior.sum())
    assert found["interior", "exx", "rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-9)
    assert found["interior", "exx", "bias"] == pytest.approx(error.mean(), rel=1e-9)
    assert found["interior", "exx", "mae"] == pytest.approx(np.abs(error).mean(), rel=1e-9)


def test_a_method_that_gives_up_everywhere_scores_as_zero():
    truth = made_truth()
    nothing = scores(truth, made_map("x", np.full((*SHAPE, 2, 2), np.nan)))
    control = scores(truth, made_map("zero", np.broadcast_to(np.eye(2), (*SHAPE, 2, 2))))
    assert nothing["all", "all", "failure_rate"] == 1
    assert control["all", "all", "failure_rate"] == 0
    # What a map tells of itself needs an answer.
    same = [key for key in control if key[2] not in ("failure_rate", "self_precision")]
    assert {k: nothing[k] for k in same} == pytest.approx(
        {k: control[k] for k in same}, nan_ok=True
    )


def test_vacuum_enters_nothing():
    truth = made_truth()
    F = truth.F_probe.copy()
    F[truth.label == 0] = np.nan
    found = scores(truth, made_map("x", F))
    assert found["all", "all", "failure_rate"] == 0
    assert found["all", "exx", "rmse"] < 1e-12
    assert {region for region, _, _ in found} == {"interior", "interface", "edge", "all"}


def test_an_error_at_the_interface_stays_out_of_the_interior():
    truth = made_truth()
    F = truth.F_probe.copy()
    F[:, 7:9] = F[:, 7:9] @ geometry.deformation(0.02, 0, 0, 0)
    found = scores(truth, made_map("x", F))
    assert found["interior", "exx", "rmse"] < 1e-12
    assert found["interface", "exx", "rmse"] == pytest.approx(0.02, rel=0.05)
    assert 0 < found["all", "exx", "rmse"] < found["interface", "exx", "rmse"]


@pytest.mark.parametrize("turn_deg", [0, 17, 30, -60, 143])
def test_gauge_and_symmetry_do_not_matter(turn_deg: float):
    """A common stretch and turn of the reference frame, and turns of single answers by 60 degrees,
    change no score.
    """
    truth = made_truth()
    F = noisy(truth, np.array(LIMIT), seed=3)
    before = scores(truth, made_map("x", F))
    k = np.random.default_rng(0).integers(-3, 4, SHAPE)
    own = (
        F @ geometry.rotation_matrix(np.deg2rad(turn_deg)) @ geometry.rotation_matrix(k * np.pi / 3)
    )
    after = scores(truth, made_map("x", own))
    assert after == pytest.approx(before, rel=1e-6, abs=1e-9)
    stretched = scores(truth, made_map("x", F @ geometry.deformation(0.01, -0.02, 0.005, 0.1)))
    assert stretched == pytest.approx(before, rel=1e-6, abs=1e-9)


def test_rotation_errors_are_wrapped():
    truth = made_truth()
    F = shifted(truth, 3, np.deg2rad(59))
    found = scores(truth, made_map("x", F))
    assert found["edge", "theta", "p95"] == pytest.approx(np.deg2rad(1), rel=1e-6)
    assert found["edge", "exx", "rmse"] < 1e-12


def test_labels_are_matched_by_the_best_naming():
    truth = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, -1])
    found = np.array([5, 5, 2, 0, 0, 0, 2, 2, 2, 0])
    assert label_accuracy(truth, found) == pytest.approx(
        7 / 9
    )  # 5 is vacuum, 0 and 2 the materials; the mixed one is out
    one_class = label_accuracy(truth, np.zeros(10, int))
    assert one_class == pytest.approx(4 / 9)  # one class can name one truth only
    many = label_accuracy(truth, np.arange(10))
    assert many == pytest.approx(3 / 9)


def test_labels_tell_specimen_from_vacuum_and_materials_apart():
    truth = made_truth()
    label = np.where(truth.label == 1, 2, 0).astype(
        np.int8
    )  # another name for the only material found
    found = scores(truth, replace(made_map("x", truth.F_probe), label=label))
    unmixed = truth.label >= 0
    assert found["all", "label", "sample_accuracy"] == pytest.approx(
        ((truth.label > 0) == (truth.label == 1))[unmixed].mean()
    )
    assert set(truth.label[truth.label > 0]) <= {1, 2}
    assert found["all", "label", "material_accuracy"] == 1  # two materials, told apart


def test_noise_free_level_has_no_ratios():
    truth = made_truth()
    found = scores(truth, made_map("x", truth.F_probe, covariance=np.zeros((*SHAPE, 4, 4))), CLEAN)
    assert found["interior", "exx", "limit"] == 0
    assert all(
        math.isnan(found["interior", "exx", m])
        for m in ("limit_ratio", "rmse_over_limit", "coverage95")
    )


def test_confident_wrong_answers_by_hand():
    """One position is off by 6 stated deviations in one component; one has no answer."""
    truth = made_truth()
    deviation = 1e-4
    interior = np.argwhere((truth.region == 1) & ~truth.reference & (truth.label != 0))
    components = geometry.components(truth.F_probe)
    components[tuple(interior[0])][1] += 6 * deviation
    components[tuple(interior[1])][1] += 4 * deviation
    F = geometry.deformation(*np.moveaxis(components, -1, 0))
    F[tuple(interior[2])] = np.nan
    covariance = np.broadcast_to(deviation**2 * np.eye(4), (*SHAPE, 4, 4))
    found = scores(truth, made_map("x", F, covariance=covariance))
    count = ((truth.region == 1) & (truth.label != 0)).sum()
    assert found["interior", "all", "confident_wrong"] == pytest.approx(1 / count)
    silent = scores(truth, made_map("x", F))
    assert ("interior", "all", "confident_wrong") not in silent


def test_what_neighbours_alone_answer_is_scored_apart():
    """One position lacks an answer of its own, and its neighbours' is off by two bounds."""
    truth = made_truth()
    sample = truth.label != 0
    at = tuple(np.argwhere(sample & ~truth.reference)[0])
    own = truth.F_probe.copy()
    own[at] = np.nan
    expected = geometry.components(truth.F_probe[at])
    pooled = truth.F_probe.copy()
    pooled[at] = geometry.deformation(*(expected + 2 * truth.bound[NOISY.name][at]))
    found = scores(truth, replace(made_map("x", pooled), F_per_pattern=own))
    assert found["all", "all", "filled_rate"] == pytest.approx(1 / sample.sum())
    assert found["all", "all", "filled_rmse_over_limit"] == pytest.approx(2, rel=1e-3)
    assert found["all", "all", "failure_rate"] == 0
    assert ("all", "all", "filled_rate") not in scores(truth, made_map("x", pooled))


def test_coverage_of_an_honest_covariance(run_dir: Path):
    table = read_scores(run_dir / "metrics.csv")
    chosen = table[
        (table.metric == "coverage95") & (table.region == "all") & np.isfinite(table.electrons)
    ]
    assert set(chosen.method) == {"ccstae"}
    assert chosen.value.mean() == pytest.approx(
        0.95, abs=0.03
    )  # reference positions without error included


def test_the_table_of_a_run(run_dir: Path):
    table = read_scores(run_dir / "metrics.csv")
    assert not table.duplicated(list(COLUMNS[:-1])).any()
    assert set(table.metric) >= {
        "bias",
        "mae",
        "rmse",
        "robust_std",
        "p95",
        "failure_rate",
        "limit_ratio",
        "rmse_over_limit",
    }
    only_limits = table[~np.isfinite(table.value)]
    assert set(only_limits.metric) == {"limit_ratio", "rmse_over_limit", "coverage95"}
    assert set(only_limits.electrons) == {math.inf}
    cost = table[
        (table.method == "com")
        & (table.quantity == "all")
        & (table.seed == 2)
        & (table.electrons == 1e4)
    ]
    values = cost.set_index(["region", "metric"]).value
    assert values["all", "seconds"] == 2
    assert values["all", "patterns_per_second"] == SHAPE[0] * SHAPE[1] / 2
    assert values["all", "peak_memory_bytes"] == 3e6
    assert values["interior", "failure_rate"] == pytest.approx(
        3 / regions(made_truth())["interior"].sum()
    )
    labels = table[(table.quantity == "label") & (table.method == "ccstae")]
    assert (labels.value == 1).all()


def test_scoring_twice_gives_the_same_bytes(run_dir: Path, tmp_path: Path):
    made = load(run_dir / "config.resolved.yaml")
    score.write(made, run_dir, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (run_dir / "metrics.csv").read_bytes()


def test_a_missing_map_is_named(tmp_path: Path, make_run):
    made = make_run(tmp_path)
    path = layout.map_path(tmp_path, "pair", NOISY.name, 2, "template")
    path.unlink()
    with pytest.raises(InputError, match=re.escape(f"{NOISY.name}.2/template.h5: no such file")):
        score.write(made, tmp_path, tmp_path / "metrics.csv")
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize(
    ("name", "value"), [("seconds", float("nan")), ("seconds", "soon"), ("peak_memory_bytes", -1)]
)
def test_unfit_cost_is_named(tmp_path: Path, make_run, name: str, value: object):
    made = make_run(tmp_path)
    path = layout.map_path(tmp_path, "pair", NOISY.name, 1, "zero")
    answer = read_map(path)
    write_map(path, replace(answer, attributes={**answer.attributes, name: value}))
    with pytest.raises(
        InputError, match=f"zero.h5: attribute {name} is .*; expected a finite number"
    ):
        score.write(made, tmp_path, tmp_path / "metrics.csv")


def test_a_truth_without_the_levels_limit_is_named(tmp_path: Path, make_run):
    made = make_run(tmp_path)
    write_truth(layout.truth_path(tmp_path, "pair"), replace(made_truth(), bound={}))
    with pytest.raises(
        InputError,
        match=re.escape(f"pair.truth.h5: /limit/{made.levels[1].name} is missing or unfit"),
    ):
        score.write(made, tmp_path, tmp_path / "metrics.csv")


def test_reading_keeps_ids_as_text(tmp_path: Path):
    row = ["pair", "null", 0, "inf", 1, "NA", "exx", "rmse", 1e-4]
    pd.DataFrame([row], columns=list(COLUMNS)).to_csv(tmp_path / "m.csv", index=False)
    table = read_scores(tmp_path / "m.csv")
    assert (table.method[0], table.region[0], table.electrons[0]) == ("null", "NA", math.inf)


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", ",".join(COLUMNS) + "\npair,zero\n1,2,3,4,5,6,7,8,9,10,11\n"]
)
def test_an_unfit_table_is_named(tmp_path: Path, text: str):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=r"m\.csv"):
        read_scores(tmp_path / "m.csv")


def test_gain_is_the_slope_whatever_offset_and_noise():
    rng = np.random.default_rng(0)
    truth, limit = rng.normal(size=(50_000, 2)) * [1e-2, 2e-3], np.full((50_000, 2), [5e-3, 2e-3])
    answer = truth * [0.8, 1.1] + [3e-3, -0.1] + rng.normal(size=truth.shape) * limit
    assert gain(truth[:, :1], answer[:, :1], limit[:, :1]) == pytest.approx(0.8, abs=0.01)
    assert gain(truth[:, 1:], answer[:, 1:], limit[:, 1:]) == pytest.approx(1.1, abs=0.02)
    # Weights are squares of truth over bound: 2^2 and 1.
    assert gain(truth, answer, limit) == pytest.approx((4 * 0.8 + 1.1) / 5, abs=0.01)
    assert gain(truth, 0.5 * truth, None) == pytest.approx(0.5)
    assert gain(np.full((9, 1), 0.01), truth[:9, :1], None) is None


def test_gain_of_a_map_that_halves_the_strain():
    truth = made_truth()
    found = scores(
        truth,
        made_map(
            "x", geometry.deformation(*np.moveaxis(0.5 * geometry.components(truth.F_probe), -1, 0))
        ),
    )
    gains = [value for (_, _, metric), value in found.items() if metric == "gain"]
    assert len(gains) == 5 * 4
    np.testing.assert_allclose(gains, 0.5, rtol=0.02)


def test_dislocations_are_scored_where_circuits_must_close():
    truth = made_truth()
    assert not any("core" in metric for _, _, metric in scores(truth, made_map("x", truth.F_probe)))
    b = 3.153
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    r2 = ((x - 6.4) ** 2 + (y - 4.3) ** 2) * 32
    slope = np.zeros((*SHAPE, 2, 2))  # the gradient of an angle times b
    slope[..., 0, 0], slope[..., 0, 1] = -(y - 4.3) / r2, (x - 6.4) / r2
    F = np.linalg.inv(np.eye(2) + b / (2 * np.pi) * slope)
    lattice = b * np.array([[1, -0.5], [0, np.sqrt(0.75)]])
    lines = DislocationLines(np.array([(6.4, 4.3)]), np.array([(b, 0.0)]), lattice, 32.0)
    truth = replace(truth, F_probe=F, dislocations=lines)
    seen = {
        metric: value
        for (_, _, metric), value in scores(truth, made_map("x", F)).items()
        if "core" in metric or "burgers" in metric
    }
    assert seen.pop("core_error") < 0.3
    assert seen == {"cores_found": 1, "burgers_right": 1, "cores_false": 0}
    blind = scores(truth, made_map("x", np.broadcast_to(np.eye(2), (*SHAPE, 2, 2))))
    assert (blind["all", "all", "cores_found"], blind["all", "all", "cores_false"]) == (0, 0)


def test_dislocations_of_a_truth_file_are_read_as_written(tmp_path: Path):
    for count in (0, 2):
        lines = DislocationLines(
            np.arange(2.0 * count).reshape(-1, 2), np.ones((count, 2)), 3 * np.eye(2), 20.0
        )
        write_truth(tmp_path / "t.h5", replace(made_truth(), dislocations=lines))
        read = read_truth(tmp_path / "t.h5").dislocations
        assert read is not None
        assert read.position.shape == (count, 2)
        np.testing.assert_array_equal(read.position, lines.position)
        assert read.step_A == 20
    write_truth(tmp_path / "t.h5", made_truth())
    assert read_truth(tmp_path / "t.h5").dislocations is None
