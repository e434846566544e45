"""Deformation, strain, rotation, lattices and gauge: the only module that knows a convention.

Scan arrays are (Ry, Rx) and patterns (Qy, Qx), rows first; x runs along the last axis. Vectors and
matrices have their components in (x, y) order. A displacement u(X) maps a reference point X to
x = X + u(X); the deformation gradient is F = I + du/dX.

* Reciprocal lattice vectors transform as g' = F^-T g.
* F = V R (left polar decomposition). Strain is V - I: exx, eyy and exy (tensor shear, not
  engineering shear).
* theta is the angle of R in radians, positive from x towards y; two angles are compared modulo the
  rotational symmetry of the lattice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

COMPONENTS = ("exx", "eyy", "exy", "theta")

# Electron rest energy (keV) and hc (keV Angstrom): CODATA 2018.
_REST_ENERGY_KEV = 510.99895
_HC_KEV_A = 12.398419843


def wavelength_A(energy_keV: float) -> float:
    """Relativistic electron wavelength in Angstrom, lambda = hc / sqrt(E (E + 2 m c^2))."""
    return float(_HC_KEV_A / np.sqrt(energy_keV * (energy_keV + 2 * _REST_ENERGY_KEV)))


def deformation(exx: ArrayLike, eyy: ArrayLike, exy: ArrayLike, theta: ArrayLike) -> Array:
    """F = (I + e) R(theta), shape (..., 2, 2), from strain components and the rotation in
    radians."""
    exx, eyy, exy, theta = np.broadcast_arrays(
        *(np.asarray(a, float) for a in (exx, eyy, exy, theta))
    )
    stretch = np.stack([np.stack([1 + exx, exy], -1), np.stack([exy, 1 + eyy], -1)], -2)
    return np.asarray(stretch @ rotation_matrix(theta))


def rotation_matrix(theta: ArrayLike) -> Array:
    """R(theta), shape (..., 2, 2): turns x towards y for positive theta (radians)."""
    theta = np.asarray(theta, float)
    c, s = np.cos(theta), np.sin(theta)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


def polar(F: Array) -> tuple[Array, Array]:
    """Left polar decomposition F = V R of (..., 2, 2): returns V and the angle of R in radians.

    In two dimensions theta = atan2(Fyx - Fxy, Fxx + Fyy) exactly, for det F > 0.
    """
    theta = np.arctan2(F[..., 1, 0] - F[..., 0, 1], F[..., 0, 0] + F[..., 1, 1])
    V = F @ np.swapaxes(rotation_matrix(theta), -1, -2)
    return 0.5 * (V + np.swapaxes(V, -1, -2)), theta


def components(F: Array) -> Array:
    """(exx, eyy, exy, theta) of F (..., 2, 2), shape (..., 4); theta in radians in (-pi, pi]."""
    V, theta = polar(F)
    return np.stack([V[..., 0, 0] - 1, V[..., 1, 1] - 1, V[..., 0, 1], theta], -1)


def components_jacobian(F: Array) -> Array:
    """d(exx, eyy, exy, theta) / d(Fxx, Fxy, Fyx, Fyy), shape (..., 4, 4), exact.

    With F = V R: dtheta = (a da' - b db') from theta = atan2(b, a), b = Fyx - Fxy, a = Fxx + Fyy,
    and dV = dF R^T + F dR^T = (dF + F J^T dtheta) R^T with J the generator of rotations.
    """
    a = F[..., 0, 0] + F[..., 1, 1]
    b = F[..., 1, 0] - F[..., 0, 1]
    n = a * a + b * b
    zero = np.zeros_like(a)
    dtheta = np.stack([-b / n, -a / n, a / n, -b / n], -1)
    Rt = np.swapaxes(rotation_matrix(np.arctan2(b, a)), -1, -2)
    spin = (
        F @ np.array([[0.0, 1.0], [-1.0, 0.0]]) @ Rt
    )  # F J^T R^T, the change of V by a turn of R alone
    out = np.stack([zero, zero, zero, zero], -1)[..., None, :].repeat(4, -2)
    for k, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        dV = np.zeros_like(F)
        dV[..., i, :] = Rt[..., j, :]
        dV = dV + spin * dtheta[..., k, None, None]
        out[..., 0, k] = dV[..., 0, 0]
        out[..., 1, k] = dV[..., 1, 1]
        out[..., 2, k] = 0.5 * (dV[..., 0, 1] + dV[..., 1, 0])
        out[..., 3, k] = dtheta[..., k]
    return out


def inverse_transpose(F: Array) -> Array:
    """F^-T of (..., 2, 2)."""
    return np.swapaxes(np.linalg.inv(F), -1, -2)


def deformation_from_reciprocal(G: Array, G0: Array) -> Array:
    """F = (G G0^-1)^-T from measured and reference reciprocal vectors (columns), shapes (..., 2, 2)
    and (2, 2).
    """
    return inverse_transpose(G @ np.linalg.inv(G0))


def deformation_from_real(A: Array, A0: Array) -> Array:
    """F = A A0^-1 from measured and reference real lattice vectors (columns), shapes (..., 2, 2)
    and (2, 2).
    """
    return A @ np.linalg.inv(A0)


def reciprocal(lattice: Array) -> Array:
    """Reciprocal lattice vectors (columns, 1/Angstrom, no 2 pi) of real lattice vectors (columns,
    Angstrom).
    """
    return inverse_transpose(lattice)


def wrap(angle: ArrayLike, symmetry: int) -> Array:
    """Angle in radians brought to [-pi/n, pi/n) for an n-fold lattice."""
    period = 2 * np.pi / symmetry
    return np.asarray((np.asarray(angle, float) + period / 2) % period - period / 2)


def to_branch(F: Array, reference: Array, symmetry: int) -> Array:
    """F S^k, S the lattice's rotation by 2 pi / n, with the k that brings its rotation nearest to
    that of `reference`.

    F and F S^k map one and the same lattice; strain is untouched.
    """
    turn = polar(F)[1] - polar(reference)[1]
    period = 2 * np.pi / symmetry
    k = np.round(np.nan_to_num(turn) / period)
    return np.asarray(F @ rotation_matrix(-k * period))


def regauge(F: Array, mask: NDArray[np.bool_]) -> Array:
    """F F_ref^-1 with F_ref the elementwise median of F over `mask`; unchanged where the mask holds
    no finite F.
    """
    inside = F[mask & np.isfinite(F).all((-1, -2))]
    if len(inside) == 0:
        return F
    return F @ np.linalg.inv(np.median(inside, axis=0))


def lattice_nodes(G: Array, radius: float, count: int = 12) -> NDArray[np.int64]:
    """Integer (h, k), shape (n, 2), with |h g1 + k g2| <= radius; columns of G are g1 and g2.
    Sorted by length.
    """
    h, k = np.meshgrid(np.arange(-count, count + 1), np.arange(-count, count + 1), indexing="ij")
    hk = np.stack([h.ravel(), k.ravel()], -1)
    length = np.linalg.norm(hk @ G.T, axis=-1)
    keep = length <= radius
    return hk[keep][np.lexsort((hk[keep][:, 1], hk[keep][:, 0], np.round(length[keep], 6)))]
