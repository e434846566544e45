"""The scenes: exact deformation, atoms where it says, references and errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_scene import DISLOCATED, EVERY, LATTICE_A, RIGHT, SCAN, build, config, metal
from scipy.spatial import cKDTree

from ccstae import geometry
from ccstae.errors import InputError
from ccstae.specimen.build import build_scene
from ccstae.specimen.heterostructure import Heterostructure
from ccstae.specimen.polycrystal import Polycrystal
from ccstae.specimen.scene import Flake

pytestmark = pytest.mark.usefixtures("in_the_project")
points = st.tuples(st.floats(-140, 140), st.floats(-140, 140))
FLAKES: dict[str, Flake] = {
    "smooth": build(
        **RIGHT,
        interface_A=20,
        inclusions=[
            {"centre_A": [-50, 0], "radius_A": 90, "exx": 0.02, "exy": 0.01, "rotation": -0.02}
        ],
    ),
    "rippled": build(**RIGHT, ripple={"height_A": 12, "wavelength_A": 180, "direction_deg": 30}),
    "ramp": build(kind="ramp", materials=["WS2"], scan=SCAN, exx=0.03, eyy=-0.02, exy=0.015),
    "ripples": build(
        kind="ripples",
        materials=["WS2"],
        scan={"shape": [16, 12], "step_A": 20},
        wavelengths_steps=[4, 7, 12],
        amplitude=0.015,
    ),
    "dislocated": DISLOCATED,
    "tilted": build(
        **RIGHT,
        ripple={"height_A": 12, "wavelength_A": 180, "direction_deg": 30},
        tilt_mrad=[40, -25],
    ),
}


@pytest.mark.parametrize("name", FLAKES)
@settings(max_examples=40, deadline=None)
@given(at=points)
def test_truth_is_the_derivative_of_where_the_lattice_is(
    name: str, at: tuple[float, float]
) -> None:
    """F^-1 is the derivative of the lattice coordinate X(x), by central differences, off cores and
    kinks.
    """
    flake, h = FLAKES[name], 1e-3

    def lattice(x: np.ndarray) -> np.ndarray:
        y = flake.to_reference(x)
        return y if flake.dislocations is None else y - flake.dislocations.displacement(y)

    x = np.array(at)
    if flake.core(x) or abs(flake.to_reference(x)[0]) < 2 * h:
        return
    slope = np.stack(
        [
            (lattice(x + step) - lattice(x - step)) / (2 * h)
            for step in (np.array([h, 0]), np.array([0, h]))
        ],
        -1,
    )
    np.testing.assert_allclose(np.linalg.inv(slope), flake.deformation(x), atol=2e-5)


@pytest.mark.parametrize("name", FLAKES)
def test_atoms_are_where_the_deformation_says(name: str) -> None:
    """The six metal neighbours of an atom lie at F times the lattice's own vectors."""
    scene = FLAKES[name]
    xyz = metal(scene, (-110.0, -80.0, -50.0, -20.0))
    x = xyz[:, :2]
    tree = cKDTree(x)
    for i in np.flatnonzero((np.abs(x - [-80, -50]) < 15).all(1))[::7]:
        near = [j for j in tree.query_ball_point(x[i], 1.3 * LATTICE_A) if j != i]
        steps = np.linalg.solve(scene.deformation(x[i]), (x[near] - x[i]).T).T
        hk = np.linalg.solve(scene.crystals[0].cell, steps.T).T
        assert len(near) == 6
        np.testing.assert_allclose(hk, np.round(hk), atol=4e-3)


@pytest.mark.parametrize("scene_id", EVERY.scenes)
def test_atoms_do_not_depend_on_the_box(scene_id: str) -> None:
    """A box holds the atoms of its halves (for one lattice a position, of any part round the same
    centre), and no atom twice.
    """
    scene = build_scene(EVERY, scene_id)
    whole, numbers = scene.atoms((-60.0, -40.0, 60.0, 40.0))
    if isinstance(scene, Flake | Polycrystal):
        parts = [scene.atoms(box) for box in ((-60.0, -40.0, 3.0, 40.0), (3.0, -40.0, 60.0, 40.0))]
    else:
        inner = (np.abs(whole[:, 0]) < 30) & (np.abs(whole[:, 1]) < 20)
        whole, numbers = whole[inner], numbers[inner]
        parts = [scene.atoms((-30.0, -20.0, 30.0, 20.0))]
    split = np.concatenate([np.column_stack(part) for part in parts])
    together = np.column_stack([whole, numbers])
    assert len(split) == len(together) > 500
    order = [np.lexsort(np.round(a, 5).T) for a in (split, together)]
    np.testing.assert_allclose(split[order[0]], together[order[1]], atol=1e-6)
    assert cKDTree(whole).query(whole, 2)[0][:, 1].min() > 0.3


def test_a_sharp_interface_steps_at_once() -> None:
    scene = build(**RIGHT, interface_A=0, interface_width_A=0)
    exx = geometry.components(scene.deformation(np.array([[-0.5, 0.0], [0.5, 0.0]])))[:, 0]
    np.testing.assert_allclose(exx, [0, 3.282 / 3.153 - 1], atol=1e-12)


def test_a_ripple_bends_and_does_not_stretch() -> None:
    """Bonds along the layer keep their length in three dimensions, while the projection shortens by
    up to half of a per cent.
    """
    scene = build(
        kind="heterostructure",
        materials=["WS2", "WS2"],
        scan=SCAN,
        edge_offset_A=None,
        reference_A=[-200, -200, 0, 200],
        ripple={"height_A": 6, "wavelength_A": 180},
    )
    xyz = metal(scene, (-95.0, -20.0, 95.0, 20.0))
    near = cKDTree(xyz).query(xyz[np.abs(xyz[:, :2] / [70, 12]).max(1) < 1], 7)[0][:, 1:]
    np.testing.assert_allclose(near, LATTICE_A, rtol=2e-5)
    exx = geometry.components(
        scene.deformation(np.stack([np.linspace(-80, 80, 500), np.zeros(500)], -1))
    )[..., 0]
    slope = np.pi * 6 / 180
    assert exx.min() == pytest.approx(np.sqrt(1 - slope**2) - 1, rel=1e-3)
    assert np.ptp(xyz[:, 2]) == pytest.approx(6, rel=0.01)


def test_a_triangular_flake_has_three_edges() -> None:
    scene = build(
        **{**RIGHT, "edges": 3, "edge_offset_A": 80, "edge_normal_deg": 90, "interface_A": 1000}
    )
    material = scene.material(
        np.array([[0.0, 79.0], [0.0, 81.0], [0.0, -159.0], [0.0, -161.0], [60.0, -60.0]])
    )
    assert material.tolist() == [1, 0, 1, 0, 0]


def test_grains_have_the_strains_and_rotations_asked_for() -> None:
    scene = build(
        kind="polycrystal",
        materials=["WS2"],
        scan={"shape": [32, 32], "step_A": 30},
        grains=40,
        strains=[-0.02, 0, 0.02],
    )
    parts = geometry.components(scene.grain_deformation)
    assert np.abs(np.abs(parts[:, :3]) * (np.abs(parts[:, :3]) - 0.02)).max() < 1e-12
    assert np.ptp(parts[:, 3]) > np.deg2rad(50)
    assert parts[:, 3].min() >= 0
    assert parts[:, 3].max() <= np.deg2rad(60)
    np.testing.assert_allclose(parts[scene.reference_grain], 0, atol=1e-15)
    counts = np.bincount(scene.grain(scene.positions).ravel())
    assert counts.argmax() == scene.reference_grain


def test_a_rotation_scene_sweeps_more_than_the_symmetry_at_small_strain() -> None:
    scene = build_scene(EVERY, "rotation")
    parts = geometry.components(scene.deformation(scene.positions))
    assert np.ptp(parts[..., 3]) > np.deg2rad(60)
    assert np.diff(parts[0, 3:, 3]).std() < 1e-12
    assert np.abs(parts[..., :3]).max() < 0.011


def test_a_ramp_sweeps_every_component() -> None:
    scene = FLAKES["ramp"]
    parts = geometry.components(scene.deformation(scene.positions))
    assert np.ptp(parts[..., 0]) == pytest.approx(0.06, rel=0.05)
    assert np.ptp(parts[..., 1]) == pytest.approx(0.04, rel=0.05)
    assert np.ptp(parts[..., 2]) == pytest.approx(0.03, rel=0.05)
    assert np.ptp(parts[..., 3]) == pytest.approx(0.03, rel=0.05)
    assert (
        np.abs(
            np.median(scene.deformation(scene.positions)[scene.reference(scene.positions)], 0)
            - np.eye(2)
        ).max()
        < 1e-4
    )


@pytest.mark.parametrize("scene_id", EVERY.scenes)
def test_every_scene_has_a_reference(scene_id: str) -> None:
    scene = build_scene(EVERY, scene_id)
    chosen = scene.reference(scene.positions)
    assert 0 < chosen.sum() < chosen.size
    parts = geometry.components(np.median(scene.deformation(scene.positions)[chosen], 0))
    expected = [0, 0, 0, 0] if scene_id != "uniform" else geometry.components(scene.F[0, 0])
    # A tilted specimen is seen in projection, which shortens it by half the square of the tilt.
    x, y = np.array(EVERY.scenes[scene_id].tilt_mrad) * 1e-3
    np.testing.assert_allclose(
        parts, np.array(expected) - [x * x / 2, y * y / 2, x * y / 2, 0], atol=2e-4
    )


def test_a_scene_that_leaves_its_reference_is_refused() -> None:
    with pytest.raises(InputError, match="reference_A"):
        build(**{**RIGHT, "reference_A": [5000, 5000, 6000, 6000]})
    with pytest.raises(InputError, match=r"scenes\.made\.kind.*did you mean 'uniform'"):
        config(kind="unifrom", materials=["WS2"])
    with pytest.raises(
        InputError, match=r"scenes\.made\.grain: unknown key 'grain'; did you mean 'grains'"
    ):
        config(kind="polycrystal", materials=["WS2"], grain=3)


def test_heterostructure_is_a_flake() -> None:
    assert isinstance(build_scene(EVERY, "heterostructure"), Heterostructure)
