"""The detector's banded products and the probe's few terms, against the plain matrix and the plain
Fourier transform.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ccstae.config.microscope import Microscope, Simulation
from ccstae.config.run import load
from ccstae.simulation import optics, simulate
from ccstae.simulation.detector import Detector

DEFAULT = load(Path(__file__).parents[2] / "config" / "default.yaml")


@pytest.mark.parametrize(
    ("changes", "per_px"),
    [
        ({}, 2),
        ({"point_spread_px": 0.0}, 1),
        ({"point_spread_px": 2.0, "detector_px": 100}, 3),
        ({"detector_px": 34}, 2),
    ],
    ids=["default", "sharp pixels", "wide point spread", "small"],
)
def test_the_bands_hold_the_whole_response(changes: dict[str, float], per_px: int) -> None:
    microscope = Microscope.model_validate(DEFAULT.microscope.model_dump() | changes)
    win = optics.window(microscope, Simulation(window_per_px=per_px))
    amplitude = (
        np.random.default_rng(1).normal(size=(2, win.samples, win.samples, 2)).view(complex)[..., 0]
    )
    response, slope = optics.pixel_response(microscope, win)
    intensity = np.abs(amplitude) ** 2
    wave = torch.from_numpy(np.fft.fftshift(amplitude, (1, 2))).to(torch.complex64)
    patterns, gradients = Detector(microscope, win)(wave)
    expected = response @ intensity @ response.T
    assert np.abs(patterns.numpy() - expected).max() < 1e-6 * expected.max()
    for found, (y, x) in zip(
        gradients.unbind(1), ((response, slope), (slope, response)), strict=True
    ):
        np.testing.assert_allclose(
            found.numpy(), y @ intensity @ x.T, rtol=0, atol=1e-6 * expected.max()
        )
    alone, none = Detector(microscope, win, gradients=False)(wave)
    assert np.abs(alone.numpy() - expected).max() < 1e-6 * expected.max()
    assert none.shape[1] == 0


def test_the_probe_is_a_sum_of_few_products() -> None:
    drawer = simulate.Renderer(DEFAULT, optics.window(DEFAULT.microscope, DEFAULT.simulation))
    win = drawer.win
    offset = np.array([[0.0, 0.0], [0.21, -0.17]])
    phase = np.exp(
        -2j * np.pi * win.frequencies * (offset[..., None] + win.width_A / 2)
    )  # (B, 2, n)
    exact = np.fft.ifft2(
        optics.probe_fourier(DEFAULT.microscope, win) * phase[:, 1, :, None] * phase[:, 0, None, :]
    )
    signs = (-1) ** np.arange(win.samples)
    found = drawer.waves(torch.from_numpy(offset)).numpy()[..., 0] * np.outer(signs, signs)
    assert np.abs(found - exact).max() < 1e-6 * np.abs(exact).max()
    assert drawer.factors.shape[1] < 20
