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
    """Relativistic electron wavelength in Angstrom, lambda = hc / sqrt(E (E + 2 m c^2)).

    >>> round(wavelength_A(80.0), 6), round(wavelength_A(200.0), 6)
    (0.041757, 0.025079)
    """
    return float(_HC_KEV_A / np.sqrt(energy_keV * (energy_keV + 2 * _REST_ENERGY_KEV)))


def disk_radius_inv_A(semiangle_mrad: float, energy_keV: float) -> float:
    """Radius of the probe-forming aperture, and so of every diffraction disk, alpha / lambda in
    1/Angstrom.

    >>> round(disk_radius_inv_A(3.0, 80.0), 4)
    0.0718
    """
    return semiangle_mrad * 1e-3 / wavelength_A(energy_keV)


def deformation(exx: ArrayLike, eyy: ArrayLike, exy: ArrayLike, theta: ArrayLike) -> Array:
    """F = (I + e) R(theta) from strain and rotation.

    Args:
        exx, eyy, exy: components of the strain e, numbers or arrays that broadcast together.
        theta: rotation in radians.

    Returns:
        F, shape (..., 2, 2).

    A crystal that is stretched by 1 % along x:

    >>> deformation(0.01, 0.0, 0.0, 0.0)
    array([[1.01, 0.  ],
           [0.  , 1.  ]])
    """
    parts = [np.asarray(part, float) for part in (exx, eyy, exy, theta)]
    exx, eyy, exy, theta = np.broadcast_arrays(*parts)
    stretch = np.stack([np.stack([1 + exx, exy], -1), np.stack([exy, 1 + eyy], -1)], -2)
    return np.asarray(stretch @ rotation_matrix(theta))


def rotation_matrix(theta: ArrayLike) -> Array:
    """R(theta), shape (..., 2, 2): turns x towards y for positive theta (radians).

    >>> (rotation_matrix(np.pi / 6) @ [1.0, 0.0]).round(3)
    array([0.866, 0.5  ])
    """
    theta = np.asarray(theta, float)
    c, s = np.cos(theta), np.sin(theta)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


def polar(F: Array) -> tuple[Array, Array]:
    """Left polar decomposition F = V R of (..., 2, 2).

    In two dimensions theta = atan2(Fyx - Fxy, Fxx + Fyy) exactly, for det F > 0.

    Returns:
        V (..., 2, 2), symmetric, and theta (...), the angle of R in radians.

    A simple shear is half strain and half rotation:

    >>> V, theta = polar(np.array([[1.0, 0.0], [0.002, 1.0]]))
    >>> V.round(3)
    array([[1.   , 0.001],
           [0.001, 1.   ]])
    >>> round(float(theta), 3)
    0.001
    """
    theta = np.arctan2(F[..., 1, 0] - F[..., 0, 1], F[..., 0, 0] + F[..., 1, 1])
    V = F @ np.swapaxes(rotation_matrix(theta), -1, -2)
    return 0.5 * (V + np.swapaxes(V, -1, -2)), theta


def components(F: Array) -> Array:
    """Strain and rotation of F (..., 2, 2); the inverse of `deformation`.

    Returns:
        (exx, eyy, exy, theta), shape (..., 4); theta in radians in (-pi, pi].

    >>> components(deformation(0.02, -0.01, 0.005, 0.3)).round(12)
    array([ 0.02 , -0.01 ,  0.005,  0.3  ])
    """
    V, theta = polar(F)
    return np.stack([V[..., 0, 0] - 1, V[..., 1, 1] - 1, V[..., 0, 1], theta], -1)


def components_jacobian(F: Array) -> Array:
    """d(exx, eyy, exy, theta) / d(Fxx, Fxy, Fyx, Fyy) at F (..., 2, 2), shape (..., 4, 4), exact.

    With F = V R: dtheta = (a da' - b db') from theta = atan2(b, a), b = Fyx - Fxy, a = Fxx + Fyy,
    and dV = dF R^T + F dR^T = (dF + F J^T dtheta) R^T with J the generator of rotations.

    At F = I the shear is half the sum, and the rotation half the difference, of Fxy and Fyx:

    >>> components_jacobian(np.eye(2))[2:] + 0.0
    array([[ 0. ,  0.5,  0.5,  0. ],
           [ 0. , -0.5,  0.5,  0. ]])
    """
    a = F[..., 0, 0] + F[..., 1, 1]
    b = F[..., 1, 0] - F[..., 0, 1]
    n = a * a + b * b
    zero = np.zeros_like(a)
    dtheta = np.stack([-b / n, -a / n, a / n, -b / n], -1)
    Rt = np.swapaxes(rotation_matrix(np.arctan2(b, a)), -1, -2)
    # F J^T R^T: the change of V by a turn of R alone.
    spin = F @ np.array([[0.0, 1.0], [-1.0, 0.0]]) @ Rt
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
    """F^-T of (..., 2, 2), which takes reciprocal lattice vectors along: g' = F^-T g.

    Twice the distance between lattice planes is half the reciprocal vector:

    >>> inverse_transpose(np.diag([2.0, 1.0])) @ [0.5, 0.0]
    array([0.25, 0.  ])
    """
    return np.swapaxes(np.linalg.inv(F), -1, -2)


def deformation_from_reciprocal(G: Array, G0: Array) -> Array:
    """F = (G G0^-1)^-T from reciprocal lattice vectors.

    Args:
        G: measured vectors as columns, shape (..., 2, 2).
        G0: reference vectors as columns in the same unit, shape (2, 2).

    >>> deformation_from_reciprocal(np.diag([0.25, 0.5]), np.diag([0.5, 0.5]))
    array([[2., 0.],
           [0., 1.]])
    """
    return inverse_transpose(G @ np.linalg.inv(G0))


def undistorted(F: Array, distortion: Array) -> Array:
    """F of the specimen from that of its image on a detector that shows g as E g.

    On such a detector a lattice N is seen as E N, and under F as E F^-T N. Against E N that is the
    deformation E^-T F E^T.

    Args:
        F: measured against the lattice as the detector shows it, shape (..., 2, 2).
        distortion: E, shape (2, 2).

    >>> E = np.array([[1.02, 0.0], [0.0, 1 / 1.02]])
    >>> seen = np.linalg.inv(E).T @ rotation_matrix(0.5) @ E.T
    >>> round(float(components(undistorted(seen, E))[0]), 9) + 0.0
    0.0
    """
    return np.asarray(distortion.T @ F @ np.linalg.inv(distortion).T)


def sample_axes(distortion: Array, scan_rotation_deg: float) -> Array:
    """A (2, 2), which takes what is measured along a detector's axes to the sample along the
    scan's: A F A^-1, with A = R^T E^T.

    E^T undoes the detector's ellipse (`undistorted`). R turns the detector's x axis to the scan's,
    and a vector v of the detector has the components R^T v along the scan's axes.

    Args:
        distortion: E, shape (2, 2).
        scan_rotation_deg: angle of the scan's x axis from the detector's, from x towards y.

    What stretches along the detector's y stretches along the x of a scan turned by 90 degrees:

    >>> A = sample_axes(np.eye(2), 90.0)
    >>> components(A @ deformation(0.0, 0.01, 0.0, 0.0) @ np.linalg.inv(A)).round(9) + 0.0
    array([0.01, 0.  , 0.  , 0.  ])
    """
    turn = rotation_matrix(np.deg2rad(scan_rotation_deg))
    return np.asarray(turn.T @ distortion.T)


def carried_covariance(covariance: Array, F: Array, left: Array, right: Array) -> Array:
    """Covariance of the components of left F right, J C J^T, from C of those of F.

    J = D(left F right) (left x right^T) D(F)^-1, D being `components_jacobian` and x the Kronecker
    product, which acts on (Fxx, Fxy, Fyx, Fyy).

    Args:
        covariance: of exx, eyy, exy and theta, shape (..., 4, 4).
        F: shape (..., 2, 2); NaN gives NaN.
        left, right: shape (2, 2), known exactly.

    The variances of exx and eyy change places where the axes are turned by 90 degrees:

    >>> A = rotation_matrix(np.pi / 2)
    >>> C = np.diag([4.0, 1.0, 2.0, 3.0])
    >>> np.diag(carried_covariance(C, np.eye(2), A.T, A)).round(9)
    array([1., 4., 2., 3.])
    """
    product = np.kron(left, right.T)
    J = components_jacobian(left @ F @ right) @ product @ np.linalg.inv(components_jacobian(F))
    return np.asarray(J @ covariance @ np.swapaxes(J, -1, -2))


def deformation_from_real(A: Array, A0: Array) -> Array:
    """F = A A0^-1 from real lattice vectors.

    Args:
        A: measured vectors as columns, shape (..., 2, 2).
        A0: reference vectors as columns in the same unit, shape (2, 2).

    >>> deformation_from_real(np.diag([4.0, 2.0]), np.diag([2.0, 2.0]))
    array([[2., 0.],
           [0., 1.]])
    """
    return A @ np.linalg.inv(A0)


def reciprocal(lattice: Array) -> Array:
    """Reciprocal lattice vectors (columns, 1/Angstrom, no 2 pi) of real lattice vectors (columns,
    Angstrom), shape (..., 2, 2).

    A lattice under F, and its reciprocal lattice under F^-T:

    >>> F, lattice = deformation(0.02, 0.0, 0.01, 0.1), np.array([[3.0, -1.5], [0.0, 2.6]])
    >>> bool(np.allclose(reciprocal(F @ lattice), inverse_transpose(F) @ reciprocal(lattice)))
    True
    """
    return inverse_transpose(lattice)


def wrap(angle: ArrayLike, symmetry: int) -> Array:
    """Angle in radians brought to [-pi/n, pi/n) for an n-fold lattice, n = `symmetry`.

    A hexagonal lattice turned by 59 degrees is one turned by -1 degree:

    >>> round(float(np.rad2deg(wrap(np.deg2rad(59), 6))), 9)
    -1.0
    """
    period = 2 * np.pi / symmetry
    return np.asarray((np.asarray(angle, float) + period / 2) % period - period / 2)


def to_branch(F: Array, reference: Array, symmetry: int) -> Array:
    """F S^k, S the lattice's rotation by 2 pi / n, with the k that brings its rotation nearest to
    that of `reference`.

    F and F S^k map one and the same lattice; strain is untouched.

    Args:
        F: shape (..., 2, 2); NaN stays NaN.
        reference: shape (2, 2) or that of F.
        symmetry: n, the order of the lattice's rotational symmetry.

    >>> turned = deformation(0.01, 0.0, 0.0, np.deg2rad(59))
    >>> exx, eyy, exy, theta = components(to_branch(turned, np.eye(2), 6))
    >>> round(float(exx), 9), round(float(np.rad2deg(theta)), 9)
    (0.01, -1.0)
    """
    turn = polar(F)[1] - polar(reference)[1]
    period = 2 * np.pi / symmetry
    k = np.round(np.nan_to_num(turn) / period)
    return np.asarray(F @ rotation_matrix(-k * period))


def regauge(F: Array, mask: NDArray[np.bool_]) -> Array:
    """F F_ref^-1, with F_ref the elementwise median of F over the reference positions.

    Args:
        F: shape (..., 2, 2); NaN where there is no answer.
        mask: shape (...), the reference positions.

    Returns:
        F in the gauge in which the reference is undeformed; unchanged where the mask holds no
        finite F.

    >>> F = np.stack([2 * np.eye(2), 3 * np.eye(2)])
    >>> regauge(F, np.array([True, False]))[1]
    array([[1.5, 0. ],
           [0. , 1.5]])
    """
    inside = F[mask & np.isfinite(F).all((-1, -2))]
    if len(inside) == 0:
        return F
    return F @ np.linalg.inv(np.median(inside, axis=0))


def scan_positions(shape: tuple[int, int], step_A: float) -> Array:
    """Positions (rows, columns, 2) of the beam (x, y) in Angstrom, centred on the origin, of a scan
    of `shape` (rows along y, columns along x).

    >>> scan_positions((1, 3), 2.0)[0]
    array([[-2.,  0.],
           [ 0.,  0.],
           [ 2.,  0.]])
    """
    rows, columns = shape
    y = (np.arange(rows) - (rows - 1) / 2) * step_A
    x = (np.arange(columns) - (columns - 1) / 2) * step_A
    return np.stack(np.meshgrid(x, y), -1)


def scan_steps(turn: float, ratio: float = 1.0, mirrored: bool = False) -> Array:
    """Steps of a scan along its x and y in the detector's axes, as columns (2, 2), of area 1 or -1.

    Args:
        turn: angle of the scan's x from the detector's, in radians, towards the detector's y.
        ratio: of the step along y to that along x.
        mirrored: whether the scan has the other handedness.

    A scan that is turned by a quarter:

    >>> scan_steps(np.pi / 2).round(9) + 0.0
    array([[ 0., -1.],
           [ 1.,  0.]])
    """
    hand = -1.0 if mirrored else 1.0
    return np.asarray(rotation_matrix(turn) @ np.diag([ratio**-0.5, hand * ratio**0.5]))


def lattice_nodes(G: Array, radius: float, max_index: int = 12) -> NDArray[np.int64]:
    """Nodes of a reciprocal lattice inside a circle.

    Args:
        G: the lattice vectors g1 and g2 as columns, shape (2, 2).
        radius: of the circle, in the unit of G.
        max_index: largest |h| and |k| that are looked at.

    Returns:
        Integer (h, k), shape (n, 2), with |h g1 + k g2| <= radius, sorted by length.

    The direct beam and the four nearest nodes of a square lattice:

    >>> lattice_nodes(np.eye(2), 1.1).tolist()
    [[0, 0], [-1, 0], [0, -1], [0, 1], [1, 0]]
    """
    index = np.arange(-max_index, max_index + 1)
    h, k = np.meshgrid(index, index, indexing="ij")
    hk = np.stack([h.ravel(), k.ravel()], -1)
    length = np.linalg.norm(hk @ G.T, axis=-1)
    inside = length <= radius
    hk, length = hk[inside], length[inside]
    return hk[np.lexsort((hk[:, 1], hk[:, 0], np.round(length, 6)))]
