"""Grains of one material: Voronoi cells, each a uniform lattice with a strain, a rotation and an
origin of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ccstae import geometry
from ccstae.config.scenes import PolycrystalSettings
from ccstae.specimen.crystal import Crystal
from ccstae.specimen.local import crystal_atoms
from ccstae.specimen.scene import Array, Atoms, Box, Scene, in_box


class Polycrystal(Scene):
    """Settings in PolycrystalSettings. F is that of the point's grain: it jumps between grains."""

    settings: PolycrystalSettings

    def __init__(self, settings: PolycrystalSettings, crystals: Sequence[Crystal]):
        super().__init__(settings, crystals)
        rng = np.random.default_rng(settings.seed)
        half = np.abs(self.positions).max((0, 1)) + settings.scan.step_A / 2
        self._seeds = cKDTree(rng.uniform(-half, half, (settings.grains, 2)))
        strain = rng.choice(settings.strains, (settings.grains, 3))
        angle = np.deg2rad(rng.uniform(0, settings.rotation_range_deg, settings.grains))
        self._origin = rng.uniform(0, 1, (settings.grains, 2)) @ crystals[0].cell.T
        self.reference_grain = int(
            np.bincount(self.grain(self.positions).ravel(), minlength=settings.grains).argmax()
        )
        strain[self.reference_grain], angle[self.reference_grain] = 0.0, 0.0
        self.grain_deformation = self.tilt.deform(
            geometry.deformation(strain[:, 0], strain[:, 1], strain[:, 2], angle)
        )
        """F (grains, 2, 2)."""

    def grain(self, x: Array) -> NDArray[np.int64]:
        return np.asarray(self._seeds.query(x)[1], np.int64)

    def deformation(self, x: Array) -> Array:
        return self.grain_deformation[self.grain(x)]

    def gradient_per_A(self, x: Array) -> Array:
        return np.zeros(x.shape[:-1])

    def material(self, x: Array) -> NDArray[np.int8]:
        return np.ones(x.shape[:-1], np.int8)

    def reference(self, x: Array) -> NDArray[np.bool_]:
        return np.asarray(self.grain(x) == self.reference_grain)

    def atoms(self, box: Box) -> Atoms:
        closest = self.settings.closest_A
        wide = (box[0] - closest, box[1] - closest, box[2] + closest, box[3] + closest)
        xyz, numbers, grain = np.zeros((0, 3)), np.zeros(0, np.int64), np.zeros(0, np.int64)
        for g in self._grains_in(wide):
            lattice, lattice_numbers = crystal_atoms(
                self.crystals[0], self.grain_deformation[g], self._origin[g], self.tilt, wide
            )
            of_grain = self.grain(lattice[:, :2]) == g
            xyz = np.concatenate([xyz, lattice[of_grain]])
            numbers = np.concatenate([numbers, lattice_numbers[of_grain]])
            grain = np.concatenate([grain, np.full(int(of_grain.sum()), g)])
        # Of two atoms of different grains that are too close one has no room.
        room = np.ones(len(xyz), np.bool_)
        for i, j in cKDTree(xyz).query_pairs(closest) if closest > 0 else ():
            if grain[i] != grain[j]:
                room[i if grain[i] > grain[j] else j] = False
        room &= in_box(xyz, box)
        return xyz[room], numbers[room]

    def _grains_in(self, box: Box) -> NDArray[np.int64]:
        """Grains that may reach into the box: those whose seed is nowhere in it farther than
        another's must be.
        """
        middle = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
        radius = np.hypot(box[2] - box[0], box[3] - box[1]) / 2
        nearest = self._seeds.query(middle)[0]
        return np.sort(
            np.array(self._seeds.query_ball_point(middle, nearest + 2 * radius), np.int64)
        )
