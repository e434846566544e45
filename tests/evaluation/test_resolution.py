"""Resolution and the precision that a map states of itself, against closed forms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_run import LIMIT, SHAPE, made_map, made_truth
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.special import erf, ndtr

from ccstae import geometry
from ccstae.config.levels import Level
from ccstae.config.run import parse
from ccstae.errors import InputError
from ccstae.evaluation.metrics import score_map
from ccstae.evaluation.resolution import (
    WAVE,
    WIDTH_OVER_DEVIATION,
    gain,
    half_wavelength,
    neighbour_deviation,
    step_width,
)
from ccstae.io.truth import StrainWaves, Truth, read_truth, write_truth
from ccstae.simulation.exact import REGIONS, exact_truth
from ccstae.specimen.build import build_scene

NOISY = Level(background=0.25, electrons=1e5)


def truth_of(**scene: object) -> Truth:
    """The truth of a scene without its patterns, its bound the same at every position."""
    config = parse(
        {
            "name": "made",
            "scenes": {"made": scene},
            "noise": {"only": {"background": 0.25, "electrons": 1e5}},
            "methods": {"zero": None},
        }
    )
    built = build_scene(config, "made")
    exact = exact_truth(config, built, built.positions)
    shape = exact["label"].shape
    waves = None
    if "wave/band" in exact:
        waves = StrainWaves(exact["wave/length_steps"], exact["wave/band"])
    return Truth(
        F=exact["F"],
        F_probe=exact["F_probe"],
        label=exact["label"],
        region=exact["region"],
        regions=REGIONS,
        reference=exact["reference"],
        symmetry=built.symmetry,
        bound={NOISY.name: np.full((*shape, 4), LIMIT)},
        interface_steps=exact.get("interface_steps"),
        waves=waves,
    )


@pytest.fixture(scope="module")
def ripples() -> Truth:
    return truth_of(kind="ripples", materials=["WS2"])


def two_materials(rows: int, interface_width_A: float) -> Truth:
    """Of an interface in the middle of 24 steps."""
    return truth_of(
        kind="heterostructure",
        materials=["WS2", "WSe2"],
        scan={"shape": [rows, 24], "step_A": 32},
        interface_A=0,
        interface_width_A=interface_width_A,
        edge_offset_A=None,
        reference_A=[-400, -400, -200, 400],
    )


@pytest.fixture(scope="module")
def sharp() -> Truth:
    return two_materials(8, 0)


def blurred(truth: Truth, width_steps: float, error: float | np.ndarray = 0.0) -> np.ndarray:
    """F of the truth's components, with an error, under a Gaussian average over neighbours."""
    parts = geometry.components(truth.F_probe) + error
    sigma = (width_steps, width_steps, 0)
    return geometry.deformation(*np.moveaxis(gaussian_filter(parts, sigma, mode="nearest"), -1, 0))


def scores(truth: Truth, F: np.ndarray) -> dict[tuple[str, str, str], float]:
    return {row[:3]: row[3] for row in score_map(truth, NOISY, made_map("x", F))}


def transfer(width: float, length: np.ndarray | float) -> np.ndarray:
    """Of a Gaussian average of standard deviation `width` at wavelength `length`."""
    return np.exp(-2 * np.pi**2 * np.square(width) / np.square(length))


@pytest.mark.parametrize("width", [0.75, 1.0, 2.0])
@pytest.mark.parametrize("length", [4, 6, 12, 24])
def test_the_gain_of_a_blurred_wave_is_the_transfer_function(width: float, length: int) -> None:
    wave = 0.01 * np.sin(2 * np.pi * np.arange(48) / length)
    shown = gaussian_filter1d(wave, width, mode="wrap", truncate=8)
    # Sampling the Gaussian at 0.75 steps adds its first alias, 2e-3 at four steps.
    assert gain(wave[:, None], shown[:, None], None) == pytest.approx(
        transfer(width, length), abs=3e-3
    )


def test_an_identity_map_shows_every_wave_in_full(ripples: Truth) -> None:
    found = scores(ripples, ripples.F_probe)
    mtf = {key: value for key, value in found.items() if key[2] == "mtf"}
    # Six waves; exx, exy, theta and all together.
    assert len(mtf) == 24
    assert {quantity for _, quantity, _ in mtf} == {"exx", "exy", "theta", "all"}
    assert list(mtf.values()) == pytest.approx(np.ones(24), abs=1e-9)
    assert found["all", "all", "mtf_half_wavelength"] == 2.5


@pytest.mark.parametrize("width", [0.75, 1.0, 1.5])
def test_the_mtf_of_a_gaussian_blur(ripples: Truth, width: float) -> None:
    """Within 0.09 for a component, 0.05 for all together: bands have eight rows, and a blur mixes
    some of the shear of their edges in.
    """
    assert ripples.waves is not None
    lengths = ripples.waves.length_steps
    found = scores(ripples, blurred(ripples, width))
    for quantity in ("exx", "exy", "theta", "all"):
        mtf = [found[f"{WAVE}{length:g}", quantity, "mtf"] for length in lengths]
        assert mtf == pytest.approx(
            transfer(width, lengths), abs=0.05 if quantity == "all" else 0.09
        )
        # exp(-2 pi^2 s^2 / L^2) = 1 / 2
        expected = width * np.pi * np.sqrt(2 / np.log(2))
        assert found["all", quantity, "mtf_half_wavelength"] == pytest.approx(expected, rel=0.05)


def test_noise_does_not_move_the_mtf(ripples: Truth) -> None:
    error = np.random.default_rng(0).normal(size=(*ripples.label.shape, 4)) * LIMIT
    found = scores(ripples, blurred(ripples, 0.0, error))
    assert ripples.waves is not None
    # Of 160 positions: the error of exx over its amplitude, over sqrt(160 / 2), times four.
    for length in ripples.waves.length_steps:
        assert found[f"{WAVE}{length:g}", "exx", "mtf"] == pytest.approx(
            1, abs=4 * LIMIT[0] / 0.012 / np.sqrt(80)
        )


def test_no_answer_shows_no_wave(ripples: Truth) -> None:
    nothing = scores(ripples, np.full_like(ripples.F_probe, np.nan))
    mtf = [value for key, value in nothing.items() if key[2] == "mtf"]
    assert mtf == pytest.approx(np.zeros(24), abs=1e-12)
    assert not [key for key in nothing if key[2] == "mtf_half_wavelength"]
    half = ripples.F_probe.copy()
    half[:, ::2] = np.nan
    assert scores(ripples, half)["wave_20", "exx", "mtf"] == pytest.approx(0.5, abs=0.01)


def test_waves_and_interface_are_kept_in_the_truth_file(
    ripples: Truth, sharp: Truth, tmp_path: Path
) -> None:
    write_truth(tmp_path / "ripples.h5", ripples)
    kept = read_truth(tmp_path / "ripples.h5")
    assert kept.waves is not None
    assert ripples.waves is not None
    assert kept.interface_steps is None
    np.testing.assert_array_equal(kept.waves.band, ripples.waves.band)
    np.testing.assert_array_equal(kept.waves.length_steps, ripples.waves.length_steps)
    write_truth(tmp_path / "sharp.h5", sharp)
    kept = read_truth(tmp_path / "sharp.h5")
    assert kept.waves is None
    np.testing.assert_array_equal(kept.interface_steps, sharp.interface_steps)
    falling = StrainWaves(ripples.waves.length_steps[::-1], ripples.waves.band)
    write_truth(tmp_path / "falling.h5", replace(ripples, waves=falling))
    with pytest.raises(InputError, match="length_steps that rise"):
        read_truth(tmp_path / "falling.h5")


def test_half_wavelength_is_where_the_curve_crosses_last() -> None:
    assert half_wavelength([2, 4, 8, 16], [0.6, 0.1, 0.3, 0.9]) == pytest.approx(
        8 * 2 ** (0.2 / 0.6)
    )


@pytest.mark.parametrize("deviation", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_the_width_of_an_error_function(deviation: float, shift: float) -> None:
    distance = np.add.outer(np.linspace(-0.4, 0.4, 9), np.arange(-6, 7)).ravel()
    values = 0.02 * erf((distance - shift) / deviation / np.sqrt(2)) + 1e-3 * distance
    width, height = step_width(distance, values)
    assert width == pytest.approx(2.563103 * deviation, rel=1e-3)
    assert height == pytest.approx(0.04, rel=1e-3)


def test_the_width_of_a_step_minds_outliers_little() -> None:
    rng = np.random.default_rng(0)
    distance = np.tile(np.arange(-5.5, 6), 20)
    values = 0.02 * erf(distance / np.sqrt(2)) + rng.normal(size=distance.size) * 1e-3
    values[rng.random(distance.size) < 0.05] += 0.1
    assert step_width(distance, values)[0] == pytest.approx(WIDTH_OVER_DEVIATION, abs=0.15)


@pytest.mark.parametrize("width", [0.75, 1.0, 1.5])
def test_the_width_of_a_blurred_interface(sharp: Truth, width: float) -> None:
    """A step between two positions that is averaged at the positions has the variance s^2 - 1/12:
    the sum over a step's cell is wanting.
    """
    found = scores(sharp, blurred(sharp, width))
    assert found["all", "exx", "width_10_90_truth"] == pytest.approx(0.8)
    expected = WIDTH_OVER_DEVIATION * np.sqrt(width**2 - 1 / 12)
    assert found["all", "exx", "width_10_90"] == pytest.approx(expected, rel=0.03)
    assert not [key for key in found if key[2].startswith("width") and key[1] != "exx"]


def test_the_width_of_a_smooth_interface_is_that_of_its_cubic() -> None:
    """3 t^2 - 2 t^3 is 0.1 at t = 0.1958: from 10 to 90 % it takes 0.6084 of its width. The error
    function nearest to it is a little wider.
    """
    smooth = two_materials(4, 128)
    found = scores(smooth, smooth.F_probe)
    assert found["all", "exx", "width_10_90"] == found["all", "exx", "width_10_90_truth"]
    assert found["all", "exx", "width_10_90"] == pytest.approx(0.6084 * 4, rel=0.1)


def test_a_map_without_the_step_has_no_width(sharp: Truth) -> None:
    found = scores(sharp, np.broadcast_to(np.eye(2), sharp.F_probe.shape))
    assert ("all", "exx", "width_10_90_truth") in found
    assert ("all", "exx", "width_10_90") not in found


def test_a_scene_without_waves_or_interface_has_neither() -> None:
    truth = made_truth()
    far = replace(truth, interface_steps=np.full(SHAPE, 1.0) + np.arange(SHAPE[1]))
    for one in (truth, far):
        names = {metric for _, _, metric in scores(one, truth.F_probe)}
        assert not names & {"mtf", "mtf_half_wavelength", "width_10_90", "width_10_90_truth"}


def variance_of_median(n: int) -> float:
    """Of the median of an even number n of standard normal values, from the joint density of the
    two in the middle.
    """
    k = n // 2
    nodes, weights = np.polynomial.legendre.leggauss(300)
    x, weights = 4 * nodes, 4 * weights
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    factor = float(np.prod(np.arange(k, n + 1.0))) / float(np.prod(np.arange(1.0, k)))
    joint = factor * np.outer(
        ndtr(x) ** (k - 1) * density * weights, ndtr(-x) ** (k - 1) * density * weights
    )
    joint = np.where(x[:, None] < x, joint, np.where(x[:, None] == x, joint / 2, 0))
    return float((joint * np.square((x[:, None] + x) / 2)).sum() / joint.sum())


def test_the_self_precision_of_white_noise() -> None:
    """sigma sqrt(1 + variance of the median of twenty) away from the edges, 3.6 % too much."""
    too_much = np.sqrt(1 + variance_of_median(20))
    assert too_much == pytest.approx(1.036, abs=1e-3)
    noise = np.random.default_rng(0).normal(size=(300, 300, 1))
    found = neighbour_deviation(noise)[2:-2, 2:-2]
    assert np.sqrt(np.square(found).mean()) == pytest.approx(too_much, rel=0.006)


def test_self_precision_sees_no_slope_and_no_bias_and_no_shared_noise() -> None:
    y, x = np.mgrid[:20, :20]
    slope = 0.5 + 1e-3 * x - 2e-3 * y
    assert np.abs(neighbour_deviation(slope[..., None])[2:-2, 2:-2]).max() < 1e-12
    truth = made_truth()
    # Neighbours share what varies over the whole map.
    shared = np.cos(np.pi * (np.arange(SHAPE[1]) / SHAPE[1]) + np.zeros(SHAPE))
    shared *= 1e-3 / shared.std()
    parts = geometry.components(truth.F_probe)
    still = replace(truth, F_probe=np.broadcast_to(np.eye(2), truth.F.shape))
    F = geometry.deformation(shared, *np.moveaxis(0 * parts[..., 1:], -1, 0))
    found = scores(still, F)
    assert found["interior", "exx", "rmse"] > 5 * found["interior", "exx", "self_precision"]


def test_self_precision_needs_three_neighbours_with_an_answer() -> None:
    values = np.full((9, 9, 1), np.nan)
    values[4, 2:6, 0] = (0.0, 1.0, 3.0, 7.0)
    found = neighbour_deviation(values)
    # Of the inner two all three neighbours are within 2.5 steps, of the others two.
    assert np.isfinite(found).sum() == 2
    assert found[4, 3, 0] == 1.0 - 3.0
    assert found[4, 4, 0] == 3.0 - 1.0
