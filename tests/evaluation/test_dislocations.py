"""Dislocations found in maps made by hand: the textbook field of an edge dislocation, with noise,
beside interfaces and gaps.
"""

from __future__ import annotations

import numpy as np
import pytest

from ccstae import geometry
from ccstae.evaluation import dislocations
from ccstae.evaluation.dislocations import FoundDislocations, find

STEP_A = 22.0
LATTICE = 3.153 * np.array([[1.0, -0.5], [0.0, np.sqrt(0.75)]])
DIRECTIONS = [LATTICE @ hk for hk in ([1, 0], [0, 1], [1, 1], [-1, 0], [0, -1], [-1, -1])]
NOISE = np.array([4.7e-3, 4.7e-3, 3.3e-3, 3.3e-3])  # about the bound at w = 0.5 and 1e5 electrons


def edge(
    shape: tuple[int, int], position: tuple[float, float], b: np.ndarray, poisson_ratio: float = 0.2
) -> np.ndarray:
    """-dw/dx (Ry, Rx, 2, 2) of an edge dislocation at a place in steps: the field of Hirth and
    Lothe, section 3.4, turned onto b.

    Averaged over a round probe of 6.7 Angstrom (root mean square), as the beam sees it.
    """
    length = float(np.linalg.norm(b))
    R = geometry.rotation_matrix(np.arctan2(b[1], b[0]))
    j, i = np.meshgrid(np.arange(shape[1]), np.arange(shape[0]))
    angle, radius = (
        np.linspace(0, 2 * np.pi, 24, endpoint=False),
        np.sqrt(np.arange(0.5, 8) / 4) * 6.7,
    )
    probe = (radius[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], -1)).reshape(
        -1, 1, 1, 2
    )
    at = STEP_A * np.stack([j - position[0], i - position[1]], -1) + probe
    x, y = np.moveaxis(at @ R, -1, 0)
    r2, k = x**2 + y**2, 1 / (2 * (1 - poisson_ratio))
    m = (1 - 2 * poisson_ratio) * k / 2
    slope = np.empty((*r2.shape, 2, 2))
    slope[..., 0, 0] = -y / r2 + k * y * (y**2 - x**2) / r2**2
    slope[..., 0, 1] = x / r2 + k * x * (x**2 - y**2) / r2**2
    slope[..., 1, 0] = -2 * m * x / r2 - 2 * k * x * y**2 / r2**2
    slope[..., 1, 1] = -2 * m * y / r2 + 2 * k * x**2 * y / r2**2
    return np.asarray(R @ (length / (2 * np.pi) * slope.mean(0)) @ R.T)


def field(shape: tuple[int, int], *lines: tuple[tuple[float, float], np.ndarray]) -> np.ndarray:
    """F with closures b round the lines, on a smooth strain."""
    y, x = np.mgrid[: shape[0], : shape[1]] * STEP_A
    smooth = np.zeros((*shape, 2, 2))  # the gradient of (2 sin x / 200, 3 cos(x + y) / 300)
    smooth[..., 0, 0] = 0.01 * np.cos(x / 200)
    smooth[..., 1, 0] = smooth[..., 1, 1] = -0.01 * np.sin((x + y) / 300)
    return np.linalg.inv(
        np.eye(2) + smooth + sum((edge(shape, *line) for line in lines), np.zeros((*shape, 2, 2)))
    )


def noisy(F: np.ndarray, sigma: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """F with normal errors of its components, and their covariance."""
    error = np.random.default_rng(seed).normal(size=(*F.shape[:2], 4)) * sigma
    return geometry.deformation(
        *np.moveaxis(geometry.components(F) + error, -1, 0)
    ), np.broadcast_to(np.diag(sigma**2), (*F.shape[:2], 4, 4))


@pytest.mark.parametrize("b", DIRECTIONS)
def test_a_circuit_closes_to_the_burgers_vector_or_not_at_all(b: np.ndarray):
    found = dislocations.circuits(field((16, 16), ((7.3, 8.2), b)), STEP_A)
    assert found.cells == 3
    np.testing.assert_allclose(found.closure_A[7, 6], b, atol=0.1)  # rows 7 to 10, columns 6 to 9
    far = np.ones(found.closure_A.shape[:2], bool)
    far[3:12, 2:11] = False
    assert np.abs(found.closure_A[far]).max() < 0.05


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("b", DIRECTIONS)
def test_a_dislocation_is_found_in_noise(b: np.ndarray, seed: int):
    at = np.random.default_rng(seed).uniform(4, 12, 2)
    F, covariance = noisy(field((18, 18), (tuple(at), b)), NOISE, seed)
    for stated in (covariance, None):
        found = find(F, LATTICE, STEP_A, stated)
        assert len(found.position) == 1
        np.testing.assert_allclose(found.burgers_A, [b], atol=1e-9)
        assert np.linalg.norm(found.position[0] - at) < 0.6


def test_neighbours_are_told_apart():
    lines = [((5.4, 8.0), DIRECTIONS[0]), ((9.3, 8.1), DIRECTIONS[0]), ((13.2, 7.8), DIRECTIONS[3])]
    for seed in range(5):
        F, covariance = noisy(field((18, 20), *lines), NOISE, seed)
        found = find(F, LATTICE, STEP_A, covariance)
        order = np.argsort(found.position[:, 0])
        np.testing.assert_allclose(found.position[order], [line[0] for line in lines], atol=0.6)
        np.testing.assert_allclose(found.burgers_A[order], [line[1] for line in lines], atol=1e-9)


@pytest.mark.parametrize("understated", [1.0, 4.0])
def test_noise_alone_shows_none(understated: float):
    """Noise so strong that lattice vectors are within its reach: only significance keeps it out.
    One map of a thousand is expected.
    """
    F = field((18, 18))
    shown = 0
    for seed in range(150):
        map_, covariance = noisy(F, 5 * NOISE, seed)
        shown += len(find(map_, LATTICE, STEP_A, covariance / understated**2).position) > 0
        shown += len(find(map_, LATTICE, STEP_A).position) > 0
    assert shown <= 3


def test_the_covariance_of_a_closure_is_its_scatter():
    """Also under strain and rotation, with errors that differ in size and are correlated."""
    F = geometry.deformation(0.03, -0.02, 0.01, 0.4) * np.ones((60, 60, 1, 1))
    root = np.diag(NOISE) @ np.array(
        [[1, 0, 0, 0], [0.5, 1, 0, 0], [0, 0, 1, 0], [0, 0.3, -0.4, 1]]
    )
    error = np.random.default_rng(0).normal(size=(60, 60, 4)) @ root.T
    seen = dislocations.circuits(
        geometry.deformation(*np.moveaxis(geometry.components(F) + error, -1, 0)),
        STEP_A,
        np.broadcast_to(root @ root.T, (60, 60, 4, 4)),
    )
    scatter = np.einsum("hwi,hwj->ij", seen.closure_A, seen.closure_A) / seen.closure_A[..., 0].size
    expected = seen.covariance.mean((0, 1))
    assert (
        np.abs(scatter - expected).max() < 0.15 * np.diag(expected).max()
    )  # 360 independent circuits, 3249 that overlap


@pytest.mark.parametrize("angle_deg", [0, 7, 20, 45, 78, 90])
@pytest.mark.parametrize("width_A", [0.0, 60.0])
def test_an_interface_is_no_dislocation(angle_deg: float, width_A: float):
    """A misfit of 4 % that is coherent along the interface: F = I + e n n s(n x) is a gradient, if
    a steep one.
    """
    y, x = np.mgrid[:20, :20] * STEP_A
    normal = np.array([np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))])
    across = (x - 203) * normal[0] + (y - 211) * normal[1]
    step = across > 0 if width_A == 0 else np.clip(across / width_A + 0.5, 0, 1)
    F = np.eye(2) + 0.041 * step[..., None, None] * np.outer(normal, normal)
    for seed in range(3):
        map_, covariance = noisy(F, NOISE, seed)
        assert len(find(map_, LATTICE, STEP_A, covariance).position) == 0
        assert len(find(map_, LATTICE, STEP_A).position) == 0


def test_a_wrong_pattern_is_no_dislocation():
    F, covariance = noisy(field((18, 18)), NOISE, 2)
    for size in (0.05, 0.15, 0.3):
        for error in (
            *np.eye(4),
            [1, 1, 0, 0],
            [1, -1, 0, 0],
            [0, 0, 1, 1],
            [1, 1, 1, 1],
            [0.5, 0.5, 0.9, 0.9],
        ):
            wrong = F.copy()
            wrong[8, 9] = wrong[8, 9] @ (np.eye(2) + size * np.reshape(error, (2, 2)))
            assert len(find(wrong, LATTICE, STEP_A, covariance).position) == 0


def test_patterns_without_an_answer_at_the_core_do_not_hide_it():
    at = (8.6, 7.4)
    F, covariance = noisy(field((18, 18), (at, DIRECTIONS[1])), NOISE, 1)
    F[7:9, 8:10] = np.nan
    found = find(F, LATTICE, STEP_A, covariance)
    np.testing.assert_allclose(found.position, [(8.5, 7.5)])  # the middle of the only circuit
    np.testing.assert_allclose(found.burgers_A, [DIRECTIONS[1]], atol=1e-9)


def test_nonsense_ends():
    F = np.eye(2) + 0.5 * np.random.default_rng(0).normal(size=(12, 12, 2, 2))
    found = find(F, LATTICE, STEP_A, np.zeros((12, 12, 4, 4)))
    assert len(found.position) < 81


@pytest.mark.parametrize(
    "F",
    [
        np.full((9, 9, 2, 2), np.nan),
        np.broadcast_to(np.eye(2), (9, 9, 2, 2)),
        np.ones((2, 9, 2, 2)) * np.eye(2),
    ],
)
def test_maps_that_show_nothing(F: np.ndarray):
    assert find(F, LATTICE, STEP_A).position.shape == (0, 2)


@pytest.mark.parametrize(("step_A", "cells"), [(5.0, 7), (10.0, 5), (15.0, 3), (60.0, 3)])
def test_circuits_keep_clear_of_core_and_probe(step_A: float, cells: int):
    assert dislocations.circuit_cells(step_A) == cells


def test_the_places_that_a_circuit_fits_round():
    sample = np.ones((8, 8), bool)
    sample[:, 6:] = False
    places = np.array([(1.0, 1.0), (0.9, 3.5), (3.5, 5.9), (3.5, 6.1), (3.9, 3.5), (4.1, 3.5)])
    assert dislocations.surrounded(places, sample, STEP_A).tolist() == [
        True,
        False,
        True,
        False,
        True,
        False,
    ]


def test_metrics_by_hand():
    position, b = (
        np.array([(2.0, 2.0), (6.0, 2.0), (10.0, 2.0), (13.0, 2.0)]),
        np.tile(DIRECTIONS[0], (4, 1)),
    )
    found = FoundDislocations(
        np.array([(2.3, 2.4), (6.0, 2.6), (10.0, 3.2), (13.4, 2.0)]),
        np.array([b[0], -b[0], b[0], b[0]]),
    )
    metrics = dislocations.match(position, b, found, np.array([True, True, True, False]))
    # The first is right, the second has the wrong vector, the third is too far off, the last is not
    # asked for but no false one.
    assert metrics == pytest.approx(
        {
            "cores_false": 1,
            "cores_found": 2 / 3,
            "burgers_right": 1 / 3,
            "core_error": np.sqrt((0.25 + 0.36) / 2),
        }
    )
    assert dislocations.match(position[:0], b[:0], found, np.zeros(0, bool)) == {"cores_false": 4}
    nothing = dislocations.match(
        position, b, FoundDislocations(np.zeros((0, 2)), np.zeros((0, 2))), np.ones(4, bool)
    )
    assert nothing == {"cores_false": 0, "cores_found": 0, "burgers_right": 0}
