"""Pooling of neighbours, on fields made by hand."""

import numpy as np
import pytest

from ccstae.methods.ccstae_pooled import pool

SHAPE = (20, 24)


def field(step=0.04, slope=1e-3):
    """Lattices near the unit matrix, (Ry, Rx, 4): a ramp along y in one component, a jump along x
    in another.
    """
    M = np.tile(np.eye(2).ravel(), (*SHAPE, 1))
    M[..., 0] -= step * (np.arange(SHAPE[1]) >= 12)
    M[..., 3] += slope * np.arange(SHAPE[0])[:, None]
    return M


def measured(M, deviation=0.008, seed=0):
    """The field with noise of correlated components, and its information."""
    root = deviation * np.array(
        [[1.0, 0, 0, 0], [0.3, 0.8, 0, 0], [0, -0.2, 0.7, 0], [0.4, 0, 0.1, 1.0]]
    )
    noise = np.random.default_rng(seed).standard_normal(M.shape) @ root.T
    return M + noise, np.broadcast_to(np.linalg.inv(root @ root.T), (*M.shape, 4))


def test_a_ramp_is_smoothed_a_jump_stays_and_the_error_is_known():
    truth, held = field(), np.ones(SHAPE, bool)
    values, information = measured(truth)
    found, covariance = pool.pool(values.reshape(-1, 4), information.reshape(-1, 4, 4), held, 0)
    error = found.reshape(truth.shape) - truth
    assert np.sqrt((error**2).mean((0, 1)) / ((values - truth) ** 2).mean((0, 1))).max() < 0.5
    deviation = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)).reshape(truth.shape)
    assert 0.9 < (np.abs(error) < 1.96 * deviation).mean() < 1.0
    # The jump of 5 deviations between two columns is not spread over more than one more.
    profile = found.reshape(truth.shape)[..., 0].mean(0) - 1
    assert profile[10] > -0.008
    assert profile[13] < -0.032


def test_precise_patterns_are_left_alone():
    truth, held = field(), np.ones(SHAPE, bool)
    values, information = measured(truth, deviation=1e-5)
    found, _ = pool.pool(values.reshape(-1, 4), information.reshape(-1, 4, 4), held, 0)
    assert np.abs(found - values.reshape(-1, 4)).max() < 5e-5


def test_a_wrong_pattern_does_not_pull_its_neighbours():
    truth, held = field(step=0, slope=0), np.ones(SHAPE, bool)
    values, information = measured(truth, deviation=0.003)
    before, _ = pool.pool(values.reshape(-1, 4), information.reshape(-1, 4, 4), held, 0)
    values[10, 12] += 0.1
    after, _ = pool.pool(values.reshape(-1, 4), information.reshape(-1, 4, 4), held, 0)
    near = (after - before).reshape(truth.shape)[10, 13]
    assert np.abs(near).max() < 0.003


@pytest.mark.parametrize(
    "held", [np.eye(6, dtype=bool), np.ones((1, 1), bool), np.ones((1, 9), bool)]
)
def test_scans_with_few_or_no_neighbours_are_answered(held):
    n = int(held.sum())
    M = np.tile(np.eye(2).ravel(), (n, 1))
    found, covariance = pool.pool(M, np.tile(1e6 * np.eye(4), (n, 1, 1)), held, 0)
    assert np.allclose(found, M, atol=1e-6)
    assert np.isfinite(covariance).all()


def test_links_join_neighbours_only():
    held = np.array([[True, True, False], [False, True, True]])
    i, j = pool.links(held)
    assert sorted(zip(i.tolist(), j.tolist(), strict=True)) == [(0, 1), (1, 2), (2, 3)]
