"""A row of straight edge dislocations: the field of each in an infinite isotropic layer.

With the line at the origin, the Burgers vector b along y, r^2 = x^2 + y^2 and k = 1 / (2 (1 - nu')),

    w_x = b / (2 pi) [ (1 - 2 nu') k / 2 ln r^2 + k (y^2 - x^2) / (2 r^2) ],    w_y = b / (2 pi) [ phi - k x y / r^2 ],

phi the angle round the line, here from the direction y. Source: J. P. Hirth and J. Lothe, Theory of Dislocations (1982),
section 3.4 (Volterra edge dislocation, plane strain), turned by 90 degrees. A free layer is in plane stress: nu' = nu / (1 + nu).

w jumps by b across the line x = 0 below the dislocation, so along b: the two halves are slipped against one another and no
atom is added or removed. Far from an infinite row of spacing d the strain is +- b / (2 d) along it and -nu times that across.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class DislocationRow:
    """Edge dislocations on the line x = x_A of the reference configuration, b along y (positive: the right side is stretched)."""

    def __init__(self, x_A: float, y_A: Array, burgers_A: float, poisson_ratio: float, core_A: float):
        self.lines = np.column_stack([np.full(len(y_A), x_A), y_A])
        self.x_A, self.burgers_A = x_A, burgers_A
        plane_stress = poisson_ratio / (1 + poisson_ratio)
        self._k = 1 / (2 * (1 - plane_stress))
        self._m = (1 - 2 * plane_stress) * self._k / 2
        self._b = burgers_A / (2 * np.pi)
        # Inside this distance from a line the field is held back; it would fold the lattice.
        self._least_A = abs(burgers_A)
        self.core_A = max(core_A, self._least_A)
        # Any unit of length would do; with this one the row moves the middle of the interface little.
        self._unit_A = max(float(np.ptp(y_A)) / (2 * np.e), self._least_A)

    def left(self, y: Array) -> NDArray[np.bool_]:
        """Whether points y lie left of the row."""
        return y[..., 0] < self.x_A

    def core(self, y: Array) -> NDArray[np.bool_]:
        """Whether points y lie in a core, within core_A of a line."""
        out = np.zeros(y.shape[:-1], np.bool_)
        for line in self.lines:
            out |= ((y - line) ** 2).sum(-1) < self.core_A**2
        return out

    def displacement(self, y: Array, left: bool | None = None) -> Array:
        """w (..., 2) at points y; on the branch of one side where `left` is given, continued across the row."""
        on_left = self.left(y) if left is None else np.full(y.shape[:-1], left)
        out = np.zeros_like(y)
        for line in self.lines:
            dx, dy = (y - line)[..., 0], (y - line)[..., 1]
            r2 = np.maximum(dx**2 + dy**2, self._least_A**2)
            phi = np.where(on_left, np.arctan2(-dy, -dx) + np.pi / 2, np.arctan2(dy, dx) - np.pi / 2)
            out[..., 0] += self._b * (self._m * np.log(r2 / self._unit_A**2) + self._k * (dy**2 - dx**2) / (2 * r2))
            out[..., 1] += self._b * (phi - self._k * dx * dy / r2)
        return out

    def gradient(self, y: Array) -> Array:
        """dw/dy (..., 2, 2) at points y; exact outside the cores."""
        out = np.zeros((*y.shape, 2))
        for line in self.lines:
            dx, dy = (y - line)[..., 0], (y - line)[..., 1]
            r2 = np.maximum(dx**2 + dy**2, self._least_A**2)
            k, m = self._k / r2**2, 2 * self._m / r2
            out[..., 0, 0] += self._b * dx * (m - 2 * k * dy**2)
            out[..., 0, 1] += self._b * dy * (m + 2 * k * dx**2)
            out[..., 1, 0] += self._b * dy * (-1 / r2 - k * (dy**2 - dx**2))
            out[..., 1, 1] += self._b * dx * (1 / r2 - k * (dx**2 - dy**2))
        return out

    def place(self, X: Array, left: bool) -> Array:
        """Solve y = X + w(y) on the branch of one side by fixed-point iteration, for lattice points X (n, 2)."""
        y = X + self.displacement(X, left)
        moving = np.arange(len(X))
        for _ in range(200):
            new = X[moving] + self.displacement(y[moving], left)
            still = np.abs(new - y[moving]).max(-1) > 1e-9
            y[moving] = new
            moving = moving[still]
            if len(moving) == 0:
                break
        return y  # the branch's own cut, where some may not settle, lies on the other side, which is not kept
