"""An endless row of straight edge dislocations on a line along y, their Burgers vectors along it,
in an isotropic layer.

One dislocation at the origin, with r^2 = x^2 + y^2, k = 1 / (2 (1 - nu')) and m = (1 - 2 nu') k /
2, has the field

    w_x = b / (2 pi) [ m ln r^2 + k (y^2 - x^2) / (2 r^2) ],
    w_y = b / (2 pi) [ phi - k x y / r^2 ],

phi the angle round it from the direction y: J. P. Hirth and J. Lothe, Theory of Dislocations
(1982), section 3.4 (Volterra edge dislocation, plane strain), turned by 90 degrees. A free layer is
in plane stress: nu' = nu / (1 + nu). Summed over a row of spacing d, with z = y + i x, S = (pi / d)
cot(pi z / d), the sum of 1 / (z - n d), and Q = (pi / d)^2 / sin^2(pi z / d) = -dS / dz,

    w_x = b / (2 pi) [ 2 m ln |sin(pi z / d)| + k x Im S ],
    w_y = b / (2 pi) [ -arg sin(pi z / d) - k x Re S ].

w jumps by whole b across the line: along it, so the two halves are slipped against one another and
no atom is added or removed. A distance d away the strain is +- b / (2 d) along the row and -nu
times that across, and nothing else is left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Of the fixed-point iteration from lattice points to the reference configuration.
_MAX_ITERATIONS = 200
_TOLERANCE_A = 1e-9


class DislocationRow:
    """Edge dislocations at (x_A, y_A + n spacing_A) of the reference configuration; a positive b
    stretches the right side.
    """

    def __init__(
        self,
        x_A: float,
        y_A: float,
        spacing_A: float,
        burgers_A: float,
        poisson_ratio: float,
        core_A: float,
    ):
        self.origin = np.array([x_A, y_A])
        self.spacing_A, self.burgers_A = spacing_A, burgers_A
        plane_stress = poisson_ratio / (1 + poisson_ratio)
        self._k = 1 / (2 * (1 - plane_stress))
        self._m = (1 - 2 * plane_stress) * self._k / 2
        self._b = burgers_A / (2 * np.pi)
        # Nearer to a line than this the field is that at this distance: elasticity ends there, and
        # it would fold the lattice.
        self._min_distance_A = min(abs(burgers_A), spacing_A / 4)
        self.core_A = max(core_A, self._min_distance_A)
        self.circuit_A = np.array([0.0, -burgers_A])
        """What the lattice X = y - w misses of closure round a line, from x towards y."""

    def left(self, y: Array) -> NDArray[np.bool_]:
        """Whether points y lie left of the row."""
        return y[..., 0] < self.origin[0]

    def core(self, y: Array) -> NDArray[np.bool_]:
        """Whether points y lie in a core, within core_A of a line."""
        return np.hypot(*self._from_nearest(y)) < self.core_A

    def lines(self, low_A: float, high_A: float) -> Array:
        """The lines (n, 2) with y from `low_A` to `high_A`."""
        first = np.ceil((low_A - self.origin[1]) / self.spacing_A)
        last = np.floor((high_A - self.origin[1]) / self.spacing_A)
        n = np.arange(first, last + 1)
        return self.origin + np.stack([np.zeros_like(n), n * self.spacing_A], -1)

    def _from_nearest(self, y: Array) -> tuple[Array, Array]:
        """x and y from the nearest line."""
        d = y - self.origin
        return d[..., 0], d[..., 1] - self.spacing_A * np.round(d[..., 1] / self.spacing_A)

    def _sums(
        self, y: Array
    ) -> tuple[Array, Array, NDArray[np.complex128], NDArray[np.complex128]]:
        """x from the row, ln |sin(pi z / d)|, S and Q at points y, held at the least distance from
        a line.
        """
        x, along = self._from_nearest(y)
        r = np.hypot(x, along)
        outwards = np.maximum(self._min_distance_A / np.where(r > 0, r, 1.0), 1.0)
        scale = np.where(r > 0, outwards, 1.0)
        x, along = np.where(r > 0, x * scale, self._min_distance_A), along * scale
        # Both halves alike: E = exp(2 pi i z / d) is small for x > 0, and S and Q are conjugate for
        # x < 0.
        E = np.exp(2j * np.pi * (along + 1j * np.abs(x)) / self.spacing_A)
        S = np.pi / self.spacing_A * 1j * (E + 1) / (E - 1)
        Q = -((2 * np.pi / self.spacing_A) ** 2) * E / (1 - E) ** 2
        logarithm = np.pi * np.abs(x) / self.spacing_A - np.log(2) + np.log(np.abs(1 - E))
        return x, logarithm, np.where(x < 0, S.conj(), S), np.where(x < 0, Q.conj(), Q)

    def _angle(self, y: Array, left: NDArray[np.bool_]) -> Array:
        """-arg sin(pi z / d) on the branch that is continuous on the left, or on the right."""
        d = (y - self.origin) / self.spacing_A
        side = np.where(left, -1.0, 1.0)
        # Continued across the row by a spacing at most, where it is not used but must be finite.
        E = np.exp(2j * np.pi * side * (d[..., 1] + 1j * side * np.maximum(side * d[..., 0], -1.0)))
        return side * (np.pi * d[..., 1] - np.pi / 2) - np.angle(1 - E)

    def displacement(self, y: Array, left: bool | None = None) -> Array:
        """w (..., 2) at points y; on the branch of one side where `left` is given, continued across
        the row.
        """
        x, logarithm, S, _ = self._sums(y)
        angle = self._angle(y, self.left(y) if left is None else np.full(y.shape[:-1], left))
        return self._b * np.stack(
            [2 * self._m * logarithm + self._k * x * S.imag, angle - self._k * x * S.real], -1
        )

    def gradient(self, y: Array) -> Array:
        """dw/dy (..., 2, 2) at points y; exact outside the least distance."""
        x, _, S, Q = self._sums(y)
        k, m = self._k, self._m
        out = np.empty((*y.shape, 2))
        out[..., 0, 0] = (k - 2 * m) * S.imag - k * x * Q.real
        out[..., 0, 1] = 2 * m * S.real - k * x * Q.imag
        out[..., 1, 0] = -(1 + k) * S.real - k * x * Q.imag
        out[..., 1, 1] = -S.imag + k * x * Q.real
        return self._b * out

    def place(self, X: Array, left: bool) -> Array:
        """Solve y = X + w(y) on the branch of one side by fixed-point iteration, for lattice points
        X (n, 2).
        """
        y = X + self.displacement(X, left)
        moving = np.arange(len(X))
        for _ in range(_MAX_ITERATIONS):
            new = X[moving] + self.displacement(y[moving], left)
            still = np.abs(new - y[moving]).max(-1) > _TOLERANCE_A
            y[moving] = new
            moving = moving[still]
            if len(moving) == 0:
                break
        return y  # what does not settle lies in a core, or on the other side, and is left out
