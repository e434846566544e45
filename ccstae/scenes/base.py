"""What every scene offers: where the atoms are, and the exact deformation at any point."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.crystal import Crystal
from ccstae.errors import InputError
from ccstae.settings.scene import Scan, SceneSettings

Array = NDArray[np.float64]
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in Angstrom


def scan_positions(scan: Scan) -> Array:
    """Beam positions (Ry, Rx, 2) in Angstrom, centred on the origin."""
    y, x = ((np.arange(n) - (n - 1) / 2) * scan.step_A for n in scan.shape)
    return np.stack(np.meshgrid(x, y), -1)


class Scene(ABC):
    """A specimen in deformed (laboratory) space. Points are (..., 2) arrays of x, y in Angstrom."""

    symmetry: int
    """Order of the lattice's rotational symmetry."""
    nominal: Array
    """Reciprocal vectors (columns) of the lattice that total strain is measured against."""
    interior_gradient_per_A: float

    def __init__(self, settings: SceneSettings, crystals: Sequence[Crystal]):
        self.crystals = tuple(crystals)
        self.nominal = crystals[0].reciprocal
        self.symmetry = crystals[0].lattice_symmetry
        self.scan = settings.scan

    @abstractmethod
    def deformation(self, x: Array) -> Array:
        """Deformation gradient F (..., 2, 2) at points x."""

    @abstractmethod
    def material(self, x: Array) -> NDArray[np.int8]:
        """0 for vacuum, 1.. for the materials, at points x."""

    @abstractmethod
    def atoms(self, box: Box) -> tuple[Array, NDArray[np.int64]]:
        """Positions (n, 3) in Angstrom and atomic numbers (n,) of all atoms inside the box."""

    @abstractmethod
    def reference(self, x: Array) -> NDArray[np.bool_]:
        """Whether points x lie in the reference region."""

    def gradient_per_A(self, x: Array) -> Array:
        """Largest change of any component of F per Angstrom, at points x, by central differences."""
        step = 0.5
        out = np.zeros(x.shape[:-1])
        for shift in (np.array([step, 0.0]), np.array([0.0, step])):
            slope = (self.deformation(x + shift) - self.deformation(x - shift)) / (2 * step)
            out = np.maximum(out, np.abs(slope).max((-1, -2)))
        return out


class Flake(Scene):
    """One coherent crystal whose atoms sit at X + u(X): real gradients and interfaces reach the patterns."""

    @abstractmethod
    def displacement(self, X: Array) -> Array:
        """u(X) in Angstrom at reference points X."""

    @abstractmethod
    def displacement_gradient(self, X: Array) -> Array:
        """du/dX (..., 2, 2), derived by hand from the same formula as u."""

    @abstractmethod
    def material_at_reference(self, X: Array) -> NDArray[np.int8]:
        """0 for vacuum, 1.. for the materials, at reference points X."""

    def to_reference(self, x: Array) -> Array:
        """Solve X = x - u(X) by fixed-point iteration; converges as |du/dX|^n. InputError where it does not."""
        X = x - self.displacement(x)
        for _ in range(60):
            new = x - self.displacement(X)
            if np.abs(new - X).max(initial=0.0) < 1e-9:
                return new
            X = new
        raise InputError("scene: the displacement field folds the flake (its gradient exceeds 1); expected smaller strain or wider features")

    def deformation(self, x: Array) -> Array:
        return np.eye(2) + self.displacement_gradient(self.to_reference(x))

    def material(self, x: Array) -> NDArray[np.int8]:
        return self.material_at_reference(self.to_reference(x))

    def atoms(self, box: Box) -> tuple[Array, NDArray[np.int64]]:
        lattice = self.crystals[0].cell
        corners = np.array([[box[i], box[j]] for i in (0, 2) for j in (1, 3)])
        # The box's outline in reference space, widened by a few lattice constants for what lies between the corners.
        edge = np.concatenate([np.linspace(a, b, 33) for a, b in zip(corners[[0, 1, 3, 2]], corners[[1, 3, 2, 0]], strict=True)])
        outline = self.to_reference(edge)
        low, high = outline.min(0) - 10, outline.max(0) + 10
        reach = np.linalg.solve(lattice, np.array([[low[0], low[1]], [low[0], high[1]], [high[0], low[1]], [high[0], high[1]]]).T)
        h, k = (np.arange(np.floor(r.min()), np.ceil(r.max()) + 1) for r in reach)
        cells = np.stack(np.meshgrid(h, k, indexing="ij"), -1).reshape(-1, 2) @ lattice.T
        cells = cells[((cells > low - 5) & (cells < high + 5)).all(1)]
        material = self.material_at_reference(cells)
        positions, numbers = [], []
        for index, crystal in enumerate(self.crystals, 1):
            origin = cells[material == index]
            for fraction, height, number in zip(crystal.basis, crystal.height_A, crystal.numbers, strict=True):
                X = origin + lattice @ fraction
                x = X + self.displacement(X)
                x = x[(x[:, 0] >= box[0]) & (x[:, 0] < box[2]) & (x[:, 1] >= box[1]) & (x[:, 1] < box[3])]
                positions.append(np.column_stack([x, np.full(len(x), height)]))
                numbers.append(np.full(len(x), number))
        return np.concatenate(positions), np.concatenate(numbers)


def misfit(reference: Crystal, other: Crystal) -> float:
    """Relative difference of the lattice parameters, a_other / a_reference - 1."""
    return float(np.sqrt(abs(np.linalg.det(other.cell) / np.linalg.det(reference.cell))) - 1)


