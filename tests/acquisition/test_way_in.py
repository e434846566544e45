"""The whole way in, from the file that a detector wrote to strain, held against truth: an ellipse
of 2.6 %, a descan of several pixels, a camera that does not count, and frames that were lost.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from detector_files import empad_xml, write_empad
from numpy.typing import NDArray
from scipy import ndimage

from ccstae import cli, geometry
from ccstae.evaluation.split_half import split_half
from ccstae.io.maps import Map, read_map
from ccstae.simulation.ideal import IdealCrystal

Array = NDArray[np.float64]

SCAN, VACUUM, REFERENCE = (9, 14), 3, 8  # the first columns: vacuum, then the reference
ELECTRONS, BACKGROUND = 1e5, 0.25
STEP = 0.033  # between the materials of the published scan
UNITS, PEDESTAL, READOUT = 151.0, 24.0, 3.0  # of the camera: of an electron, of none, of its noise
LOST = ((2, 5), (7, 11), (6, 1))
CRYSTAL = IdealCrystal(pixel_size_inv_A=0.01253)
TURN = geometry.rotation_matrix(np.deg2rad(25.0))
ELLIPSE = TURN @ np.diag([1.026**0.5, 1.026**-0.5]) @ TURN.T
# Of the bound, and a bias beyond its own standard error.
MAX_RATIO, MAX_BIAS = 1.1, 3e-4


@dataclass(frozen=True)
class Recovered:
    """The strain of a recorded scan, and what it should be."""

    scan: Path
    map: Map
    error: Array  # (Ry, Rx, 4), against the mean of the reference; NaN where there is no answer
    bound: Array  # (Ry, Rx, 4)


def deformation() -> Array:
    """F (Ry, Rx, 2, 2): nothing in the reference, then the step, with strain that varies."""
    y, x = np.indices(SCAN)
    beyond = x >= REFERENCE
    wave = 0.004 * np.sin(2 * np.pi * y / SCAN[0])
    parts = STEP + wave, STEP - wave, wave / 2, 0.005 * np.cos(2 * np.pi * y / SCAN[0])
    return geometry.deformation(*(np.where(beyond, part, 0.0) for part in parts))


def run(*words: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ccstae", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert not end.value.code


@pytest.fixture(scope="module")
def recovered(tmp_path_factory: pytest.TempPathFactory) -> Recovered:
    folder = tmp_path_factory.mktemp("way-in")
    rng = np.random.default_rng(4)
    F = deformation()
    y, x = np.indices(SCAN)
    beam = np.stack([1.3 + 0.25 * x - 0.1 * y, -1.6 + 0.05 * x + 0.3 * y], -1)
    readings = np.empty((*SCAN, CRYSTAL.px, CRYSTAL.px))
    for row, column in np.ndindex(SCAN):
        made = IdealCrystal(a_A=1e-2, pixel_size_inv_A=0.01253) if column < VACUUM else CRYSTAL
        # A detector that shows g as E g shows F^-T g where a pattern of E^-T F would lie.
        seen = geometry.inverse_transpose(ELLIPSE) @ F[row, column]
        pattern = made.pattern(seen, tuple(beam[row, column]), oversample=3)
        diffuse = ndimage.shift(
            CRYSTAL.background, beam[row, column, ::-1], order=1, mode="nearest"
        )
        pattern = (1 - BACKGROUND) * pattern / pattern.sum() + BACKGROUND * diffuse
        readings[row, column] = UNITS * rng.poisson(ELECTRONS * pattern)
    readings += PEDESTAL + READOUT * rng.normal(size=readings.shape)
    for lost in LOST:
        readings[lost] = np.nan
    raw = write_empad(folder / "scan.raw", readings, empad_xml("scan.raw", SCAN))
    scan, made = folder / "scan.h5", folder / "map.h5"
    run("import", raw, "--out", scan)
    run("calibrate", scan, "--material", "WS2", "--scan-rotation-deg", 0)
    run("map", scan, "--out", made)
    answer = read_map(made)
    reference = (x >= VACUUM) & (x < REFERENCE) & np.isfinite(answer.F).all((-1, -2))
    found = geometry.to_branch(answer.F, F, 6)
    found = found @ np.linalg.inv(found[reference].mean(0))
    error = geometry.components(found) - geometry.components(F)
    bound = np.where(
        (x < REFERENCE)[..., None],
        CRYSTAL.limit(np.eye(2), ELECTRONS, BACKGROUND),
        CRYSTAL.limit(F[0, -1], ELECTRONS, BACKGROUND),
    )
    return Recovered(scan, answer, error, bound)


def test_every_frame_that_was_not_lost_is_answered(recovered: Recovered) -> None:
    answered = np.isfinite(recovered.map.F).all((-1, -2))
    expected = np.tile(np.arange(SCAN[1]) >= VACUUM, (SCAN[0], 1))
    for lost in LOST:
        expected[lost] = False
    np.testing.assert_array_equal(answered, expected)


def test_strain_comes_back_at_the_bound(recovered: Recovered) -> None:
    error = recovered.error[:, VACUUM:].reshape(-1, 4)
    bound = recovered.bound[:, VACUUM:].reshape(-1, 4)[np.isfinite(error).all(-1)]
    error = error[np.isfinite(error).all(-1)]
    # All components together: of one alone, some 95 positions tell the ratio to 7 % and no better.
    assert np.sqrt(np.mean((error / bound) ** 2)) < MAX_RATIO


def test_the_step_between_the_materials_is_not_biased(recovered: Recovered) -> None:
    error = recovered.error[:, REFERENCE:].reshape(-1, 4)
    error = error[np.isfinite(error).all(-1)]
    n_reference = SCAN[0] * (REFERENCE - VACUUM)
    deviation = recovered.bound[0, -1] * np.sqrt(1 / len(error) + 1 / n_reference)
    assert (np.abs(error.mean(0)) < MAX_BIAS + 2 * deviation).all(), error.mean(0)


def test_halves_tell_the_error_without_truth(recovered: Recovered) -> None:
    """Readings that are no whole numbers are dealt out too."""
    error = recovered.error[np.isfinite(recovered.error).all(-1)]
    alike = Map(recovered.map.F, recovered.map.attributes, recovered.map.covariance)
    for k, one in enumerate(split_half(recovered.scan, alike)):
        # of some 95 positions, in the mean square to three standard errors of either
        true = float(np.sqrt(np.mean(error[:, k] ** 2)))
        assert one.rms_difference / 2 == pytest.approx(true, rel=3 / np.sqrt(len(error)))
        assert one.chi_square == pytest.approx(1, abs=3 * np.sqrt(2 / one.positions))
        assert one.coverage95 == pytest.approx(0.95, abs=3 * np.sqrt(0.05 / one.positions))
