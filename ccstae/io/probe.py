"""The vacuum probe of a counts file, whatever its unit and wherever it was recorded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from ccstae.errors import InputError
from ccstae.io.bad_pixels import EMPAD_ROWS, EMPAD_SHAPE
from ccstae.io.beside import HOT_RATIO, Mask, brightness_beside, filled
from ccstae.io.silent_pixels import MIN_HIDDEN_PIXELS

# A sum nearer to 1 than this is 1 to the rounding of float32, and stays as it is.
SUM_TOLERANCE = 1e-4
# Noise of readout below 0 is not stronger than this share of the probe; more is a wrong dark
# reference, or no probe.
MAX_NEGATIVE_SHARE = 0.25
EVEN_EDGE_PX = 0.35  # softness of a disk that nobody recorded
MAX_EXPONENT = 700.0  # that float64 takes
# Soft edge of the disk, pixels, and the ring outside it that tells what lies under the disk.
EDGE_PX, RING_PX = 2.5, 2.0
# A larger share of the electrons beyond the edge is no part of the probe: a pedestal, or a specimen
# in the beam. The tails of a detector's point spread hold less.
MAX_SHARE_BEYOND = 0.05
# In a probe of which this disk is but a part, the ring is about as bright.
MAX_RING_SHARE = 0.25


def even_disk(shape: tuple[int, ...], radius_px: float) -> NDArray[np.float64]:
    """What stands for a probe that nobody recorded (Qy, Qx): a disk on the middle pixel, of unit
    sum, with an edge of `EVEN_EDGE_PX`.
    """
    y, x = np.indices(shape)
    away = np.hypot(x - shape[1] // 2, y - shape[0] // 2) - radius_px
    disk = 1 / (1 + np.exp((away / EVEN_EDGE_PX).clip(max=MAX_EXPONENT)))
    return np.asarray(disk / disk.sum())


def vacuum_probe(
    stored: NDArray[Any], good: Mask, radius_px: float, where: str
) -> NDArray[np.float32]:
    """The probe as methods take it: of unit sum, without what is no part of it.

    Bad pixels that read nothing, or too much, are filled from the good ones near by. What surrounds
    the disk, a pedestal or the halo of a specimen, is taken off, where there is much of it or
    readings lie below 0.

    Args:
        stored: numbers in any unit, (Qy, Qx).
        good: where a pixel tells something, (Qy, Qx).
        radius_px: of a disk.
        where: names the file in messages.

    Raises:
        InputError: where it holds NaN or infinities, numbers far below 0, or only 0.
    """
    probe = stored.astype(np.float64)
    finite = np.isfinite(probe)
    if probe.shape == EMPAD_SHAPE:
        finite[EMPAD_ROWS:] = False
    beside = brightness_beside(np.where(finite, probe, 0), ~(good & finite))
    # A region that reads something is not dead: a stop, say, was out of the beam for the probe.
    region, number = scipy.ndimage.label(~good)
    index = np.arange(number + 1)
    read = np.asarray(scipy.ndimage.maximum(np.where(finite, probe, 0), region, index))
    few = np.bincount(region.ravel()) < MIN_HIDDEN_PIXELS
    too_much = few[region] & (probe / HOT_RATIO > beside)
    silent = ~good & (~finite | (read[region] == 0) | too_much)
    probe = filled(np.where(silent, 0, probe), ~silent)
    if not np.isfinite(probe).all():
        raise InputError(f"{where}: /probe holds NaN or infinities; expected finite numbers")
    if probe.min() < -MAX_NEGATIVE_SHARE * probe.max() or probe.max() <= 0:
        raise InputError(
            f"{where}: /probe holds negative numbers, or only 0; expected the electrons of the "
            f"vacuum probe"
        )
    probe = _disk_alone(probe / probe.max(), radius_px)
    share = (probe / probe.sum()).astype(np.float32)
    # Where nothing was changed, neither are the bytes.
    as_stored = stored.dtype == np.float32 and np.allclose(share, stored, SUM_TOLERANCE, 0)
    return stored if as_stored else share


def _disk_alone(probe: NDArray[np.float64], radius_px: float) -> NDArray[np.float64]:
    """The probe (Qy, Qx) as it is, or its disk alone where much lies beside it or below 0."""
    y, x = np.indices(probe.shape)
    side = 2 * round((radius_px * math.sqrt(math.pi) - 1) / 2) + 1
    sums = scipy.ndimage.uniform_filter(probe, side, mode="constant")
    at_y, at_x = (float(place) for place in np.unravel_index(sums.argmax(), sums.shape))
    for _ in range(3):
        weight = probe.clip(0) * (1.5 * radius_px + 0.5 - np.hypot(y - at_y, x - at_x)).clip(0, 1)
        mass = max(weight.sum(), np.finfo(float).tiny)
        at_y, at_x = (weight * y).sum() / mass, (weight * x).sum() / mass
    away = np.hypot(y - at_y, x - at_x) - radius_px
    beyond, ring = away > EDGE_PX, (away > EDGE_PX) & (away <= EDGE_PX + RING_PX)
    level = probe[ring].mean() if ring.any() else 0.0
    much = probe[beyond].sum() > MAX_SHARE_BEYOND * probe.sum() or probe.min() < 0
    if not much or level > MAX_RING_SHARE * probe[away <= 0].mean():
        return probe.clip(0)
    return np.where(beyond, 0, probe - level).clip(0)
