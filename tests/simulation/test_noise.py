"""Noise: the published background, Poisson statistics, and the same counts whatever the order."""

import numpy as np
import pytest
from scipy import stats

from ccstae.config.levels import Level
from ccstae.simulation import noise
from ccstae.simulation.background import background


@pytest.fixture
def pattern():
    y, x = np.mgrid[-32:32, -32:32]
    return (np.hypot(x, y) < 5).astype(float) + (np.hypot(x - 20, y) < 5) * 0.02 + 1e-6


def test_background_is_the_published_lorentzian():
    B = background((200, 200))
    assert B.sum() == pytest.approx(1)
    # Half width 0.01 cycles per pixel: two pixels of a 200 px pattern.
    assert B[100, 102] == pytest.approx(B[100, 100] / 2)
    assert B[90, 100] == pytest.approx(B[100, 100] / 26)


@pytest.mark.parametrize("w", [0.0, 0.25, 0.7])
def test_expected_counts_follow_the_formula(pattern, w):
    level = Level(background=w, electrons=1e5)
    expected = 1e5 * ((1 - w) * pattern / pattern.sum() + w * background((64, 64)))
    assert noise.expectation(pattern, level) == pytest.approx(expected)
    assert noise.expectation(pattern, level).sum() == pytest.approx(1e5)


def test_counts_are_poisson(pattern):
    level = Level(background=0.25, electrons=1e4)
    expected = noise.expectation(pattern, level)
    counts = np.stack([noise.pattern_counts(pattern, level, 3, "s", i) for i in range(400)]).astype(
        float
    )
    # Mean and index of dispersion over 400 draws, for each pixel; chi-squared over all of them.
    seen = expected > 0.5
    chi2 = ((counts[:, seen] - expected[seen]) ** 2 / expected[seen]).sum()
    n = counts.shape[0] * seen.sum()
    assert stats.norm.sf(abs(chi2 - n) / np.sqrt(n * (2 + 1 / expected[seen].mean()))) > 1e-4
    assert counts.sum() == pytest.approx(400 * 1e4, abs=5 * np.sqrt(400 * 1e4))


def test_counts_depend_on_nothing_but_seed_scene_level_and_index(pattern):
    level = Level(background=0.25, electrons=1e4)
    forward = [noise.pattern_counts(pattern, level, 1, "a", i) for i in range(5)]
    backward = [noise.pattern_counts(pattern, level, 1, "a", i) for i in reversed(range(5))][::-1]
    assert all((a == b).all() for a, b in zip(forward, backward, strict=True))
    others = [
        noise.pattern_counts(pattern, level, 2, "a", 0),
        noise.pattern_counts(pattern, level, 1, "b", 0),
        noise.pattern_counts(pattern, Level(background=0.3, electrons=1e4), 1, "a", 0),
        forward[1],
    ]
    assert all((forward[0] != other).any() for other in others)


def test_clean_counts_are_the_expectation(pattern):
    level = Level(background=0, electrons=float("inf"))
    counts = noise.pattern_counts(pattern, level, 1, "a", 0)
    assert counts / noise.CLEAN_ELECTRONS == pytest.approx(pattern / pattern.sum(), abs=1e-11)


def test_level_names():
    assert Level(background=0, electrons=float("inf")).name == "clean"
    assert Level(background=0.25, electrons=1e6).name == "w0.25_n1e+06"
