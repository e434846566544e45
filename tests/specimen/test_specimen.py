"""Specimens of several layers and tilted ones: where their atoms are, and what that does to the
disks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from exact import SMALL, made
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from ccstae import geometry
from ccstae.config.materials import Material
from ccstae.errors import InputError
from ccstae.simulation import simulate
from ccstae.specimen.crystal import crystal

MX2 = Material(
    prototype="mx2-2h", species=("W", "S"), a_A=3.153, thickness_A=3.14, layer_distance_A=6.16
)
GRAPHITE = Material(prototype="graphene", species=("C",), a_A=2.464, layer_distance_A=3.36)
HBN = Material(prototype="hbn", species=("B", "N"), a_A=2.504, layer_distance_A=3.33)
BOX = (-40.0, -30.0, 40.0, 30.0)


def columns(
    material: Material, stacking: str | None = None, layers: int = 3
) -> list[list[tuple[int, int]]]:
    """(site, atomic number) of the atoms of each layer, the sites of the honeycomb and its centre
    numbered 0, 1 and 2 thirds.
    """
    found = crystal("made", material)
    stack = found.stacked(layers, stacking or found.stacking, material.layer_distance_A)  # type: ignore[arg-type]
    site = np.rint(stack.basis @ [3, 0]).astype(int) % 3
    apart = stack.basis - np.outer(site, [1, 2]) / 3
    np.testing.assert_allclose(apart, np.rint(apart), atol=1e-9)
    layer = np.floor(stack.height_A / material.layer_distance_A + layers / 2)
    return [
        sorted(zip(site[layer == n].tolist(), stack.numbers[layer == n].tolist(), strict=True))
        for n in range(layers)
    ]


def test_layers_lie_as_their_stackings_say() -> None:
    W, S, B, N, C = 74, 16, 5, 7, 6
    # 2H: metal above chalcogen and the other way round. 3R: all alike, each shifted to the next
    # site.
    assert columns(MX2) == [
        [(1, W), (2, S), (2, S)],
        [(1, S), (1, S), (2, W)],
        [(1, W), (2, S), (2, S)],
    ]
    assert columns(MX2, "ABC") == [
        [(1, W), (2, S), (2, S)],
        [(0, S), (0, S), (2, W)],
        [(0, W), (1, S), (1, S)],
    ]
    assert columns(HBN) == [[(1, B), (2, N)], [(1, N), (2, B)], [(1, B), (2, N)]]
    assert columns(GRAPHITE) == [[(1, C), (2, C)], [(0, C), (2, C)], [(1, C), (2, C)]]
    assert columns(GRAPHITE, "AA") == [[(1, C), (2, C)]] * 3


def test_a_stack_is_centred_and_its_layers_are_apart() -> None:
    stack = crystal("made", MX2).stacked(4, "AA'", 6.16)
    metal = stack.height_A[stack.numbers == 74]
    np.testing.assert_allclose(metal, [-9.24, -3.08, 3.08, 9.24])
    assert stack.height_A.sum() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "scene",
    [
        {
            "kind": "heterostructure",
            "interface_width_A": 0,
            "lattice_deg": 90,
            "dislocations": {},
            "interface_A": 5,
            "layers": 3,
        },
        {
            "kind": "heterostructure",
            "interface_A": 300,
            "ripple": {"height_A": 12, "wavelength_A": 180, "direction_deg": 30},
        },
        {"kind": "ramp", "layers": 2},
        {"kind": "uniform", "exx": 0.01, "layers": 2},
    ],
    ids=lambda scene: "rippled" if "ripple" in scene else scene["kind"],
)
def test_a_tilted_specimen_is_the_specimen_turned_and_projected(scene: dict[str, Any]) -> None:
    """Turned about the axis in its plane that is at right angles to the lean."""
    tilt = np.array([35.0, -20.0])
    _, flat = made({**scene, "tilt_mrad": [0, 0]})
    _, tilted = made({**scene, "tilt_mrad": tilt.tolist()})
    plain, kinds = flat.atoms((-60, -50, 60, 50))
    turned = Rotation.from_rotvec(1e-3 * np.array([-tilt[1], tilt[0], 0])).apply(plain)
    np.testing.assert_allclose(
        Rotation.from_rotvec(1e-3 * np.array([-tilt[1], tilt[0], 0])).apply([0, 0, 1])[:2],
        1e-3 * tilt,
        rtol=1e-3,
    )
    found, numbers = tilted.atoms(BOX)
    assert len(found) > 300
    match = cKDTree(np.column_stack([turned[:, :2], plain[:, 2], kinds])).query(
        np.column_stack([found, numbers])
    )[0]
    assert match.max() < 1e-6


def test_grains_of_a_tilted_specimen_are_foreshortened() -> None:
    scene = {"kind": "polycrystal", "grains": 4}
    flat, tilted = made(scene)[1], made({**scene, "tilt_mrad": [30, 0]})[1]
    np.testing.assert_allclose(
        tilted.grain_deformation, np.diag([np.cos(0.03), 1]) @ flat.grain_deformation
    )  # type: ignore[attr-defined]


def test_intensity_within_the_disks_is_that_of_interfering_layers() -> None:
    """Of weak scatterers in line: sin^2(pi L s d) / sin^2(pi s d) times one layer, s = lambda (g^2
    / 2 + g . k) - g . tilt.

    s is the distance, along the beam, of the Ewald sphere from the reciprocal lattice rod, k where
    in the disk the beam comes from.
    """
    layers, tilt = 6, np.array([40.0, 15.0])
    specimen = {"kind": "uniform", "materials": ["graphene"]}
    one = made(specimen, microscope=SMALL)
    many = made(
        {**specimen, "layers": layers, "stacking": "AA", "tilt_mrad": tilt.tolist()},
        microscope=SMALL,
    )
    single, stacked = (
        simulate.renderer(*each).tile(each[1], each[1].positions[:1, :1])[0][0, 0].astype(float)
        for each in (one, many)
    )
    m, distance = one[0].microscope, many[1].layer_distance_A
    half, wavelength = m.detector_px // 2, geometry.wavelength_A(m.energy_keV)
    G = geometry.inverse_transpose(many[1].deformation(np.zeros(2))) @ many[1].nominal
    q = (np.stack(np.meshgrid(*[np.arange(m.detector_px)] * 2), -1) - half) * m.pixel_size_inv_A
    seen = []
    for g in geometry.lattice_nodes(G, 1.01 * np.linalg.norm(G[:, 0]))[1:] @ G.T:
        k = q - g
        inner = np.hypot(k[..., 0], k[..., 1]) < 0.75 * geometry.disk_radius_inv_A(
            m.semiangle_mrad, m.energy_keV
        )
        s = wavelength * (g @ g / 2 + k @ g) - g @ tilt * 1e-3
        expected = (np.sin(np.pi * layers * s * distance) / np.sin(np.pi * s * distance)) ** 2
        found = stacked[inner] / single[inner]
        np.testing.assert_allclose(found, expected[inner], rtol=0.03, atol=0.01 * layers**2)
        seen.append(
            np.polyfit(k[inner] @ g / np.linalg.norm(g), found, 1)[0]
            * 2
            * geometry.disk_radius_inv_A(m.semiangle_mrad, m.energy_keV)
            / found.mean()
        )
    assert max(seen) - min(seen) > 0.3  # of the mean, from one side of a disk to the other


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        ({"kind": "ramp", "materials": ["bare"], "layers": 2}, "layer_distance_A"),
        ({"kind": "ramp", "materials": ["cube"], "layers": 2, "stacking": "ABC"}, "hexagonal"),
        (
            {
                "kind": "heterostructure",
                "layers": 2,
                "ripple": {"height_A": 5, "wavelength_A": 200},
            },
            "ripple",
        ),
    ],
)
def test_what_cannot_be_had_is_told(scene: dict[str, Any], message: str) -> None:
    square = {"prototype": "square", "species": ["Au"], "a_A": 2.9}
    with pytest.raises(InputError, match=rf"scenes\.made: .*{message}"):
        made(scene, materials={"bare": square, "cube": {**square, "layer_distance_A": 2.0}})
