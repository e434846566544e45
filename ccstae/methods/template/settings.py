"""What can be set of `template`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ccstae.config.methods import MethodSettings


class TemplateSettings(MethodSettings):
    """Cross-correlation with a probe template, as in py4DSTEM."""

    kernel: Literal["flat", "gaussian", "sigmoid"] = "sigmoid"
    """The trench round the probe: none, a Gaussian under it, or an annulus with soft edges. There
    is none where the edge of the next disk is nearer than 2.7 radii.
    """
    trench_radii: float = Field(2.0, gt=1, le=6)
    """Outer radius of the trench over the disk radius."""
    smoothing_px: float = Field(0.0, ge=0, le=10)
    """Standard deviation of the Gaussian that smooths the correlation."""
    correlation_power: float = Field(1.0, ge=0, le=1)
    """1 cross-correlation, 0 phase correlation, between them hybrid; below 1 without the direct
    beam.
    """
    subpixel: Literal["none", "parabolic", "dft"] = "dft"
    upsample: int = Field(4, ge=2, le=128)
    """Grid points per pixel of the upsampled DFT, between which a parabola finds the maximum: 16
    gives the same positions.
    """
    search: Literal["predicted", "free"] = "predicted"
    """Peaks near predicted sites, or the highest anywhere, indexed afterwards."""
    search_px: float = Field(4.0, gt=0.5, le=50)
    """Peaks count when they lie this close to the predicted site; half as much after each fit, down
    to 1.5 px.
    """
    most_peaks: int = Field(70, ge=4, le=1000)
    """How many peaks a free search keeps."""
    iterations: int = Field(2, ge=1, le=10)
    """Rounds of peaks and lattice fit; each predicts the sites of the next."""
    weights: Literal["intensity", "information", "none"] = "information"
    """Weights of the lattice fit: peak height, height times that of its ring over the Poisson
    variance of its slope, or none.
    """
    reject_outliers: bool = False
    """Leave out peaks beyond 3.5 robust standard deviations of the fit."""


# Values that `tune: true` tries, beside the defaults.
TRIED: dict[str, list[Any]] = {
    "kernel": ["flat", "gaussian", "sigmoid"],
    "trench_radii": [1.5, 2.0, 2.5, 3.0, 4.0],
    "smoothing_px": [0.0, 0.7, 1.5],
    "correlation_power": [0.8, 0.9, 1.0],
    "weights": ["none", "intensity", "information"],
    "search_px": [2.0, 4.0, 6.0],
    "reject_outliers": [False, True],
}
