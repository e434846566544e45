"""Beams that move, doses that change within a scan, and bad pixels: what is held fixed about a
pattern is its own.
"""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from started import over_stated, recorded
from synthetic import Model, errors, random_deformations

from ccstae import geometry
from ccstae.io.counts import read_counts, write_counts
from ccstae.methods.ccstae import learn
from ccstae.methods.ccstae import method as ccstae
from ccstae.methods.ccstae.encoder import Encoded
from ccstae.methods.ccstae.refine import covariance_of_M
from ccstae.methods.ccstae.settings import CcstaeSettings
from ccstae.methods.ccstae.solve import solve

# All disks stay on the detector where the beam moves by 5 px either way.
MODEL = Model(px=128, pixel_size_inv_A=0.02)
F = random_deformations((4, 6), strain=0.01, rotation=0.01, seed=3)
ELECTRONS, BACKGROUND = 3e5, 0.25
SETTINGS = CcstaeSettings(without=("encoder",))


def over_bound(answer):
    """Root mean square errors of the components over their Cramer-Rao bounds, all together."""
    ratio = errors(answer.F, F) / MODEL.limit(np.eye(2), ELECTRONS, BACKGROUND)
    return float(np.sqrt((ratio**2).mean()))


@pytest.fixture(scope="module")
def still():
    """The scan of a beam that stands still, and its map."""
    scan = recorded(MODEL, F, ELECTRONS, BACKGROUND)
    return scan, ccstae.map_strain(scan, SETTINGS, "cpu")


def test_a_scan_whose_beam_moves_is_solved_as_well_as_one_that_stands_still(still):
    along = np.linspace(-5, 5, F.shape[0] * F.shape[1]).reshape(F.shape[:2])
    moving = np.stack([along, -along], -1)
    scan = recorded(MODEL, F, ELECTRONS, BACKGROUND, moving)
    answers = (np.zeros_like(moving), still[1]), (moving, ccstae.map_strain(scan, SETTINGS, "cpu"))
    for shift, answer in answers:
        assert over_bound(answer) < 1.2
        assert 0.8 < over_stated(answer, F) < 1.2
        assert np.abs(answer.centre_px - 64 - shift).max() < 0.05
        assert answer.found["deviations_widened"] == 1


def test_a_probe_recorded_elsewhere_says_the_same(still):
    scan, here = still
    elsewhere = replace(scan, probe=np.roll(scan.probe, (9, -5), (0, 1)))
    there = ccstae.map_strain(elsewhere, SETTINGS, "cpu")
    deviation = MODEL.limit(np.eye(2), ELECTRONS, BACKGROUND)
    assert (np.abs(errors(there.F, here.F)) < 0.05 * deviation).all()
    np.testing.assert_allclose(there.covariance, here.covariance, rtol=0.02, atol=1e-10)
    assert np.array_equal(here.label, there.label)


def test_patterns_of_a_tenth_of_the_dose_end_at_the_same_place_wherever_they_start():
    scan = recorded(MODEL, F, 1e6, BACKGROUND)
    rng = np.random.default_rng(5)
    counts = scan.counts.reshape(-1, MODEL.px, MODEL.px).astype(np.int64)
    thin = np.arange(len(counts)) % 2 == 1
    counts[thin] = rng.binomial(counts[thin], 0.1)
    data = torch.from_numpy(counts.astype(np.float32))
    M = torch.from_numpy(geometry.inverse_transpose(F.reshape(-1, 2, 2))).float()
    true = Encoded(M, torch.full((len(M), 2), 64.0))
    nominal = torch.from_numpy(MODEL.G0 / MODEL.pixel_size_inv_A).float()
    probe = torch.from_numpy(scan.probe)
    dictionary = learn.start(data, true, nominal, probe, (64.0, 64.0), MODEL.radius_px)
    dictionary, _ = learn.teach(dictionary, data, true, MODEL.radius_px, 128, None)
    generator = torch.Generator().manual_seed(6)
    aside = Encoded(
        M + 0.006 * torch.randn(M.shape, generator=generator),
        true.centre + 0.5 * torch.randn(true.centre.shape, generator=generator),
    )
    one, other = (solve(dictionary, data, first, rounds=2, good=None) for first in (true, aside))
    away = (one.state.M - other.state.M).double().flatten(1)
    precision = torch.linalg.inv(covariance_of_M(one.at.information))
    z = torch.einsum("na,nab,nb->n", away, precision, away).sqrt()
    assert float(z.max()) < 0.3  # standard deviations; a climb ends within 0.17
    # The background stays about the centre that the first climb found.
    assert float((one.state.centre - other.state.centre).norm(dim=1).max()) < 0.005
    e = errors(geometry.inverse_transpose(one.state.M.double().numpy()), F.reshape(-1, 2, 2))
    for part, electrons in ((thin, 1e5), (~thin, 1e6)):
        ratio = e[part] / MODEL.limit(np.eye(2), electrons, BACKGROUND)
        assert np.sqrt((ratio**2).mean()) < 1.25
        scale = one.state.background_scale.numpy()[part]
        assert scale == pytest.approx(electrons / 5.5e5, rel=0.03)


@pytest.fixture(scope="module")
def spoilt_scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose mask names a bar and a tenth of the other pixels."""
    path = tmp_path_factory.mktemp("masked") / "counts.h5"
    scan = recorded(MODEL, F, ELECTRONS, BACKGROUND)
    write_counts(path, scan.counts, scan.counts.shape, scan.calibration, scan.probe)
    bad = np.random.default_rng(7).random(scan.probe.shape) < 0.1
    bad[:, 76:84] = True
    with h5py.File(path, "a") as file:
        file["mask"] = bad.astype(np.uint8)
    return path


def test_what_bad_pixels_hold_changes_nothing(spoilt_scan: Path) -> None:
    first = ccstae.map_strain(read_counts(spoilt_scan), SETTINGS, "cpu")
    rng = np.random.default_rng(8)
    with h5py.File(spoilt_scan, "a") as file:
        counts, bad = file["counts"][:], file["mask"][:] != 0
        counts[..., bad] = rng.integers(0, 60_000, counts[..., bad].shape)
        file["counts"][...] = counts
    second = ccstae.map_strain(read_counts(spoilt_scan), SETTINGS, "cpu")
    for field in ("F", "covariance", "label", "centre_px", "dictionary"):
        assert getattr(first, field).tobytes() == getattr(second, field).tobytes(), field
    assert over_stated(first, F) == pytest.approx(1, abs=0.2)


def test_the_covariance_grows_as_the_bound_without_bad_pixels_does(
    still, spoilt_scan: Path
) -> None:
    scan = read_counts(spoilt_scan)
    deviations = [
        np.sqrt(np.diagonal(answer.covariance, 0, 2, 3))
        for answer in (still[1], ccstae.map_strain(scan, SETTINGS, "cpu"))
    ]
    bounds = [
        MODEL.limit(np.eye(2), ELECTRONS, BACKGROUND, good=good) for good in (None, scan.good)
    ]
    growth = np.median(deviations[1] / deviations[0], (0, 1))
    assert (bounds[1] / bounds[0]).max() > 1.1
    np.testing.assert_allclose(growth, bounds[1] / bounds[0], rtol=0.1)
