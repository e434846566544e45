"""Centre of mass: recovers known deformations of ideal patterns, stays near the bound, and says
where it has no answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from synthetic import Model, errors, random_deformations

from ccstae.methods.com import method as com
from ccstae.methods.com.settings import ComSettings

MODEL = Model(offset_px=(0.3, -0.2))


def rms(e: np.ndarray) -> np.ndarray:
    return np.sqrt((e.reshape(-1, 4) ** 2).mean(0))


@pytest.mark.parametrize("background", ["none", "ring", "median", "radial"])
def test_clean_patterns_give_the_exact_strain(background: str) -> None:
    F = random_deformations((3, 3), strain=0.04, rotation=0.05)
    answer = com.map_strain(MODEL.counts(F), ComSettings(background=background), "cpu")
    assert rms(errors(answer.F, F)).max() < 0.2e-4
    np.testing.assert_allclose(
        answer.centre_px, np.broadcast_to([64.3, 63.8], (3, 3, 2)), atol=2e-3
    )


def test_a_threshold_keeps_clean_patterns_exact() -> None:
    F = random_deformations((2, 2))
    answer = com.map_strain(MODEL.counts(F), ComSettings(threshold=0.1), "cpu")
    assert rms(errors(answer.F, F)).max() < 2e-4


@pytest.mark.parametrize("weights", ["intensity", "information"])
@pytest.mark.parametrize(("electrons", "background"), [(1e5, 0.0), (1e5, 0.25), (1e4, 0.0)])
def test_noise_stays_within_twice_the_bound(
    electrons: float, background: float, weights: Any
) -> None:
    F = random_deformations((8, 8), seed=2)
    found = errors(
        com.map_strain(
            MODEL.counts(F, electrons, background, seed=5), ComSettings(weights=weights), "cpu"
        ).F,
        F,
    )
    ratio = rms(found) / MODEL.limit(np.eye(2), electrons, background)
    assert ratio.max() < 2.1
    assert (
        ratio.min() > 1.1
    )  # the centre of mass wastes what the edges know; less than the bound would be a wrong bound


def test_weights_by_information_cost_less_where_there_is_background() -> None:
    F = random_deformations((10, 10), seed=3)
    counts = MODEL.counts(F, 1e5, 0.5, seed=6)
    plain, weighted = (
        rms(
            errors(
                com.map_strain(counts, ComSettings(window_radii=1.2, weights=weights), "cpu").F, F
            )
        )
        for weights in ("intensity", "information")
    )
    assert (weighted / plain).mean() < 0.96


def test_the_radial_background_takes_away_the_pull_towards_the_beam() -> None:
    """A Lorentzian falls across each window and pulls its centre of mass inwards: the lattice seems
    stretched.
    """
    F = np.broadcast_to(np.eye(2), (4, 4, 2, 2))
    counts = MODEL.counts(F, 1e6, 0.25)
    pulled = errors(com.map_strain(counts, ComSettings(background="none"), "cpu").F, F).mean((0, 1))
    straight = errors(com.map_strain(counts, ComSettings(background="radial"), "cpu").F, F).mean(
        (0, 1)
    )
    assert pulled[:2].min() > 100e-4
    assert np.abs(straight).max() < 10e-4
