"""Tuning: the search, what it looks at, and the file it leaves for the map."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from synthetic import Model, random_deformations

from ccstae import cli, geometry
from ccstae.config.levels import Level
from ccstae.config.run import Config, dump, parse
from ccstae.errors import InputError
from ccstae.evaluation import tuning
from ccstae.evaluation.metrics import compare
from ccstae.io import layout, tuned
from ccstae.io.counts import write_counts
from ccstae.io.maps import Map, read_map, write_map
from ccstae.io.truth import Truth, read_truth, write_truth
from ccstae.methods import run
from ccstae.pipeline import stages

MODEL = Model()
LEVEL = Level(background=0.25, electrons=1e5)


def configured(**methods: Any) -> Config:
    scene = {"kind": "uniform", "materials": ["WS2"], "scan": {"shape": [6, 6]}}
    return parse(
        {
            "name": "made",
            "device": "cpu",
            "materials": {"WS2": {"prototype": "mx2-2h", "species": ["W", "S"], "a_A": 3.153}},
            "scenes": {"shown": scene, "other": {**scene, "tune": True}},
            "noise": {"one": {"background": LEVEL.background, "electrons": LEVEL.electrons}},
            "seeds": {"test": [1], "tune": [101, 102]},
            "methods": methods,
        }
    )


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Truth and counts of the tuning scene alone: whoever looks at the scored scene finds
    nothing."""
    folder = tmp_path_factory.mktemp("results") / "made"
    F = random_deformations((6, 6), strain=0.01, rotation=0.01)
    F[0] = np.eye(2)
    reference = np.zeros((6, 6), bool)
    reference[0] = True
    limit = {
        LEVEL.name: np.broadcast_to(
            MODEL.limit(np.eye(2), LEVEL.electrons, LEVEL.background), (6, 6, 4)
        )
    }
    label = np.ones((6, 6), np.int8)
    names = ("background", "interior")
    write_truth(
        layout.truth_path(folder, "other"),
        Truth(F, F, label, label, names, reference, 6, limit),
    )
    for seed in (101, 102):
        made = MODEL.counts(F, LEVEL.electrons, LEVEL.background, seed=seed)
        path = folder / "counts" / "other" / f"{LEVEL.name}.{seed}.h5"
        write_counts(path, made.counts, made.counts.shape, made.calibration, made.probe)
    return folder


def test_the_search_finds_the_best_of_settings_that_stand_alone() -> None:
    seen = []

    def cost(settings: dict[str, Any], least: np.ndarray | None) -> np.ndarray:
        seen.append(settings)
        return np.full(2, (settings["a"] - 2) ** 2 + abs(settings["b"] - 3) + settings["kept"])

    assert tuning.search({"a": 0, "b": 0, "kept": 1}, {"a": [0, 1, 2, 4], "b": [3, 5]}, cost) == {
        "a": 2,
        "b": 3,
        "kept": 1,
    }
    assert all(settings["kept"] == 1 for settings in seen)


def test_the_search_goes_round_again_where_settings_depend_on_each_other() -> None:
    def cost(settings: dict[str, Any], least: np.ndarray | None) -> np.ndarray:
        return np.full(
            2, {(0, 0): 3, (1, 0): 4, (0, 1): 2, (1, 1): 1}[settings["a"], settings["b"]]
        )

    assert tuning.search({"a": 0, "b": 0}, {"a": [0, 1], "b": [0, 1]}, cost) == {"a": 1, "b": 1}


def test_what_one_draw_of_the_noise_favours_is_not_taken_for_better() -> None:
    """Of 100 candidates as good as the first, fewer than one in ten pass for better (1 in 44 by the
    normal law); a better one does.
    """
    draw = np.random.default_rng(0)
    first = draw.chisquare(4, 200)
    alike = [first + draw.normal(0, 1, 200) for _ in range(100)]
    assert sum(tuning.better(one, first) for one in alike) < 10
    assert sum(one.mean() < first.mean() for one in alike) > 30
    assert tuning.better(first - 0.3 + draw.normal(0, 1, 200), first)
    assert tuning.search(
        {"a": 0}, {"a": [1]}, lambda settings, least: (first, alike[0])[settings["a"]]
    )["a"] == tuning.better(alike[0], first)


def test_a_candidate_that_is_worse_on_the_first_draw_is_not_run_on_the_others(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = configured(mine={"method": "com"})
    seen = []
    write = run.write

    def counted(config: Config, method: str, counts: Path, out: Path, options: run.Options) -> None:
        seen.append(counts.stem)
        write(config, method, counts, out, options)

    monkeypatch.setattr(run, "write", counted)
    good, _ = tuning.squares(made, "mine", LEVEL, run_dir)
    assert seen == [f"{LEVEL.name}.101", f"{LEVEL.name}.102"]
    seen.clear()
    poor, _ = tuning.squares(
        made.with_settings("mine", {"threshold": 0.8}), "mine", LEVEL, run_dir, good
    )
    assert seen == [f"{LEVEL.name}.101"]
    assert len(poor) == len(good) / 2
    whole, _ = tuning.squares(
        made.with_settings("mine", {"threshold": 0.8}), "mine", LEVEL, run_dir
    )
    np.testing.assert_array_equal(whole[: len(poor)], poor)
    assert tuning.better(good, whole)


def test_tuning_leaves_the_best_settings_for_the_map(run_dir: Path, tmp_path: Path) -> None:
    """A threshold that keeps a few bright pixels of each disk is what the search must leave."""
    made = configured(
        mine={"method": "com", "settings": {"threshold": 0.8}, "tune": {"threshold": [0.8, 0.0]}}
    )
    tuning.write(made, "mine", LEVEL.name, run_dir, tmp_path / "chosen.yaml")
    chosen = tuned.read_tuned(tmp_path / "chosen.yaml")
    assert chosen.settings["threshold"] == 0
    assert chosen.settings["window_radii"] == 1.4  # every default filled in
    assert chosen.tried == 2
    assert 1 < chosen.error < 2.5
    assert chosen.error < chosen.error_before
    found, silent = tuning.squares(
        made.with_settings("mine", chosen.settings), "mine", LEVEL, run_dir
    )
    assert (chosen.error, 0) == (np.sqrt(found.mean()), silent)

    (tmp_path / "config.yaml").write_text(dump(made))
    counts = run_dir / "counts" / "other" / f"{LEVEL.name}.101.h5"
    words = [
        "map",
        str(tmp_path / "config.yaml"),
        "mine",
        "--counts",
        str(counts),
        "--out",
        str(tmp_path / "map.h5"),
    ]
    cli.app([*words, "--tuned", str(tmp_path / "chosen.yaml")], standalone_mode=False)
    assert yaml.safe_load(read_map(tmp_path / "map.h5").attributes["settings"]) == chosen.settings


def test_silence_is_not_chosen_even_where_it_is_nearest_to_the_truth(
    run_dir: Path, tmp_path: Path
) -> None:
    program = tmp_path / "mine.py"
    program.write_text(
        "import h5py, json, numpy as np, sys\n"
        "given = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
        "F = np.tile(np.eye(2), (6, 6, 1, 1)); F[1:, :, 0, 0] += 0.2\n"
        "if json.loads(given['--settings'])['silent']: F[:] = np.nan\n"
        "h5py.File(given['--map'], 'w')['F'] = F\n"
    )
    made = configured(
        mine={
            "command": f"python {program}",
            "settings": {"silent": False},
            "tune": {"silent": [True]},
        }
    )
    silent, answers = (
        tuning.squares(made.with_settings("mine", {"silent": s}), "mine", LEVEL, run_dir)
        for s in (True, False)
    )
    assert tuning.better(silent[0], answers[0])
    assert (silent[1], answers[1]) == (1, 0)
    tuning.write(made, "mine", LEVEL.name, run_dir, tmp_path / "chosen.yaml")
    assert tuned.read_tuned(tmp_path / "chosen.yaml").settings == {"silent": False}


def test_errors_are_held_against_the_bound_unless_there_is_no_noise(run_dir: Path) -> None:
    made = configured(zero={})
    truth = read_truth(layout.truth_path(run_dir, "other"))
    rmse = np.sqrt(
        (compare(truth, np.broadcast_to(np.eye(2), (6, 6, 2, 2))).error ** 2).mean((0, 1))
    )
    bound = MODEL.limit(np.eye(2), LEVEL.electrons, LEVEL.background)
    assert tuning.squares(made, "zero", LEVEL, run_dir)[0].mean() == pytest.approx(
        np.mean((rmse / bound) ** 2)
    )
    for seed in (101, 102):
        noisy = run_dir / "counts" / "other" / f"{LEVEL.name}.{seed}.h5"
        (noisy.parent / f"clean.{seed}.h5").write_bytes(noisy.read_bytes())
    clean = Level(background=0, electrons=np.inf)
    assert tuning.squares(made, "zero", clean, run_dir)[0].mean() == pytest.approx(np.mean(rmse**2))


def test_settings_that_fail_are_passed_over(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program from outside is tuned like any method, through the settings it is given."""
    program = tmp_path / "mine.py"
    program.write_text(
        "import h5py, json, numpy as np, sys\n"
        "given = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
        "stretch = json.loads(given['--settings'])['stretch']\n"
        "if stretch > 1: sys.exit('too much')\n"
        "F = np.tile(np.eye(2), (6, 6, 1, 1)); F[1:, :, 0, 0] += stretch\n"
        "h5py.File(given['--map'], 'w')['F'] = F\n"
    )
    entry = {
        "command": f"python {program}",
        "settings": {"stretch": 0.05},
        "tune": {"stretch": [5.0, 0.05, 0.0]},
    }
    tuning.write(configured(mine=entry), "mine", LEVEL.name, run_dir, tmp_path / "chosen.yaml")
    assert tuned.read_tuned(tmp_path / "chosen.yaml").settings == {"stretch": 0.0}
    assert "too much" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            {"method": "com", "tune": {"windw_radii": [1.0]}},
            "methods.mine.tune.windw_radii.*did you mean 'window_radii'",
        ),
        (
            {"method": "com", "tune": {"window_radii": [1.0, 9.0]}},
            "methods.mine.tune.window_radii.*less than or equal to 2.5, got 9.0",
        ),
        ({"method": "com", "tune": {"window_radii": []}}, "methods.mine.tune"),
        ({"method": "zero", "tune": True}, "methods.mine.tune: no settings to try"),
        ({"command": "python mine.py", "tune": True}, "methods.mine.tune: no settings to try"),
    ],
)
def test_a_search_that_cannot_be_is_refused(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        configured(mine=entry)


def test_tuning_needs_a_field_and_a_seed_of_its_own() -> None:
    data = yaml.safe_load(dump(configured(mine={"method": "com", "tune": True})))
    for change in (
        {"scenes": {"shown": data["scenes"]["shown"]}},
        {"seeds": {"test": [1], "tune": []}},
    ):
        with pytest.raises(
            InputError, match=r"expected a scene with tune: true and a seed in seeds\.tune"
        ):
            parse({**data, **change})
    with pytest.raises(InputError, match="expected one to score"):
        _ = parse({**data, "scenes": {"other": data["scenes"]["other"]}}).scored


def test_the_jobs_of_a_tuned_method_see_what_they_use() -> None:
    made = configured(mine={"method": "com", "tune": True}, zero={})
    job = parse(
        yaml.safe_load(
            stages.one_line(stages.narrow(made, "tune", level=LEVEL.name, method="mine"))
        )
    )
    assert (list(job.scenes), job.seeds.tune, list(job.methods)) == (
        ["other"],
        (101, 102),
        ["mine"],
    )
    assert job.tried("mine") == made.tried("mine")
    mapped = stages.narrow(made, "map", scene="shown", level=LEVEL.name, seed=1, method="mine")
    assert not mapped.methods["mine"].tune
    assert not stages.narrow(made, "simulate", scene="other").scenes["other"].tune
    assert list(made.scored) == ["shown"]
    files = stages.sources(made, "tune", "mine")
    assert {"tuning.py", "method.py", "metrics.py"} <= {Path(file).name for file in files}


def test_a_width_is_searched_on_maps_that_are_there(run_dir: Path, tmp_path: Path) -> None:
    """Of a field without structure, drawn from position to position, no blur is the best; of the
    same strain everywhere, the widest. No pattern is mapped anew.
    """
    truth = read_truth(layout.truth_path(run_dir, "other"))
    flat = np.broadcast_to(np.eye(2), truth.F.shape)
    for name, F, best in (("drawn", truth.F, 0.0), ("flat", flat, 2.0)):
        folder = tmp_path / name
        write_truth(layout.truth_path(folder, "other"), replace(truth, F=F, F_probe=F))
        for seed in (101, 102):
            draw = np.random.default_rng(seed)
            noise = geometry.deformation(*(1e-4 * draw.normal(size=(4, 6, 6))))
            path = layout.map_path(folder, "other", LEVEL.name, seed, "template")
            given = {"method": "template", "settings": "{}", "seconds": 1.0, "device": "cpu"}
            write_map(path, Map(F @ noise, given))
            counts = layout.counts_path(folder, "other", LEVEL.name, seed)
            counts.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(layout.counts_path(run_dir, "other", LEVEL.name, seed), counts)
        made = configured(
            template={},
            blurred={
                "method": "template",
                "smooth": {"kind": "gauss", "width_steps": 1.0},
                "tune": {"smooth.width_steps": [0.0, 0.5, 2.0]},
            },
        )
        narrowed = stages.narrow(made, "tune", level=LEVEL.name, method="blurred")
        tuning.write(narrowed, "blurred", LEVEL.name, folder, tmp_path / "chosen.yaml")
        assert tuned.read_tuned(tmp_path / "chosen.yaml").settings["smooth.width_steps"] == best
        chosen = tuned.apply_tuned(made, "blurred", tmp_path / "chosen.yaml")
        smooth = chosen.methods["blurred"].smooth
        assert smooth is not None
        assert smooth.model_dump()["width_steps"] == best
