"""The scene of ripples: its waves, and that its strain is compatible."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from made_scene import build

from ccstae import geometry
from ccstae.errors import InputError


def test_ripples_are_waves_of_one_amplitude_in_what_compatibility_allows() -> None:
    scene = build(kind="ripples", materials=["WS2"])
    lengths, band = scene.waves()
    parts = geometry.components(scene.deformation(scene.positions))
    assert lengths.tolist() == [2.5, 3.8, 5.7, 8.7, 13.2, 20.0]
    phase = 2 * np.pi * scene.positions[0, :, 0] / scene.scan.step_A
    for index, length in enumerate(lengths):
        shown = parts[band == index].reshape(4, 40, 4)  # four rows of the scan
        expected = 0.012 * np.stack(
            [np.cos(phase / length), 0 * phase, *2 * [np.sin(phase / length) / 2]], -1
        )
        # To first order: squares of the amplitude, and its shift of the waves by u.
        np.testing.assert_allclose(shown, np.broadcast_to(expected, shown.shape), atol=1.8e-4)
    at_rest = scene.reference(scene.positions)
    assert at_rest.sum() == 6 * 40
    np.testing.assert_allclose(parts[at_rest], 0, atol=1e-15)


def test_ripples_are_compatible() -> None:
    """du integrated along the edges of a cell closes, to rounding; at half steps, where the windows
    have their kinks, and by Gauss' rule, exact for what is smooth between them.
    """
    scene = build(kind="ripples", materials=["WS2"])
    step = scene.scan.step_A
    nodes, weights = np.polynomial.legendre.leggauss(16)
    low = np.stack(np.meshgrid(np.arange(-20, 20, 0.5), np.arange(-28, 28, 0.5), indexing="xy"), -1)
    closure = np.zeros((*low.shape[:2], 2))
    corners = 0.5 * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    for start, end in zip(corners, np.roll(corners, -1, 0), strict=True):
        along = (end - start) * step
        for node, weight in zip(nodes, weights, strict=True):
            y = (low + (start + end) / 2 + (end - start) / 2 * node) * step
            closure += weight / 2 * scene.displacement_gradient(y) @ along
    steps_of_u = np.abs(scene.displacement_gradient(low * step)).max() * step
    assert np.abs(closure).max() < 1e-12 * steps_of_u


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wavelengths_steps": [5, 3]}, "wavelengths_steps"),
        ({"wavelengths_steps": [2, 3]}, "wavelengths_steps"),
        ({"scan": {"shape": [27, 40]}}, "at least 28 rows"),
        ({"scan": {"shape": [56, 19]}}, "longest wavelength, 20 steps"),
    ],
)
def test_ripples_that_no_scan_shows_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(kind="ripples", materials=["WS2"], **change)
