"""Displacements and dislocation density, against fields known in closed form."""

import json

import numpy as np

from ccstae import geometry
from ccstae.evaluation.displacement import displacement
from ccstae.io.maps import Map
from ccstae.reporting.strain import scan_steps


def deformed(scan, step_A, gradient):
    """F (9, 11, 2, 2) of a displacement u(x) given by its gradient du_k / dx_j in the specimen, and
    the places x in Angstrom.
    """
    column, row = np.meshgrid(np.arange(11.0), np.arange(9.0))
    x = step_A * np.stack([column, row], -1) @ scan.T
    return np.linalg.inv(np.eye(2) - gradient(x)), x


def test_a_quadratic_displacement_is_integrated_exactly():
    """The mean of a linear gradient at both ends of a step is the step's own."""
    for scan in (np.eye(2), geometry.scan_steps(0.6, 1.2, mirrored=True)):

        def gradient(x):
            # u = 1e-5 (x^2 + x y, x y - 2 y^2), rows k, columns j
            first = np.stack([2 * x[..., 0] + x[..., 1], x[..., 0]], -1)
            second = np.stack([x[..., 1], x[..., 0] - 4 * x[..., 1]], -1)
            return 1e-5 * np.stack([first, second], -2)

        F, x = deformed(scan, 20.0, gradient)
        found = displacement(F, 20.0, scan)
        u = 1e-5 * np.stack(
            [
                x[..., 0] ** 2 + x[..., 0] * x[..., 1],
                x[..., 0] * x[..., 1] - 2 * x[..., 1] ** 2,
            ],
            -1,
        )
        np.testing.assert_allclose(found.u_A, u - u.mean((0, 1)), atol=1e-5)
        assert np.abs(found.curl_inv_A).max() < 1e-12


def test_the_curl_over_its_area_is_the_burgers_vector():
    """A screw-free wall: F^-1 jumps by b / spacing across a column of cells, b along y."""
    F = np.tile(np.eye(2), (6, 8, 1, 1))
    inverse = F.copy()
    inverse[:, 4:, 1, 1] += 0.02
    found = displacement(np.linalg.inv(inverse), 25.0, np.eye(2))
    # round a cell: from x towards y, c_y = 25 A * 0.02
    expected = np.zeros((5, 7, 2))
    expected[:, 3, 1] = 25 * 0.02 / 25**2
    np.testing.assert_allclose(found.curl_inv_A, expected, atol=1e-12)


def test_parts_without_neighbours_and_positions_without_answers_stay_apart():
    F = np.tile(geometry.deformation(0.01, 0, 0, 0), (4, 7, 1, 1))
    F[:, 3] = np.nan
    found = displacement(F, 10.0, np.eye(2))
    assert np.isnan(found.u_A[:, 3]).all()
    assert np.isnan(found.curl_inv_A[:, 2:4]).all()
    for part in (found.u_A[:, :3], found.u_A[:, 4:]):
        np.testing.assert_allclose(part.mean((0, 1)), 0, atol=1e-9)
        np.testing.assert_allclose(np.diff(part[..., 0], axis=1), 10 * (1 - 1 / 1.01), atol=1e-6)


def test_steps_that_a_method_found_are_turned_with_the_map():
    """A scan turned by 25 degrees, as the method found it: in the sample's frame it is along x."""
    found = {"scan_against_detector": {"rotation_deg": 25.0, "step_ratio": 1.0, "mirrored": False}}
    F = np.tile(np.eye(2), (2, 2, 1, 1))
    as_seen = Map(F, {"found": json.dumps(found)})
    np.testing.assert_allclose(scan_steps(as_seen), geometry.scan_steps(np.deg2rad(25.0)))
    frame = {"distortion": json.dumps([[1.0, 0.0], [0.0, 1.0]]), "scan_rotation_deg": 25.0}
    turned = Map(F, as_seen.attributes | frame)
    np.testing.assert_allclose(scan_steps(turned), np.eye(2), atol=1e-12)
