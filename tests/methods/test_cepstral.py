"""The power cepstrum: its transform against the FFT, the whole against known deformations of ideal
patterns.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import Model, errors, random_deformations

from ccstae import geometry
from ccstae.methods.cepstral import method as cepstral
from ccstae.methods.cepstral.settings import CepstralSettings

MODEL = Model(offset_px=(0.3, -0.2))


def centred(F: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Errors (n, 4) less their mean: maps are re-referenced before they are scored."""
    found = errors(F, truth).reshape(-1, 4)
    return np.asarray(found - found.mean(0))


def test_the_transform_is_the_fft_on_the_grid() -> None:
    levels = torch.randn(2, 24, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fft = torch.fft.fft2(levels).abs()
    at = torch.tensor([[[3 / 32, 2 / 24], [-5 / 32, 7 / 24]]], dtype=torch.float64).expand(
        2, -1, -1
    )
    found = cepstral.spectrum(levels, at, torch.zeros(1, dtype=torch.float64))[..., 0, 0]
    torch.testing.assert_close(found, torch.stack([fft[:, 2, 3], fft[:, 7, -5]], 1))


@pytest.mark.parametrize(("background", "most"), [("none", 4e-4), ("radial", 10e-4)])
def test_clean_patterns_give_the_strain(background: str, most: float) -> None:
    F = random_deformations((4, 4), strain=0.03, rotation=0.05)
    answer = cepstral.map_strain(
        MODEL.counts(F), CepstralSettings(offset_electrons=1, background=background), "cpu"
    )
    assert (
        np.abs(errors(answer.F, F).mean((0, 1))).max() < 80e-4
    )  # peaks on a slope: pulled inwards, alike everywhere
    assert centred(answer.F, F).std(0).max() < most
    np.testing.assert_allclose(
        answer.centre_px, np.broadcast_to([64.3, 63.8], (4, 4, 2)), atol=0.03
    )


@pytest.mark.parametrize(("background", "most"), [(0.0, 5), (0.25, 10)])
def test_noise_costs_several_times_the_bound(background: float, most: float) -> None:
    F = random_deformations((8, 8), seed=2)
    answer = cepstral.map_strain(
        MODEL.counts(F, 1e5, background, seed=5), CepstralSettings(), "cpu"
    )
    ratio = centred(answer.F, F).std(0) / MODEL.limit(np.eye(2), 1e5, background)
    assert ratio.min() > 1.5
    assert ratio.max() < most


def test_any_orientation_is_found() -> None:
    F = random_deformations((5, 5), seed=4) @ geometry.rotation_matrix(
        np.linspace(-1.2, 1.2, 25).reshape(5, 5)
    )
    answer = cepstral.map_strain(MODEL.counts(F, 1e6), CepstralSettings(), "cpu")
    assert np.isfinite(answer.F).all()
    assert centred(answer.F, F).std(0).max() < 40e-4


def test_the_intensity_of_a_disk_hardly_matters() -> None:
    """What the logarithm is for: disks that change their intensity with tilt and thickness leave
    the lattice where it is.
    """
    F = random_deformations((3, 3), seed=1)
    even = cepstral.map_strain(
        Model(friedel=0.0).counts(F), CepstralSettings(offset_electrons=1), "cpu"
    ).F
    uneven = cepstral.map_strain(
        Model(friedel=1.2).counts(F), CepstralSettings(offset_electrons=1), "cpu"
    ).F
    assert np.abs(errors(uneven, even)).max() < 10e-4
