"""Maps of a scan whose detector has an ellipse and is turned against the scan: the strain is that
of the sample along the scan's axes, with deviations that hold.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from ccstae import cli, geometry
from ccstae.errors import InputError
from ccstae.io.counts import Counts, read_counts, write_counts
from ccstae.io.maps import Map, read_map
from ccstae.methods.base import Answer
from ccstae.methods.sample_frame import in_sample_frame
from ccstae.simulation.ideal import IdealCrystal, errors, random_deformations

Array = NDArray[np.float64]

CRYSTAL = IdealCrystal()
ELLIPSE = np.array([[1.02, 0.008], [0.008, 0.985]])
ELLIPSE /= math.sqrt(float(np.linalg.det(ELLIPSE)))
TURN_DEG = 25.0
ELECTRONS, BACKGROUND = 1e5, 0.25


def recorded(F: Array) -> Counts:
    """A scan of a crystal whose deformations along the scan's axes are F (Ry, Rx, 2, 2).

    The lattice of the crystal lies as `CRYSTAL` has it on the detector. There, the deformation is
    R F R^T; a node g of the reference is seen at E (R F R^T)^-T g, which is where a pattern of
    (R F R^T) seen by a perfect detector has it under the deformation E^-T.
    """
    R = geometry.rotation_matrix(np.deg2rad(TURN_DEG))
    on_detector = R @ F @ R.T
    scan = CRYSTAL.counts(geometry.inverse_transpose(ELLIPSE) @ on_detector, ELECTRONS, BACKGROUND)
    calibration = replace(
        scan.calibration,
        lattice_inv_A=ELLIPSE @ CRYSTAL.G0,
        distortion=ELLIPSE,
        scan_rotation_deg=TURN_DEG,
    )
    return replace(scan, calibration=calibration)


def written(scan: Counts, path: Path) -> Path:
    write_counts(path, scan.scan_rows(), scan.scan + scan.detector, scan.calibration, scan.probe)
    return path


def mapped(monkeypatch: pytest.MonkeyPatch, *words: str) -> Map:
    monkeypatch.setattr("sys.argv", ["ccstae", "map", *words])
    cli.app(standalone_mode=False)
    return read_map(words[words.index("--out") + 1])


@pytest.fixture(scope="module")
def F() -> Array:
    return random_deformations((4, 6), strain=0.02, rotation=0.02, seed=5)


@pytest.mark.parametrize(("method", "over_bound"), [("com", 2.3), ("ccstae", 1.5)])
def test_strain_is_the_samples_along_the_scans_axes(
    F: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, over_bound: float
) -> None:
    scan = written(recorded(F), tmp_path / "scan.h5")
    answer = mapped(monkeypatch, str(scan), "--out", str(tmp_path / "map.h5"), "--method", method)
    found = errors(answer.F, F)
    bound = CRYSTAL.limit(np.eye(2), ELECTRONS, BACKGROUND)
    rms = np.sqrt((found**2).mean((0, 1)))
    assert (rms <= over_bound * bound).all(), rms / bound
    # 24 answers: their mean is within four of its standard errors
    assert (np.abs(found.mean((0, 1))) <= 4 * rms / math.sqrt(24)).all()
    if answer.covariance is not None:
        assert answer.covariance.shape == (4, 6, 4, 4)
        squares = np.einsum("yxi,yxij,yxj->yx", found, np.linalg.inv(answer.covariance), found)
        assert 0.4 < squares.mean() / 4 < 2.0  # chi-square of 96 is within a fifth of 1, thrice


def test_covariance_is_that_of_answers_carried_one_by_one() -> None:
    """Monte Carlo: scatter of carried F against the covariance carried in closed form."""
    rng = np.random.default_rng(1)
    F = geometry.deformation(0.03, -0.02, 0.01, 0.2)
    root = 1e-4 * rng.normal(size=(4, 4))
    drawn = geometry.components(F) + rng.normal(size=(200_000, 4)) @ root.T
    calibration = recorded(np.eye(2)[None, None]).calibration
    one = in_sample_frame(Answer(F, root @ root.T), calibration)
    many = in_sample_frame(Answer(geometry.deformation(*drawn.T)), calibration)
    scatter = np.cov(geometry.components(many.F).T)
    assert one.covariance is not None
    size = np.sqrt(np.diag(scatter))
    # correlations of 200,000 draws are known to 0.0022; five times that
    np.testing.assert_allclose(
        one.covariance / np.outer(size, size), scatter / np.outer(size, size), atol=0.012
    )


def test_no_answer_stays_none() -> None:
    F = np.stack([np.eye(2), np.full((2, 2), np.nan)])[None]
    covariance = np.stack([np.eye(4), np.full((4, 4), np.nan)])[None]
    calibration = recorded(np.eye(2)[None, None]).calibration
    carried = in_sample_frame(Answer(F, covariance), calibration)
    assert carried.covariance is not None
    assert np.isfinite(carried.F[0, 0]).all()
    assert np.isfinite(carried.covariance[0, 0]).all()
    assert np.isnan(carried.F[0, 1]).all()
    assert np.isnan(carried.covariance[0, 1]).all()


def test_a_map_without_ellipse_and_rotation_is_the_methods_own_to_the_bit(
    F: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ccstae.evaluation.method_contract import package_method

    scan = CRYSTAL.counts(F, ELECTRONS, BACKGROUND)
    own, _ = package_method("com")(scan)
    turned = replace(scan, calibration=replace(scan.calibration, scan_rotation_deg=0.0))
    answer = mapped(
        monkeypatch,
        str(written(turned, tmp_path / "scan.h5")),
        "--out",
        str(tmp_path / "map.h5"),
        "--method",
        "com",
    )
    assert answer.F.tobytes() == own.F.tobytes()
    assert "distortion" not in answer.attributes


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("distortion", [[1.0, 0.0], [0.0, -1.0]], "expected a matrix of determinant 1"),
        ("distortion", [[2.0, 0.0], [0.0, 0.5]], "expected a matrix of determinant 1"),
        ("distortion", [[np.nan, 0.0], [0.0, 1.0]], "expected finite numbers"),
        ("scan_rotation_deg", "left", "expected an angle in degrees"),
        ("scan_rotation_deg", np.inf, "expected an angle in degrees"),
    ],
)
def test_a_frame_that_cannot_be_is_one_line(
    tmp_path: Path, name: str, value: object, words: str
) -> None:
    path = written(recorded(np.eye(2)[None, None]), tmp_path / "scan.h5")
    with h5py.File(path, "r+") as file:
        if name == "distortion":
            file[name][...] = value
        else:
            file.attrs[name] = value
    with pytest.raises(InputError, match=words):
        read_counts(path)


def test_what_a_program_wrote_is_carried_too() -> None:
    """Its own strain, and what single patterns say."""
    truth = random_deformations((2, 3), seed=7)
    calibration = recorded(np.eye(2)[None, None]).calibration
    A = geometry.sample_axes(ELLIPSE, TURN_DEG)
    seen = np.linalg.inv(A) @ truth @ A
    covariance = np.tile(1e-6 * np.eye(4), (2, 3, 1, 1))
    own = geometry.components(seen)
    carried = in_sample_frame(Map(seen, {}, covariance, None, own_strain=own), calibration)
    assert carried.own_strain is not None
    np.testing.assert_allclose(carried.F, truth, atol=1e-12)
    np.testing.assert_allclose(carried.own_strain, geometry.components(truth), atol=1e-12)
    pooled = Answer(seen, covariance, F_per_pattern=seen, covariance_per_pattern=covariance)
    both = in_sample_frame(pooled, calibration)
    np.testing.assert_array_equal(both.F_per_pattern, both.F)
    np.testing.assert_array_equal(both.covariance_per_pattern, both.covariance)
