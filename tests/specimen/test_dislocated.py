"""Interfaces with dislocations: circuits close to Burgers vectors, the misfit is relieved, and the
halves meet.
"""

from __future__ import annotations

import numpy as np
import pytest
from made_scene import DISLOCATED, LATTICE_A, RIGHT, build, metal
from scipy.spatial import cKDTree

from ccstae.errors import InputError


@pytest.mark.parametrize("line", range(-2, 3))
def test_a_burgers_circuit_closes_to_the_burgers_vector(line: int) -> None:
    """Integrating F^-1 dx round one dislocation misses closure by a lattice vector along the
    interface.
    """
    row = DISLOCATED.dislocations
    at = row.origin + np.array([0, line * row.spacing_A])
    centre = at + DISLOCATED.displacement(at)
    angle = np.linspace(0, 2 * np.pi, 2001)
    # Both sides of the sharp interface meet in corners of the path, so that no step crosses it.
    x = centre + 25 * np.stack([np.cos(angle), np.sin(angle)], -1)
    middle, dx = (x[1:] + x[:-1]) / 2, np.diff(x, axis=0)
    missing = np.einsum("nij,nj->i", np.linalg.inv(DISLOCATED.deformation(middle)), dx)
    assert abs(np.linalg.norm(missing) - LATTICE_A) < 1e-3 * LATTICE_A
    hk = np.linalg.solve(DISLOCATED.crystals[0].cell, missing)
    np.testing.assert_allclose(hk, np.round(hk), atol=1e-3)
    assert abs(missing[0]) < 1e-3 * LATTICE_A
    positions, burgers = DISLOCATED.lines()
    if line == 0:
        assert np.abs(positions - centre).max(-1).min() < 1e-6
        np.testing.assert_allclose(burgers, [missing] * len(burgers), atol=1e-3 * LATTICE_A)
        assert (np.abs(positions) <= np.abs(DISLOCATED.positions).max((0, 1))).all()


def test_a_circuit_round_no_dislocation_closes() -> None:
    angle = np.linspace(0, 2 * np.pi, 2001)
    x = np.array([-60.0, 10.0]) + 25 * np.stack([np.cos(angle), np.sin(angle)], -1)
    missing = np.einsum(
        "nij,nj->i", np.linalg.inv(DISLOCATED.deformation((x[1:] + x[:-1]) / 2)), np.diff(x, axis=0)
    )
    assert np.linalg.norm(missing) < 1e-3 * LATTICE_A


def test_dislocations_relieve_the_whole_misfit() -> None:
    """Far from the row either side is at rest: F is I on the left and the other lattice's on the
    right.
    """
    scene = build(**RIGHT, interface_A=0, interface_width_A=0, lattice_deg=90, dislocations={})
    misfit = 3.282 / 3.153 - 1
    np.testing.assert_allclose(
        scene.deformation(np.array([[-150.0, 0.0], [-130.0, 30.0]])), [np.eye(2)] * 2, atol=2e-4
    )
    np.testing.assert_allclose(
        scene.deformation(np.array([[150.0, 0.0], [130.0, 30.0]])),
        [(1 + misfit) * np.eye(2)] * 2,
        atol=2e-4,
    )
    assert scene.dislocations.spacing_A == pytest.approx(3.153 / misfit + 3.153 / 2)


def test_dislocations_need_a_lattice_vector_along_the_interface() -> None:
    with pytest.raises(InputError, match="lattice_deg"):
        build(**RIGHT, lattice_deg=10, dislocations={})


def test_slipped_halves_meet_without_gap_or_overlap() -> None:
    """Across the interface, off the cores, every metal atom keeps its six neighbours."""
    box = (-60.0, -130.0, 60.0, 130.0)
    xyz = metal(DISLOCATED, box)
    x = xyz[:, :2]
    tree = cKDTree(x)
    inner = (np.abs(x[:, 0]) < 45) & (np.abs(x[:, 1]) < 115) & ~DISLOCATED.core(x)
    assert inner.sum() > 1000
    assert tree.query(x[inner], 2)[0][:, 1].min() > 0.9 * LATTICE_A
    counts = np.array([len(n) - 1 for n in tree.query_ball_point(x[inner], 1.35 * LATTICE_A)])
    assert (counts == 6).all()
