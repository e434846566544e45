"""A Gaussian over the scan."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

# Of the Gaussian's width, where it is cut off: 6e-5 of it lies beyond.
_CUT_OFF = 4.0


def kernel(width_steps: float) -> NDArray[np.float64]:
    """The weights of a Gaussian at whole steps, (2 r + 1,); their sum is 1.

    >>> kernel(0.0)
    array([1.])
    >>> kernel(0.5).round(3)
    array([0.   , 0.107, 0.787, 0.107, 0.   ])
    """
    radius = int(np.ceil(_CUT_OFF * width_steps))
    at = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * np.square(at / max(width_steps, 1e-9)))
    return np.asarray(weights / weights.sum())


def averaged(values: NDArray[Any], weights: NDArray[np.float64]) -> NDArray[Any]:
    """Sums of `values` (Ry, Rx, ...) with weights along both axes of the scan; nothing lies
    beyond it.
    """
    for axis in (0, 1):
        values = correlate1d(values, weights, axis=axis, mode="constant")
    return values
