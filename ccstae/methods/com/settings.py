"""What can be set of `com`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ccstae.config.methods import MethodSettings


class ComSettings(MethodSettings):
    """Centre of mass of each disk in a round window that follows the fitted lattice."""

    window_radii: float = Field(1.4, ge=1, le=2.5)
    """Window radius over the disk radius."""
    iterations: int = Field(4, ge=1, le=50)
    """How often windows are placed anew on the fitted lattice."""
    background: Literal["none", "ring", "median", "radial"] = "radial"
    """What is subtracted before the centre of mass: nothing, the mean or the median of a 2 px ring
    round the window, or the mean between the disks at the same distance from the direct beam.
    """
    threshold: float = Field(0.0, ge=0, lt=1)
    """Pixels below this fraction of their window's maximum are set to zero."""
    weights: Literal["intensity", "information"] = "intensity"
    """Weights of the lattice fit: mass, or mass times that of its ring over the Poisson variance of
    the window's first moment.
    """
    reject_outliers: bool = False
    """Leave out disks beyond 3.5 robust standard deviations of the fit."""


# Values that `tune: true` tries, beside the defaults.
TRIED: dict[str, list[Any]] = {
    "window_radii": [1.0, 1.2, 1.4, 1.7],
    "background": ["none", "ring", "median", "radial"],
    "threshold": [0.0, 0.1, 0.3],
    "weights": ["intensity", "information"],
    "reject_outliers": [False, True],
    "iterations": [2, 4, 8],
}
