"""The site finder's tables are bounded, and hold the whole detector where there is room. It finds
beams and lattices where they are, and none where there is none.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import Model, random_deformations

from ccstae import geometry
from ccstae.errors import InputError
from ccstae.io.calibration import disk_radius_px
from ccstae.io.counts import Counts
from ccstae.methods import mirrored
from ccstae.methods.base import Answer
from ccstae.methods.shared import lattice_sites, sites
from ccstae.methods.shared.site_tables import SiteTables
from ccstae.methods.shared.sites import SiteFinder

MODEL = Model()


def test_tables_of_a_usual_scan_hold_every_whole_ring() -> None:
    tables = SiteTables.of(MODEL.calibration, (128, 128), "cpu")
    length = (tables.hk.float() @ torch.from_numpy(MODEL.G0).float().T).norm(dim=-1)
    assert len(tables.hk) == 18
    assert length.max() / length.min() == pytest.approx(2, rel=1e-5)


@pytest.mark.parametrize("side", [256, 512])
def test_small_disks_on_a_large_detector_get_fewer_sites(side: int) -> None:
    """Ten orders of disks of 2 px and more: the inner rings alone, which still span the lattice."""
    calibration = replace(
        MODEL.calibration,
        lattice_inv_A=np.diag([0.1, 0.1]) * 256 / side,
        semiangle_mrad=1.2,
        centre_px=(side / 2, side / 2),
        rotational_symmetry=2,
    )
    tables = SiteTables.of(calibration, (side, side), "cpu")
    size = lattice_sites.BYTES_PER_SITE * len(tables.hk) * len(tables.G)
    assert size <= lattice_sites.MAX_PATTERN_BYTES
    assert len(tables.hk) < len(lattice_sites.nodes(calibration, (side, side)))
    assert np.linalg.matrix_rank(tables.hk.numpy()) == 2


def test_disks_too_small_for_any_table_are_refused() -> None:
    calibration = replace(
        MODEL.calibration,
        semiangle_mrad=0.02,
        centre_px=(512, 512),
        lattice_inv_A=MODEL.G0 / 3,
        rotational_symmetry=2,
    )
    with pytest.raises(InputError, match=r"disks of radius 0\.0368 px are too small .*64 MiB"):
        SiteTables.of(calibration, (1024, 1024), "cpu")


def test_a_detector_without_a_disk_is_refused() -> None:
    calibration = replace(MODEL.calibration, lattice_inv_A=10 * MODEL.G0)
    with pytest.raises(InputError, match="shows no disk"):
        SiteTables.of(calibration, (128, 128), "cpu")


def test_patterns_taken_a_few_at_a_time_are_located_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    made = MODEL.counts(random_deformations((2, 3)), 1e5)
    finder = SiteFinder.learn(made, "cpu")
    patterns = torch.from_numpy(made.counts.reshape(-1, 128, 128).astype(np.float32))
    together = finder.locate(patterns)
    monkeypatch.setattr(sites, "MAX_BYTES", 1)
    apart = finder.locate(patterns)
    torch.testing.assert_close(apart.G, together.G)
    torch.testing.assert_close(apart.centre, together.centre)
    assert torch.equal(apart.has_lattice, together.has_lattice)


def located(made: Counts) -> sites.Located:
    finder = SiteFinder.learn(made, "cpu")
    patterns = made.counts.reshape(-1, *made.counts.shape[2:]).astype(np.float32)
    return finder.locate(torch.from_numpy(patterns))


def lattice_errors(found: sites.Located, F: np.ndarray, symmetry: int = 6) -> np.ndarray:
    """Relative errors (n,) of rough lattices, modulo the symmetry of the nominal one."""
    truth = geometry.inverse_transpose(F.reshape(-1, 2, 2)) @ MODEL.G0 / MODEL.pixel_size_inv_A
    turns = geometry.rotation_matrix(np.arange(symmetry) * 2 * np.pi / symmetry)
    away = found.G.numpy()[None] - turns[:, None] @ truth
    return np.linalg.norm(away, axis=(2, 3)).min(0) / np.linalg.norm(truth, axis=(1, 2))


def with_counts(made: Counts, counts: np.ndarray, **changed: object) -> Counts:
    return replace(made, counts=np.ascontiguousarray(counts), **changed)


def test_a_beam_that_moves_over_the_scan_is_found_where_it_is() -> None:
    F = random_deformations((4, 6))
    made = MODEL.counts(F, 1e6)
    moved = made.counts.copy()
    shift = np.stack([np.linspace(-14, 14, 4)[:, None] + np.zeros(6), np.zeros((4, 6))], -1)
    shift[..., 1] += np.linspace(-10, 10, 6)
    shift = shift.round().astype(int)
    for at in np.ndindex(4, 6):
        moved[at] = np.roll(made.counts[at], shift[at], (0, 1))
    # A spot brighter than the beam, elsewhere in each of a third of the patterns, is not the beam.
    rng = np.random.default_rng(1)
    for index in range(0, 24, 3):
        y, x = rng.integers(8, 20, 2)
        moved[index // 6, index % 6, y - 3 : y + 4, x - 3 : x + 4] = made.counts.max() * 2
    found = located(with_counts(made, moved))
    expected = 64 + shift[..., ::-1].reshape(-1, 2)
    assert np.abs(found.centre.numpy() - expected).max() < 0.5


def test_a_centre_given_swapped_does_not_mislead() -> None:
    made = MODEL.counts(random_deformations((3, 5)), 1e6)
    moved = np.roll(made.counts, (-9, 11), (2, 3))
    calibration = replace(made.calibration, centre_px=(64.0 - 9, 64.0 + 11))
    found = located(with_counts(made, moved, calibration=calibration))
    assert found.has_lattice.all()
    np.testing.assert_allclose(found.centre, np.broadcast_to([75, 55], (15, 2)), atol=0.5)


def test_behind_a_stop_the_lattice_says_where_the_beam_is() -> None:
    F = random_deformations((3, 5))
    made = MODEL.counts(F, 1e6)
    y, x = np.indices((128, 128))
    stopped = np.where(np.hypot(x - 64, y - 64) < 10, 0, made.counts)
    found = located(with_counts(made, stopped))
    assert found.has_lattice.all()
    np.testing.assert_allclose(found.centre, np.full((15, 2), 64), atol=MODEL.radius_px / 2)
    assert lattice_errors(found, F).max() < 0.1


def test_bad_pixels_are_neither_the_beam_nor_a_site() -> None:
    F = random_deformations((3, 5))
    made = MODEL.counts(F, 1e5)
    good = np.ones((128, 128), bool)
    good[40:43] = good[:, 90:92] = False
    found = located(with_counts(made, np.where(good, made.counts, 0), good=good))
    assert found.has_lattice.all()
    assert lattice_errors(found, F).max() < 0.05


FRAMES = {
    "pedestal": lambda rng, n: 500 + rng.normal(0, 8, (n, 128, 128)),
    "fixed pattern": lambda rng, n: (
        500 + rng.normal(0, 10, (128, 128)) + rng.normal(0, 3, (n, 1, 1))
    ),
    "rows": lambda rng, n: 500 + rng.normal(0, 5, (128, 1)) + rng.normal(0, 3, (n, 128, 128)),
    "gradient": lambda rng, n: 300 + np.arange(128) / 2 + rng.normal(0, 4, (n, 128, 128)),
    "gain": lambda rng, n: 20 * rng.poisson(2.0, (n, 128, 128)) + 50,
    "Poisson": lambda rng, n: rng.poisson(3.0, (n, 128, 128)),
    "zeros": lambda rng, n: np.zeros((n, 128, 128)),
}


@pytest.mark.parametrize("kind", list(FRAMES))
def test_frames_without_electrons_hold_no_lattice(kind: str) -> None:
    made = MODEL.counts(np.broadcast_to(np.eye(2), (3, 6, 2, 2)), 1e3)
    frames = FRAMES[kind](np.random.default_rng(3), 18).round().astype(np.uint32)
    found = located(with_counts(made, frames.reshape(3, 6, 128, 128)))
    assert not found.has_lattice.any()


def test_a_systematic_row_and_two_bright_pixels_make_no_lattice() -> None:
    made = MODEL.counts(np.broadcast_to(np.eye(2), (3, 5, 2, 2)), 1e6)
    y, x = np.indices((128, 128))
    g = MODEL.G0[:, 0] / MODEL.pixel_size_inv_A
    along = np.abs((x - 64) * g[1] - (y - 64) * g[0]) / np.hypot(*g)
    row = np.where(along < 8, made.counts, 0)
    assert not located(with_counts(made, row)).has_lattice.any()
    bright = np.where(np.hypot(x - 64, y - 64) < 9, made.counts, 0)
    for node in (MODEL.G0[:, 0], MODEL.G0[:, 1]):
        column, line = np.round(64 + node / MODEL.pixel_size_inv_A).astype(int)
        bright[:, :, line, column] = 50_000
    assert not located(with_counts(made, bright)).has_lattice.any()


def test_of_two_lattices_none_is_mixed_and_both_are_said() -> None:
    F = np.broadcast_to(geometry.deformation(0.002, 0.001, 0, 0.1), (3, 5, 2, 2))
    turned = F @ geometry.rotation_matrix(np.radians(9.0))
    one, other = MODEL.counts(F, 1e6), MODEL.counts(turned, 1e6)
    y, x = np.indices((128, 128))
    both = one.counts + np.where(np.hypot(x - 64, y - 64) > 12, other.counts, 0)
    made = with_counts(one, both)
    assert not located(made).has_lattice.any()
    said = SiteFinder.learn(made, "cpu").found["second_lattice"]
    assert 7.5 < float(said.split(" degrees")[0].split()[-1]) < 10.5
    assert SiteFinder.learn(one, "cpu").found == {}


def test_disks_that_nearly_touch_are_found_by_the_gaps_between_them() -> None:
    model = Model(semiangle_mrad=7.4)
    F = np.broadcast_to(geometry.rotation_matrix(0.2), (3, 5, 2, 2))
    found = located(model.counts(F, 1e6))
    assert found.has_lattice.all()
    assert lattice_errors(found, F).max() < 0.1


def test_a_finder_maps_another_scan_of_another_shape() -> None:
    finder = SiteFinder.learn(MODEL.counts(random_deformations((2, 3)), 1e5), "cpu")
    F = random_deformations((4, 5))
    other = MODEL.counts(F, 1e5)
    other = with_counts(other, np.roll(other.counts, (3, -2), (2, 3)))
    patterns = torch.from_numpy(other.counts.reshape(-1, 128, 128).astype(np.float32))
    found = finder.at(other).locate(patterns)
    assert found.has_lattice.all()
    np.testing.assert_allclose(found.centre, np.broadcast_to([62, 67], (20, 2)), atol=0.3)
    assert lattice_errors(found, F).max() < 0.05


OBLIQUE = np.linalg.inv(np.array([[6.42, -3.16], [0.0, 5.70]])).T


# Disks of 4 px on rings of 38 px and more, as in the published simulation.
SMALL_DISKS = Model(
    px=200, energy_keV=120.0, semiangle_mrad=1.286, pixel_size_inv_A=0.0096, a_A=3.18
)
STRAINED = [(0.085, -0.075, 0.0), (-0.08, 0.08, 0.02), (0.0, 0.0, 0.08), (-0.06, 0.05, -0.04)]


@pytest.mark.parametrize("electrons", [1e4, np.inf])
def test_lattices_strained_by_8_percent_are_found_among_others(electrons: float) -> None:
    """No turn and scale of the nominal lattice meets the outer disks of these."""
    F = random_deformations((8, 8))
    for column, strain in enumerate(STRAINED):
        F[2, column] = geometry.deformation(*strain, 0.4 * column)
    found = located(SMALL_DISKS.counts(F, electrons))
    assert found.has_lattice.all()
    nominal = SMALL_DISKS.G0 / SMALL_DISKS.pixel_size_inv_A
    rough = geometry.deformation_from_reciprocal(found.G.double().numpy().reshape(F.shape), nominal)
    away = geometry.inverse_transpose(geometry.to_branch(rough, F, 6))
    away = (away - geometry.inverse_transpose(F))[2, : len(STRAINED)]
    # All disks lie within a radius of where the rough lattice puts them.
    at = away @ nominal @ SiteTables.of(SMALL_DISKS.calibration, (200, 200), "cpu").hk.numpy().T
    assert np.linalg.norm(at, axis=1).max() < SMALL_DISKS.radius_px


def test_a_pattern_of_few_electrons_is_not_taken_for_a_strained_one() -> None:
    """At 500 electrons many a pattern shows half of what the others do, by chance."""
    F = random_deformations((12, 12))
    made = MODEL.counts(F, 500)
    finder = SiteFinder.learn(made, "cpu")
    patterns = torch.from_numpy(made.counts.reshape(-1, 128, 128).astype(np.float32))
    found = finder.locate(patterns)
    mixture = replace(finder.mixture, odds_per_count=0.0)
    without = replace(finder, mixture=mixture).locate(patterns)
    assert (found.G != without.G).any((1, 2)).float().mean() <= 0.01


def test_a_mirrored_oblique_lattice_is_said_and_not_answered() -> None:
    """The measured lattices of a mirrored image, near enough to be taken for strain."""
    calibration = replace(MODEL.calibration, lattice_inv_A=OBLIQUE, rotational_symmetry=2)
    strain = random_deformations((4, 5), seed=2)
    strain = np.eye(2) + 0.1 * (strain - np.eye(2))
    seen = geometry.inverse_transpose(strain) @ np.diag([1.0, -1.0]) @ OBLIQUE
    # The indices that a method would give it: the nearest to the nominal lattice.
    index = range(-1, 2)
    every = (np.array(e).reshape(2, 2) for e in itertools.product(index, repeat=4))
    metric = OBLIQUE.T @ OBLIQUE
    U = min(
        (U for U in every if U[0, 0] * U[1, 1] - U[0, 1] * U[1, 0] == -1),
        key=lambda U: np.linalg.norm(U.T @ metric @ U - metric),
    )
    F = geometry.inverse_transpose(seen @ U @ np.linalg.inv(OBLIQUE))
    answer = mirrored.refuse_mirrored(Answer(F, np.ones((4, 5, 4, 4))), calibration)
    assert np.isnan(answer.F).all()
    assert np.isnan(answer.covariance).all()
    assert answer.found["mirrored"].startswith("the pattern looks mirrored")
    straight = Answer(strain)
    assert mirrored.refuse_mirrored(straight, calibration) is straight
    assert mirrored.looks_mirrored(strain, MODEL.calibration) is None


def test_the_site_finder_lands_well_inside_every_disk() -> None:
    model = Model(offset_px=(1.7, -2.3))
    F = geometry.deformation(0.02, 0.015, 0, np.linspace(-0.5, 0.5, 9).reshape(3, 3))
    counts = model.counts(F, 1e5)
    patterns = torch.from_numpy(counts.counts.reshape(9, 128, 128).astype(np.float32))
    finder = SiteFinder.learn(counts, "cpu")
    found = finder.locate(patterns)
    assert found.has_lattice.all()
    np.testing.assert_allclose(found.centre, np.broadcast_to([65.7, 61.7], (9, 2)), atol=0.08)
    truth = geometry.inverse_transpose(F.reshape(9, 2, 2)) @ model.G0 / model.pixel_size_inv_A
    outermost = 2 * np.linalg.norm(found.G.numpy() - truth, axis=1).max()  # at {20-20}
    assert outermost < model.radius_px / 2


@pytest.mark.parametrize("background", [0.0, 0.5])
def test_a_scan_of_vacuum_alone_holds_no_lattice(background: float) -> None:
    F = np.broadcast_to(np.eye(2), (6, 6, 2, 2))
    counts = MODEL.counts(F, 1e5, background, vacuum=np.ones((6, 6), bool))
    finder = SiteFinder.learn(counts, "cpu")
    found = finder.locate(torch.from_numpy(counts.counts.reshape(36, 128, 128).astype(np.float32)))
    assert found.has_lattice.float().mean() < 0.1


def test_disk_radius_and_rings_of_the_main_microscope() -> None:
    assert disk_radius_px(MODEL.calibration) == pytest.approx(5.53, abs=0.01)
    hk = lattice_sites.nodes(MODEL.calibration, (128, 128))
    ring = lattice_sites.rings(MODEL.calibration, hk)
    assert [int((ring == k).sum()) for k in range(4)] == [6, 6, 6, 12]
