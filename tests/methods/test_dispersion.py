"""Disks that stray, and counts that vary more than Poisson's: both are found, told apart, and
stated.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from started import over_stated
from synthetic import Model, errors, random_deformations

from ccstae.methods.ccstae import dispersion
from ccstae.methods.ccstae import method as ccstae
from ccstae.methods.ccstae.dispersion import Misfit
from ccstae.methods.ccstae.settings import CcstaeSettings

# A short detector that holds every disk.
MODEL = Model(px=112, pixel_size_inv_A=0.02)
F = random_deformations((4, 6), seed=2)
SETTINGS = CcstaeSettings(without=("encoder",))


def counts_of(electrons, stray_px=0.0, background=0.1, alike=False):
    """Counts whose diffracted disks lie off the lattice, each of each pattern by its own step, or
    each by the same in all patterns.
    """
    rng = np.random.default_rng(4)
    of_disks = stray_px * rng.standard_normal((len(MODEL.nodes[0]), 2))
    mean = np.empty((*F.shape[:2], MODEL.px, MODEL.px))
    for at in np.ndindex(*F.shape[:2]):
        steps = stray_px * rng.standard_normal((len(MODEL.nodes[0]), 2))
        steps = of_disks.copy() if alike else steps
        steps[0] = 0
        mean[at] = MODEL.pattern(F[at], steps, oversample=3)
    mean = (1 - background) * mean + background * MODEL.background
    drawn = rng.poisson(electrons * mean).astype(np.uint32)
    return replace(MODEL.counts(F[:0], 1.0), counts=drawn)


@pytest.fixture(scope="module")
def clean():
    """The map of disks that lie on the lattice."""
    return ccstae.map_strain(counts_of(1e6), SETTINGS, "cpu")


def test_strays_of_disks_are_found_and_the_deviations_allow_for_them():
    answer = ccstae.map_strain(counts_of(1e6, stray_px=0.3), SETTINGS, "cpu")
    assert answer.found["stray_px"] == pytest.approx(0.3, rel=0.15)
    assert answer.found["dispersion_of_counts"] < 1.2
    assert 0.8 < over_stated(answer, F) < 1.25


def test_disks_of_clean_data_do_not_stray(clean):
    found = clean.found
    assert (found["stray_px"], found["dispersion_of_counts"], found["deviations_widened"]) == (
        0.0,
        1.0,
        1.0,
    )
    assert 0.8 < over_stated(clean, F) < 1.25


def test_disks_off_the_lattice_by_the_same_step_everywhere_cost_nothing_and_stray_nowhere(clean):
    """Strain is relative: what is the same at every position is not in it."""

    def about_the_mean(answer):
        wrong = errors(answer.F, F)
        return wrong - wrong.mean((0, 1))

    answer = ccstae.map_strain(counts_of(1e6, stray_px=0.3, alike=True), SETTINGS, "cpu")
    assert answer.found["stray_px"] == 0
    assert answer.found["chi2_per_degree_of_freedom"] == pytest.approx(1, abs=0.2)
    assert answer.found["deviations_widened"] == 1
    wrong, best = about_the_mean(answer), about_the_mean(clean)
    assert np.sqrt((wrong**2).mean()) < 1.2 * np.sqrt((best**2).mean())
    stated = np.sqrt(np.diagonal(answer.covariance, axis1=-2, axis2=-1))
    assert 0.8 < np.sqrt(((wrong / stated) ** 2).mean()) < 1.25


def evaluation_of(scores):
    """What `dispersion.common_steps` asks of an evaluation, with unit information."""
    n, K, _ = scores.shape
    information = torch.eye(2, dtype=torch.float64).expand(n, K, 2, 2)
    return SimpleNamespace(disk_information=information, disk_score=scores)


def test_a_disk_moves_by_the_mean_of_what_its_patterns_say_and_only_where_they_agree():
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(100, 4, 2, dtype=torch.float64, generator=generator)
    bias = torch.zeros(1, 4, 2, dtype=torch.float64)
    bias[0, 1], bias[0, 2, 0], bias[0, 3] = 1.0, 0.05, 1.0
    scores = noise + bias
    scores[:, 3] *= 10 * (-1.0) ** torch.arange(100)[:, None] + 1  # large, of either sign
    step = dispersion.common_steps(evaluation_of(scores))
    assert torch.allclose(step[1], scores[:, 1].mean(0))
    assert float(step[[0, 2, 3]].abs().max()) == 0


def shared(counts, probability, seed=0):
    """Counts of a detector where an electron is counted in a neighbouring pixel too, with this
    probability.
    """
    rng = np.random.default_rng(seed)
    also = rng.binomial(counts.counts, probability)
    neighbours = rng.multinomial(also, [0.25] * 4)  # (..., Qy, Qx, 4)
    total = counts.counts.astype(np.int64)
    for of_one, (axis, step) in zip(
        np.moveaxis(neighbours, -1, 0), ((2, 1), (2, -1), (3, 1), (3, -1)), strict=True
    ):
        total = total + np.roll(of_one, step, axis)
    probe = counts.probe.astype(np.float64)
    steps = [np.roll(probe, step, axis) for axis in (0, 1) for step in (1, -1)]
    probe = (probe + 0.25 * probability * sum(steps)) / (1 + probability)
    return replace(counts, counts=total.astype(np.uint32), probe=probe.astype(np.float32))


def test_the_dispersion_of_counts_is_found_and_the_deviations_allow_for_it():
    """Variance over mean of n counts an electron is E n^2 / E n."""
    answer = ccstae.map_strain(shared(counts_of(2e5), 0.9), SETTINGS, "cpu")
    expected = (1 + 3 * 0.9) / (1 + 0.9)
    assert answer.found["dispersion_of_counts"] == pytest.approx(expected, rel=0.2)
    assert answer.found["stray_px"] == 0
    assert 0.8 < over_stated(answer, F) < 1.25


def drawn_misfit(n, factor, generator, K=12):
    """What n patterns of K disks say where M varies by `factor` (4, 4) times as much as stated."""
    root = torch.linalg.cholesky(factor)
    z = torch.randn(n, K, 4, dtype=torch.float64, generator=generator) @ root.T / K**0.5
    e = torch.randn(n, K, 2, dtype=torch.float64, generator=generator)
    chi2 = (e**2).sum(2) * factor.diagonal().mean()
    ones = torch.ones(n, K, dtype=torch.float64)
    return Misfit(z.transpose(1, 2) @ z, chi2, 2 * ones, 1e3 * ones)


def test_no_deviation_is_ever_made_narrower_and_the_unit_matrix_changes_nothing():
    generator = torch.Generator().manual_seed(1)
    kept = 0
    for _ in range(60):
        n = int(torch.randint(1, 200, (), generator=generator))
        turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=generator))
        sizes = torch.exp(1.5 * torch.randn(4, dtype=torch.float64, generator=generator))
        factor = turn @ torch.diag(sizes) @ turn.T
        found = dispersion.of_scan([drawn_misfit(n, factor, generator)], 0.0)
        root = torch.randn(5, 4, 4, dtype=torch.float64, generator=generator)
        scale = torch.tensor([1.0, 1e-3, 1e2, 1.0], dtype=torch.float64)
        covariance = scale[:, None] * (root @ root.transpose(1, 2)) * scale
        wide = found.widened(covariance)
        more = (wide - covariance) / scale[:, None] / scale
        assert float(torch.linalg.eigvalsh(more).min()) > -1e-9
        if torch.equal(found.matrix, torch.eye(4, dtype=torch.float64)):
            assert torch.equal(wide, covariance)
            kept += 1
    assert 0 < kept < 60


def test_the_dispersion_of_many_patterns_is_that_they_were_drawn_with():
    generator = torch.Generator().manual_seed(2)
    factor = torch.diag(torch.tensor([4.0, 1.0, 2.0, 3.0], dtype=torch.float64))
    found = dispersion.of_scan([drawn_misfit(2000, factor, generator)], 0.0)
    assert torch.allclose(found.matrix, factor, rtol=0.1, atol=0.1)
    unit = torch.eye(4, dtype=torch.float64)
    assert torch.equal(dispersion.of_scan([drawn_misfit(2000, unit, generator)], 0.0).matrix, unit)
