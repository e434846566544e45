"""How many entries a dictionary has, and which a pattern belongs to."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from synthetic import Model, random_deformations

from ccstae.methods.ccstae import entries, refine
from ccstae.methods.ccstae import method as ccstae
from ccstae.methods.ccstae.settings import CcstaeSettings


def test_entries_are_told_apart_by_their_lattice_too():
    generator = torch.Generator().manual_seed(0)
    label = (torch.rand(400, generator=generator) < 0.5).long()
    x = 0.08 * label + 0.01 * torch.randn(400, generator=generator)
    odds = torch.stack(
        [torch.zeros(400), 3.0 * (label - 0.5) + 1.5 * torch.randn(400, generator=generator)], 1
    ).double()
    variance = torch.full((400,), 1e-4, dtype=torch.float64)
    measured = entries.LogArea(x.double(), variance)
    area = entries.areas(odds, measured)
    assert torch.allclose(
        area[:, 0].sort().values, torch.tensor([0.0, 0.08], dtype=torch.float64), atol=3e-3
    )
    with_area = odds + entries.area_odds(area, measured)
    before = (odds.argmax(1) == label).double().mean()
    after = (with_area.argmax(1) == label).double().mean()
    assert after > 0.99 > before
    # One lattice for all: nothing changes.
    same = entries.LogArea(torch.randn(400, generator=generator).double() * 0.01, variance)
    area = entries.areas(odds, same)
    assert (
        (odds + entries.area_odds(area, same)).argmax(1) == odds.argmax(1)
    ).double().mean() > 0.97


def test_log_area_and_its_variance():
    M = torch.tensor([[[1.02, 0.01], [-0.005, 0.97]]], dtype=torch.float64)
    root = 1e-4 * torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    measured = entries.log_area(M, (root @ root.T)[None])
    draws = (
        torch.randn(20_000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        @ root.T
    )
    assert float(measured.value) == pytest.approx(np.log(1.02 * 0.97 + 0.01 * 0.005))
    assert float(measured.variance) == pytest.approx(
        float(torch.linalg.det(M + draws.reshape(-1, 2, 2)).log().var()), rel=0.03
    )


@pytest.mark.parametrize("error", [0.0, 0.01, 0.3])
def test_noise_free_counts_are_likeliest_where_they_come_from_whatever_the_model_error(error):
    x = torch.linspace(-8, 8, 200, dtype=torch.float64)
    inside, background = (
        torch.ones(1, 1, 200, dtype=torch.float64),
        torch.full((1, 1, 200), 3.0, dtype=torch.float64),
    )

    def model(intensity, place):
        return (intensity * torch.sigmoid(4 * (4 - (x - place).abs())))[None, None] + background

    counts, extra = model(1e3, 0.0), torch.full((1, 1, 1), (error * 1e3) ** 2, dtype=torch.float64)
    at = {
        (a, b): float(
            refine.relative_deviance(
                counts, model(1e3 * (1 + a), b), background, extra, inside, exact=error == 0
            )
        )
        for a in (-0.05, -0.01, 0, 0.01, 0.05)
        for b in (-0.1, -0.01, 0, 0.01, 0.1)
    }
    assert min(at, key=lambda where: at[where]) == (0, 0)


def test_entries_are_counted_and_told_apart():
    rng = np.random.default_rng(0)
    shares = np.array([[1.0, 2, 3, 1, 2, 3], [3.0, 2, 1, 3, 2, 1]])
    label = rng.integers(0, 2, 300)
    mean = 60 * shares[label]
    intensity = torch.from_numpy(rng.poisson(mean).astype(np.float32))
    centre, odds = entries.cluster(intensity, torch.from_numpy(mean.astype(np.float32)))
    assert len(centre) == 2
    agree = float((odds.argmax(1).numpy() == label).mean())
    assert max(agree, 1 - agree) > 0.99
    one, _ = entries.cluster(
        torch.from_numpy(rng.poisson(60 * shares[np.zeros(300, int)]).astype(np.float32)),
        torch.from_numpy(60 * shares[np.zeros(300, int)]).float(),
    )
    assert len(one) == 1


K = 16
SHARES = np.tile([1.2, 0.8, 1.0, 1.0], 4) / K


def drawn(
    rng: np.random.Generator, contrast: np.ndarray | float, step: float, n: int = 400
) -> tuple[torch.Tensor, torch.Tensor, entries.LogArea, np.ndarray]:
    """Intensities, variances and log areas of n patterns of two kinds, told apart by no single
    pattern: 400 counts in all disks on a background of as many in each.
    """
    kind = (rng.random(n) < 0.4).astype(int)
    shares = SHARES * (1 + (kind[:, None] - 0.5) * contrast)
    mean = 400 * shares / shares.sum(1, keepdims=True)
    variance = mean + 400
    intensity = rng.normal(mean, variance**0.5)
    deviation = 0.02
    size = rng.normal(step * kind, deviation)
    size[:4] = -0.4  # lattices found wrong
    measured = entries.LogArea(
        torch.from_numpy(size), torch.full((n,), deviation**2, dtype=torch.float64)
    )
    return torch.from_numpy(intensity), torch.from_numpy(variance), measured, kind


MATERIAL = 0.34 * np.where(np.arange(K) % 2, 1, -1)  # disks a sixth brighter or fainter: WS2, WSe2
STRAIN = 0.06 * np.where(np.arange(K) % 2, 1, -1)  # what 4 % of strain along one axis does


@pytest.mark.parametrize("seed", range(5))
def test_two_materials_are_told_apart_where_their_intensities_alone_are_lost_in_noise(seed):
    intensity, variance, measured, kind = drawn(np.random.default_rng(seed), MATERIAL, -0.07)
    alone, _ = entries.cluster(intensity, variance)
    assert len(alone) == 1
    two = entries.told_apart_by_area(entries.Relative.of(intensity, variance), measured)
    assert two is not None
    centre, odds, area = two
    assert area[:, 0].tolist() == pytest.approx([-0.07, 0], abs=0.01)
    found = entries.likeliest(odds, area, measured).numpy()
    assert ((found == 0) == (kind == 1))[4:].mean() > 0.94
    # The regression undoes what patterns of the other kind in a share do to its mean.
    for e, sign in ((0, 0.5), (1, -0.5)):
        expected = SHARES * (1 + sign * MATERIAL)
        off = (centre[e].numpy() / float(centre[e].sum()) - expected / expected.sum()) * K
        assert np.sqrt((off**2).mean()) < 0.12


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("contrast", "step"),
    [(0.0, -0.07), (STRAIN, -0.07), (MATERIAL, 0.0)],
    ids=["one crystal, two sizes", "a strained grain", "sizes that tell nothing"],
)
def test_the_size_of_the_cell_alone_makes_no_second_material(contrast, step, seed):
    intensity, variance, measured, _ = drawn(np.random.default_rng(seed), contrast, step, 1600)
    relative = entries.Relative.of(intensity, variance)
    assert entries.told_apart_by_area(relative, measured) is None


@pytest.mark.parametrize(
    ("turns_deg", "one"), [((0, 4), True), ((0, 20), False), ((-29, 29), False)]
)
def test_grains_of_other_orientations_are_known(turns_deg, one):
    rng = np.random.default_rng(0)
    turn = np.deg2rad(rng.choice(turns_deg, 200) + rng.normal(0, 0.5, 200))
    turn[0] = 0.5  # one lattice found wrong
    M = np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], -1).reshape(-1, 2, 2)
    assert entries.is_of_one_orientation(torch.from_numpy(M @ [[1.04, 0.01], [0.01, 0.98]])) is one


def test_patterns_all_alike_are_of_one_material():
    intensity = torch.full((100, K), 25.0, dtype=torch.float64)
    same = torch.zeros(100, dtype=torch.float64)
    relative = entries.Relative.of(intensity, intensity)
    assert entries.told_apart_by_area(relative, entries.LogArea(same, same + 1e-8)) is None


def test_entries_are_counted_where_disks_hold_few_counts():
    """Ten counts a disk, without background: the variance that a pattern states is its own counts,
    small where they are few by chance.
    """
    rng = np.random.default_rng(1)
    shares = np.array([[1.0, 2, 3, 1, 2, 3, 1, 2, 3], [3.0, 2, 1, 3, 2, 1, 3, 2, 1]]) / 18
    label = rng.integers(0, 2, 500)
    for kinds, expected in ((shares[label], 2), (shares[np.zeros(500, int)], 1)):
        intensity = torch.from_numpy(np.maximum(rng.poisson(90 * kinds), 0.3).astype(np.float32))
        centre, odds = entries.cluster(intensity, intensity)
        assert len(centre) == expected
        if expected == 2:
            agree = float((odds.argmax(1).numpy() == label).mean())
            assert max(agree, 1 - agree) > 0.97


def test_a_probe_that_meets_the_sample_with_its_rim_is_beside_it():
    """Such a pattern holds a lattice, and so a strain, but its label is that of vacuum."""
    model = Model()
    F = random_deformations((6, 8))
    share = np.ones((6, 8))
    share[5] = np.repeat([0.1, 0.4, 0.6, 0.9], 2)
    rng = np.random.default_rng(0)
    counts = model.counts(F, 1e6)
    mixed = np.stack(
        [
            [s * model.pattern(f) + (1 - s) * model.probe for s, f in zip(*row, strict=True)]
            for row in zip(share, F, strict=True)
        ]
    )
    answer = ccstae.map_strain(
        replace(counts, counts=rng.poisson(1e6 * mixed).astype(np.uint32)), CcstaeSettings(), "cpu"
    )
    assert np.isfinite(answer.F).all()
    np.testing.assert_array_equal(answer.label > 0, share > 0.5)


def hexagon(shares: list[list[float]], areas: list[list[float]]) -> SimpleNamespace:
    """Entries over the direct beam, six disks 60 degrees apart, and six at sqrt(3) between them."""
    angle = torch.arange(6) * np.pi / 3
    inner = 20 * torch.stack([angle.cos(), angle.sin()], 1)
    outer = 20 * 3**0.5 * torch.stack([(angle + np.pi / 6).cos(), (angle + np.pi / 6).sin()], 1)
    return SimpleNamespace(
        g=torch.cat([torch.zeros(1, 2), inner, outer]).float(),
        intensity=torch.tensor(shares).float(),
        area=torch.tensor(areas, dtype=torch.float64),
    )


def test_disks_permuted_by_a_turn_of_the_lattice_are_of_one_crystal():
    """Grains turned past half of 60 degrees show the two kinds of inner disks exchanged."""
    one, turned = [0.8, 1.3] * 3 + [1.2] * 6, [1.3, 0.8] * 3 + [1.2] * 6
    other = [1.05, 1.05] * 3 + [1.2] * 6
    alike, apart = [[0.0, 0.01]] * 3, [[0.0, 0.01], [0.08, 0.01], [0.0, 0.01]]
    entries_of = hexagon([[900.0, *one], [800.0, *turned], [900.0, *other]], alike)
    assert entries.crystals(entries_of, 6).tolist() == [0, 0, 1]
    # By half turns, which are the symmetry of an oblique lattice, they are exchanged as well; by
    # none they are two.
    assert entries.crystals(entries_of, 2).tolist() == [0, 0, 1]
    assert entries.crystals(entries_of, 1).tolist() == [0, 1, 2]
    # Cells of two sizes are two materials, whatever their disks.
    entries_of = hexagon([[900.0, *one], [800.0, *turned], [900.0, *one]], apart)
    assert entries.crystals(entries_of, 6).tolist() == [0, 1, 0]
