"""What every scene offers: where the atoms are, and the exact deformation at any point."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.config.scenes import Rectangle, SceneSettings
from ccstae.errors import InputError
from ccstae.specimen.crystal import Crystal
from ccstae.specimen.dislocation import DislocationRow
from ccstae.specimen.tilt import Tilt

# Of the fixed-point iteration from a point to the reference configuration.
_MAX_ITERATIONS = 60
_TOLERANCE_A = 1e-9

Array = NDArray[np.float64]
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in Angstrom
Atoms = tuple[Array, NDArray[np.int64]]  # positions (n, 3) in Angstrom, atomic numbers (n,)


def inside(rectangle: Rectangle, x: Array) -> NDArray[np.bool_]:
    """Whether points x lie in x0, y0, x1, y1."""
    x0, y0, x1, y1 = rectangle
    return (x[..., 0] >= x0) & (x[..., 0] <= x1) & (x[..., 1] >= y0) & (x[..., 1] <= y1)


def in_box(x: Array, box: Box) -> NDArray[np.bool_]:
    """Whether points x (n, 2 or more) lie in a box; of its edges the first ones belong to it."""
    x0, y0, x1, y1 = box
    return (x[:, 0] >= x0) & (x[:, 0] < x1) & (x[:, 1] >= y0) & (x[:, 1] < y1)


class Scene(ABC):
    """A specimen in deformed (laboratory) space. Points are (..., 2) arrays of x, y in Angstrom."""

    symmetry: int
    """Order of the lattice's rotational symmetry."""
    nominal: Array
    """Reciprocal vectors (columns) of the lattice that total strain is measured against."""
    interior_gradient_per_A: float
    settings: SceneSettings

    def __init__(self, settings: SceneSettings, crystals: Sequence[Crystal]):
        self.settings = settings
        self.tilt = Tilt(settings.tilt_mrad)
        self.layers = settings.layers
        self.stacking = settings.stacking or crystals[0].stacking
        self.layer_distance_A = 0.0
        """From one layer to the next: that of the first material, on which the others grow."""
        if self.layers > 1:
            if crystals[0].layer_distance_A is None:
                raise InputError(
                    f"layers: got {self.layers}; expected the first material to have a "
                    f"layer_distance_A"
                )
            self.layer_distance_A = crystals[0].layer_distance_A
            crystals = [
                crystal.stacked(self.layers, self.stacking, self.layer_distance_A)
                for crystal in crystals
            ]
        self.crystals = tuple(crystals)
        self.thermal_A: dict[str, float] = {}
        """Root mean square displacement along one axis, by element."""
        for crystal in crystals:
            for symbol, value in crystal.thermal_A.items():
                if self.thermal_A.setdefault(symbol, value) != value:
                    raise InputError(
                        f"materials: thermal_A of {symbol} differs; expected one value an element "
                        f"in a scene"
                    )
        self.nominal = crystals[0].reciprocal
        self.symmetry = crystals[0].lattice_symmetry
        self.scan = settings.scan
        self.positions = geometry.scan_positions(settings.scan.shape, settings.scan.step_A)
        self.interior_gradient_per_A = settings.interior_gradient_per_A

    @abstractmethod
    def deformation(self, x: Array) -> Array:
        """Deformation gradient F (..., 2, 2) at points x."""

    @abstractmethod
    def material(self, x: Array) -> NDArray[np.int8]:
        """0 for vacuum, 1.. for the materials, at points x."""

    @abstractmethod
    def atoms(self, box: Box) -> Atoms:
        """All atoms inside the box, where the beam sees them, with their heights above the middle
        of the specimen, along its normal.
        """

    def slices(self, box: Box) -> list[Atoms]:
        """The atoms inside the box layer by layer, in the order in which the beam meets them."""
        positions, numbers = self.atoms(box)
        if self.layers == 1:
            return [(positions, numbers)]
        layer = np.floor(positions[:, 2] / self.layer_distance_A + self.layers / 2)
        return [(positions[layer == n], numbers[layer == n]) for n in range(self.layers)]

    @abstractmethod
    def reference(self, x: Array) -> NDArray[np.bool_]:
        """Whether points x lie in the reference region."""

    def grain(self, x: Array) -> NDArray[np.int64]:
        """Which grain points x lie in; F is averaged within one grain only."""
        return np.zeros(x.shape[:-1], np.int64)

    def core(self, x: Array) -> NDArray[np.bool_]:
        """Whether points x lie in the core of a dislocation."""
        return np.zeros(x.shape[:-1], np.bool_)

    def lines(self) -> tuple[Array, Array] | None:
        """Dislocation lines in the field of the scan: positions (n, 2) and Burgers vectors (n, 2),
        both in Angstrom.

        A Burgers vector is the integral of F^-1 dx round the line from x towards y, a vector of the
        first material's lattice. None where circuits need not close: grain boundaries are
        dislocations all along, and lattices that stand alone are no field.
        """
        return None

    def interface_distance_A(self, x: Array) -> Array | None:
        """Signed distance (...) of points x from the interface; None where the scene has none."""
        return None

    def waves(self) -> tuple[Array, NDArray[np.int8]] | None:
        """Wavelengths (n) of the scene's strain waves in scan steps, and which of them each
        position (Ry, Rx) of the scan shows alone, -1 for none; None for a scene without.
        """
        return None

    def gradient_per_A(self, x: Array) -> Array:
        """Largest change of any component of F per Angstrom at points x, by central differences."""
        step = 0.5
        out = np.zeros(x.shape[:-1])
        for shift in (np.array([step, 0.0]), np.array([0.0, step])):
            slope = (self.deformation(x + shift) - self.deformation(x - shift)) / (2 * step)
            out = np.maximum(out, np.abs(slope).max((-1, -2)))
        return out


class Flake(Scene):
    """One crystal, with lattice points X at y + u(y): real gradients and interfaces reach the beam.

    y is the reference configuration. It is the lattice itself, y = X, but for dislocations, which
    are in it already: X = y - w(y) with w their field, many-valued by Burgers vectors, which are
    lattice vectors and so leave no seam. Hence F = (I + du/dy) (I - dw/dy)^-1.
    """

    dislocations: DislocationRow | None = None

    @abstractmethod
    def displacement(self, y: Array) -> Array:
        """u(y) in Angstrom at reference points y."""

    @abstractmethod
    def displacement_gradient(self, y: Array) -> Array:
        """du/dy (..., 2, 2), derived by hand from the same formula as u."""

    @abstractmethod
    def material_at_reference(self, y: Array) -> NDArray[np.int8]:
        """0 for vacuum, 1.. for the materials, at reference points y."""

    def relief(self, y: Array) -> tuple[Array, Array]:
        """Height (...) of the layer at reference points y in Angstrom, and the components (..., 2)
        of its normal in the plane.

        Of a layer that is bent and not stretched the second is minus the slope of the first.
        """
        return np.zeros(y.shape[:-1]), np.zeros_like(y)

    def projected_displacement(self, y: Array) -> Array:
        """u(y) as the beam sees it, from y to the projection of a specimen that is tilted."""
        u = self.displacement(y)
        if self.tilt.none:
            return u
        height, _ = self.relief(y)
        return self.tilt.project(y + u, height) - y

    def projected_gradient(self, y: Array) -> Array:
        """The gradient (..., 2, 2) of `projected_displacement`."""
        gradient = self.displacement_gradient(y)
        if self.tilt.none:
            return gradient
        _, normal = self.relief(y)
        return self.tilt.deform(np.eye(2) + gradient, -normal) - np.eye(2)

    def to_reference(self, x: Array) -> Array:
        """Solve y = x - u(y) by fixed-point iteration, which converges as |du/dy|^n.

        Raises:
            InputError: where it does not.
        """
        y = x - self.projected_displacement(x)
        for _ in range(_MAX_ITERATIONS):
            new = x - self.projected_displacement(y)
            if np.abs(new - y).max(initial=0.0) < _TOLERANCE_A:
                return new
            y = new
        raise InputError(
            "scene: the displacement field folds the flake (its gradient exceeds 1); expected "
            "smaller strain or wider features"
        )

    def deformation(self, x: Array) -> Array:
        y = self.to_reference(x)
        F = np.eye(2) + self.projected_gradient(y)
        if self.dislocations is None:
            return F
        return F @ np.linalg.inv(np.eye(2) - self.dislocations.gradient(y))

    def material(self, x: Array) -> NDArray[np.int8]:
        return self.material_at_reference(self.to_reference(x))

    def core(self, x: Array) -> NDArray[np.bool_]:
        if self.dislocations is None:
            return super().core(x)
        return self.dislocations.core(self.to_reference(x))

    def lines(self) -> tuple[Array, Array]:
        row = self.dislocations
        if row is None:
            return np.zeros((0, 2)), np.zeros((0, 2))
        low, high = self.positions[0, 0], self.positions[-1, -1]
        outline = self.to_reference(_outline((*low, *high)))
        y = row.lines(float(outline[:, 1].min()), float(outline[:, 1].max()))
        x = y + self.projected_displacement(y)
        x = x[((x >= low) & (x <= high)).all(-1) & (self.material(x) > 0)]
        return x, np.tile(row.circuit_A, (len(x), 1))

    def atoms(self, box: Box) -> Atoms:
        row = self.dislocations
        outline = self.to_reference(_outline(box))
        if row is None:
            return self._atoms(box, cells(self.crystals[0].cell, outline), lambda X: X, None)
        # Left and right of the interface, each with its own branch of w; what is solved beyond the
        # interface is left out.
        positions, numbers = [], []
        for left in (True, False):
            origins = cells(self.crystals[0].cell, outline - row.displacement(outline, left))
            half = self._atoms(box, origins, partial(row.place, left=left), left)
            positions.append(half[0])
            numbers.append(half[1])
        return np.concatenate(positions), np.concatenate(numbers)

    def _atoms(
        self, box: Box, origins: Array, place: Callable[[Array], Array], left: bool | None
    ) -> Atoms:
        """Atoms of the unit cells at `origins` inside the box, with `place` from the lattice to the
        reference configuration.
        """
        positions, numbers = [], []
        for index, crystal in enumerate(self.crystals, 1):
            for fraction, height, number in zip(
                crystal.basis, crystal.height_A, crystal.numbers, strict=True
            ):
                y = place(origins + self.crystals[0].cell @ fraction)
                of_crystal = self.material_at_reference(y) == index
                if left is not None and self.dislocations is not None:
                    of_crystal &= self.dislocations.left(y) == left
                y = y[of_crystal]
                above, normal = self.relief(y)
                x = y + self.displacement(y) + height * normal
                z = above + height * np.sqrt(1 - (normal**2).sum(-1))
                x = self.tilt.project(x, z)
                within = in_box(x, box)
                positions.append(np.column_stack([x[within], z[within]]))
                numbers.append(np.full(int(within.sum()), number))
        return np.concatenate(positions), np.concatenate(numbers)


def _outline(box: Box) -> Array:
    """Points (n, 2) along the edges of a box."""
    corners = np.array([[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]])
    return np.concatenate(
        [np.linspace(a, b, 33) for a, b in zip(corners, np.roll(corners, -1, 0), strict=True)]
    )


def cells(lattice: Array, outline: Array, margin_A: float = 15.0) -> Array:
    """Lattice points (n, 2) of a lattice (columns) in the rectangle round an outline (n, 2),
    widened for what lies between its points.
    """
    low, high = outline.min(0) - margin_A, outline.max(0) + margin_A
    corners = np.array([[low[0], low[1]], [low[0], high[1]], [high[0], low[1]], [high[0], high[1]]])
    fractions = np.linalg.solve(lattice, corners.T)  # (2, corner)
    first = np.floor(fractions.min(1))
    last = np.ceil(fractions.max(1))
    h = np.arange(first[0], last[0] + 1)
    k = np.arange(first[1], last[1] + 1)
    points = np.stack(np.meshgrid(h, k, indexing="ij"), -1).reshape(-1, 2) @ lattice.T
    return points[((points > low) & (points < high)).all(1)]


def misfit(reference: Crystal, other: Crystal) -> float:
    """Relative difference of the lattice parameters, a_other / a_reference - 1."""
    return float(np.sqrt(abs(np.linalg.det(other.cell) / np.linalg.det(reference.cell))) - 1)
