"""Crystals from prototypes and structure files: cells, projections, symmetry."""

from __future__ import annotations

from pathlib import Path

import ase
import numpy as np
import pytest

from ccstae.config.materials import Material
from ccstae.errors import InputError
from ccstae.specimen.crystal import Crystal, along_zone_axis, crystal

# One structure as a reader may find it: bulk 2H-WS2, space group P6_3/mmc, given by its symmetry.
CIF = """data_WS2
_cell_length_a 3.1532
_cell_length_b 3.1532
_cell_length_c 12.323
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
_symmetry_space_group_name_H-M 'P 63/m m c'
_symmetry_Int_Tables_number 194
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
W1 W 0.33333333 0.66666667 0.25
S1 S 0.33333333 0.66666667 0.6225
"""
LAYER = Material(prototype="mx2-2h", species=("W", "S"), a_A=3.1532, thickness_A=3.142)
FCC_A = 4.08
GOLD = ase.Atoms(
    "Au4",
    scaled_positions=[(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)],
    cell=[FCC_A] * 3,
    pbc=True,
)


@pytest.fixture
def bulk(tmp_path: Path) -> Crystal:
    path = tmp_path / "WS2.cif"
    path.write_text(CIF)
    return crystal("bulk", Material(structure=path))


def projected(found: Crystal, hk: tuple[int, int]) -> complex:
    """Projected structure factor with the atomic number for every atom."""
    return complex((found.numbers * np.exp(-2j * np.pi * found.basis @ np.array(hk))).sum())


def test_bulk_from_a_file_is_two_layers_of_the_prototype(bulk: Crystal) -> None:
    layer = crystal("layer", LAYER)
    np.testing.assert_allclose(bulk.cell, layer.cell, atol=1e-6)
    assert sorted(bulk.numbers) == sorted([*layer.numbers] * 2)
    assert bulk.lattice_symmetry == layer.lattice_symmetry == 6
    # The second layer of 2H is the first turned by half a turn: |F| of the stack is that of F + F*
    # about the midpoint.
    for hk in ((1, 0), (1, 1), (2, 0), (2, 1)):
        one = projected(layer, hk)
        phases = np.exp(
            -2j
            * np.pi
            * np.array(
                [
                    (s @ hk)
                    for s in np.stack(np.meshgrid(np.arange(3), np.arange(3)), -1).reshape(-1, 2)
                    / 3
                ]
            )
        )
        assert np.abs(
            np.abs(one + one.conjugate() * phases) - abs(projected(bulk, hk))
        ).min() < 1e-6 * abs(one)


def test_layers_of_a_file_stay_whole(bulk: Crystal) -> None:
    metals, others = bulk.height_A[bulk.numbers == 74], bulk.height_A[bulk.numbers == 16]
    assert abs(metals[0] - metals[1]) == pytest.approx(12.323 / 2)
    np.testing.assert_allclose(
        np.sort(np.abs(others[:, None] - metals).min(1)), (0.75 - 0.6225) * 12.323, atol=1e-3
    )


@pytest.mark.parametrize(
    ("axis", "rings", "symmetry"),
    [
        ((0, 0, 1), [2, 2], 4),
        ((1, 1, 0), [np.sqrt(3), np.sqrt(3)], 2),
        ((1, 1, 1), [np.sqrt(8), np.sqrt(8)], 6),
        ((2, 2, 0), [np.sqrt(3)] * 2, 2),
    ],
)
def test_face_centred_cubic_along_an_axis(
    axis: tuple[int, int, int], rings: list[float], symmetry: int
) -> None:
    """The shortest reflections of the zone: 200, 111 and 220."""
    found = along_zone_axis(GOLD, axis)
    np.testing.assert_allclose(
        np.sort(np.linalg.norm(found.reciprocal, axis=0)) * FCC_A, rings, rtol=1e-6
    )
    assert found.lattice_symmetry == symmetry
    assert found.cell[1, 0] == pytest.approx(0, abs=1e-9)
    assert found.cell[0, 0] > 0
    assert np.linalg.det(found.cell) > 0
    # As many atoms to the volume as in the crystal.
    thickness = FCC_A * np.linalg.norm(np.array(axis) // np.gcd.reduce(axis))
    assert len(found.numbers) / (np.linalg.det(found.cell) * thickness) == pytest.approx(
        4 / FCC_A**3
    )


def test_other_axes_see_the_same_projection_however_the_cell_is_given() -> None:
    primitive = ase.Atoms(
        "Au", cell=FCC_A / 2 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), pbc=True
    )
    np.testing.assert_allclose(
        along_zone_axis(primitive, (1, 1, 1)).cell, along_zone_axis(GOLD, (1, 1, 1)).cell, atol=1e-9
    )


@pytest.mark.parametrize(
    ("prototype", "species", "symmetry", "count"),
    [("graphene", ("C",), 6, 2), ("hbn", ("B", "N"), 6, 2), ("square", ("Au",), 4, 1)],
)
def test_prototypes(prototype: str, species: tuple[str, ...], symmetry: int, count: int) -> None:
    found = crystal("made", Material(prototype=prototype, species=species, a_A=2.5))  # type: ignore[arg-type]
    assert found.lattice_symmetry == symmetry
    assert len(found.numbers) == count
    assert found.turned(17).lattice_symmetry == symmetry


def test_neighbours_of_a_layer_lie_at_bond_length() -> None:
    found = crystal("layer", LAYER)
    metal, other = found.basis[0], found.basis[1]
    steps = [
        found.cell @ (other - metal + n)
        for n in np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(-1, 2)
    ]
    bonds = np.hypot(np.sort(np.linalg.norm(steps, axis=1))[:3], 3.142 / 2)
    np.testing.assert_allclose(bonds, np.hypot(3.1532 / np.sqrt(3), 1.571), rtol=1e-9)


@pytest.mark.parametrize(
    ("material", "message"),
    [
        (Material(prototype="square", species=("Xx",), a_A=3), "materials.m.species.*'Xx'"),
        (
            Material(prototype="square", species=("Au",), a_A=3, thermal_A={"Wx": 0.1}),
            "materials.m.thermal_A",
        ),
        (Material(structure=Path("nowhere.cif")), "materials.m.structure.*nowhere.cif"),
        (Material(structure=Path("layer.xyz")), "materials.m.*three-dimensional cell"),
        (Material(structure=Path("WS2.cif"), zone_axis=(0, 0, 0)), "materials.m.*zone_axis"),
    ],
)
def test_bad_materials_are_told_in_one_line(
    material: Material, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("WS2.cif").write_text(CIF)
    Path("layer.xyz").write_text("1\n\nAu 0 0 0\n")
    with pytest.raises(InputError, match=message):
        crystal("m", material)
