"""Which entry a pattern belongs to, by the size of its cell."""

import numpy as np
import pytest
import torch

from ccstae.methods.ccstae import cell_area, entries
from ccstae.methods.ccstae.cell_area import LogArea
from ccstae.methods.ccstae.intensities import Relative, cluster


def test_entries_are_told_apart_by_their_lattice_too():
    generator = torch.Generator().manual_seed(0)
    label = (torch.rand(400, generator=generator) < 0.5).long()
    x = 0.08 * label + 0.01 * torch.randn(400, generator=generator)
    odds = torch.stack(
        [torch.zeros(400), 3.0 * (label - 0.5) + 1.5 * torch.randn(400, generator=generator)], 1
    ).double()
    variance = torch.full((400,), 1e-4, dtype=torch.float64)
    measured = LogArea(x.double(), variance)
    area = cell_area.areas(odds, measured)
    assert torch.allclose(
        area[:, 0].sort().values, torch.tensor([0.0, 0.08], dtype=torch.float64), atol=3e-3
    )
    with_area = odds + cell_area.area_odds(area, measured)
    before = (odds.argmax(1) == label).double().mean()
    after = (with_area.argmax(1) == label).double().mean()
    assert after > 0.99 > before
    # One lattice for all: nothing changes.
    same = LogArea(torch.randn(400, generator=generator).double() * 0.01, variance)
    area = cell_area.areas(odds, same)
    assert (
        (odds + cell_area.area_odds(area, same)).argmax(1) == odds.argmax(1)
    ).double().mean() > 0.97


def test_log_area_and_its_variance():
    M = torch.tensor([[[1.02, 0.01], [-0.005, 0.97]]], dtype=torch.float64)
    root = 1e-4 * torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    measured = cell_area.log_area(M, (root @ root.T)[None])
    draws = (
        torch.randn(20_000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        @ root.T
    )
    assert float(measured.value) == pytest.approx(np.log(1.02 * 0.97 + 0.01 * 0.005))
    assert float(measured.variance) == pytest.approx(
        float(torch.linalg.det(M + draws.reshape(-1, 2, 2)).log().var()), rel=0.03
    )


K = 16
SHARES = np.tile([1.2, 0.8, 1.0, 1.0], 4) / K


def drawn(
    rng: np.random.Generator, contrast: np.ndarray | float, step: float, n: int = 400
) -> tuple[torch.Tensor, torch.Tensor, LogArea, np.ndarray]:
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
    measured = LogArea(torch.from_numpy(size), torch.full((n,), deviation**2, dtype=torch.float64))
    return torch.from_numpy(intensity), torch.from_numpy(variance), measured, kind


MATERIAL = 0.34 * np.where(np.arange(K) % 2, 1, -1)  # disks a sixth brighter or fainter: WS2, WSe2
STRAIN = 0.06 * np.where(np.arange(K) % 2, 1, -1)  # what 4 % of strain along one axis does


@pytest.mark.parametrize("seed", range(5))
def test_two_materials_are_told_apart_where_their_intensities_alone_are_lost_in_noise(seed):
    intensity, variance, measured, kind = drawn(np.random.default_rng(seed), MATERIAL, -0.07)
    alone, _ = cluster(Relative.of(intensity, variance))
    assert len(alone) == 1
    two = cell_area.told_apart_by_area(Relative.of(intensity, variance), measured)
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
    relative = Relative.of(intensity, variance)
    assert cell_area.told_apart_by_area(relative, measured) is None


@pytest.mark.parametrize(
    ("turns_deg", "one"), [((0, 4), True), ((0, 20), False), ((-29, 29), False)]
)
def test_grains_of_other_orientations_are_known(turns_deg, one):
    rng = np.random.default_rng(0)
    turn = np.deg2rad(rng.choice(turns_deg, 200) + rng.normal(0, 0.5, 200))
    turn[0] = 0.5  # one lattice found wrong
    M = np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], -1).reshape(-1, 2, 2)
    assert (
        cell_area.is_of_one_orientation(torch.from_numpy(M @ [[1.04, 0.01], [0.01, 0.98]])) is one
    )


def test_patterns_all_alike_are_of_one_material():
    intensity = torch.full((100, K), 25.0, dtype=torch.float64)
    same = torch.zeros(100, dtype=torch.float64)
    relative = Relative.of(intensity, intensity)
    assert cell_area.told_apart_by_area(relative, LogArea(same, same + 1e-8)) is None
