"""Positive controls: the truth has no error, and noise-free shapes attain the bound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_run import drawn_counts

from ccstae.config.run import Config, dump, parse
from ccstae.errors import InputError
from ccstae.evaluation import controls
from ccstae.evaluation.metrics import compare, score_map
from ccstae.io import layout
from ccstae.io.maps import read_map
from ccstae.io.truth import Truth, read_truth
from ccstae.pipeline import stages
from ccstae.reporting import display
from ccstae.simulation.noise import expectation


@pytest.fixture(scope="module")
def config() -> Config:
    return parse(
        {
            "name": "made",
            "device": "cpu",
            "microscope": {"pixel_size_inv_A": 0.0135, "detector_px": 96},
            "scenes": {
                "one": {
                    "kind": "heterostructure",
                    "materials": ["WS2", "WSe2"],
                    "scan": {"shape": [6, 6], "step_A": 80},
                    "interface_A": 90,
                    "interface_width_A": 90,
                    "edge_offset_A": 180,
                    "reference_A": [-250, -250, -150, 80],
                }
            },
            "noise": {"one": {"background": 0.25, "electrons": 1e5}},
            "methods": {"zero": {}, "oracle": {}, "shape": {"method": "oracle-shape"}},
        }
    )


@pytest.fixture(scope="module")
def run_dir(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "made"
    drawn_counts(config, "one", folder)
    return folder


def made(config: Config, run_dir: Path, row: str) -> tuple[Truth, Path]:
    level = config.levels[0].name
    path = layout.map_path(run_dir, "one", level, 1, row)
    controls.write(
        stages.narrow(config, "control", scene="one", level=level, seed=1, method=row),
        row,
        "one",
        level,
        layout.counts_path(run_dir, "one", level, 1),
        layout.scene_path(run_dir, "one"),
        layout.truth_path(run_dir, "one"),
        path,
    )
    return read_truth(layout.truth_path(run_dir, "one")), path


def test_the_truth_has_no_error_at_all(config: Config, run_dir: Path) -> None:
    truth, path = made(config, run_dir, "oracle")
    scores = list(score_map(truth, config.levels[0], read_map(path)))
    errors = {value for *_, metric, value in scores if metric in ("bias", "mae", "rmse", "p95")}
    assert errors == {0.0}
    gains = [value for *_, metric, value in scores if metric == "gain"]
    assert gains == pytest.approx([1.0] * len(gains), abs=1e-12)
    accuracies = [value for *_, metric, value in scores if metric.endswith("accuracy")]
    assert accuracies == [1.0] * len(accuracies)


def test_known_shapes_come_near_the_bound(config: Config, run_dir: Path) -> None:
    truth, path = made(config, run_dir, "shape")
    answer = read_map(path)
    assert answer.attributes["method"] == "shape"
    level = config.levels[0].name
    interior = truth.region == truth.regions.index("interior")
    over_bound = (compare(truth, answer.F).error / truth.bound[level])[interior]
    assert 0.7 < np.sqrt((over_bound**2).mean()) < 1.5


def test_expected_counts_are_the_patterns_before_noise(config: Config, run_dir: Path) -> None:
    level = config.levels[0]
    expected = controls.expected_counts(config, "one", level, layout.scene_path(run_dir, "one"))
    from ccstae.io.scene import read_patterns

    pattern, _ = read_patterns(layout.scene_path(run_dir, "one"), [(2, 3)])
    scaled = expected[2, 3] * (level.electrons / expected[2, 3].sum(dtype=float))
    np.testing.assert_allclose(scaled, expectation(pattern[0], level), rtol=1e-3, atol=1e-3)


def test_controls_are_told_apart(config: Config, run_dir: Path) -> None:
    assert display.controls(config) == {"zero", "oracle", "shape"}
    assert display.control_note(config).startswith(" `oracle` and `shape` are controls")
    with pytest.raises(InputError, match="unknown positive control 'zero'"):
        made(config, run_dir, "zero")
    with pytest.raises(InputError, match=r"methods\.oracle: is a positive control"):
        parse({**config.model_dump(mode="json"), "methods": {"oracle": {"tune": True}}})
    assert dump(parse(config.model_dump(mode="json")))
