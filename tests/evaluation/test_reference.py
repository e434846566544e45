"""Strain against a reference that is chosen afterwards, on maps that are made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ccstae import geometry
from ccstae.errors import InputError
from ccstae.evaluation.reference import against
from ccstae.io.maps import Map

SCAN = (12, 20)
# Two crystals, 5 % apart, the second turned by 3 degrees; the first has 11 of 20 columns.
FIRST = geometry.deformation(0.01, -0.005, 0.002, 0.05)
SECOND = geometry.deformation(0.05, 0.0, 0.01, 0.0)
BORDER = 11
SYMMETRIC = {"rotational_symmetry": 6}


def two_crystals(noise: float = 0.0, covariance: bool = False) -> Map:
    F = np.tile(FIRST, (*SCAN, 1, 1))
    F[:, BORDER:] = SECOND @ FIRST
    F = F + noise * np.random.default_rng(2).normal(size=F.shape)
    F[0, 0] = np.nan
    label = np.where(np.arange(SCAN[1]) < BORDER, 1, 2) * np.ones((SCAN[0], 1))
    stated = np.tile(np.diag([1.0, 2.0, 3.0, 4.0]), (*SCAN, 1, 1)) if covariance else None
    return Map(F, SYMMETRIC, stated, label.astype(np.int8))


def test_the_commonest_lattice_is_undeformed_and_the_other_as_it_is_to_it() -> None:
    found = geometry.components(against(two_crystals()).F)
    np.testing.assert_allclose(found[1:, :BORDER], 0, atol=1e-12)
    np.testing.assert_allclose(
        found[:, BORDER:], np.tile([0.05, 0, 0.01, 0], (12, 9, 1)), atol=1e-12
    )
    assert np.isnan(found[0, 0]).all()


@pytest.mark.parametrize(
    "reference",
    [
        (slice(2, 8), slice(BORDER, None)),
        2,
        np.broadcast_to(np.arange(SCAN[1]) >= BORDER, SCAN).copy(),
    ],
    ids=["rectangle", "label", "mask"],
)
def test_a_reference_that_is_named(reference) -> None:
    found = against(two_crystals(), reference).F
    np.testing.assert_allclose(found[:, BORDER:], np.tile(np.eye(2), (12, 9, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(found[5, 5], np.linalg.inv(SECOND), atol=1e-12)


def test_noise_leaves_the_commonest_lattice_within_its_scatter() -> None:
    found = geometry.components(against(two_crystals(noise=1e-3)).F)
    rest = np.nanmean(found[:, :BORDER], axis=(0, 1))
    # The median of 24 answers chosen for lying near one another: within its own scatter of 1e-3
    # over sqrt(24), four times.
    assert np.abs(rest).max() < 4 * 1e-3 / np.sqrt(24)


def test_answers_on_other_branches_of_the_symmetry_are_one_lattice() -> None:
    answer = two_crystals()
    turned = answer.F.copy()
    turned[::2] = turned[::2] @ geometry.rotation_matrix(np.pi / 3)
    found = against(Map(turned, SYMMETRIC)).F
    np.testing.assert_allclose(found, against(answer).F, atol=1e-12)


def test_covariance_goes_along() -> None:
    """To first order the components against a reference turned by 0.05 alone are those before."""
    turned = geometry.deformation(0, 0, 0, 0.05)
    covariance = np.tile(np.diag([1.0, 2.0, 3.0, 4.0]), (2, 2, 1, 1))
    F = np.tile(turned, (2, 2, 1, 1))
    found = against(Map(F, {}, covariance))
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-12)


def test_what_is_no_reference_is_one_line() -> None:
    answer = two_crystals()
    for reference, words in (
        ((slice(0, 1), slice(0, 1)), "no position with an answer"),
        (7, "no position with an answer"),
        (np.ones((3, 3), bool), r"expected a mask of bool, \(12, 20\)"),
    ):
        with pytest.raises(InputError, match=words):
            against(answer, reference)
    with pytest.raises(InputError, match="no labels"):
        against(Map(answer.F, {}), 1)
    with pytest.raises(InputError, match="no position of the map"):
        against(Map(np.full_like(answer.F, np.nan), {}))
