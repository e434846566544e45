"""A flake in which every component of strain is swept linearly.

    u_x = (a x^2 / 2 + c y^2 / 2),
    u_y = (b y^2 / 2 + c x^2 / 2),
    du/dy = [[a x, c y], [c x, b y]],

so that to first order exx = a x, eyy = b y, exy = c (x + y) / 2 and theta = c (x - y) / 2.
Compatibility allows no freer choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ccstae.config.scenes import RampSettings
from ccstae.specimen.crystal import Crystal
from ccstae.specimen.scene import Array, Flake


class Ramp(Flake):
    """The middle third of the scan, both ways, is the reference: its median is undeformed."""

    def __init__(self, settings: RampSettings, crystals: Sequence[Crystal]):
        super().__init__(settings, crystals)
        self._half = np.maximum(np.abs(self.positions).max((0, 1)), 1e-9)
        self._a, self._b = settings.exx / self._half[0], settings.eyy / self._half[1]
        self._c = 2 * settings.exy / self._half.sum()

    def displacement(self, y: Array) -> Array:
        square = y**2 / 2
        return np.stack(
            [
                self._a * square[..., 0] + self._c * square[..., 1],
                self._b * square[..., 1] + self._c * square[..., 0],
            ],
            -1,
        )

    def displacement_gradient(self, y: Array) -> Array:
        out = np.empty((*y.shape, 2))
        out[..., 0, 0], out[..., 0, 1] = self._a * y[..., 0], self._c * y[..., 1]
        out[..., 1, 0], out[..., 1, 1] = self._c * y[..., 0], self._b * y[..., 1]
        return out

    def material_at_reference(self, y: Array) -> NDArray[np.int8]:
        return np.ones(y.shape[:-1], np.int8)

    def reference(self, x: Array) -> NDArray[np.bool_]:
        return np.asarray((np.abs(x) <= np.maximum(self._half / 3, self.scan.step_A)).all(-1))
