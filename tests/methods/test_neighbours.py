"""The stages that average neighbours, against closed forms."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from synthetic import Model, random_deformations

from ccstae import geometry
from ccstae.config.neighbours import Gauss, Median, Smooth, TotalVariation
from ccstae.config.run import Config, parse
from ccstae.errors import InputError
from ccstae.io.counts import write_counts
from ccstae.io.maps import Map, read_map
from ccstae.methods import run
from ccstae.methods.neighbours import denoise
from ccstae.methods.neighbours.smooth import smoothed

MODEL = Model()
SHAPE = (24, 20)
INSIDE = (slice(5, -5), slice(5, -5))


def mapped(field: np.ndarray, **extra: Any) -> Map:
    return Map(geometry.deformation(*np.moveaxis(field, -1, 0)), {"seconds": 1.0}, **extra)


def linear() -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    slopes = [(1e-3, 0), (-5e-4, 2e-3), (3e-4, 4e-4), (0.05, 0.03)]  # theta passes a whole branch
    return np.stack([a * x + b * y for a, b in slopes], -1)


def off(answer: Map, field: np.ndarray) -> np.ndarray:
    error = geometry.components(answer.F) - field
    error[..., 3] = geometry.wrap(error[..., 3], 6)
    return error


GAUSS, MEDIAN = Gauss(kind="gauss", width_steps=1.2), Median(kind="median", window_steps=5)


@pytest.mark.parametrize("stage", [GAUSS, MEDIAN], ids=lambda stage: stage.kind)
def test_a_linear_field_stays_as_it_is_whatever_the_branch_of_each_lattice(stage: Smooth) -> None:
    """Symmetric windows leave a linear field alone away from the borders, exactly."""
    field = linear()
    branch = np.random.default_rng(0).integers(0, 6, SHAPE)
    answer = mapped(field)
    turned = Map(answer.F @ geometry.rotation_matrix(branch * np.pi / 3), answer.attributes)
    assert np.abs(off(smoothed(turned, stage, 6), field)[INSIDE]).max() < 1e-12
    # and where it is no lattice of this symmetry, turns by 60 degrees are true
    assert np.abs(off(smoothed(turned, stage, 2), field)[INSIDE]).max() > 1e-2


def test_a_gaussian_blurs_what_is_curved_by_its_closed_form() -> None:
    """A wave of wavenumber q keeps exp(-q^2 width^2 / 2) of its height."""
    x = np.arange(40) * np.ones((32, 1))
    q = 2 * np.pi / 10
    field = np.zeros((32, 40, 4))
    field[..., 0] = 0.01 * np.cos(q * x)
    blurred = smoothed(mapped(field), GAUSS, 6)
    kept = np.exp(-0.5 * (q * GAUSS.width_steps) ** 2)
    np.testing.assert_allclose(
        geometry.components(blurred.F)[5:-5, 5:-5, 0], kept * field[5:-5, 5:-5, 0], atol=2e-6
    )


def test_a_gaussian_says_what_noise_it_leaves() -> None:
    """Noise of known covariance, blurred: its scatter is the covariance that the map states."""
    draw = np.random.default_rng(3)
    root = np.linalg.cholesky(1e-8 * (np.eye(4) + 0.5 * np.ones((4, 4))))
    field = draw.normal(size=(80, 80, 4)) @ root.T
    covariance = np.broadcast_to(root @ root.T, (80, 80, 4, 4)).copy()
    blurred = smoothed(mapped(field, covariance=covariance), GAUSS, 6)
    assert blurred.covariance is not None
    stated = blurred.covariance[40, 40]
    found = np.cov(geometry.components(blurred.F)[6:-6, 6:-6].reshape(-1, 4).T)
    np.testing.assert_allclose(np.diag(found), np.diag(stated), rtol=0.15)
    assert stated[0, 0] == pytest.approx(1.5e-8 / (4 * np.pi * GAUSS.width_steps**2), rel=1e-3)
    assert blurred.covariance[0, 0, 0, 0] > 2 * stated[0, 0]  # fewer neighbours in the corner
    assert smoothed(mapped(field, covariance=covariance), MEDIAN, 6).covariance is None


@pytest.mark.parametrize(
    "stage", [GAUSS, MEDIAN, TotalVariation(kind="tv", weight=1.0)], ids=lambda stage: stage.kind
)
def test_no_answer_stays_none_and_its_neighbours_do_without_it(stage: Smooth) -> None:
    field = np.zeros((*SHAPE, 4))
    field[...] = (0.01, -0.02, 0.005, 0.7)
    answer = mapped(field)
    lost = np.zeros(SHAPE, bool)
    lost[8:10, 3:7], lost[:, -1], lost[20, 2] = True, True, True
    answer.F[lost] = np.nan
    made = smoothed(answer, stage, 6)
    np.testing.assert_array_equal(np.isnan(made.F).any((-1, -2)), lost)
    assert np.abs(off(made, field)[~lost]).max() < 1e-9
    assert made.attributes["seconds"] > 1
    nothing = smoothed(mapped(np.full((*SHAPE, 4), np.nan)), stage, 6)
    assert np.isnan(nothing.F).all()


def test_what_the_map_takes_for_vacuum_is_left_out() -> None:
    """The rim of a probe beside the specimen shows some lattice, which is none of it."""
    field = np.zeros((*SHAPE, 4))
    field[:, 15:] = 0.05
    label = np.ones(SHAPE, np.int8)
    label[:, 15:] = 0
    covariance = np.broadcast_to(np.eye(4), (*SHAPE, 4, 4)).copy()
    made = smoothed(mapped(field, label=label, covariance=covariance), GAUSS, 6)
    assert np.abs(off(made, field)).max() < 1e-12
    assert made.covariance is not None
    np.testing.assert_array_equal(made.covariance[:, 15:], covariance[:, 15:])
    assert made.covariance[:, :15, 0, 0].max() < 0.5


def test_total_variation_flattens_noise_and_keeps_a_step() -> None:
    draw = np.random.default_rng(5)
    field = 1e-4 * draw.normal(size=(24, 24, 4))
    field[:, 12:] += 0.01
    made = geometry.components(smoothed(mapped(field), TotalVariation(kind="tv", weight=2), 6).F)
    assert made[:, :11].std((0, 1)).max() < 0.3e-4
    step = made[:, 12].mean(0) - made[:, 11].mean(0)
    np.testing.assert_allclose(step, 0.01, rtol=0.05)


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (1, 1)])
def test_a_line_or_a_point_is_a_scan_too(shape: tuple[int, int]) -> None:
    field = np.zeros((*shape, 4))
    field[..., 3] = 0.2
    for stage in (GAUSS, MEDIAN, TotalVariation(kind="tv")):
        assert np.abs(off(smoothed(mapped(field), stage, 6), field)).max() < 1e-9


def test_a_gaussian_of_counts_lowers_their_variance_by_its_closed_form() -> None:
    """E N / (4 pi width^2), and the mean stays, at the borders too."""
    counts = np.random.default_rng(1).poisson(3, (24, 24, 16, 16)).astype(np.uint32)
    made = denoise.blurred(counts, 1.5)
    assert made.dtype == np.float32
    expected = 3 / (4 * np.pi * 1.5**2)
    assert made[6:-6, 6:-6].var() == pytest.approx(expected, rel=0.1)
    assert made[0].mean() == pytest.approx(3, rel=0.02)
    np.testing.assert_array_equal(denoise.blurred(counts, 0.0), counts)


def test_patterns_of_low_rank_pass_the_tensor_decomposition_unchanged() -> None:
    draw = np.random.default_rng(2)
    along_y, along_x, of_pattern = draw.random((12, 3)), draw.random((10, 3)), draw.random((3, 64))
    exact = np.einsum("yr,xr,rq->yxq", along_y, along_x, of_pattern).reshape(12, 10, 8, 8)
    np.testing.assert_allclose(denoise.low_rank(exact, 3, 3), exact, rtol=2e-6)
    assert np.abs(denoise.low_rank(exact, 2, 3) - exact).max() > 0.01
    assert np.abs(denoise.low_rank(exact, 3, 2) - exact).max() > 0.01
    # more than there is keeps all
    np.testing.assert_allclose(denoise.low_rank(exact, 99, 999), exact, rtol=2e-6)


def test_the_tensor_decomposition_keeps_as_much_noise_as_it_has_room_for() -> None:
    """Of white noise a projection onto r rows, r columns and p patterns, chosen without looking,
    keeps p / (rows columns) where r is all; chosen by the noise itself it keeps more.
    """
    noise = np.random.default_rng(4).normal(size=(8, 8, 40, 40))
    kept = denoise.low_rank(noise, 8, 16).var() / noise.var()
    assert 16 / 64 < kept < 0.36


def configured(methods: dict[str, Any]) -> Config:
    return parse(
        {
            "name": "made",
            "device": "cpu",
            "scenes": {
                "made": {"kind": "uniform", "materials": ["WS2"]},
                "other": {"kind": "uniform", "materials": ["WS2"], "tune": True},
            },
            "noise": {"dose": {"electrons": [1e5]}},
            "methods": methods,
        }
    )


@pytest.fixture(scope="module")
def counts_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    F = np.broadcast_to(random_deformations((1, 1)), (4, 5, 2, 2)).copy()
    made = MODEL.counts(F, 1e4)
    path = tmp_path_factory.mktemp("counts") / "w0.00_n10000.1.h5"
    write_counts(path, made.counts, made.counts.shape, made.calibration, made.probe)
    return path


def test_stages_stand_before_and_after_a_method(tmp_path: Path, counts_path: Path) -> None:
    """Patterns of one lattice: averaged before or after, they scatter less by as much."""
    gauss = {"kind": "gauss", "width_steps": 1.0}
    made = configured(
        {
            "com": {},
            "before": {"method": "com", "denoise": gauss},
            "after": {"method": "com", "smooth": gauss},
        }
    )
    scatter = {}
    for name in made.methods:
        run.write(made, name, counts_path, tmp_path / f"{name}.h5")
        answer = read_map(tmp_path / f"{name}.h5", (4, 5))
        assert answer.attributes["method"] == name
        for stage in ("denoise", "smooth"):
            given = made.methods[name].model_dump()[stage]
            assert json.loads(answer.attributes.get(stage, "null")) == given
        scatter[name] = geometry.components(answer.F).std((0, 1)).mean()
    assert scatter["after"] < 0.7 * scatter["com"]
    assert scatter["before"] == pytest.approx(scatter["after"], rel=0.3)
    # a map that is there is not made again
    run.write(
        made, "after", counts_path, tmp_path / "again.h5", run.Options(from_map=tmp_path / "com.h5")
    )
    np.testing.assert_array_equal(
        read_map(tmp_path / "again.h5").F, read_map(tmp_path / "after.h5").F
    )
    with pytest.raises(InputError, match=r"methods\.com: goes on from no other map"):
        run.write(
            made, "com", counts_path, tmp_path / "x.h5", run.Options(from_map=tmp_path / "com.h5")
        )


def test_a_pooled_row_goes_on_from_a_map_of_single_patterns(
    tmp_path: Path, counts_path: Path
) -> None:
    """The same bytes as anew, the seconds of both, and no map of other settings."""
    settings = {"without": ["encoder", "shape"]}
    made = configured(
        {
            "one": {"method": "ccstae", "settings": settings},
            "both": {"method": "ccstae-pooled", "settings": settings},
            "other": {"method": "ccstae-pooled"},
            "searched": {"method": "ccstae-pooled", "settings": settings, "tune": {"seed": [0, 1]}},
        }
    )
    assert made.goes_on_from("both") == "one"
    assert [made.goes_on_from(name) for name in ("one", "other", "searched")] == [None] * 3
    run.write(made, "one", counts_path, tmp_path / "one.h5")
    run.write(made, "both", counts_path, tmp_path / "anew.h5")
    run.write(
        made, "both", counts_path, tmp_path / "both.h5", run.Options(from_map=tmp_path / "one.h5")
    )
    with h5py.File(tmp_path / "anew.h5") as anew, h5py.File(tmp_path / "both.h5") as both:
        assert set(anew) == set(both)
        assert all(anew[name][...].tobytes() == both[name][...].tobytes() for name in anew)
        assert anew.attrs["found"] == both.attrs["found"]
    before, after = (read_map(tmp_path / f"{name}.h5").attributes for name in ("one", "both"))
    assert after["seconds"] > before["seconds"]
    with pytest.raises(InputError, match=r"one\.h5: has the settings .* those of other"):
        run.write(
            made, "other", counts_path, tmp_path / "x.h5", run.Options(from_map=tmp_path / "one.h5")
        )


# Shifts nothing, doubles the counts, and leaves an answer that says what it got.
DOUBLED = """
import json, shutil, sys, h5py
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
factor = json.loads(given["--settings"])["factor"]
with h5py.File(given["--counts"]) as file:
    counts = file["counts"][...].astype("f4") * factor
shutil.copy(given["--counts"], given["--out"])
with h5py.File(given["--out"], "r+") as file:
    del file["counts"]
    file["counts"] = counts
"""
MEAN = """
import sys, h5py, numpy as np
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with h5py.File(given["--counts"]) as file:
    counts = file["counts"][...]
with h5py.File(given["--map"], "w") as file:
    file["F"] = np.eye(2) * (1 + counts.mean((2, 3), dtype=float))[..., None, None]
    file.attrs["seconds"] = 0.01
"""


def test_programs_denoise_and_are_given_what_is_denoised(tmp_path: Path, counts_path: Path) -> None:
    words = {}
    for name, code in (("doubled", DOUBLED), ("mean", MEAN)):
        (tmp_path / f"{name}.py").write_text(code)
        words[name] = shlex.join([sys.executable, str(tmp_path / f"{name}.py")])
    stage = {"kind": "program", "command": words["doubled"], "settings": {"factor": 2.0}}
    made = configured({"mean": {"command": words["mean"], "denoise": stage}})
    run.write(made, "mean", counts_path, tmp_path / "map.h5")
    answer = read_map(tmp_path / "map.h5", (4, 5))
    with h5py.File(counts_path) as file:
        mean = file["counts"][...].mean((2, 3))
    np.testing.assert_allclose(answer.F[..., 0, 0], 1 + 2 * mean, rtol=1e-6)
    assert answer.attributes["seconds"] > 0.05  # the program before is part of it
    three = made.with_settings("mean", {"denoise.settings.factor": 3.0})
    run.write(three, "mean", counts_path, tmp_path / "map.h5")
    np.testing.assert_allclose(read_map(tmp_path / "map.h5").F[..., 0, 0], 1 + 3 * mean, rtol=1e-6)
    failing = made.with_settings("mean", {"denoise.settings.factor": "x"})
    with pytest.raises(InputError, match=r"methods\.mean\.denoise: the command failed"):
        run.write(failing, "mean", counts_path, tmp_path / "map.h5")


def test_settings_of_stages_are_searched_by_their_full_names() -> None:
    gauss = {"kind": "gauss"}
    made = configured(
        {
            "ccstae": {},
            "one": {"method": "ccstae", "smooth": gauss, "tune": {"smooth.width_steps": [0.5, 2]}},
            "all": {"method": "com", "denoise": gauss, "tune": True},
            "alone": {"method": "template", "smooth": gauss},
        }
    )
    assert made.begin("one")["smooth.width_steps"] == 1.0
    chosen = made.with_settings("one", {**made.begin("one"), "smooth.width_steps": 2})
    assert chosen.methods["one"].smooth == Gauss(kind="gauss", width_steps=2)
    assert made.tried("all")["denoise.width_steps"][0] == 0
    assert "threshold" in made.tried("all")
    # what differs in `smooth` alone smooths a map that is there
    assert made.goes_on_from("one") == "ccstae"
    assert [made.goes_on_from(name) for name in ("ccstae", "all", "alone")] == [None] * 3
    with pytest.raises(InputError, match=r"did you mean 'width_steps'|unknown setting"):
        made.with_settings("one", {"smooth.width": 2})
    with pytest.raises(InputError, match=r"methods\.one\.smooth\.width_steps.*greater"):
        made.with_settings("one", {"smooth.width_steps": -1})
    with pytest.raises(InputError, match=r"unknown setting 'denoise\.width_steps'"):
        made.with_settings("one", {"denoise.width_steps": 1})


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (
            {"kind": "gaus"},
            r"methods\.com\.smooth\.kind: unknown kind 'gaus'; did you mean 'gauss'",
        ),
        ({}, r"methods\.com\.smooth\.kind: missing; expected one of gauss, median, tv"),
        ({"kind": "gauss", "width": 1}, r"methods\.com\.smooth\.width: .*'width_steps'"),
        ({"kind": "median", "window_steps": 4}, r"methods\.com\.smooth\.window_steps: .*odd"),
    ],
)
def test_a_bad_stage_is_named(stage: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        configured({"com": {"smooth": stage}})
