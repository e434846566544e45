"""What can be set of `cepstral`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ccstae.config.methods import MethodSettings


class CepstralSettings(MethodSettings):
    """Peaks of the exit-wave power cepstrum, the Fourier transform of a pattern's logarithm."""

    offset_electrons: float = Field(0.1, gt=0, le=1e12)
    """Added to the counts of every pixel before the logarithm."""
    background: Literal["none", "radial"] = "radial"
    """What is taken off the logarithm: nothing, or the direct beam and the mean between the disks
    at the same distance from it.
    """
    longest: float = Field(2.1, ge=1, le=6)
    """Length of the longest lattice vectors looked at over that of the shortest."""
    upsample: int = Field(16, ge=4, le=128)
    """Grid points per width of a peak."""


# Values that `tune: true` tries, beside the defaults.
TRIED: dict[str, list[Any]] = {
    "offset_electrons": [0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
    "background": ["none", "radial"],
    "longest": [1.1, 1.8, 2.1, 2.7],
}
