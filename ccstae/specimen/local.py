"""Scenes with one uniform lattice a position: what the beam meets there is that lattice and nothing
of its neighbours.

No specimen is all of these lattices at once. A position stands alone, as in the published
simulations of this task, and so F may be any function of the position, compatible or not, and its
probe average is F itself. ccstae.simulation.uniform renders them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.config.scenes import LabelledSettings, RotationSettings, UniformSettings
from ccstae.errors import InputError
from ccstae.machine.device import ceil_div
from ccstae.specimen import arrays
from ccstae.specimen.crystal import Crystal
from ccstae.specimen.scene import Array, Atoms, Box, Scene, cells, in_box, inside
from ccstae.specimen.tilt import Tilt

_PARTS = ("exx", "eyy", "exy", "rotation")
_MAX_STRAIN = 0.2  # in files of labels


class LocalScene(Scene):
    """Everything is known at the positions of the scan; a point belongs to the nearest of them."""

    @cached_property
    def F(self) -> Array:
        """F (Ry, Rx, 2, 2) of every position; I in vacuum."""
        return np.where(self.label[..., None, None] == 0, np.eye(2), self.tilt.deform(self._given))

    @cached_property
    def label(self) -> NDArray[np.int8]:
        """0 for vacuum, 1 for the material, (Ry, Rx)."""
        return np.where(np.isnan(self._given).any((-1, -2)), 0, 1).astype(np.int8)

    @cached_property
    def _given(self) -> Array:
        return self.local_deformation()

    @cached_property
    def _reference(self) -> NDArray[np.bool_]:
        return self.reference_positions()

    @abstractmethod
    def local_deformation(self) -> Array:
        """F (Ry, Rx, 2, 2) of every position; NaN for vacuum."""

    @abstractmethod
    def reference_positions(self) -> NDArray[np.bool_]:
        """The reference positions (Ry, Rx)."""

    def nearest(self, x: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of the position nearest to each point."""
        index = np.rint((x - self.positions[0, 0]) / self.scan.step_A).astype(int)
        ry, rx = self.label.shape
        return np.clip(index[..., 1], 0, ry - 1), np.clip(index[..., 0], 0, rx - 1)

    def deformation(self, x: Array) -> Array:
        return self.F[self.nearest(x)]

    def material(self, x: Array) -> NDArray[np.int8]:
        return self.label[self.nearest(x)]

    def reference(self, x: Array) -> NDArray[np.bool_]:
        return self._reference[self.nearest(x)]

    def gradient_per_A(self, x: Array) -> Array:
        return np.zeros(x.shape[:-1])

    def atoms(self, box: Box) -> Atoms:
        """Atoms inside the box of the lattice that belongs to its centre."""
        at = self.nearest(np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]))
        if self.label[at] == 0:
            return np.zeros((0, 3)), np.zeros(0, np.int64)
        return crystal_atoms(self.crystals[0], self.F[at], np.zeros(2), self.tilt, box)


def crystal_atoms(crystal: Crystal, F: Array, origin: Array, tilt: Tilt, box: Box) -> Atoms:
    """Atoms inside the box of a crystal deformed by F as the beam sees it, one of its lattice
    points at the origin given.
    """
    lattice = F @ crystal.cell
    x0, y0, x1, y1 = box
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    shift = crystal.basis @ lattice.T + crystal.height_A[:, None] * tilt.lean
    x = (cells(lattice, corners - origin)[:, None] + shift + origin).reshape(-1, 2)
    count = len(x) // len(crystal.numbers)
    positions = np.column_stack([x, np.tile(crystal.height_A, count)])
    numbers = np.tile(crystal.numbers, count)
    within = in_box(x, box)
    return positions[within], numbers[within]


class Uniform(LocalScene):
    """The left third of the scan is the reference."""

    settings: UniformSettings

    def local_deformation(self) -> Array:
        s = self.settings
        F = geometry.deformation(s.exx, s.eyy, s.exy, np.deg2rad(s.rotation_deg))
        return np.broadcast_to(F, (*s.scan.shape, 2, 2)).copy()

    def reference_positions(self) -> NDArray[np.bool_]:
        out = np.zeros(self.scan.shape, np.bool_)
        out[:, : ceil_div(self.scan.shape[1], 3)] = True
        return out


class Rotation(LocalScene):
    """Why one lattice a position: a continuous lattice that turns by theta(x) = k x has to be bent,
    which strains it by k y.

    Over a field as wide as it is high, a radian of rotation means a strain near one; only
    dislocations, one to every b / k of area, could take that up. The first three columns are the
    reference: neither turned nor strained.
    """

    settings: RotationSettings
    _FLAT_COLUMNS = 3

    def local_deformation(self) -> Array:
        s = self.settings
        ry, rx = s.scan.shape
        flat = self._FLAT_COLUMNS
        if rx < flat + 2:
            raise InputError(f"scan.shape: got {rx} columns; expected at least {flat + 2}")
        turned = np.maximum(np.arange(rx) - (flat - 1), 0) / (rx - flat)
        strain = np.linspace(-1, 1, ry)[:, None] * (turned > 0)
        return geometry.deformation(
            strain * s.exx, strain * s.eyy, strain * s.exy, turned * np.deg2rad(s.range_deg)
        )

    def reference_positions(self) -> NDArray[np.bool_]:
        out = np.zeros(self.scan.shape, np.bool_)
        out[:, : self._FLAT_COLUMNS] = True
        return out


class Labelled(LocalScene):
    """The reference is a rectangle, or the positions that share the commonest of the lattices with
    the least strain.
    """

    settings: LabelledSettings

    def __init__(self, settings: LabelledSettings, crystals: Sequence[Crystal]):
        super().__init__(settings, crystals)
        if all(arrays.at_hand(getattr(settings, name)) for name in _PARTS):
            # says now what is wrong; a file that has to be downloaded waits until it is needed
            self.reference_positions()

    @cached_property
    def _whole(self) -> Array:
        """F of every entry of the arrays, (n Ry, n Rx, 2, 2); NaN for vacuum."""
        s = self.settings
        parts = [arrays.load(name, getattr(s, name), s.scan.shape) for name in _PARTS]
        if len({part.shape for part in parts}) > 1:
            raise InputError(
                f"{', '.join(_PARTS)}: have the shapes {[part.shape for part in parts]}; expected "
                f"one shape"
            )
        exx, eyy, exy, theta = parts
        if np.nanmax(np.abs([exx, eyy, exy])) > _MAX_STRAIN:
            raise InputError(
                f"exx, eyy, exy: a strain is larger than {_MAX_STRAIN:g}; expected numbers, not "
                f"per cent"
            )
        return geometry.deformation(exx, eyy, exy, theta)

    @property
    def _every(self) -> int:
        """Entries of the arrays from one position to the next."""
        return len(self._whole) // self.settings.scan.shape[0]

    def local_deformation(self) -> Array:
        return self._whole[:: self._every, :: self._every]

    def reference_positions(self) -> NDArray[np.bool_]:
        if self.settings.reference_A is not None:
            out = inside(self.settings.reference_A, self.positions) & (self.label == 1)
            if not out.any():
                raise InputError(
                    f"reference_A: {self.settings.reference_A} holds no position on the crystal; "
                    f"expected a rectangle that does"
                )
            return out
        parts = np.round(geometry.components(self.F), 6)
        size = np.abs(parts[..., :3]).max(-1)
        least = (size <= size[self.label == 1].min() + 1e-6) & (self.label == 1)
        lattices, counts = np.unique(parts[least], axis=0, return_counts=True)
        return np.asarray(least & (parts == lattices[counts.argmax()]).all(-1))

    def gradient_per_A(self, x: Array) -> Array:
        """The largest step of F to a neighbouring entry of the arrays over the distance, rotations
        modulo the lattice's symmetry. It does not depend on how many of the entries are scanned.
        """
        vacuum = np.isnan(self._whole).any((-1, -2), keepdims=True)
        whole = np.where(vacuum, np.eye(2), self.tilt.deform(self._whole))
        out = np.zeros(whole.shape[:2])
        for axis in (0, 1):
            F = np.moveaxis(whole, axis, 0)
            one, other = F[:-1], F[1:]
            step = np.abs(geometry.to_branch(other, one, self.symmetry) - one).max((-1, -2))
            along = np.moveaxis(out, axis, 0)
            along[:-1] = np.maximum(along[:-1], step)
            along[1:] = np.maximum(along[1:], step)
        every = self._every
        return (out[::every, ::every] * every / self.scan.step_A)[self.nearest(x)]
