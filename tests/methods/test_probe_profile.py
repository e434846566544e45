"""A vacuum probe of few electrons: their number is found, and the scan's own beams mend it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from started import over_stated
from synthetic import Model, random_deformations

from ccstae import geometry
from ccstae.methods.ccstae import method as ccstae
from ccstae.methods.ccstae import probe_profile
from ccstae.methods.ccstae.settings import CcstaeSettings

MODEL = Model(px=112, pixel_size_inv_A=0.02)
F = random_deformations((4, 6), seed=2)
SETTINGS = CcstaeSettings(without=("encoder",))


def recorded(electrons, seed=0):
    """The probe as so many electrons show it."""
    mean = MODEL.probe.astype(np.float64) / MODEL.probe.sum()
    counts = np.random.default_rng(seed).poisson(electrons * mean)
    return (counts / counts.sum()).astype(np.float32)


@pytest.mark.parametrize("electrons", [300, 1e3, 1e4])
def test_the_electrons_of_a_probe_are_told_by_the_scatter_inside_its_disk(electrons):
    centre, radius = MODEL.calibration.centre_px, MODEL.radius_px
    told = [
        probe_profile.electrons_of(torch.from_numpy(recorded(electrons, seed)), centre, radius)
        for seed in range(20)
    ]
    assert np.exp(np.mean(np.log(told))) == pytest.approx(electrons, rel=0.3)
    exact = probe_profile.electrons_of(torch.from_numpy(MODEL.probe), centre, radius)
    assert exact > 1e5


def test_the_profile_of_many_noisy_pictures_is_that_of_the_probe():
    pixels = 19
    exact = probe_profile.from_probe(
        torch.from_numpy(MODEL.probe), MODEL.calibration.centre_px, pixels
    )
    generator = torch.Generator().manual_seed(1)
    shift = torch.rand(40, 2, generator=generator) - 0.5
    mean = probe_profile.spline.render(exact, shift, pixels)
    pictures = torch.poisson(1e4 * mean, generator=generator)
    found = probe_profile.deconvolved(pictures, pictures.isfinite(), shift)
    middle = torch.zeros(1, 2)
    patch, true = (probe_profile.spline.render(p, middle, pixels) for p in (found, exact))
    assert float((patch - true).abs().sum()) < 0.02


def test_a_noisy_probe_costs_little_and_misleads_no_position_that_is_sure():
    counts = MODEL.counts(F, 1e5, 0.25)
    best = ccstae.map_strain(counts, SETTINGS, "cpu")
    answer = ccstae.map_strain(replace(counts, probe=recorded(1e3)), SETTINGS, "cpu")
    differences = geometry.components(answer.F) - geometry.components(best.F)
    deviation = np.sqrt(np.diagonal(best.covariance, axis1=-2, axis2=-1))
    assert np.sqrt(np.nanmean((differences / deviation) ** 2)) < 0.5
    assert 0.85 < over_stated(answer, F) < 1.25
