"""A coherent lateral heterostructure with a relaxing misfit and round regions of tension, shear and rotation.

With e the misfit, s(x) a smooth step across the interface and r(x) the relaxation of the lattice along it,

    u_x = e int s dx,    u_y = e r(x) (y - y0),

so exx steps from 0 to e at the interface, eyy = e r(x) is continuous there (coherency) and relaxes with distance,
and F_yx = e r'(x) (y - y0) is the fan of shear and rotation that compatibility demands. Inclusions add to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ccstae.crystal import Crystal
from ccstae.errors import InputError
from ccstae.scenes.base import Array, Flake, misfit, scan_positions
from ccstae.settings.scene import HeterostructureSettings, Inclusion


def smooth_step(x: Array, width: float) -> tuple[Array, Array, Array]:
    """Integral, value and slope of the cubic step 3 t^2 - 2 t^3, t = x / width + 1/2, from 0 to 1 over `width`.

    A width of zero is the sharp step. Only half the step lies on either side of x = 0; the integral is 0 at -width / 2.
    """
    if width == 0:
        return np.maximum(x, 0.0), (x >= 0).astype(float), np.zeros_like(x)
    t = np.clip(x / width + 0.5, 0.0, 1.0)
    beyond = np.maximum(x - width / 2, 0.0)
    return width * (t**3 - t**4 / 2) + beyond, 3 * t**2 - 2 * t**3, 6 * t * (1 - t) / width


class Heterostructure(Flake):
    """See the module's docstring; settings in HeterostructureSettings."""

    def __init__(self, settings: HeterostructureSettings, crystals: Sequence[Crystal]):
        super().__init__(settings, crystals)
        self.settings = settings
        self.misfit = misfit(crystals[0], crystals[1])
        self.interior_gradient_per_A = settings.interior_gradient_per_A
        angle = np.deg2rad(settings.edge_normal_deg)
        self.edge_normal = np.array([np.cos(angle), np.sin(angle)])
        positions = scan_positions(settings.scan)
        if not self.reference(positions).any():
            raise InputError(f"reference_A: {settings.reference_A} holds no position of the scan; expected a rectangle x0, y0, x1, y1 inside it")
        if not self.material(positions).any():
            raise InputError("scan: the scan leaves the flake: no position lies on it")

    def displacement(self, X: Array) -> Array:
        s = self.settings
        across, _, _ = smooth_step(X[..., 0] - s.interface_A, s.interface_width_A)
        _, along, _ = smooth_step(X[..., 0] - s.interface_A, s.relaxation_A)
        u = self.misfit * np.stack([across, along * X[..., 1]], -1)
        for inclusion in s.inclusions:
            A, d, t = _inclusion(inclusion, X)
            u = u + (d @ A.T) * (t**3)[..., None]
        return u

    def displacement_gradient(self, X: Array) -> Array:
        s = self.settings
        _, across, _ = smooth_step(X[..., 0] - s.interface_A, s.interface_width_A)
        _, along, slope = smooth_step(X[..., 0] - s.interface_A, s.relaxation_A)
        zero = np.zeros_like(across)
        out = self.misfit * np.stack([np.stack([across, zero], -1), np.stack([slope * X[..., 1], along], -1)], -2)
        for inclusion in s.inclusions:
            A, d, t = _inclusion(inclusion, X)
            taper = (-6 / inclusion.radius_A**2) * (t**2)[..., None] * d  # gradient of t^3
            out = out + (t**3)[..., None, None] * A + (d @ A.T)[..., :, None] * taper[..., None, :]
        return out

    def material_at_reference(self, X: Array) -> NDArray[np.int8]:
        label = np.where(X[..., 0] < self.settings.interface_A, 1, 2)
        if self.settings.edge_offset_A is not None:
            label = np.where(X @ self.edge_normal > self.settings.edge_offset_A, 0, label)
        return label.astype(np.int8)

    def reference(self, x: Array) -> NDArray[np.bool_]:
        x0, y0, x1, y1 = self.settings.reference_A
        return (x[..., 0] >= x0) & (x[..., 0] <= x1) & (x[..., 1] >= y0) & (x[..., 1] <= y1)


def _inclusion(inclusion: Inclusion, X: Array) -> tuple[Array, Array, Array]:
    """A, X - c and t = max(0, 1 - |X - c|^2 / R^2)."""
    A = np.array([[inclusion.exx, inclusion.exy - inclusion.rotation], [inclusion.exy + inclusion.rotation, inclusion.eyy]])
    d = X - np.array(inclusion.centre_A)
    return A, d, np.maximum(1 - (d**2).sum(-1) / inclusion.radius_A**2, 0.0)
