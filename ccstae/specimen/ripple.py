"""Parallel waves that bend a layer and do not stretch it: the beam sees the layer's projection.

With s the length along the layer in the direction of the waves, the sine of its slope is m sin(k s)
over a whole number of wavelengths and 0 outside. Projection then shortens the layer by its cosine,
and with E the incomplete elliptic integral,

    h = m (1 - cos k s) / k,    u = E(k s, m^2) / k - s,    du/ds = sqrt(1 - m^2 sin^2 k s) - 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ellipeinc

from ccstae.config.scenes import Ripple

Array = NDArray[np.float64]


class Waves:
    """The field of a Ripple."""

    def __init__(self, ripple: Ripple):
        angle = np.deg2rad(ripple.direction_deg)
        self.direction = np.array([np.cos(angle), np.sin(angle)])
        self._k = 2 * np.pi / ripple.wavelength_A
        self._m = self._k * ripple.height_A / 2
        self._end = 2 * np.pi * ripple.periods
        self._start_A = (
            np.array(ripple.centre_A) @ self.direction - ripple.wavelength_A * ripple.periods / 2
        )

    def _phase(self, y: Array) -> Array:
        return np.clip(self._k * (y @ self.direction - self._start_A), 0.0, self._end)

    def displacement(self, y: Array) -> Array:
        """u (..., 2) of the projection, in Angstrom; the middle of the waves stays where it is."""
        phase = self._phase(y)
        whole = ellipeinc(self._end, self._m**2) - self._end  # at the end of the waves
        shortening = (ellipeinc(phase, self._m**2) - phase) - whole / 2
        return (shortening / self._k)[..., None] * self.direction

    def gradient(self, y: Array) -> Array:
        """du/dy (..., 2, 2)."""
        shrink = np.sqrt(1 - (self._m * np.sin(self._phase(y))) ** 2) - 1
        return shrink[..., None, None] * np.outer(self.direction, self.direction)

    def relief(self, y: Array) -> tuple[Array, Array]:
        """Height (...) in Angstrom and the in-plane components (..., 2) of the layer's normal."""
        phase = self._phase(y)
        height = self._m * (1 - np.cos(phase)) / self._k
        normal = -self._m * np.sin(phase)[..., None] * self.direction
        return height, normal
