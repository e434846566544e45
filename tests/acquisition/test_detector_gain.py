"""Photon transfer gives back gain and pedestal of detectors that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ccstae.acquisition.detector_gain import DetectorGain, measure

SIDE, ROWS, COLUMNS = 48, 8, 48


def expectation(row: int, column: int, diffuse: float) -> NDArray[np.float64]:
    """Disks that drift over the scan, on a diffuse background."""
    y, x = np.indices((SIDE, SIDE), float)
    scene = diffuse * np.exp(-np.hypot(x - 24, y - 24) / 15)
    for dx, dy, peak in ((0, 0, 200), (14, 3, 20), (-14, -3, 20), (-4, 15, 12), (4, -15, 12)):
        away = np.hypot(x - 24 - dx - 0.02 * column, y - 24 - dy + 0.1 * row)
        scene = scene + peak / (1 + np.exp((away - 4) / 0.4))
    return scene


def lines(gain: float, pedestal: float, noise: float, diffuse: float) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(5)
    made = []
    for row in range(ROWS):
        expected = np.stack([expectation(row, column, diffuse) for column in range(COLUMNS)])
        electrons = rng.poisson(expected)
        readings = pedestal + gain * electrons + rng.normal(0, noise * gain, electrons.shape)
        made.append(readings.astype(np.float32))
    return made


@pytest.mark.parametrize(
    ("gain", "pedestal", "noise", "diffuse"),
    [
        (151.0, 12.0, 0.05, 3.0),  # EMPAD: readout is small, and most pixels get electrons
        (151.0, -40.0, 0.03, 0.05),  # most pixels get none
        (1.0, 0.0, 0.0, 1.0),  # counting
        (0.3, 35.0, 0.0, 30.0),  # a pixel without an electron is never seen
        (20.0, 1000.0, 0.15, 0.5),
    ],
)
def test_gain_and_pedestal(gain: float, pedestal: float, noise: float, diffuse: float) -> None:
    found = measure(lines(gain, pedestal, noise, diffuse))
    assert isinstance(found, DetectorGain)
    # With square term and floor, the slope's standard error is half a percent at the worst.
    assert found.electrons_per_unit == pytest.approx(1 / gain, rel=0.015)
    # The standard error of the line's crossing is a few hundredths of the dimmest signal.
    assert found.pedestal == pytest.approx(pedestal, abs=gain * (0.05 + 0.05 * diffuse))
    assert found.counting == (gain == 1)


def test_readings_that_are_missing_do_not_count() -> None:
    data = lines(10.0, 100.0, 0.1, 1.0)
    data[2][7] = np.nan
    data[3][:, 10:12] = np.nan
    found = measure(data)
    assert isinstance(found, DetectorGain)
    assert found.electrons_per_unit == pytest.approx(0.1, rel=0.01)


def test_dark_frames_tell_nothing() -> None:
    rng = np.random.default_rng(1)
    offsets = rng.normal(0, 50, (SIDE, SIDE))
    dark = [(offsets + rng.normal(0, 8, (COLUMNS, SIDE, SIDE))).astype("f4") for _ in range(ROWS)]
    assert isinstance(measure(dark), str)


def test_a_few_patterns_tell_nothing() -> None:
    assert isinstance(measure(lines(10.0, 0.0, 0.1, 1.0)[:1]), str)
    assert isinstance(measure([]), str)


def test_the_error_is_that_of_counting() -> None:
    """The gain's error is within six of what it would be, were the line straight and the floor
    known: variances are known to sqrt(4 / differences).
    """
    found = measure(lines(7.0, 3.0, 0.02, 5.0))
    assert isinstance(found, DetectorGain)
    limit = math.sqrt(4 / (ROWS * COLUMNS * found.pixels))
    assert abs(found.electrons_per_unit * 7 - 1) < 6 * limit
