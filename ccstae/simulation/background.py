"""The diffuse background of the published CC-ST-AE work: a Lorentzian round the direct beam."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_HALF_WIDTH = 0.01  # cycles per pixel, half width of the published background


@lru_cache(maxsize=4)
def background(shape: tuple[int, int]) -> Array:
    """B(q) = 1 / (1 + |q|^2 / 0.01^2), normalised to sum 1, (Qy, Qx); q in cycles per pixel of the
    FFT grid, zero at n // 2.

    Source: the public code of the CC-ST-AE authors (Auto4DSTEM).
    """
    return _lorentzian(shape, np.zeros(2))


def background_round(shape: tuple[int, int], drift_px: Array) -> Array:
    """The background (..., Qy, Qx) round a beam that has moved by (x, y) pixels (..., 2)."""
    return _lorentzian(shape, drift_px)


def _lorentzian(shape: tuple[int, int], drift_px: Array) -> Array:
    qy = np.fft.fftshift(np.fft.fftfreq(shape[0])) - drift_px[..., 1, None] / shape[0]
    qx = np.fft.fftshift(np.fft.fftfreq(shape[1])) - drift_px[..., 0, None] / shape[1]
    profile = 1 / (1 + (qy[..., :, None] ** 2 + qx[..., None, :] ** 2) / _HALF_WIDTH**2)
    return np.asarray(profile / profile.sum((-1, -2), keepdims=True))
