"""The scenes: exact deformation, atoms where it says, dislocations that close, references and
errors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from ccstae import geometry
from ccstae.config.run import Config, load, parse
from ccstae.errors import InputError
from ccstae.specimen.build import build_scene
from ccstae.specimen.heterostructure import Heterostructure
from ccstae.specimen.polycrystal import Polycrystal
from ccstae.specimen.scene import Flake

ROOT = Path(__file__).parents[2]
EVERY = load(ROOT / "config" / "scenes.yaml")
SCAN = {"shape": [8, 8], "step_A": 40}
RIGHT = {
    "kind": "heterostructure",
    "materials": ["WS2", "WSe2"],
    "scan": SCAN,
    "edge_offset_A": None,
    "reference_A": [-200, -200, -60, 200],
}
LATTICE_A = 3.153
points = st.tuples(st.floats(-140, 140), st.floats(-140, 140))


def config(**scene: Any) -> Config:
    data = EVERY.model_dump(mode="json")
    data["scenes"] = {"made": scene}
    return parse(data)


def build(**scene: Any) -> Any:
    return build_scene(config(**scene), "made")


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


DISLOCATED = build(
    **RIGHT,
    interface_A=0,
    interface_width_A=0,
    lattice_deg=90,
    dislocations={"core_A": 10},
    ripple={"height_A": 6, "wavelength_A": 150},
)
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


def metal(scene: Any, box: tuple[float, float, float, float]) -> np.ndarray:
    xyz, numbers = scene.atoms(box)
    return xyz[numbers == 74]


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


def test_ripples_are_waves_of_one_amplitude_in_what_compatibility_allows() -> None:
    scene = build(kind="ripples", materials=["WS2"])
    lengths, band = scene.waves()
    parts = geometry.components(scene.deformation(scene.positions))
    assert lengths.tolist() == [2.5, 3.8, 5.7, 8.7, 13.2, 20.0]
    phase = 2 * np.pi * scene.positions[0, :, 0] / scene.scan.step_A
    for index, length in enumerate(lengths):
        shown = parts[band == index].reshape(4, 40, 4)  # four rows of the scan
        expected = 0.012 * np.stack(
            [np.cos(phase / length), 0 * phase, *2 * [np.sin(phase / length) / 2]], -1
        )
        # To first order: squares of the amplitude, and its shift of the waves by u.
        np.testing.assert_allclose(shown, np.broadcast_to(expected, shown.shape), atol=1.8e-4)
    at_rest = scene.reference(scene.positions)
    assert at_rest.sum() == 6 * 40
    np.testing.assert_allclose(parts[at_rest], 0, atol=1e-15)


def test_ripples_are_compatible() -> None:
    """du integrated along the edges of a cell closes, to rounding; at half steps, where the windows
    have their kinks, and by Gauss' rule, exact for what is smooth between them.
    """
    scene = build(kind="ripples", materials=["WS2"])
    step = scene.scan.step_A
    nodes, weights = np.polynomial.legendre.leggauss(16)
    low = np.stack(np.meshgrid(np.arange(-20, 20, 0.5), np.arange(-28, 28, 0.5), indexing="xy"), -1)
    closure = np.zeros((*low.shape[:2], 2))
    corners = 0.5 * np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    for start, end in zip(corners, np.roll(corners, -1, 0), strict=True):
        along = (end - start) * step
        for node, weight in zip(nodes, weights, strict=True):
            y = (low + (start + end) / 2 + (end - start) / 2 * node) * step
            closure += weight / 2 * scene.displacement_gradient(y) @ along
    steps_of_u = np.abs(scene.displacement_gradient(low * step)).max() * step
    assert np.abs(closure).max() < 1e-12 * steps_of_u


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wavelengths_steps": [5, 3]}, "wavelengths_steps"),
        ({"wavelengths_steps": [2, 3]}, "wavelengths_steps"),
        ({"scan": {"shape": [27, 40]}}, "at least 28 rows"),
        ({"scan": {"shape": [56, 19]}}, "longest wavelength, 20 steps"),
    ],
)
def test_ripples_that_no_scan_shows_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(kind="ripples", materials=["WS2"], **change)


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


def test_the_shipped_labels_are_what_the_readme_says() -> None:
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    grain = x + 0.3 * y > 0.1
    parts = geometry.components(build_scene(EVERY, "labelled").F)
    np.testing.assert_allclose(parts[..., 0], np.where(grain, 0.01, 0), atol=1e-8)
    np.testing.assert_allclose(parts[..., 1], np.where(grain, -0.01, 0), atol=1e-8)
    np.testing.assert_allclose(parts[..., 2], 0.01 * np.clip(y, 0, 1) ** 2, atol=1e-8)
    np.testing.assert_allclose(parts[..., 3], np.where(grain, 0.3, 0), atol=1e-7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "config/labels/none.npy"}, "no such file"),
        ({"sha256": "0" * 64}, "expected 0000"),
        ({"path": "config/scenes.yaml", "sha256": None}, "not an npy file"),
    ],
)
def test_labels_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    import hashlib

    data = EVERY.scenes["labelled"].model_dump(mode="json")
    data["exx"] |= change
    data["exx"]["sha256"] = (
        data["exx"]["sha256"] or hashlib.sha256(Path(data["exx"]["path"]).read_bytes()).hexdigest()
    )
    with pytest.raises(InputError, match=message):
        build(**data)


def test_labels_are_downloaded_once_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ccstae.config.scenes import ArrayFile
    from ccstae.io import fetched
    from ccstae.specimen import arrays

    label = EVERY.scenes["labelled"].exx  # type: ignore[union-attr]
    asked = []

    def answer(url: str, timeout: float) -> Any:
        asked.append(url)
        return open(ROOT / label.path, "rb")

    monkeypatch.setattr(fetched, "CACHE", tmp_path)
    monkeypatch.setattr(fetched.urllib.request, "urlopen", answer)
    source = ArrayFile(url="https://example.org/exx.npy", sha256=label.sha256)
    first, again = arrays.load("exx", source, (16, 16)), arrays.load("exx", source, (16, 16))
    np.testing.assert_array_equal(first, again)
    assert asked == ["https://example.org/exx.npy"]
    with pytest.raises(InputError, match="sha256"):
        arrays.load("exx", ArrayFile(url="https://example.org/exx.npy", sha256="1" * 64), (16, 16))
    assert len(list(tmp_path.iterdir())) == 1


def test_labels_may_lie_in_a_folder_that_is_only_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ccstae.config.scenes import ArrayFile
    from ccstae.io import fetched
    from ccstae.specimen import arrays

    label = EVERY.scenes["labelled"].exx  # type: ignore[union-attr]

    def unreachable(*_: Any, **__: Any) -> Any:
        raise OSError("no network")

    folder = tmp_path / "lent"
    folder.mkdir()
    monkeypatch.setattr(fetched, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(fetched.urllib.request, "urlopen", unreachable)
    source = ArrayFile(url="https://example.org/a/Label_exx.npy?raw=1", sha256=label.sha256)
    monkeypatch.setenv("CCSTAE_CACHE", str(folder))
    assert not arrays.at_hand(source)
    with pytest.raises(InputError, match=r"no network.*CCSTAE_CACHE"):
        arrays.load("exx", source, (16, 16))
    for name in ("label_exx.npy", f"{label.sha256}.npy"):
        (folder / name).write_bytes(Path(label.path).read_bytes())
        assert arrays.at_hand(source)
        assert arrays.load("exx", source, (16, 16)).shape == (16, 16)
        (folder / name).unlink()
    (folder / "label_exx.npy").write_bytes(b"another")
    with pytest.raises(InputError, match=r"sha256.*label_exx"):
        arrays.load("exx", source, (16, 16))
    assert not (tmp_path / "cache").exists()


def test_a_scan_may_take_every_so_many_entries_of_its_labels() -> None:
    """Truth, reference and what counts as interior are those of the entries that are taken."""
    data = EVERY.scenes["labelled"].model_dump(mode="json")
    whole, thinned = build(**data), build(**(data | {"scan": {"shape": [8, 8], "step_A": 80}}))
    assert whole.scan.step_A == 40
    np.testing.assert_array_equal(thinned.F, whole.F[::2, ::2])
    np.testing.assert_allclose(
        thinned.gradient_per_A(thinned.positions),
        whole.gradient_per_A(whole.positions)[::2, ::2],
        rtol=1e-12,
    )
    with pytest.raises(InputError, match="whole multiple"):
        build(**(data | {"scan": {"shape": [5, 5], "step_A": 40}}))
    with pytest.raises(InputError, match="whole multiple"):
        build(**(data | {"scan": {"shape": [8, 16], "step_A": 40}}))


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
