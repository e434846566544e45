"""Crystals as the beam sees them: cell, basis, height and species of each material."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product
from math import gcd
from pathlib import Path
from typing import Any

import ase
import ase.data
import numpy as np
from ase.io import read
from ase.io.formats import filetype
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.config.materials import Material
from ccstae.config.scenes import Stacking
from ccstae.errors import InputError, unknown

Array = NDArray[np.float64]

# The plain-text ones of the formats that ASE reads: some others hold pickles, which can run code.
_FORMATS = ("cif", "vasp", "extxyz", "xyz", "proteindatabank", "xsf", "res", "aims", "espresso-in")
_SAME_PLACE_TOLERANCE_A = 0.02  # atoms nearer than this in projection lie on one another
# Of the long diagonal of a hexagonal cell: from one site of the honeycomb to the next.
_THIRD = np.array([1.0, 2.0]) / 3
# Of layer n in a stack: the sign of its coordinates, and its shift in thirds.
_STACKINGS: dict[Stacking, Callable[[int], tuple[int, int]]] = {
    "AA": lambda n: (1, 0),
    "AA'": lambda n: ((-1) ** n, 0),
    "AB": lambda n: (1, n % 2),
    "ABC": lambda n: (1, n % 3),
}


@dataclass(frozen=True)
class Crystal:
    """One layer of a crystal (of a bulk one: one repeat along the beam), periodic in the plane, the
    beam along z.
    """

    cell: Array  # (2, 2), columns are the lattice vectors a1 and a2 in Angstrom
    basis: Array  # (n, 2), fractional coordinates
    height_A: Array  # (n,)
    numbers: NDArray[np.int64]  # (n,), atomic numbers
    # Root mean square displacement along one axis, by symbol.
    thermal_A: dict[str, float] = field(default_factory=dict)
    layer_distance_A: float | None = None  # to the next layer, where known
    stacking: Stacking = "AA"  # of the bulk crystal

    @property
    def reciprocal(self) -> Array:
        """Reciprocal lattice vectors, columns, 1/Angstrom."""
        return geometry.reciprocal(self.cell)

    @property
    def lattice_symmetry(self) -> int:
        """Order of the rotation that maps the lattice (not the basis) onto itself: 6, 4 or 2.

        It is told from the cell: turned by 2 pi / n, its vectors must be whole-number combinations
        of themselves.
        """
        for n in (6, 4):
            turned = np.linalg.inv(self.cell) @ geometry.rotation_matrix(2 * np.pi / n) @ self.cell
            if np.allclose(turned, np.round(turned), atol=1e-3):
                return n
        return 2

    def turned(self, degrees: float) -> Crystal:
        """The same crystal turned about the beam, from x towards y."""
        return replace(self, cell=geometry.rotation_matrix(np.deg2rad(degrees)) @ self.cell)

    def stacked(self, layers: int, stacking: Stacking, distance_A: float) -> Crystal:
        """Layers of it, the middle of the stack at height 0: layer n is what lies between (n -
        layers / 2) distance_A and the next.

        Raises:
            InputError: for a stacking that the lattice does not have.
        """
        if stacking in ("AB", "ABC") and self.lattice_symmetry != 6:
            raise InputError(f"stacking: {stacking} is for hexagonal lattices; expected AA or AA'")
        height = self.height_A - (self.height_A.max() + self.height_A.min()) / 2
        bases, heights = [], []
        for n in range(layers):
            sign, thirds = _STACKINGS[stacking](n)
            bases.append((sign * self.basis + thirds * _THIRD) % 1)
            heights.append(height + (n - (layers - 1) / 2) * distance_A)
        return replace(
            self,
            basis=np.concatenate(bases),
            height_A=np.concatenate(heights),
            numbers=np.tile(self.numbers, layers),
        )


def crystal(name: str, material: Material) -> Crystal:
    """The crystal of a `materials:` entry.

    Args:
        name: of the entry, for messages.
        material: a prototype with its lattice parameter, or a structure file with a zone axis.

    Returns:
        One layer, or one repeat along the zone axis, with a1 along x.

    Raises:
        InputError: for an unknown element, a structure that cannot be read, or one without a cell
            along the zone axis.
    """
    for symbol in material.thermal_A:
        _number(name, "thermal_A", symbol)
    thermal_A = dict(material.thermal_A)
    if material.structure is not None:
        atoms = _read_structure(name, material.structure)
        try:
            return replace(along_zone_axis(atoms, material.zone_axis), thermal_A=thermal_A)
        except InputError as error:
            raise InputError(f"materials.{name}: {error}") from None
    assert material.a_A is not None  # checked by the settings model
    numbers = [_number(name, "species", symbol) for symbol in material.species]
    a, h = material.a_A, material.thickness_A / 2
    hexagonal = a * np.array([[1.0, -0.5], [0.0, np.sqrt(3) / 2]])
    known: dict[str, Any] = {"thermal_A": thermal_A, "layer_distance_A": material.layer_distance_A}
    if material.prototype == "mx2-2h":
        # The two X planes of a 2H layer lie above one another, on the other site of the honeycomb.
        sites = np.array([_THIRD, 2 * _THIRD, 2 * _THIRD]) % 1
        heights, mxx = np.array([0.0, h, -h]), np.array(numbers + numbers[1:])
        return Crystal(hexagonal, sites, heights, mxx, stacking="AA'", **known)
    if material.prototype in ("graphene", "hbn"):
        sites, pair = np.array([_THIRD, 2 * _THIRD]) % 1, np.array((numbers * 2)[:2])
        stacking: Stacking = "AB" if material.prototype == "graphene" else "AA'"
        return Crystal(hexagonal, sites, np.zeros(2), pair, stacking=stacking, **known)
    return Crystal(a * np.eye(2), np.zeros((1, 2)), np.zeros(1), np.array(numbers), **known)


def _read_structure(name: str, path: Path) -> ase.Atoms:
    """The last structure of a file; InputError for a format that is no plain text, or damage."""
    try:
        kind = filetype(str(path))
        if kind not in _FORMATS:
            raise ValueError(f"its format is {kind}")
        atoms = read(str(path), index=-1, format=kind, do_not_split_by_at_sign=True)
        assert isinstance(atoms, ase.Atoms)
    except Exception as error:  # ASE raises whatever its reader does
        message = f"{path} cannot be read: {error}; "
        message += f"expected a structure file: {', '.join(_FORMATS)}"
        raise InputError(f"materials.{name}.structure: {message}") from None
    return atoms


def _number(name: str, setting: str, symbol: str) -> int:
    """Atomic number of a symbol; InputError for an unknown one."""
    if symbol not in ase.data.atomic_numbers or symbol == "X":
        known = [s for s in ase.data.chemical_symbols if s != "X"]
        problem = unknown("element", symbol, known)
        if "did you mean" not in problem:  # all of the elements are too many to name
            problem = f"unknown element {symbol!r}; expected a chemical symbol"
        raise InputError(f"materials.{name}.{setting}: {problem}")
    return int(ase.data.atomic_numbers[symbol])


def along_zone_axis(atoms: ase.Atoms, zone_axis: tuple[int, int, int]) -> Crystal:
    """A structure one lattice vector [uvw] thick, seen along it, with the smallest cell that the
    projection has, a1 along x.

    The projection of a crystal repeats with the projected lattice vectors, and more finely where
    atoms of one species that lie at different heights fall on one another. InputError for a
    structure without a cell or a zone axis of zeros.
    """
    cell = np.asarray(atoms.cell)
    if abs(np.linalg.det(cell)) < 1e-6:
        raise InputError(
            "structure: it has no three-dimensional cell; expected a periodic structure (pad a "
            "single layer with vacuum)"
        )
    if not any(zone_axis):
        raise InputError("zone_axis: got (0, 0, 0); expected a direction")
    axis = (np.array(zone_axis) // gcd(*zone_axis)) @ cell
    repeat = float(np.linalg.norm(axis))
    frame = _frame(axis / repeat)
    xyz = atoms.positions @ frame.T
    plane, z = xyz[:, :2], _heights(xyz[:, 2], repeat)
    # Translations of the projection: those of the cell's vectors, then those between equal atoms.
    coarse = _shortest_pair(
        np.array([n @ cell @ frame.T for n in product(range(-4, 5), repeat=3)])[:, :2]
    )
    shifts = _translations(plane, atoms.numbers, coarse)
    steps = np.array([coarse @ n for n in product(range(-2, 3), repeat=2)])
    fine = _shortest_pair((steps[:, None] + shifts).reshape(-1, 2))
    # How many fine cells' worth of atoms there are in `atoms`.
    count = atoms.cell.volume / (repeat * abs(np.linalg.det(fine)))
    if abs(count - round(count)) > 1e-3 * count:
        raise InputError(f"zone_axis: no cell found along {zone_axis}; expected smaller indices")
    turn = geometry.rotation_matrix(-np.arctan2(fine[1, 0], fine[0, 0]))
    fraction = np.linalg.solve(fine, plane.T).T
    fraction = (fraction - fraction[0] + 1e-6) % 1 - 1e-6
    one = _one_of_each(fraction @ fine.T, fine, atoms.numbers, z, round(count))
    numbers = atoms.numbers[one].astype(np.int64)
    height_A = z[one] - z[one].mean()
    return Crystal(turn @ fine, fraction[one], height_A, numbers, layer_distance_A=repeat)


def _frame(w: Array) -> Array:
    """Rows x, y, z of a right-handed frame with z along the unit vector w."""
    x = np.cross(np.eye(3)[np.argmin(np.abs(w))], w)
    x /= np.linalg.norm(x)
    return np.array([x, np.cross(w, x), w])


def _heights(z: Array, repeat: float) -> Array:
    """z within one repeat, cut at its widest gap, so that a layer is not torn apart."""
    z = z % repeat
    order = np.sort(z)
    gaps = np.diff(np.append(order, order[0] + repeat))
    start = order[(np.argmax(gaps) + 1) % len(order)]
    return (z - start + 1e-6) % repeat


def _shortest_pair(vectors: Array) -> Array:
    """The two shortest independent vectors of a plane lattice, as columns, at 90 to 120 degrees:
    they span it.
    """
    length = np.linalg.norm(vectors, axis=1)
    longer = length > _SAME_PLACE_TOLERANCE_A
    vectors, length = vectors[longer], length[longer]
    x, y = vectors.round(3).T
    vectors = vectors[np.lexsort((-y, -x, length.round(3)))]
    first = vectors[0]
    cross = first[0] * vectors[:, 1] - first[1] * vectors[:, 0]
    second = vectors[np.argmax(np.abs(cross) > 1e-3 * np.linalg.norm(first) ** 2)]
    if first @ second > 1e-6:
        second = -second
    right_handed = first[0] * second[1] > first[1] * second[0]
    return np.array([first, second] if right_handed else [second, first]).T


def _translations(plane: Array, numbers: NDArray[np.int64], cell: Array) -> Array:
    """Shifts (n, 2) in the plane, none among them, that map the projected atoms onto atoms of the
    same species.
    """
    symbols, counts = np.unique(numbers, return_counts=True)
    rarest = plane[numbers == symbols[np.argmin(counts)]]
    return np.array(
        [s for s in rarest - rarest[0] if all(_onto(plane[numbers == n], s, cell) for n in symbols)]
    )


def _apart(a: Array, b: Array, cell: Array) -> Array:
    """Distances (len a, len b) of points in the plane, modulo the lattice."""
    d = np.linalg.solve(cell, (a[:, None] - b).reshape(-1, 2).T)
    return np.linalg.norm(cell @ (d - np.round(d)), axis=0).reshape(len(a), len(b))


def _onto(points: Array, shift: Array, cell: Array) -> bool:
    """Whether a shift maps columns of atoms onto columns of as many."""
    column_size = (_apart(points, points, cell) < _SAME_PLACE_TOLERANCE_A).sum(1)
    lands = _apart(points + shift, points, cell) < _SAME_PLACE_TOLERANCE_A
    return bool(lands.any(1).all() and (column_size[lands.argmax(1)] == column_size).all())


def _one_of_each(
    plane: Array, cell: Array, numbers: NDArray[np.int64], z: Array, count: int
) -> NDArray[np.int64]:
    """Indices of the atoms of one cell, where each is there `count` times over; each column keeps
    its heights in order.
    """
    chosen: list[int] = []
    same_place = _apart(plane, plane, cell) < _SAME_PLACE_TOLERANCE_A
    same = same_place & (numbers[:, None] == numbers)
    for i, column in enumerate(same):
        if column.argmax() == i:  # the first atom of each column stands for it
            by_height = np.flatnonzero(column)[np.argsort(z[column], kind="stable")]
            chosen += list(by_height[::count])
    return np.array(chosen)
