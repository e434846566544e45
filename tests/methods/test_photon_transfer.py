"""Readings of a camera: the gain is what it was made with, and strain and deviations are those of
the electrons.
"""

from dataclasses import replace

import numpy as np
import pytest
from started import over_stated
from synthetic import Model, random_deformations

from ccstae import geometry
from ccstae.methods.ccstae import method as ccstae
from ccstae.methods.ccstae.settings import CcstaeSettings

MODEL = Model(px=112, pixel_size_inv_A=0.02)
F = random_deformations((4, 6), seed=2)
SETTINGS = CcstaeSettings(without=("encoder",))


@pytest.fixture(scope="module")
def electrons():
    return MODEL.counts(F, 1e5, 0.25)


@pytest.fixture(scope="module")
def best(electrons):
    """The map of the electrons themselves."""
    return ccstae.map_strain(electrons, SETTINGS, "cpu")


def read_out(counts, gain, pedestal, noise, converted=False, seed=3):
    """What a camera with this gain, pedestal and noise of readout gives for the electrons."""
    rng = np.random.default_rng(seed)
    electrons = counts.counts.astype(np.float64)
    readings = np.rint(pedestal + gain * electrons + noise * rng.standard_normal(electrons.shape))
    readings = readings.clip(0)
    if converted:
        return replace(counts, counts=((readings - pedestal) / gain).astype(np.float32))
    return replace(counts, counts=readings.astype(np.uint32))


def off(answer, other):
    """Root mean square difference of two answers in deviations that the second states."""
    differences = geometry.components(answer.F) - geometry.components(other.F)
    deviation = np.sqrt(np.diagonal(other.covariance, axis1=-2, axis2=-1))
    return float(np.sqrt(np.nanmean((differences / deviation) ** 2)))


@pytest.mark.parametrize(("gain", "pedestal", "noise"), [(3, 0, 0), (20, 50, 2)], ids=str)
def test_readings_are_converted_to_the_electrons_that_they_stand_for(
    electrons, best, gain, pedestal, noise
):
    assert best.found["gain"] == 1
    answer = ccstae.map_strain(read_out(electrons, gain, pedestal, noise), SETTINGS, "cpu")
    assert answer.found["gain"] == pytest.approx(gain, rel=0.1)
    assert "gain" in answer.found["model"]
    assert answer.found["dispersion_of_counts"] == 1
    assert off(answer, best) < 0.5
    assert 0.85 < over_stated(answer, F) < 1.25


def test_noise_of_readout_in_empty_pixels_misleads_no_position_that_is_sure():
    """At 1e4 electrons most pixels hold none. Half of their readings lie below 0."""
    electrons = MODEL.counts(F, 1e4, 0.0)
    best = ccstae.map_strain(electrons, SETTINGS, "cpu")
    answer = ccstae.map_strain(read_out(electrons, 20, 50, 2, converted=True), SETTINGS, "cpu")
    assert answer.found["gain"] == pytest.approx(1, abs=0.1)
    assert off(answer, best) < 1
    assert over_stated(answer, F) < 1.25


def test_weights_keep_what_a_reading_is(tmp_path, electrons):
    readings = read_out(electrons, 20, 50, 2)
    model = ccstae.learn(readings, SETTINGS, "cpu")
    first = ccstae.apply(model, readings, "cpu")
    ccstae.save(tmp_path / "weights.safetensors", model)
    again = ccstae.load(tmp_path / "weights.safetensors", readings, SETTINGS, "cpu")
    assert again.readings == model.readings
    assert np.array_equal(ccstae.apply(again, readings, "cpu").F, first.F, equal_nan=True)


def test_structure_in_the_disks_and_counts_without_noise_are_no_gain():
    """Their residuals lie on no line over the mean."""
    exact = MODEL.counts(F, np.inf, 0.0)
    assert ccstae.map_strain(exact, SETTINGS, "cpu").found["gain"] == 1
