"""A specimen whose normal leans from the beam: what the beam sees is the projection of its planes,
each shifted by its height.

A specimen turned by the angle t so that its normal leans towards the unit vector d of the plane has
a point (x, z) at

    x' = M x + z sin t d,    M = I - (1 - cos t) d d^T,    so that    F' = M F + sin t d (dz/dy)^T.

Heights along the beam then differ across the plane by x . d sin t. How a wave spreads over that is
left out: it would move disks by lambda g^2 sin t / 2, which is 0.007 px of the default detector at
10 mrad and the second ring, to the same side for g and -g.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Tilt:
    """The tilt of a specimen by (x, y) mrad."""

    def __init__(self, tilt_mrad: tuple[float, float]):
        size = np.hypot(*tilt_mrad)
        angle = 1e-3 * size
        towards = np.array(tilt_mrad) / (size or 1.0)
        self.none = size == 0
        self.lean = np.sin(angle) * towards
        """Shift (2,) with height."""
        self.M = np.eye(2) - (1 - np.cos(angle)) * np.outer(towards, towards)

    def project(self, x: Array, height: Array) -> Array:
        """Where the beam sees points x (..., 2) at heights (...) above the specimen's middle."""
        return x if self.none else x @ self.M.T + height[..., None] * self.lean

    def deform(self, F: Array, slope: Array | None = None) -> Array:
        """F (..., 2, 2) as the beam sees it; `slope` (..., 2) is the gradient of the height."""
        if self.none:
            return F
        projected = self.M @ F
        return projected if slope is None else projected + self.lean[:, None] * slope[..., None, :]
