"""`smooth`: a map averaged over neighbouring positions, after any method.

Averaged are exx, eyy and exy, which do not depend on the branch of its symmetry on which a lattice
was read, and theta, unwrapped modulo that symmetry first (M. A. Herraez et al., Appl. Opt. 41, 7437
(2002)). A position without an answer stays without one, and its neighbours do without it. The same
holds of an answer that the map itself labels as vacuum, where the rim of the probe alone met the
specimen: it stays as it is. After a Gaussian, which is linear, the covariance tells the noise that
is left, and not what the blur takes off the strain. After the others nothing is known of it, and
there is none.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from skimage.restoration import denoise_tv_chambolle, unwrap_phase

from ccstae.config.neighbours import Gauss, Median, Smooth
from ccstae.geometry import components, deformation
from ccstae.io.maps import Map
from ccstae.methods.neighbours import blur

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Of the largest component in its unit: where the iteration for least total variation ends.
_TV_TOLERANCE = 1e-6
_TV_STEPS = 2000
_MAD_TO_STD = 1.482602218505602  # median absolute deviation to standard deviation, normal law


def smoothed(answer: Map, stage: Smooth, symmetry: int) -> Map:
    """The same map averaged over neighbouring positions.

    Args:
        answer: of a method.
        stage: how.
        symmetry: order of the lattice's rotational symmetry.

    Returns:
        The map with other F and covariance, its time added to `seconds`, and without a strain by
        the method's own formula.
    """
    begun = time.perf_counter()
    counted: Mask = np.asarray(np.isfinite(answer.F).all((-1, -2)))
    if answer.label is not None:
        counted &= answer.label != 0
    F, covariance = answer.F, None
    if counted.any():
        field = _field(answer.F, counted, symmetry)
        if isinstance(stage, Gauss):
            field = blurred(field, counted, stage.width_steps)
        elif isinstance(stage, Median):
            field = medians(field, counted, stage.window_steps)
        else:
            field = least_variation(field, counted, stage.weight)
        averaged = deformation(*np.moveaxis(field, -1, 0))
        F = np.where(counted[..., None, None], averaged, answer.F)
    if isinstance(stage, Gauss) and answer.covariance is not None:
        after = blurred_covariance(answer.covariance, counted, stage.width_steps)
        covariance = np.where(counted[..., None, None], after, answer.covariance)
    attributes = dict(answer.attributes)
    attributes["seconds"] = float(attributes["seconds"]) + time.perf_counter() - begun
    attributes["smooth"] = json.dumps(stage.model_dump(mode="json"))
    return replace(answer, F=F, covariance=covariance, own_strain=None, attributes=attributes)


def _field(F: Array, counted: Mask, symmetry: int) -> Array:
    """exx, eyy, exy and theta (Ry, Rx, 4), theta without jumps from branch to branch; positions
    without an answer hold the nearest one.
    """
    nearest = distance_transform_edt(~counted, return_distances=False, return_indices=True)
    field = components(F[tuple(nearest)])
    theta, period = field[..., 3], 2 * np.pi / symmetry
    if min(theta.shape) > 1:
        turns = unwrap_phase(np.angle(np.exp(1j * symmetry * theta)), rng=0)
        field[..., 3] = turns / symmetry
    else:  # a line
        field[..., 3] = np.unwrap(theta.ravel(), period=period).reshape(theta.shape)
    return field


def blurred(field: Array, counted: Mask, width_steps: float) -> Array:
    """Means with Gaussian weights over the positions that count.

    Args:
        field: (Ry, Rx, n); what it holds elsewhere is not used.
        counted: (Ry, Rx), the positions that count.
        width_steps: standard deviation of the Gaussian in steps of the scan.

    Returns:
        The same shape, unchanged elsewhere.
    """
    weights = blur.kernel(width_steps)
    there = counted[..., None]
    total = blur.averaged(there.astype(np.float64), weights)
    sums = blur.averaged(np.where(there, field, 0.0), weights)
    return np.where(there, sums / np.where(there, total, 1.0), field)


def blurred_covariance(covariance: Array, counted: Mask, width_steps: float) -> Array:
    """Covariance (Ry, Rx, 4, 4) of `blurred` components whose positions err independently:
    sum w_i^2 C_i / (sum w_i)^2.
    """
    weights = blur.kernel(width_steps)
    there = (counted & np.isfinite(covariance).all((-1, -2)))[..., None, None]
    total = blur.averaged(there.astype(np.float64), weights)
    sums = blur.averaged(np.where(there, covariance, 0.0), weights**2)
    return np.where(there, sums / np.where(there, total, 1.0) ** 2, np.nan)


def medians(field: Array, counted: Mask, window_steps: int) -> Array:
    """Medians of each component (Ry, Rx, 4) over the answers in a square window."""
    beyond = window_steps // 2
    padded = np.pad(
        np.where(counted[..., None], field, np.nan),
        ((beyond, beyond), (beyond, beyond), (0, 0)),
        constant_values=np.nan,
    )
    windows = np.lib.stride_tricks.sliding_window_view(padded, (window_steps,) * 2, (0, 1))
    out = field.copy()
    out[counted] = np.nanmedian(windows[counted].reshape(counted.sum(), 4, -1), -1)
    return out


def least_variation(field: Array, counted: Mask, weight: float) -> Array:
    """Least total variation of each component (A. Chambolle, J. Math. Imaging Vis. 20, 89 (2004)).

    Args:
        field: (Ry, Rx, 4); positions without an answer hold the nearest one.
        counted: (Ry, Rx), the positions that count.
        weight: what variation costs against departure, in units of the component's noise.
    """
    if weight == 0:
        return field
    unit = _noise(np.where(counted[..., None], field, np.nan))
    flat = denoise_tv_chambolle(
        field / unit, weight=weight, eps=_TV_TOLERANCE, max_num_iter=_TV_STEPS, channel_axis=-1
    )
    return np.asarray(flat * unit)


def _noise(field: Array) -> Array:
    """Standard deviation (4,) of what neighbours do not share, from the differences along rows and
    columns of the scan (Ry, Rx, 4); 1 where there are none.
    """
    differences = np.concatenate([np.diff(field, axis=axis).reshape(-1, 4) for axis in (0, 1)])
    differences = differences[np.isfinite(differences).all(-1)]
    if not len(differences):
        return np.ones(4)
    return np.maximum(_MAD_TO_STD * np.median(np.abs(differences), 0) / np.sqrt(2), 1e-12)
