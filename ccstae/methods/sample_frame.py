"""From the detector's frame, in which methods measure, to the sample's: the detector's ellipse
undone, and the axes turned to those of the scan.

A scan whose calibration tells neither ellipse nor rotation is left as it is, to the bit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.io.calibration import Calibration
from ccstae.io.maps import Map
from ccstae.methods.base import Answer

_Answer = TypeVar("_Answer", Answer, Map)


def in_sample_frame(answer: _Answer, calibration: Calibration) -> _Answer:
    """The answer with its deformations, and their covariances, in the sample's frame.

    Args:
        answer: of a method, in the detector's frame against the lattice as the detector shows it.
        calibration: with the ellipse, and the scan rotation where it is known.

    Returns:
        A F A^-1 in place of F (`geometry.sample_axes`), and covariances that go with it. Pixels
        (`centre_px`, `dictionary`) stay pixels.
    """
    if not changes(calibration):
        return answer
    A = geometry.sample_axes(calibration.distortion, calibration.scan_rotation_deg or 0.0)
    inverse = np.asarray(np.linalg.inv(A), np.float64)

    def carried(
        F: NDArray[np.float64] | None, covariance: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
        if F is not None and covariance is not None:
            covariance = geometry.carried_covariance(covariance, F, A, inverse)
        return None if F is None else A @ F @ inverse, covariance

    new: dict[str, Any] = {}
    for suffix in ("", "_per_pattern"):
        names = (f"F{suffix}", f"covariance{suffix}")
        of_both = carried(*(getattr(answer, name) for name in names))
        new |= dict(zip(names, of_both, strict=True))
    if isinstance(answer, Map) and answer.own_strain is not None:
        own = geometry.deformation(*np.moveaxis(answer.own_strain, -1, 0))
        new["own_strain"] = geometry.components(A @ own @ inverse)
    return replace(answer, **new)


def changes(calibration: Calibration) -> bool:
    """Whether the frames differ."""
    return bool(calibration.scan_rotation_deg) or not np.array_equal(
        calibration.distortion, np.eye(2)
    )


def said_of_frame(calibration: Calibration) -> dict[str, Any]:
    """Attributes of a map: what was undone, and nothing where nothing was."""
    if not changes(calibration):
        return {}
    return {
        "distortion": calibration.distortion.tolist(),
        "scan_rotation_deg": calibration.scan_rotation_deg or 0.0,
    }
