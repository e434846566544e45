"""The mean residual: noise where the model is right, and whatever it has no word for."""

from dataclasses import replace

import numpy as np
import pytest
from started import recorded
from synthetic import Model, random_deformations

from ccstae.io.maps import Map, read_map, write_map
from ccstae.methods.ccstae import method as ccstae
from ccstae.methods.ccstae.settings import CcstaeSettings
from ccstae.methods.ccstae_pooled import method as pooled

MODEL = Model(px=128, pixel_size_inv_A=0.02)
F = random_deformations((4, 6), strain=0.01, rotation=0.01, seed=3)
SPOT, SPOT_COUNTS = (slice(20, 23), slice(97, 100)), 8.0


def standard_error(scan):
    """Of the mean over the scan of Poisson counts, (Qy, Qx)."""
    patterns = scan.patterns
    return np.sqrt(patterns.mean(0).clip(1 / len(patterns)) / len(patterns))


@pytest.mark.parametrize("transformer", ["rigid", "affine"])
def test_a_residual_of_a_right_model_is_noise_and_what_is_foreign_stands_out(transformer):
    scan = recorded(MODEL, F, 3e5, 0.25)
    settings = CcstaeSettings(without=("encoder",), transformer=transformer)
    z = ccstae.map_strain(scan, settings, "cpu").residual / standard_error(scan)
    assert z.shape == (128, 128)
    assert np.sqrt(np.mean(z**2)) < 1.1
    counts = scan.counts.astype(np.int64)
    counts[(..., *SPOT)] += np.random.default_rng(1).poisson(SPOT_COUNTS, (4, 6, 3, 3))
    foreign = replace(scan, counts=counts.astype(np.uint32))
    residual = ccstae.map_strain(foreign, settings, "cpu").residual
    assert residual[SPOT].mean() == pytest.approx(SPOT_COUNTS, rel=0.15)
    assert np.abs(residual[SPOT] / standard_error(foreign)[SPOT]).min() > 5


def test_bad_pixels_have_no_residual_and_a_pooled_map_has_that_of_its_patterns(tmp_path):
    good = np.ones((128, 128), bool)
    good[40:42, 70:73] = False
    scan = recorded(MODEL, F, 3e5, 0.25)
    scan = replace(scan, counts=scan.counts * good, good=good)
    settings = CcstaeSettings(without=("encoder",))
    residual = ccstae.map_strain(scan, settings, "cpu").residual
    assert np.array_equal(np.isnan(residual), ~good)
    np.testing.assert_array_equal(pooled.map_strain(scan, settings, "cpu").residual, residual)
    write_map(tmp_path / "map.h5", Map(F, {}, residual=residual))
    np.testing.assert_array_equal(read_map(tmp_path / "map.h5", complete=False).residual, residual)
