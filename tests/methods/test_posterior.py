"""The posterior mean and what it is read from."""

from dataclasses import replace

import pytest
import torch
from started import started

from ccstae.methods.ccstae import posterior, refine


def test_draws_have_exact_moments():
    for z, size in zip(posterior.draws(), posterior.DRAWS, strict=True):
        assert z.shape == (size, posterior.FREE)
        assert torch.allclose(z.mean(0), torch.zeros(posterior.FREE, dtype=z.dtype), atol=1e-12)
        assert torch.allclose(z.T @ z / size, torch.eye(posterior.FREE, dtype=z.dtype), atol=1e-9)


def test_posterior_of_a_parabola_is_its_maximum_and_near_it_where_it_is_none():
    for background, electrons in ((0.0, 1e6), (0.7, 1e5)):
        patterns, dictionary, state = started(12, background, electrons)
        state, at = refine.refine(patterns, dictionary, state)
        mean, normal = posterior.posterior_mean(patterns, dictionary, state, at)
        if background == 0:
            assert torch.equal(mean.M, state.M)
            assert torch.equal(normal, at.information)
        else:
            assert torch.equal(mean.background_scale, state.background_scale)
            ratio = torch.diagonal(refine.inverse(normal), dim1=1, dim2=2) / torch.diagonal(
                refine.inverse(at.information), dim1=1, dim2=2
            )
            assert 0.7 < float(ratio[:, :4].mean()) < 1.6
            z2 = torch.einsum(
                "na,nab,nb->n",
                (mean.M - state.M).double().reshape(-1, 4),
                normal[:, :4, :4],
                (mean.M - state.M).double().reshape(-1, 4),
            )
            assert 0 < float(z2.mean()) < 1.0


@pytest.mark.parametrize(
    ("background", "electrons", "sparse", "step"),
    [(0.5, 1e5, False, posterior.FINE), (0.7, 1e5, False, posterior.COARSE), (0.0, 5e3, True, 0.5)],
)
def test_log_posterior_agrees_with_the_deviance(background, electrons, sparse, step):
    patterns, dictionary, state = started(8, background, electrons)
    state, _ = refine.refine(patterns, dictionary, state)
    # Windows of a deviance follow their disks, those of a map stay; at the dictionary's own level
    # pixels beside disks say nothing.
    state = replace(state, background_scale=torch.ones(8))
    at = refine.evaluate(patterns, dictionary, state)
    assert dictionary.sparse == sparse
    steps = posterior.draws()[0][:8] @ posterior.cholesky_factor(
        refine.inverse(at.information)[:, :6, :6]
    ).transpose(1, 2)
    value = posterior.log_posterior(
        posterior.place_posterior(patterns, dictionary, state, at, step), dictionary.g, steps
    )
    for s in range(8):
        moved = refine.moved_by(
            state, at, torch.nn.functional.pad(steps[:, s], (0, 1)), dictionary.g
        )
        expected = -0.5 * refine.evaluate(patterns, dictionary, moved).deviance
        if s == 0:
            first = value[:, 0] - expected
        assert torch.allclose(value[:, s] - expected, first, atol=0.3)


def test_patterns_taken_by_pixel_and_by_count_have_the_same_posterior(monkeypatch):
    monkeypatch.setattr(posterior, "grid_for", lambda dictionary, step: posterior.Grid(step, 5))
    patterns, dictionary, state = started(8, 0.0, 5e3)
    state, at = refine.refine(patterns, dictionary, state)
    steps = (
        0.5
        * posterior.draws()[0][:16]
        @ posterior.cholesky_factor(refine.inverse(at.information)[:, :6, :6]).transpose(1, 2)
    )
    values = []
    for sparse in (True, False):
        taken_as = replace(dictionary)
        taken_as.__dict__["sparse"] = sparse  # in place of the cached property
        places = posterior.place_posterior(patterns, taken_as, state, at, posterior.FINE)
        values.append(posterior.log_posterior(places, dictionary.g, steps))
    by_count, by_pixel = values[0] - values[0][:, :1], values[1] - values[1][:, :1]
    assert by_count.isfinite().all()
    assert torch.allclose(by_count, by_pixel, atol=1e-3)


def test_a_map_is_interpolated_to_what_it_is():
    """The interpolation is close to a smooth function between the nodes, exact on them, and minus
    infinity off the grid.
    """
    for step in (posterior.FINE, posterior.COARSE):
        grid = posterior.Grid(step, 4)
        at = (torch.rand(1, 200, 2, generator=torch.Generator().manual_seed(0)) - 0.5) * 6 * step

        def peak(place):
            return torch.exp(-(place**2).sum(-1) / 2 / 0.9**2)

        values = peak(grid.nodes).reshape(1, 9, 9)
        assert torch.allclose(grid.interpolate(values, at), peak(at), atol=0.02)
        assert torch.allclose(
            grid.interpolate(values, grid.nodes[None])[0], values.reshape(-1), atol=1e-6
        )
        assert torch.isinf(
            grid.interpolate(values, torch.tensor([[[4.1 * step, 0.0], [0.0, -4.1 * step]]]))
        ).all()


def test_moments_of_a_normal_law_are_its_own_wherever_the_first_draws_lie(monkeypatch):
    """The first draws lie two deviations beside it, so that more rounds follow: each is weighed
    about the mean that it was drawn about.
    """
    generator = torch.Generator().manual_seed(0)
    n, free = 64, posterior.FREE
    root = torch.randn(free, free, dtype=torch.float64, generator=generator)
    covariance = root @ root.T + torch.eye(free, dtype=torch.float64)
    factor = torch.linalg.cholesky(covariance)
    z = torch.randn(n, free, dtype=torch.float64, generator=generator)
    mean = (2 * z / z.norm(dim=1, keepdim=True)) @ factor.T

    def log_density(places, g, steps):
        away = torch.linalg.solve_triangular(
            factor, (steps - places[:, None]).transpose(1, 2), upper=False
        )
        return -0.5 * (away**2).sum(1)

    monkeypatch.setattr(posterior, "log_posterior", log_density)
    found, spread, sound = posterior.moments(
        mean, torch.zeros(1, 2), 0.6 * covariance.expand(n, free, free)
    )
    assert sound.all()
    off = torch.linalg.solve_triangular(factor, (found - mean).T, upper=False)
    assert float(off.pow(2).mean().sqrt()) < 0.1
    ratio = torch.linalg.solve(covariance, spread).diagonal(dim1=1, dim2=2)
    assert 0.95 < float(ratio.mean()) < 1.05
