"""Crystals as the beam sees them: cell, basis, height and species of each material."""

from __future__ import annotations

from dataclasses import dataclass

import ase.data
import numpy as np
from ase.io import read
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.errors import InputError, unknown
from ccstae.settings.instrument import Material

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Crystal:
    """One layer of a crystal, periodic in the plane, the beam along z."""

    cell: Array  # (2, 2), columns are the lattice vectors a1 and a2 in Angstrom; a1 along x
    basis: Array  # (n, 2), fractional coordinates
    height_A: Array  # (n,)
    numbers: NDArray[np.int64]  # (n,), atomic numbers

    @property
    def reciprocal(self) -> Array:
        """Reciprocal lattice vectors, columns, 1/Angstrom."""
        return geometry.reciprocal(self.cell)

    @property
    def lattice_symmetry(self) -> int:
        """Order of the rotation that maps the lattice (not the basis) onto itself: 6, 4 or 2.

        Found from the cell: turned by 2 pi / n, its vectors must be whole-number combinations of themselves.
        """
        for n in (6, 4):
            turned = np.linalg.inv(self.cell) @ geometry.rotation_matrix(2 * np.pi / n) @ self.cell
            if np.allclose(turned, np.round(turned), atol=1e-3):
                return n
        return 2


def crystal(id: str, material: Material) -> Crystal:
    """The crystal of a `materials:` entry. InputError for an unknown element or a structure that cannot be read."""
    if material.structure is not None:
        return _from_file(id, material)
    assert material.a_A is not None  # checked by the settings model
    numbers = [_number(id, symbol) for symbol in material.species]
    a, h = material.a_A, material.thickness_A / 2
    hexagonal = a * np.array([[1.0, -0.5], [0.0, np.sqrt(3) / 2]])
    third = np.array([1.0, 2.0]) / 3
    if material.prototype == "mx2-2h":
        # The two X planes of a 2H layer lie above one another, on the other site of the honeycomb.
        return Crystal(hexagonal, np.array([third, 2 * third, 2 * third]) % 1, np.array([0.0, h, -h]), np.array(numbers + numbers[1:]))
    if material.prototype in ("graphene", "hbn"):
        return Crystal(hexagonal, np.array([third, 2 * third]) % 1, np.zeros(2), np.array((numbers * 2)[:2]))
    return Crystal(a * np.eye(2), np.zeros((1, 2)), np.zeros(1), np.array(numbers))


def _number(id: str, symbol: str) -> int:
    if symbol not in ase.data.atomic_numbers or symbol == "X":
        known = [s for s in ase.data.chemical_symbols if s != "X"]
        near = unknown("element", symbol, known)
        raise InputError(f"materials.{id}.species: {near if 'did you mean' in near else f'unknown element {symbol!r}; expected a chemical symbol'}")
    return int(ase.data.atomic_numbers[symbol])


def _from_file(id: str, material: Material) -> Crystal:
    """Turn a bulk or layer structure so that the zone axis lies along z and its first in-plane vector along x."""
    try:
        atoms = read(material.structure)
    except Exception as error:  # ASE raises whatever its reader does
        raise InputError(f"materials.{id}.structure: {material.structure} cannot be read: {error}; expected a file that ASE reads") from None
    axis = np.asarray(material.zone_axis)
    if not axis.any():
        raise InputError(f"materials.{id}.zone_axis: got (0, 0, 0); expected a direction")
    if not np.array_equal(axis, (0, 0, 1)):
        from ase.build import cut, niggli_reduce

        basis = _in_plane(axis)
        atoms = cut(atoms, basis[0], basis[1], axis)
        del niggli_reduce
    rotated = atoms.cell.standard_form()[0]
    cell = np.asarray(rotated)
    if np.abs(cell[2, :2]).max() > 1e-3 * cell[2, 2]:
        # The stacking is inclined: what the beam sees is the projection, wrapped into the cell.
        pass
    plane = cell[:2, :2].T
    positions = atoms.get_scaled_positions() @ cell
    return Crystal(plane, (np.linalg.solve(plane, positions[:, :2].T).T) % 1, positions[:, 2], atoms.numbers.astype(np.int64))


def _in_plane(axis: NDArray[np.int64]) -> NDArray[np.int64]:
    """Two whole-number directions that span the lattice plane across the zone axis (in direct coordinates)."""
    candidates = [np.array(v) for v in np.ndindex(5, 5, 5)]
    vectors = [v - 2 for v in candidates if np.any(v - 2)]
    vectors.sort(key=lambda v: (np.abs(v).sum(), tuple(-v)))
    first = next(v for v in vectors if abs(np.dot(v, axis)) == 0)
    second = next(v for v in vectors if abs(np.dot(v, axis)) == 0 and np.any(np.cross(first, v)))
    return np.array([first, second])
