"""A flake with strain waves of several wavelengths, to see how fine a map shows strain.

The scan is cut into bands of equal height. The first is flat, the reference; each of the others
carries one wave along x. With A the amplitude, k the wave number of a band and W(y) its window,
which goes from 0 to 1 over the band's edge,

    u = sum W A / k (sin(k x), -cos(k x)),

so that inside a band, to first order, exx = A cos(k x) and exy = theta = A / 2 sin(k x): a
longitudinal and a transverse wave, a quarter of a wavelength apart. Compatibility gives a wave
along x no eyy, and its shear as much rotation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ccstae.config.scenes import RipplesSettings
from ccstae.errors import InputError
from ccstae.specimen.crystal import Crystal
from ccstae.specimen.heterostructure import smooth_step
from ccstae.specimen.scene import Array, Flake

_EDGE_SHARE = 3 / 8  # of a band's height, over which one wave gives way to the next
_SCORED_SHARE = 1 / 2  # of a band's height, in its middle: a map that smooths mixes the rest
_MIN_ROWS = 4  # of a band: two of them are scored


class Ripples(Flake):
    """See the module's docstring; settings in RipplesSettings."""

    settings: RipplesSettings

    def __init__(self, settings: RipplesSettings, crystals: Sequence[Crystal]):
        super().__init__(settings, crystals)
        (rows, columns), lengths = settings.scan.shape, settings.wavelengths_steps
        bands = len(lengths) + 1
        if rows < _MIN_ROWS * bands or columns < lengths[-1]:
            raise InputError(
                f"scan.shape: got {rows} rows and {columns} columns; expected at least "
                f"{_MIN_ROWS * bands} rows for {bands} bands, and the longest wavelength, "
                f"{lengths[-1]:g} steps, in a row"
            )
        self._height_A = rows * settings.scan.step_A / bands
        self._top_A = -rows * settings.scan.step_A / 2
        self._edges_A = self._top_A + self._height_A * np.arange(1, bands)
        self._k = 2 * np.pi / (np.array(lengths) * settings.scan.step_A)

    def _windows(self, y: Array) -> tuple[Array, Array]:
        """Window of every wave and its slope along y, (..., waves)."""
        offset = y[..., 1, None] - self._edges_A
        _, begun, slope = smooth_step(offset, _EDGE_SHARE * self._height_A)
        ended, slope_of_end = np.zeros_like(begun), np.zeros_like(slope)
        ended[..., :-1], slope_of_end[..., :-1] = begun[..., 1:], slope[..., 1:]
        return begun - ended, slope - slope_of_end

    def _waves(self, y: Array) -> tuple[Array, Array]:
        """Cosine and sine of every wave, (..., waves)."""
        phase = y[..., 0, None] * self._k
        return np.cos(phase), np.sin(phase)

    def displacement(self, y: Array) -> Array:
        window, _ = self._windows(y)
        cos, sin = self._waves(y)
        u = np.stack([(window * sin / self._k).sum(-1), -(window * cos / self._k).sum(-1)], -1)
        return self.settings.amplitude * u

    def displacement_gradient(self, y: Array) -> Array:
        window, slope = self._windows(y)
        cos, sin = self._waves(y)
        out = np.empty((*y.shape, 2))
        out[..., 0, 0] = (window * cos).sum(-1)
        out[..., 0, 1] = (slope * sin / self._k).sum(-1)
        out[..., 1, 0] = (window * sin).sum(-1)
        out[..., 1, 1] = -(slope * cos / self._k).sum(-1)
        return self.settings.amplitude * out

    def material_at_reference(self, y: Array) -> NDArray[np.int8]:
        return np.ones(y.shape[:-1], np.int8)

    def reference(self, x: Array) -> NDArray[np.bool_]:
        return np.asarray(x[..., 1] < self._edges_A[0] - _EDGE_SHARE * self._height_A / 2)

    def waves(self) -> tuple[Array, NDArray[np.int8]]:
        bands = (self.positions[..., 1] - self._top_A) / self._height_A
        band = np.floor(bands)
        is_scored = np.abs(bands - band - 0.5) < _SCORED_SHARE / 2
        wave = np.where(is_scored, band - 1, -1)  # the first band has none
        return np.array(self.settings.wavelengths_steps), wave.astype(np.int8)
