"""A coherent lateral heterostructure with a relaxing misfit and round inclusions.

With e the misfit, s(x) a smooth step across the interface and r(x) the relaxation of the lattice
along it,

    u_x = e int s dx,    u_y = e r(x) (y - y0),

so exx steps from 0 to e at the interface, eyy = e r(x) is continuous there (coherency) and relaxes
with distance, and F_yx = e r'(x) (y - y0) is the fan of shear and rotation that compatibility
demands. Inclusions and a ripple add to it. Dislocations on the interface take over what they
relieve of the misfit; scene.py says how the two fields combine.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ccstae.config.scenes import Dislocations, HeterostructureSettings, Inclusion
from ccstae.errors import InputError
from ccstae.specimen.crystal import Crystal
from ccstae.specimen.dislocation import DislocationRow
from ccstae.specimen.ripple import Waves
from ccstae.specimen.scene import Array, Flake, inside, misfit


def smooth_step(x: Array, width: float) -> tuple[Array, Array, Array]:
    """Integral, value and slope of the cubic step 3 t^2 - 2 t^3, t = x / width + 1/2, from 0 to 1
    over `width`.

    A width of zero is the sharp step. Only half the step lies on either side of x = 0; the integral
    is 0 at -width / 2.
    """
    if width == 0:
        return np.maximum(x, 0.0), (x >= 0).astype(float), np.zeros_like(x)
    t = np.clip(x / width + 0.5, 0.0, 1.0)
    beyond = np.maximum(x - width / 2, 0.0)
    return width * (t**3 - t**4 / 2) + beyond, 3 * t**2 - 2 * t**3, 6 * t * (1 - t) / width


class Heterostructure(Flake):
    """See the module's docstring; settings in HeterostructureSettings."""

    settings: HeterostructureSettings

    def __init__(self, settings: HeterostructureSettings, crystals: Sequence[Crystal]):
        super().__init__(settings, crystals)
        if settings.ripple is not None and settings.layers > 1:
            raise InputError(
                f"layers: got {settings.layers} with a ripple, which bends one layer; expected 1"
            )
        self._waves = None if settings.ripple is None else Waves(settings.ripple)
        angles = np.deg2rad(settings.edge_normal_deg + np.arange(settings.edges) * 120)
        self._edge_normals = np.stack([np.cos(angles), np.sin(angles)], -1)
        # exx left and right of the interface; uniform eyy, and what relaxes of it on the right.
        e = misfit(crystals[0], crystals[1])
        self._exx, self._eyy = (0.0, e), (0.0, e)
        if settings.dislocations is not None:
            self.dislocations, relieved = _row(settings, crystals[0], e, settings.dislocations)
            # The row strains the sides by -+ relieved / 2 along it and nu times the opposite
            # across; what is added here leaves the left unstrained, and the right too where the row
            # relieves all of the misfit.
            along, across = relieved / 2, settings.dislocations.poisson_ratio * relieved / 2
            self._exx = (-across, e + across * (1 + e))
            self._eyy = (along, (1 + e) * (1 - along) - (1 + along))
        if not self.reference(self.positions).any():
            raise InputError(
                f"reference_A: {settings.reference_A} holds no position of the scan; expected a "
                f"rectangle x0, y0, x1, y1 inside it"
            )
        if not self.material(self.positions).any():
            raise InputError("scan: the scan leaves the flake: no position lies on it")

    def displacement(self, y: Array) -> Array:
        s = self.settings
        x = y[..., 0] - s.interface_A
        across, _, _ = smooth_step(x, s.interface_width_A)
        _, along, _ = smooth_step(x, s.relaxation_A)
        (left, right), (uniform, relaxing) = self._exx, self._eyy
        u = np.stack(
            [left * x + (right - left) * across, (uniform + relaxing * along) * y[..., 1]], -1
        )
        for inclusion in s.inclusions:
            A, d, t = _inclusion(inclusion, y)
            u = u + (d @ A.T) * (t**3)[..., None]
        return u if self._waves is None else u + self._waves.displacement(y)

    def displacement_gradient(self, y: Array) -> Array:
        s = self.settings
        x = y[..., 0] - s.interface_A
        _, across, _ = smooth_step(x, s.interface_width_A)
        _, along, slope = smooth_step(x, s.relaxation_A)
        (left, right), (uniform, relaxing) = self._exx, self._eyy
        out = np.zeros((*y.shape, 2))
        out[..., 0, 0] = left + (right - left) * across
        out[..., 1, 0] = relaxing * slope * y[..., 1]
        out[..., 1, 1] = uniform + relaxing * along
        for inclusion in s.inclusions:
            A, d, t = _inclusion(inclusion, y)
            taper = (-6 / inclusion.radius_A**2) * (t**2)[..., None] * d  # gradient of t^3
            out = out + (t**3)[..., None, None] * A + (d @ A.T)[..., :, None] * taper[..., None, :]
        return out if self._waves is None else out + self._waves.gradient(y)

    def relief(self, y: Array) -> tuple[Array, Array]:
        return super().relief(y) if self._waves is None else self._waves.relief(y)

    def material_at_reference(self, y: Array) -> NDArray[np.int8]:
        s = self.settings
        label = np.where(y[..., 0] < s.interface_A, 1, 2)
        if s.edge_offset_A is not None:
            beyond = (y - np.array(s.flake_centre_A)) @ self._edge_normals.T > s.edge_offset_A
            label = np.where(beyond.any(-1), 0, label)
        return label.astype(np.int8)

    def interface_distance_A(self, x: Array) -> Array:
        foot = self.to_reference(x)
        foot[..., 0] = self.settings.interface_A
        return np.asarray(x[..., 0] - (foot + self.projected_displacement(foot))[..., 0])

    def reference(self, x: Array) -> NDArray[np.bool_]:
        return inside(self.settings.reference_A, x)


def _row(
    settings: HeterostructureSettings, crystal: Crystal, e: float, row: Dislocations
) -> tuple[DislocationRow, float]:
    """The dislocations of the interface and the strain along it that they relieve, b / spacing."""
    hk = np.array([n for n in product(range(-6, 7), repeat=2) if any(n)])
    vectors = hk @ crystal.cell.T
    x, y = np.abs(vectors).T
    along = vectors[x < 1e-3 * y, 1]
    if len(along) == 0:
        raise InputError(
            f"lattice_deg: no lattice vector lies along the interface (y) at "
            f"{settings.lattice_deg:g}; expected one, as at 90"
        )
    burgers = float(np.abs(along).min()) * (1 if e >= 0 else -1)
    if row.spacing_A is None and abs(e) < 1e-6:
        raise InputError(
            "dislocations.spacing_A: the materials have no misfit to relieve; expected a spacing"
        )
    # Relieved on either side of the mean lattice: (1 + b / 2d) / (1 - b / 2d) = 1 + e.
    spacing = row.spacing_A or burgers * (1 / e + 0.5)
    dislocations = DislocationRow(
        settings.interface_A, row.y_A, spacing, burgers, row.poisson_ratio, row.core_A
    )
    return dislocations, burgers / spacing


def _inclusion(inclusion: Inclusion, X: Array) -> tuple[Array, Array, Array]:
    """A, X - c and t = max(0, 1 - |X - c|^2 / R^2)."""
    A = np.array(
        [
            [inclusion.exx, inclusion.exy - inclusion.rotation],
            [inclusion.exy + inclusion.rotation, inclusion.eyy],
        ]
    )
    d = X - np.array(inclusion.centre_A)
    return A, d, np.maximum(1 - (d**2).sum(-1) / inclusion.radius_A**2, 0.0)
