"""Errors as the published work counts them, against closed forms."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ccstae import geometry
from ccstae.config.levels import Level
from ccstae.errors import InputError
from ccstae.evaluation import published
from ccstae.evaluation.metrics import compare
from ccstae.io.truth import Truth

NOISY = Level(background=0.5, electrons=1e5)
SIGMA = np.array([1e-3, 2e-3, 5e-4, 1e-3])
SHAPE = (120, 120)


def grains(off_levels: float = 0.0) -> Truth:
    """Four grains in quarters, the first without strain, turned by up to 55 degrees; the last row
    is a boundary, off the levels.
    """
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]]
    grain = 2 * (row >= SHAPE[0] // 2) + (column >= SHAPE[1] // 2)
    exx, eyy = np.array([0, 0.02, -0.01, 0.0])[grain], np.array([0, 0.01, 0.0, -0.02])[grain]
    exy, theta = np.array([0, 0, 0.01, -0.01])[grain], np.deg2rad([0.0, 55, 20, 40])[grain]
    exx = exx + np.where(row == SHAPE[0] - 1, off_levels, 0)
    F = geometry.deformation(exx, eyy, exy, theta)
    region = np.where(row == SHAPE[0] - 1, 2, 1).astype(np.int8)
    return Truth(
        F=F,
        F_probe=F,
        label=np.ones(SHAPE, np.int8),
        region=region,
        regions=("background", "interior", "interface"),
        reference=grain == 0,
        symmetry=6,
        bound={NOISY.name: np.broadcast_to(SIGMA, (*SHAPE, 4))},
    )


def answered(truth: Truth, shrunk: float = 1.0, noise: float = 1.0) -> np.ndarray:
    """The truth shrunk towards no strain, with normal errors of so many bounds."""
    parts = geometry.components(truth.F)
    parts[..., :3] *= shrunk
    error = np.random.default_rng(1).normal(size=parts.shape) * SIGMA * noise
    error[truth.reference] = 0
    return geometry.deformation(*np.moveaxis(parts + error, -1, 0))


def numbers(truth: Truth, F: np.ndarray, level: Level = NOISY) -> dict[tuple[str, ...], float]:
    return {
        key: value
        for *key_, value in published.measured(truth, level, compare(truth, F))
        for key in [tuple(key_)]
    }


def test_the_mean_absolute_error_of_a_normal_law_is_the_bound_of_an_efficient_method() -> None:
    truth = grains()
    found = numbers(truth, answered(truth))
    share = 0.75  # of the positions have errors; the reference has none
    for c, quantity in enumerate(geometry.COMPONENTS):
        expected = math.sqrt(2 / math.pi) * SIGMA[c]
        assert found["all", quantity, "bound"] == pytest.approx(expected, rel=1e-12)
        assert found["all", quantity, "mae"] == pytest.approx(share * expected, rel=0.03)
        assert abs(found["all", quantity, "bias"]) < 4 * SIGMA[c] / 100
    assert found["all", "exx", "positions"] == SHAPE[0] * SHAPE[1]
    assert found["all", "exx", "slope"] == pytest.approx(1, abs=0.01)


def test_shrunken_answers_show_as_such() -> None:
    truth = grains()
    found = numbers(truth, answered(truth, shrunk=0.6, noise=0))
    for quantity in ("exx", "eyy", "exy"):
        assert found["all", quantity, "slope"] == pytest.approx(0.6, abs=1e-9)
        assert found["unstrained", quantity, "mae"] == pytest.approx(0, abs=1e-9)
        assert found["all", quantity, "unshrunk_mae"] == pytest.approx(0, abs=1e-9)
    # Two grains of 2 % and 1 %, each shown to 60 %.
    assert found["strained", "exx", "mae"] == pytest.approx(0.4 * 0.015, rel=1e-9)
    assert found["strained", "exx", "bias"] == pytest.approx(-0.4 * 0.005, rel=1e-9)
    assert ("all", "theta", "slope") not in found


def test_a_prior_explains_the_gain_of_a_shrunken_answer_and_none_of_a_pooled_one() -> None:
    truth = grains()
    pooled = numbers(truth, answered(truth, noise=0.5))
    mae, unshrunk, bound = (pooled["all", "exx", m] for m in ("mae", "unshrunk_mae", "bound"))
    assert mae < 0.5 * bound
    assert published.prior_share(mae, unshrunk, bound) < 0.02
    # A pure shrinkage of normal errors: stretched again, they are those of the bound.
    normal = np.random.default_rng(2).normal(size=200_000) * 1e-3
    truth_1 = np.zeros(200_000) + np.repeat([-1e-4, 1e-4], 100_000)
    answer = 0.5 * (truth_1 + normal)
    mae = float(np.abs(answer - truth_1).mean())
    stretched = published.unshrunk_mae(truth_1, answer, 0.5)
    assert stretched == pytest.approx(math.sqrt(2 / math.pi) * 1e-3, rel=0.01)
    assert published.prior_share(mae, stretched, stretched) == 1
    assert math.isnan(published.prior_share(1.0, 1.0, 0.9))


def test_rotations_are_compared_modulo_sixty_degrees_and_as_published() -> None:
    truth = grains()
    turned = truth.F @ geometry.rotation_matrix(np.deg2rad(60) * (np.indices(SHAPE)[0] % 3))
    found = numbers(truth, turned)
    assert found["all", "theta", "mae"] == pytest.approx(0, abs=1e-9)
    # All grains lie within one period, in which every answer is reported.
    assert found["all", published.AS_PUBLISHED, "mae"] == pytest.approx(0, abs=1e-9)
    # A truth that lies outside it, as between grains, is missed by the period.
    parts = geometry.components(truth.F)
    between = parts.copy()
    between[-1, :, 3], between[-1, :, 0] = np.deg2rad(-20), 0.005
    F = geometry.deformation(*np.moveaxis(between, -1, 0))
    beyond = Truth(**{**vars(truth), "F": F, "F_probe": F})
    found = numbers(beyond, F)
    assert found["all", "theta", "mae"] == pytest.approx(0, abs=1e-9)
    assert found["all", published.AS_PUBLISHED, "mae"] == pytest.approx(
        np.deg2rad(60) / SHAPE[0], rel=1e-6
    )
    assert found["on levels", published.AS_PUBLISHED, "mae"] == pytest.approx(0, abs=1e-9)


def test_positions_are_told_apart() -> None:
    truth = grains(off_levels=0.0005)
    found = numbers(truth, truth.F)
    total, row = SHAPE[0] * SHAPE[1], SHAPE[1]
    assert found["on levels", "exx", "positions"] == total - row
    assert found["interior", "exx", "positions"] == total - row
    assert found["boundary", "exx", "positions"] == row
    assert found["strained", "exx", "positions"] == total / 2 - row / 2
    assert found["unstrained", "exx", "positions"] == total / 2 - row / 2


def test_without_noise_the_bound_is_zero() -> None:
    truth = grains()
    found = numbers(truth, truth.F, Level(background=0, electrons=math.inf))
    assert found["all", "exx", "bound"] == 0


def test_the_published_errors_are_those_of_the_figures() -> None:
    errors = published.read_errors(Path("config/published/cc-st-ae.csv"))
    assert len(errors) == 26
    row = errors[(errors["method"] == "published CC-ST-AE") & (errors["background"] == 0.7)]
    assert row[["exx", "eyy", "exy", "rotation_deg"]].to_numpy().tolist() == [
        [0.0022, 0.0026, 0.0021, 0.936]
    ]
    assert np.isinf(errors["electrons"][errors["background"] == 0]).all()
    assert (errors["electrons"][errors["background"] > 0] == 1e5).all()


def test_files_that_are_no_such_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        published.read_errors(tmp_path / "none.csv")
    pd.DataFrame({"a": [1]}).to_csv(tmp_path / "other.csv", index=False)
    with pytest.raises(InputError, match="columns are a; expected background"):
        published.read_errors(tmp_path / "other.csv")
    assert published.read(tmp_path / "none.csv").empty
