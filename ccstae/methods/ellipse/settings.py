"""What can be set of `ellipse`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ccstae.config.methods import MethodSettings


class EllipseSettings(MethodSettings):
    """Ellipses through the twelve nearest disks, as is usual for two-dimensional materials."""

    window_radii: float = Field(1.4, ge=1, le=2.5)
    """Window radius over the disk radius, for the centre of mass of each disk."""
    iterations: int = Field(4, ge=1, le=50)
    """How often windows are placed anew."""
    background: Literal["none", "ring", "median", "radial"] = "radial"
    """What is subtracted before the centre of mass, as in `com`."""
    weights: Literal["none", "intensity"] = "intensity"
    """Weights of the disks: alike, or their intensity."""


# Values that `tune: true` tries, beside the defaults.
TRIED: dict[str, list[Any]] = {
    "window_radii": [1.0, 1.2, 1.4, 1.7],
    "background": ["none", "ring", "median", "radial"],
    "weights": ["none", "intensity"],
}
