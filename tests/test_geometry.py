"""Conventions, against hand-made lattices and laws that hold for every deformation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccstae import geometry

strain = st.floats(-0.1, 0.1)
angle = st.floats(-3.0, 3.0)
LATTICE = 3.153 * np.array([[1.0, -0.5], [0.0, np.sqrt(3) / 2]])


def test_wavelength_at_80_kv_and_200_kv():
    # Tabulated relativistic wavelengths: 0.041757 and 0.025079 Angstrom.
    assert geometry.wavelength_A(80) == pytest.approx(0.041757, abs=1e-6)
    assert geometry.wavelength_A(200) == pytest.approx(0.025079, abs=1e-6)


def test_signs_on_a_lattice_drawn_by_hand():
    # Stretch along x by 2 %: real lattice longer along x, reciprocal shorter, exx positive.
    stretched = np.diag([1.02, 1.0]) @ LATTICE
    F = geometry.deformation_from_reciprocal(
        geometry.reciprocal(stretched), geometry.reciprocal(LATTICE)
    )
    assert geometry.components(F) == pytest.approx([0.02, 0, 0, 0], abs=1e-12)
    # A turn of x towards y (rows run downwards in a pattern, but x towards y all the same) is
    # positive.
    turned = np.array([[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]]) @ LATTICE
    F = geometry.deformation_from_reciprocal(
        geometry.reciprocal(turned), geometry.reciprocal(LATTICE)
    )
    assert geometry.components(F) == pytest.approx([0, 0, 0, 0.1], abs=1e-12)
    # Shear is the tensor component: the angle between x and y closes by twice it.
    sheared = np.array([[1.0, 0.01], [0.01, 1.0]]) @ LATTICE
    F = geometry.deformation_from_reciprocal(
        geometry.reciprocal(sheared), geometry.reciprocal(LATTICE)
    )
    assert geometry.components(F) == pytest.approx([0, 0, 0.01, 0], abs=1e-12)


def test_linearised_reciprocal_strain_would_be_wrong_by_more_than_a_thousandth_at_four_percent():
    F = geometry.deformation(0.04, 0.04, 0.0, 0.0)
    g = geometry.inverse_transpose(F)
    linear = 1 - g[0, 0]
    assert abs(linear - 0.04) > 1e-3
    assert geometry.components(F)[0] == pytest.approx(0.04, abs=1e-12)


@given(strain, strain, strain, angle)
def test_polar_decomposition_gives_back_what_made_it(exx, eyy, exy, theta):
    F = geometry.deformation(exx, eyy, exy, theta)
    V, turn = geometry.polar(F)
    assert geometry.components(F) == pytest.approx([exx, eyy, exy, theta], abs=1e-9)
    assert V @ geometry.rotation_matrix(turn) == pytest.approx(F, abs=1e-12)


@given(strain, strain, strain, angle)
def test_reciprocal_vectors_transform_with_the_inverse_transpose(exx, eyy, exy, theta):
    F = geometry.deformation(exx, eyy, exy, theta)
    G0 = geometry.reciprocal(LATTICE)
    assert geometry.reciprocal(F @ LATTICE) == pytest.approx(
        geometry.inverse_transpose(F) @ G0, abs=1e-12
    )
    assert geometry.deformation_from_reciprocal(
        geometry.inverse_transpose(F) @ G0, G0
    ) == pytest.approx(F, abs=1e-9)


@given(strain, strain, strain, angle)
def test_jacobian_of_the_components_is_their_derivative(exx, eyy, exy, theta):
    F = geometry.deformation(exx, eyy, exy, theta)
    exact = geometry.components_jacobian(F)
    for k, (i, j) in enumerate(np.ndindex(2, 2)):
        step = np.zeros((2, 2))
        step[i, j] = 1e-6
        change = geometry.components(F + step) - geometry.components(F - step)
        change[3] = geometry.wrap(change[3], 1)
        assert change / 2e-6 == pytest.approx(exact[:, k], abs=1e-7)


@given(strain, strain, strain, angle, st.integers(0, 5))
def test_a_lattice_turned_by_its_symmetry_is_the_same_lattice(exx, eyy, exy, theta, k):
    F = geometry.deformation(exx, eyy, exy, theta)
    other = F @ geometry.rotation_matrix(k * np.pi / 3)
    back = geometry.to_branch(other, F, 6)
    assert back == pytest.approx(F, abs=1e-9)


def test_gauge_removes_any_common_reference():
    rng = np.random.default_rng(1)
    F = geometry.deformation(*(0.02 * rng.normal(size=(4, 6, 5))))
    F[:2] = np.eye(2)
    mask = np.zeros((6, 5), bool)
    mask[:2] = True
    base = geometry.deformation(0.03, -0.02, 0.01, 0.2)
    assert geometry.regauge(F @ base, mask) == pytest.approx(F, abs=1e-9)


def test_wrapping_wraps_the_difference():
    assert geometry.wrap(np.deg2rad(59), 6) == pytest.approx(np.deg2rad(-1))
    assert geometry.wrap(np.deg2rad(-31), 6) == pytest.approx(np.deg2rad(29))


def test_nodes_of_a_hexagonal_lattice_come_in_rings_of_six():
    G = geometry.reciprocal(LATTICE)
    hk = geometry.lattice_nodes(G, 2.01 * float(np.linalg.norm(G[:, 0])))
    assert len(hk) == 19
    assert not hk[0].any()
