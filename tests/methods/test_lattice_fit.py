"""The lattice fit: exact on exact positions, the right weights, the right noise, and NaN where
sites do not determine a lattice.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ccstae import geometry
from ccstae.methods.shared import lattice_fit

HEXAGON = torch.tensor([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1], [1, 1], [-1, -1]])
G = torch.tensor([[28.0, 14.0], [1.0, 25.0]], dtype=torch.float64)
CENTRE = torch.tensor([63.7, 64.2], dtype=torch.float64)


def exact(n: int = 1) -> torch.Tensor:
    return lattice_fit.node_positions(CENTRE.expand(n, 2), G.expand(n, 2, 2), HEXAGON)


def test_exact_positions_give_the_exact_lattice_whatever_the_weights() -> None:
    weights = torch.rand(5, len(HEXAGON), dtype=torch.float64) + 0.1
    found = lattice_fit.fit(exact(5), weights, HEXAGON)
    torch.testing.assert_close(found.centre, CENTRE.expand(5, 2), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.G, G.expand(5, 2, 2), rtol=0, atol=1e-10)


def test_agrees_with_weighted_least_squares_of_numpy() -> None:
    rng = np.random.default_rng(1)
    measured = exact().numpy()[0] + rng.normal(0, 0.3, (len(HEXAGON), 2))
    weights = rng.uniform(0.1, 3, len(HEXAGON))
    design = np.column_stack([np.ones(len(HEXAGON)), HEXAGON.numpy()])
    root = np.sqrt(weights)[:, None]
    expected = np.linalg.lstsq(root * design, root * measured, rcond=None)[0]
    found = lattice_fit.fit(
        torch.from_numpy(measured)[None], torch.from_numpy(weights)[None], HEXAGON
    )
    np.testing.assert_allclose(found.centre[0], expected[0], atol=1e-9)
    np.testing.assert_allclose(found.G[0], expected[1:].T, atol=1e-9)


def test_six_equal_disks_give_the_closed_form_errors() -> None:
    """Six disks at radius g px, each with position error s: s / (sqrt(3) g) in exx and eyy, s /
    (sqrt(6) g) in exy and theta.
    """
    g, s, n = 30.0, 0.05, 20000
    G0 = g * geometry.reciprocal(np.array([[1.0, -0.5], [0.0, np.sqrt(3) / 2]])) * np.sqrt(3) / 2
    hk = torch.from_numpy(geometry.lattice_nodes(G0, 1.01 * g)[1:])
    assert len(hk) == 6
    ideal = lattice_fit.node_positions(
        torch.zeros(n, 2, dtype=torch.float64), torch.from_numpy(G0).expand(n, 2, 2), hk
    )
    noisy = ideal + s * torch.randn(
        ideal.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    found = lattice_fit.fit(noisy, torch.ones(n, 6), hk)
    spread = geometry.components(geometry.deformation_from_reciprocal(found.G.numpy(), G0)).std(0)
    np.testing.assert_allclose(spread, s / g / np.sqrt([3, 3, 6, 6]), rtol=0.03)


def test_an_outlier_is_left_out_only_when_asked() -> None:
    hk = torch.from_numpy(geometry.lattice_nodes(G.numpy(), 60.0))
    noisy = lattice_fit.node_positions(CENTRE[None], G[None], hk)
    noisy += 0.05 * torch.randn(
        noisy.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    noisy[0, 3] += 5
    noisy[0, 8, 0] -= 4
    kept = lattice_fit.fit(noisy, torch.ones(1, len(hk)), hk, reject=False)
    left_out = lattice_fit.fit(noisy, torch.ones(1, len(hk)), hk, reject=True)
    assert (kept.G - G).abs().max() > 0.2
    assert (left_out.G - G).abs().max() < 0.05


def test_a_position_that_is_not_finite_has_no_weight() -> None:
    measured = exact()
    measured[0, 2] = torch.nan
    found = lattice_fit.fit(measured, torch.ones(1, len(HEXAGON)), HEXAGON)
    torch.testing.assert_close(found.G[0], G, rtol=0, atol=1e-10)


@pytest.mark.parametrize("used", [[], [0, 1], [0, 1, 3]], ids=["none", "two", "on one line"])
def test_too_few_sites_give_nan_and_leave_the_other_patterns_alone(used: list[int]) -> None:
    weights = torch.zeros(2, len(HEXAGON))
    weights[0, used] = 1
    weights[1] = 1
    found = lattice_fit.fit(exact(2), weights, HEXAGON)
    assert found.G[0].isnan().all()
    assert found.centre[0].isnan().all()
    torch.testing.assert_close(found.G[1], G, rtol=0, atol=1e-10)


def test_weights_by_information_are_the_inverse_variances_of_the_definition() -> None:
    """By hand: of two rings, one of a bright disk, a dim one and an unseen one, in two patterns."""
    ring = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    signal = torch.tensor([[900.0, 4.0, 2.0, 0.0], [900.0, 0.0, 0.0, 0.0]])
    noise = torch.tensor([[1.0, 5.0, 7.0, 9.0], [1.0, 5.0, 7.0, 9.0]])
    found = lattice_fit.information(signal, noise, 0.5, ring)
    # The direct beam alone: 900 * 900 / max(1, 0.5 * 900). The second ring: mean 3, noise 6, then
    # each disk's own signal.
    torch.testing.assert_close(
        found, torch.tensor([[1800.0, 2.0, 1.0, 0.0], [1800.0, 0.0, 0.0, 0.0]])
    )


@pytest.mark.parametrize(("uneven", "most"), [(0.0, 0.02), (0.3, 0.08), (0.6, 0.25)])
def test_weights_by_information_come_near_the_best_there_are(uneven: float, most: float) -> None:
    """Positions of variance noise / signal^2, the signals seen with an error of 20 %: little is
    lost on a ring of even disks against the fit that knows the signals; on one of uneven disks less
    than a third of what equal weights lose.
    """
    draw = torch.Generator().manual_seed(4)
    hk, n = torch.tensor([[1, 0], [0, 1], [-1, 1], [-1, 0], [0, -1], [1, -1]]), 20000
    true = 1 + uneven * torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0]).expand(n, 6)
    seen = (true + 0.2 * torch.randn((n, 6), generator=draw)).clamp_min(0)
    at = lattice_fit.node_positions(torch.zeros(n, 2, dtype=torch.float64), G.expand(n, 2, 2), hk)
    at += 0.05 * torch.randn(at.shape, dtype=torch.float64, generator=draw) / true[..., None]

    def spread(weights: torch.Tensor) -> float:
        return float((lattice_fit.fit(at, weights, hk).G - G).square().mean().sqrt())

    best, equal = spread(true**2), spread(torch.ones_like(seen))
    found = spread(lattice_fit.information(seen, torch.ones_like(seen), 0.0, torch.ones(6, 1)))
    assert found / best - 1 < most
    assert uneven == 0 or found - best < (equal - best) / 3
