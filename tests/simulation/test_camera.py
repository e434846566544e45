"""What the camera makes of electrons, and what methods are told, against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import Model

from ccstae import geometry
from ccstae.config.levels import Level
from ccstae.config.microscope import Microscope, Nuisances
from ccstae.config.scenes import Scan
from ccstae.simulation import bound, noise
from ccstae.simulation.background import background
from ccstae.simulation.camera import Camera, camera_of, shared, told
from ccstae.simulation.nuisance import blind_pixels

MODEL = Model()
LEVEL = Level(background=0.25, electrons=1e5)
SCAN = Scan(shape=(5, 4), step_A=40.0)
F = geometry.deformation(0.015, -0.01, 0.008, 0.02)


def microscope(**nuisances: Any) -> Microscope:
    return Microscope(
        detector_px=MODEL.px,
        pixel_size_inv_A=MODEL.pixel_size_inv_A,
        nuisances=Nuisances(**nuisances),
    )


def made(**nuisances: Any) -> Camera:
    return camera_of(microscope(**nuisances), MODEL.calibration, SCAN)


@pytest.fixture(scope="module")
def pattern() -> np.ndarray:
    return MODEL.pattern(F)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Changes with the six shifts, from patterns drawn anew on either side."""
    h = 0.02
    gradient = [
        (MODEL.pattern(F, (x, y)) - MODEL.pattern(F, (-x, -y))) / (2 * h)
        for x, y in ((h, 0.0), (0.0, h))
    ]
    return bound.shift_images(np.array(gradient, np.float32)[None], F[None], MODEL.calibration)


def fisher(
    expected: np.ndarray, images: torch.Tensor, per_share: float, pixels: np.ndarray
) -> np.ndarray:
    """Information sum_q dm dm / m over the pixels chosen, written out."""
    slopes = per_share * images[0].numpy()[:, pixels.ravel()]
    return np.einsum("ap,bp,p->ab", slopes, slopes, 1 / expected.ravel()[pixels.ravel()])


def test_a_camera_without_nuisances_counts_every_electron(pattern: np.ndarray) -> None:
    plain = made()
    assert plain == Camera()
    np.testing.assert_array_equal(
        noise.expectation(pattern, LEVEL, plain), noise.expectation(pattern, LEVEL)
    )


def test_the_background_follows_a_beam_that_drifts(pattern: np.ndarray) -> None:
    """By whole pixels it is the same background, rolled, up to its sum on the detector."""
    camera = made(descan_px=((12, 0), (0, -8)))
    assert camera.drift_px is not None
    at = camera.drift_px[-1, -1]
    np.testing.assert_allclose(at, (6, -4))
    moved, still = camera.at((-1, -1)).background((128, 128)), background((128, 128))
    inside = np.s_[20:-20, 20:-20]
    ratio = moved[inside] / np.roll(still, (-4, 6), (0, 1))[inside]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-9)
    assert ratio[0, 0] == pytest.approx(1, abs=0.02)
    assert moved.sum() == pytest.approx(1)


def test_dose_goes_with_the_logarithm_and_the_bound_with_its_root(
    pattern: np.ndarray, images: torch.Tensor
) -> None:
    camera = made(dose_ramp=50.0)
    assert camera.dose is not None
    np.testing.assert_allclose(camera.dose[-1] / camera.dose[0], 50)
    np.testing.assert_allclose(np.log(camera.dose[:, 0]).sum(), 0, atol=1e-12)
    one = pattern[None].astype(np.float32)
    plain = bound.bound(one, images, F[None], LEVEL, MODEL.calibration)
    for row, dose in ((0, 50**-0.5), (2, 1.0), (4, 50**0.5)):
        here = camera.at((np.array([row]), np.array([1])))
        total = noise.expectation(one, LEVEL, here).sum()
        assert total == pytest.approx(1e5 * dose)
        found = bound.bound(one, images, F[None], LEVEL, MODEL.calibration, camera=here)
        np.testing.assert_allclose(found, plain / math.sqrt(dose), rtol=1e-9)
    drawn = noise.pattern_counts(pattern, Level(background=0, electrons=math.inf), 1, "s", 0, here)
    assert drawn.sum() == pytest.approx(noise.CLEAN_ELECTRONS, rel=1e-6)


@pytest.mark.parametrize(
    "nuisances",
    [{"dead_px": 0.1, "masked": True}, {"dead_cross_px": 3}, {"beam_stop_px": 8.0}],
    ids=lambda nuisances: next(iter(nuisances)),
)
def test_the_bound_is_that_of_the_pixels_that_see(
    pattern: np.ndarray, images: torch.Tensor, nuisances: dict[str, Any]
) -> None:
    camera = made(**nuisances)
    assert camera.blind is not None
    one = pattern[None].astype(np.float32)
    expected = 1e5 * (0.75 * pattern / pattern.sum() + 0.25 * background((128, 128)))
    information = fisher(expected, images, 0.75e5 / pattern.sum(), ~camera.blind)
    expected_bound = np.sqrt(
        np.diagonal(
            bound.covariance(information[None], F[None], MODEL.calibration), axis1=1, axis2=2
        )
    )
    found = bound.bound(one, images, F[None], LEVEL, MODEL.calibration, camera=camera)
    np.testing.assert_allclose(found, expected_bound, rtol=1e-5)
    assert (found > bound.bound(one, images, F[None], LEVEL, MODEL.calibration)).all()
    counts = noise.pattern_counts(pattern, LEVEL, 1, "s", 0, camera)
    assert (counts[camera.blind] == 0).all()
    assert (camera.mask is None) == ("dead_px" not in nuisances)


def test_where_a_dead_cross_and_a_beam_stop_lie() -> None:
    cross = blind_pixels(microscope(dead_cross_px=3))
    assert cross.sum() == 3 * 128 * 2 - 9
    assert cross[63:66].all()
    assert cross[:, 63:66].all()
    stop = blind_pixels(microscope(beam_stop_px=8.0))
    y, x = np.nonzero(stop)
    below = y >= 64
    assert np.hypot(x - 64, y - 64)[below].max() == 8
    # A disk, and an arm of nine columns from the first row to it.
    assert stop.sum() == pytest.approx(np.pi * 64 + 9 * 56, rel=0.03)
    assert stop[0].sum() == 9


def test_hot_pixels_count_too_much_and_tell_less(pattern: np.ndarray, images: torch.Tensor) -> None:
    camera = made(hot_px=0.05, hot_level=1e-3)
    excess = noise.expectation(pattern, LEVEL, camera) - noise.expectation(pattern, LEVEL)
    assert np.unique(excess.round(6)).tolist() == [0, 100]
    assert (excess > 0).sum() == round(0.05 * 128**2)
    one = pattern[None].astype(np.float32)
    assert (
        bound.bound(one, images, F[None], LEVEL, MODEL.calibration, camera=camera)
        > bound.bound(one, images, F[None], LEVEL, MODEL.calibration)
    ).all()


def test_a_halo_takes_electrons_from_the_disks_to_their_first_ring(
    pattern: np.ndarray, images: torch.Tensor
) -> None:
    camera = made(halo=0.1)
    halo = camera.halo
    assert halo is not None
    ring_px = np.linalg.norm(MODEL.G0[:, 0]) / MODEL.pixel_size_inv_A
    along = halo[64, 64:]
    assert along.argmax() == round(ring_px)
    width_px = 0.15 * ring_px
    off = round(ring_px + width_px)
    assert along[off] / along.max() == pytest.approx(
        math.exp(-((off - ring_px) ** 2) / (2 * width_px**2)), rel=0.01
    )
    clean = pattern / pattern.sum()
    expected = 1e5 * (0.75 * (0.9 * clean + 0.1 * halo) + 0.25 * background((128, 128)))
    np.testing.assert_allclose(noise.expectation(pattern, LEVEL, camera), expected)
    information = fisher(expected, images, 0.75e5 * 0.9 / pattern.sum(), np.ones((128, 128), bool))
    found = bound.fisher(pattern[None].astype(np.float32), images, LEVEL, camera=camera)
    scale = np.sqrt(np.outer(np.diag(information), np.diag(information)))
    np.testing.assert_allclose(found[0] / scale, information / scale, atol=1e-6)


def test_charge_that_is_shared_counts_twice_in_neighbours() -> None:
    """Mean and variance (1 + p) m, covariance p m / 2 with a neighbour, and (1 + 3 p) M for the
    variance of a sum.
    """
    p, m, size = 0.3, 20.0, 400
    generator = np.random.default_rng(5)
    counts = shared(generator.poisson(m, (size, size)).astype(np.uint32), p, generator)
    inner = counts[1:-1, 1:-1].astype(float)
    n = inner.size
    assert inner.mean() == pytest.approx((1 + p) * m, abs=5 * math.sqrt((1 + 3 * p) * m / n))
    assert inner.var() == pytest.approx((1 + p) * m, rel=5 * math.sqrt(2 / n))
    for one, other in (
        (inner[:, 1:], inner[:, :-1]),
        (inner[1:], inner[:-1]),
    ):
        covariance = ((one - inner.mean()) * (other - inner.mean())).mean()
        assert covariance == pytest.approx(p * m / 2, abs=6 * (1 + p) * m / math.sqrt(n))
    diagonal = ((inner[1:, 1:] - inner.mean()) * (inner[:-1, :-1] - inner.mean())).mean()
    assert diagonal == pytest.approx(0, abs=5 * (1 + p) * m / math.sqrt(n))
    blocks = inner[:390, :390].reshape(39, 10, 39, 10).sum((1, 3))
    # Of 10 x 10 pixels, from whose border some charge goes over: p m / 2 for each of 40 neighbours.
    expected = 100 * (1 + 3 * p) * m - 40 * p * m / 2
    assert blocks.var() == pytest.approx(expected, rel=5 * math.sqrt(2 / blocks.size))


def test_a_readout_is_units_that_tell_the_electrons(pattern: np.ndarray) -> None:
    electrons = noise.pattern_counts(pattern, LEVEL, 3, "s", 7)
    settings = {"gain": 20, "pedestal": 50, "noise": 2}
    camera = made(readout={**settings, "converted": False})
    units = noise.pattern_counts(pattern, LEVEL, 3, "s", 7, camera)
    assert units.dtype == np.uint32
    read = units.astype(float) - 20.0 * electrons
    n = read.size
    assert read.mean() == pytest.approx(50, abs=5 * 2.02 / math.sqrt(n))
    # Rounding adds a variance of 1 / 12.
    assert read.var() == pytest.approx(4 + 1 / 12, rel=5 * math.sqrt(2 / n))
    converted = noise.pattern_counts(pattern, LEVEL, 3, "s", 7, made(readout=settings))
    assert converted.dtype == np.float32
    assert (converted < 0).any()
    np.testing.assert_allclose(converted, (units - 50.0) / 20, rtol=1e-6)
    np.testing.assert_array_equal(np.rint(converted), electrons)


def test_recorded_probes() -> None:
    probe = MODEL.pattern(np.eye(2)).astype(np.float32)
    probe /= probe.sum()
    _, moved = told(microscope(probe_shift_px=(7, -4)), MODEL.calibration, probe)
    np.testing.assert_array_equal(moved[:-4, 7:], probe[4:, :-7])
    _, haloed = told(microscope(probe_halo=0.3), MODEL.calibration, probe)
    np.testing.assert_allclose(haloed, 0.7 * probe + 0.3 * background((128, 128)), rtol=1e-5)
    _, noisy = told(microscope(probe_electrons=1e4), MODEL.calibration, probe)
    electrons = 1e4 * noisy
    np.testing.assert_allclose(electrons, electrons.round(), atol=1e-3)
    chosen = probe > 1e-3
    chi2 = ((electrons - 1e4 * probe)[chosen] ** 2 / (1e4 * probe[chosen])).sum()
    assert chi2 == pytest.approx(chosen.sum(), abs=5 * math.sqrt(2 * chosen.sum()))
    true = MODEL.calibration
    known, same = told(microscope(), true, probe)
    assert known is true
    np.testing.assert_array_equal(same, probe)


def test_what_methods_are_told_wrong_is_a_scale_that_the_reference_takes_out() -> None:
    """Disks lie at F^-T g / size, so an error e of either is read as F (1 + e) or F / (1 + e)."""
    probe = np.full((128, 128), 1e-4, np.float32)
    true = MODEL.calibration
    disks_px = geometry.inverse_transpose(F) @ true.lattice_inv_A / true.pixel_size_inv_A
    for error, scale in (({"pixel_size_error": 0.05}, 1 / 1.05), ({"lattice_error": 0.05}, 1.05)):
        known, _ = told(microscope(**error), true, probe)
        assert known == replace(
            true,
            pixel_size_inv_A=known.pixel_size_inv_A,
            lattice_inv_A=known.lattice_inv_A,
        )
        answer = geometry.deformation_from_reciprocal(
            disks_px * known.pixel_size_inv_A, known.lattice_inv_A
        )
        np.testing.assert_allclose(answer, scale * F, rtol=1e-12)
        gauged = geometry.regauge(np.stack([scale * np.eye(2), answer]), np.array([True, False]))
        np.testing.assert_allclose(gauged[1], F, rtol=1e-12)
