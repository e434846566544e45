"""Figures show the numbers that they are given, on axes with units, and come out the same each
time.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from made_run import LIMIT, SHAPE, made_config, made_truth, noisy
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ccstae import geometry
from ccstae.config.levels import Level
from ccstae.config.methods import Method
from ccstae.config.run import load
from ccstae.evaluation.dislocations import Circuits, FoundDislocations
from ccstae.evaluation.metrics import compare
from ccstae.io.scores import read_scores
from ccstae.reporting.figures import catalogue as figures
from ccstae.reporting.figures import dislocations, error, maps, patterns, scatter, style, truth
from ccstae.simulation import noise


@pytest.fixture(scope="module")
def metrics(run_dir: Path):
    return read_scores(run_dir / "metrics.csv")


def line(panel: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    found = [one for one in panel.get_lines() if one.get_label() == label]
    assert len(found) == 1
    return tuple(np.asarray(v, float) for v in found[0].get_data())


def shown(panel: Axes) -> np.ma.MaskedArray:
    return panel.get_images()[0].get_array()


def has_white_rim(drawn: Figure) -> bool:
    """Whether nothing is drawn on the outermost pixels of the page: what is cut off would leave its
    cut edge there.
    """
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    page = np.asarray(canvas.buffer_rgba())[..., :3]
    return bool((page[[0, -1]] == 255).all() and (page[:, [0, -1]] == 255).all())


def test_series_take_the_longest_run_of_levels(metrics):
    background = error.series(metrics, "background")
    assert set(background.electrons) == {1e5}
    assert set(background.background) == {0, 0.25}
    dose = error.series(metrics, "electrons")
    assert set(dose.background) == {0}
    assert set(dose.electrons) == {1e4, 1e5}


@pytest.mark.parametrize("axis", ["background", "electrons"])
def test_error_figure_holds_the_scores_the_bound_and_the_control(metrics, axis: str):
    along = error.series(metrics, axis)
    methods = list(dict.fromkeys(metrics.method))
    with style.styled():
        drawn = error.draw(along, style.lines(methods), axis)
    for panel, component, limit in zip(drawn.axes, geometry.COMPONENTS, LIMIT, strict=True):
        x, y = line(panel, "Cramér-Rao bound")
        expected = {"background": ([0, 0.25], [0.5, 1]), "electrons": ([1e4, 1e5], [2, 0.5])}[axis]
        assert x == pytest.approx(expected[0])
        assert y == pytest.approx(np.array(expected[1]) * limit * 1e4)
        chosen = along[
            (along.region == "interior")
            & (along.quantity == component)
            & (along.metric == "rmse")
            & (along.method == "template")
        ]
        assert line(panel, "template")[1] == pytest.approx(
            chosen.groupby(axis).value.median().to_numpy() * 1e4
        )
        assert len(set(line(panel, "no strain (zero)")[1])) == 1
        assert ("rad" in panel.get_ylabel()) == (component == "theta")
        assert panel.get_yscale() == "log"
    assert has_white_rim(drawn)


def test_maps_show_answer_residual_failures_and_vacuum():
    exact = made_truth()
    F = exact.F_probe @ geometry.deformation(0, 0, 0, 2e-3)
    F[exact.reference] = exact.F_probe[exact.reference]
    F[4, 12] = np.nan
    answers = {"one": compare(exact, F)}
    limit = next(iter(exact.bound.values()))
    with style.styled():
        drawn = maps.draw(answers, limit, exact.label == 0, exact.region == 1, 3.2)
    panels = np.array(drawn.axes[:16]).reshape(8, 2)
    theta, residual = panels[6, 1], panels[7, 1]
    assert shown(theta)[2, 12] == pytest.approx(
        1e3 * (geometry.components(exact.F_probe)[2, 12, 3] + 2e-3), abs=1e-6
    )
    assert shown(residual)[2, 12] == pytest.approx(20)  # 2e-3 rad in units of 1e-4
    assert shown(residual).mask[10:].all()
    assert not shown(residual).mask[:10].any()
    black = theta.get_images()[1].get_array()
    assert np.argwhere(~black.mask).tolist() == [[4, 12]]
    for row in panels:
        assert len({image.get_clim() for panel in row for image in panel.get_images()[:1]}) == 1
    assert panels[7, 0].get_images()[0].get_clim()[1] == pytest.approx(4e4 * limit[0, 0, 3])
    assert "bound" in panels[7, 0].get_title()
    assert has_white_rim(drawn)


def uniform_truth():
    """The made truth with no strain anywhere after re-referencing."""
    return replace(made_truth(), F_probe=np.broadcast_to(np.eye(2), (*SHAPE, 2, 2)))


def test_noise_about_no_strain_does_not_saturate_maps():
    exact = uniform_truth()
    limit = next(iter(exact.bound.values()))
    answers = {"com": compare(exact, noisy(exact, limit, 1))}
    with style.styled():
        drawn = maps.draw(answers, limit, exact.label == 0, exact.region == 1, 3.2)
    panels = np.array(drawn.axes[:16]).reshape(8, 2)
    for c, factor in enumerate((1e2, 1e2, 1e2, 1e3)):
        image = panels[2 * c, 1].get_images()[0]
        assert image.get_clim()[1] == pytest.approx(3 * factor * limit[0, 0, c])
        assert (np.abs(image.get_array().compressed()) < image.get_clim()[1]).mean() > 0.95


def test_rounding_errors_show_as_nothing():
    """Uniform truth without noise: what differs from no strain by rounding has no colour."""
    exact = uniform_truth()
    rounding = np.full((*SHAPE, 4), 1e-12)
    answers = {"com": compare(exact, noisy(exact, rounding, 1))}
    with style.styled():
        drawn_maps = maps.draw(answers, None, exact.label == 0, exact.region == 1, 3.2)
        drawn_truth = truth.draw(
            replace(exact, F_probe=noisy(exact, rounding, 2)), ["WS2", "WSe2"], None, None, 3.2
        )
        drawn_scatter = scatter.draw(
            {"com": [answers["com"]]},
            style.lines(["com"]),
            None,
            exact.label != 0,
            exact.region == 1,
        )
    for panel in [*drawn_maps.axes[:16], *drawn_truth.axes[:4]]:
        image = panel.get_images()[0]
        assert np.abs(image.get_array()).max() < 1e-4 * image.get_clim()[1]
    for panel in drawn_scatter.axes:
        assert panel.get_xlim()[1] > 9e-3  # percent


@pytest.mark.parametrize("failed", [True, False])
def test_maps_say_what_black_is(failed: bool):
    exact = made_truth()
    F = exact.F_probe.copy()
    if failed:
        F[4, 12] = np.nan
    with style.styled():
        drawn = maps.draw(
            {"one": compare(exact, F)},
            next(iter(exact.bound.values())),
            exact.label == 0,
            exact.region == 1,
            3.2,
        )
    words = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert words == ["vacuum", *(["no answer"] if failed else [])]


def test_controls_are_left_out_of_maps(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: dict[str, list[str]] = {}

    def note(kind: str):
        def draw(answers, *_):
            drawn[kind] = list(answers)
            return Figure()

        return draw

    monkeypatch.setattr(maps, "draw", note("maps"))
    monkeypatch.setattr(scatter, "draw", note("scatter"))
    of_maps = figures._of_maps(made_config(), run_dir, "pair", read_scores(run_dir / "metrics.csv"))
    assert [next(of_maps)[0], next(of_maps)[0]] == ["maps", "scatter"]
    answering = ["com", "template", "ccstae"]
    assert drawn == {"maps": answering, "scatter": answering}


def test_one_control_stands_for_all_in_error_figures(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    made = made_config()
    silent = Method(method="zero", settings={"silent": True})
    run = made.model_copy(update={"methods": {**made.methods, "silent": silent}})
    drawn: list[list[str]] = []
    monkeypatch.setattr(error, "draw", lambda _, lines, axis: drawn.append(list(lines)))
    list(figures._of_scores(run, run_dir, "pair", read_scores(run_dir / "metrics.csv")))
    assert drawn == [["zero", "com", "template", "ccstae"]] * 2


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ([7], "Lines are of one seed."),
        ([7, 8], "Lines are means of two seeds, bands their range."),
        ([7, 8, 9], "Lines are medians of 3 seeds, bands their range."),
    ],
)
def test_captions_say_how_many_seeds_lines_are_of(seeds: list[int], words: str):
    config = made_config()
    of_seeds = config.seeds.model_copy(update={"test": seeds})
    entries = figures.catalogue(config.model_copy(update={"seeds": of_seeds}))
    captions = {entry.kind: entry.caption for entry in entries}
    assert words in captions["error_background"]
    assert words in captions["error_dose"]


@pytest.mark.parametrize(("count", "least"), [(200, 10), (3000, 5)])
def test_scatter_points_can_be_seen(count: int, least: float):
    """Points have a diameter of 2.5 pt or more, and grow fainter where there are many."""
    size, alpha = scatter._marks(count)
    assert size >= least
    assert 0.2 <= alpha <= 0.6
    assert alpha < scatter._marks(count // 10)[1] or alpha == 0.6


def test_scatter_draws_every_sample_position_once_a_seed():
    exact = made_truth()
    answers = {
        "zero": [compare(exact, np.broadcast_to(np.eye(2), (*SHAPE, 2, 2)))] * 2,
        "exact": [compare(exact, exact.F_probe)] * 2,
    }
    sample = exact.label != 0
    with style.styled():
        drawn = scatter.draw(answers, style.lines(answers), None, sample, exact.region == 1)
    panels = np.array(drawn.axes).reshape(2, 4)
    points = np.concatenate([np.asarray(c.get_offsets()) for c in panels[1, 0].collections])
    assert len(points) == 2 * sample.sum()
    assert points[:, 0] == pytest.approx(points[:, 1])
    assert np.concatenate([np.asarray(c.get_offsets()) for c in panels[0, 3].collections])[
        :, 1
    ] == pytest.approx(0)
    assert has_white_rim(drawn)


def test_elastic_strain_is_against_the_own_lattice():
    exact = made_truth()
    F = np.where(
        (exact.label == 2)[..., None, None],
        geometry.deformation(3.282 / 3.153 - 1, 3.282 / 3.153 - 1, 0, 0),
        np.eye(2),
    )
    own = truth.elastic(replace(exact, F_probe=F), [3.153, 3.282])
    assert own[exact.label == 2] == pytest.approx(
        0, abs=1e-12
    )  # relaxed WSe2: total strain 4 %, elastic none
    assert own[exact.label == 1] == pytest.approx(0, abs=1e-12)
    assert np.isnan(own[exact.label == -1]).all()


@pytest.mark.parametrize("lattice", [[3.153, 3.282], None])
def test_truth_figure(lattice: list[float] | None):
    exact = made_truth()
    with style.styled():
        drawn = truth.draw(exact, ["WS2", "WSe2"], lattice, next(iter(exact.bound.values())), 3.2)
    assert shown(drawn.axes[0])[2, 12] == pytest.approx(
        100 * geometry.components(exact.F_probe)[2, 12, 0]
    )
    assert drawn.axes[5].axison == (lattice is not None)
    names = {t.get_text() for t in drawn.axes[9].get_legend().get_texts()}
    assert names == {"vacuum", "interior", "interface", "edge"}
    assert has_white_rim(drawn)


def test_sample_positions_lie_in_what_they_are_named_after():
    exact = made_truth()
    places = patterns.positions(exact, ["WS2", "WSe2"])
    assert list(places) == ["WS2", "WSe2", "interface", "edge", "vacuum"]
    assert [exact.label[places[k]] for k in ("WS2", "WSe2", "vacuum")] == [1, 2, 0]
    assert [exact.regions[exact.region[places[k]]] for k in ("WS2", "interface", "edge")] == [
        "interior",
        "interface",
        "edge",
    ]


def test_sample_counts_are_those_that_the_methods_got():
    pattern = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    level, clean = Level(background=0.25, electrons=1e4), Level(background=0, electrons=np.inf)
    again = figures.counts(pattern, level, level, 2, "pair", (3, 5), SHAPE[1])
    assert (again == noise.pattern_counts(pattern, level, 2, "pair", 3 * SHAPE[1] + 5)).all()
    assert figures.counts(
        pattern, clean, level, 2, "pair", (3, 5), SHAPE[1]
    ).sum() == pytest.approx(1e4)


def test_methods_are_told_apart():
    drawn = style.lines(["zero", "com", "template", "ccstae", "mine", "py4dstem", "blobfinder"])
    assert len({one.colour for one in drawn.values()}) == len(drawn)
    assert style.lines(["ccstae"])["ccstae"] == drawn["ccstae"]


# Linear sRGB as protanopes and deuteranopes see it: Machado, Oliveira and Fernandes, IEEE Trans.
# Vis. Comput. Graph. 15, 1291 (2009), severity 1.
PROTANOPE = (
    (0.152286, 1.052583, -0.204868),
    (0.114503, 0.786281, 0.099216),
    (-0.003882, -0.048116, 1.051998),
)
DEUTERANOPE = (
    (0.367322, 0.860646, -0.227968),
    (0.280085, 0.672501, 0.047413),
    (-0.011820, 0.042940, 0.968881),
)
TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
WHITE = (0.9505, 1.0, 1.089)


def lab(colour: str, eye: np.ndarray) -> np.ndarray:
    """CIE 1976 L*a*b* of a colour as an eye sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    ratio = np.array(TO_XYZ) @ np.clip(eye @ linear, 0, 1) / WHITE
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_every_method_of_the_peers_is_told_apart_by_every_eye():
    """No two markers alike; lines of one style differ in colour for every eye, by 15 or more."""
    methods = load(Path(__file__).parents[2] / "config" / "peers.yaml").methods
    lines = style.lines(methods)
    assert len(lines) >= 11
    assert len({line.marker for line in lines.values()}) == len(lines)
    for eye in (np.eye(3), np.array(PROTANOPE), np.array(DEUTERANOPE)):
        for one, other in combinations(lines.values(), 2):
            distance = np.linalg.norm(lab(one.colour, eye) - lab(other.colour, eye))
            assert distance > 15 or one.style != other.style, (one, other)


def test_twenty_other_methods_have_twenty_lines():
    lines = style.lines([f"method{i}" for i in range(20)])
    assert len(set(lines.values())) == 20


def test_a_run_gets_every_figure_of_the_catalogue_that_it_can_have(drawn_run: Path):
    names = {entry.name for entry in figures.catalogue(made_config())}
    found = {path.name for path in (drawn_run / "figures").iterdir()}
    assert {Path(name).stem for name in found} == names - {
        "pair_speed",
        "pair_resolution",
        "pair_transfer",
        *(f"pair_dictionary_{m}" for m in ("zero", "com", "template")),
    }
    for path in (drawn_run / "figures").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG" if path.suffix == ".png" else b"%PDF")


def test_closures_stand_at_the_middle_of_their_circuits():
    """On a scan of 6 x 8 positions 2 nm apart: the circuit of first corner (1, 2) has its middle
    1.5 steps on, in the cell from there.
    """
    closure = np.zeros((3, 5, 2))
    closure[1, 2, 0] = 3.0
    unclosed = Circuits(3, closure, np.zeros((3, 5, 2, 2)), np.zeros((3, 5, 2, 2)))
    line = np.array([(3.5, 2.5)])
    with style.styled():
        drawn = dislocations.draw(
            line,
            {"com": (unclosed, FoundDislocations(line, closure[1, 2][None]))},
            (6, 8),
            3.0,
            2.0,
        )
        assert has_white_rim(drawn)
    panel = drawn.get_axes()[0]
    image = panel.get_images()[0]
    left, right, bottom, top = image.get_extent()
    at = (left + (2 + 0.5) * (right - left) / 5, top + (1 + 0.5) * (bottom - top) / 3)
    assert shown(panel)[1, 2] == 1
    for points in panel.collections:
        np.testing.assert_allclose(points.get_offsets()[0], at)
    np.testing.assert_allclose(
        at, [8, 6]
    )  # 0.5 more for the frame round the first position, times 2 nm


def test_drawing_twice_gives_the_same_bytes(metrics, tmp_path: Path):
    for name in ("a", "b"):
        with style.styled():
            style.save(
                error.draw(
                    error.series(metrics, "background"), style.lines(["zero", "com"]), "background"
                ),
                tmp_path / name,
            )
    for kind in ("png", "pdf"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
