"""Microscope, its nuisances, and the simulation's numerics."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from ccstae.config.base import Settings

Shift = Annotated[float, Field(ge=-20, le=20)]
Stretch = Annotated[float, Field(ge=-1.2, le=1.2)]


class Nuisances(Settings):
    """What a real instrument adds; each is off by default, and written to the truth file when on
    (/nuisance/...).
    """

    descan_px: tuple[tuple[Shift, Shift], tuple[Shift, Shift]] = ((0.0, 0.0), (0.0, 0.0))
    """Drift of the direct beam (x, y) on the detector along a row of the scan, first to last, and
    along a column.
    """
    distortion: tuple[tuple[Stretch, Stretch], tuple[Stretch, Stretch]] = ((1.0, 0.0), (0.0, 1.0))
    """Matrix by which the detector's image is distorted about the direct beam; an elliptical
    distortion is symmetric.
    """
    source_size_A: float = Field(0.0, ge=0, le=20)
    """Standard deviation of the Gaussian, incoherent source on the specimen."""
    dead_px: float = Field(0.0, ge=0, le=0.2)
    """Share of the detector's pixels that count nothing."""
    hot_px: float = Field(0.0, ge=0, le=0.2)
    """Share of the pixels that count `hot_level` more than they should."""
    hot_level: float = Field(1e-3, gt=0, le=1)
    """In incident electrons."""
    seed: int = Field(1, ge=0, lt=2**63)
    """Of where dead and hot pixels lie."""

    @model_validator(mode="after")
    def _keeps_an_image(self) -> Self:
        (a, b), (c, d) = self.distortion
        if not a * d - b * c > 0.1:
            raise ValueError(
                "distortion must have a determinant above 0.1, or the detector's image would be "
                "mirrored or a line"
            )
        return self

    @property
    def drifts(self) -> bool:
        return any(value != 0 for row in self.descan_px for value in row)

    @property
    def distorts(self) -> bool:
        return self.distortion != ((1.0, 0.0), (0.0, 1.0))


class Microscope(Settings):
    """Beam and detector. The detector is square, with the direct beam at the centre of pixel n //
    2.
    """

    energy_keV: float = Field(80.0, ge=10, le=1000)
    semiangle_mrad: float = Field(3.0, gt=0, le=30)
    """Convergence semiangle of the probe-forming aperture."""
    aperture_edge_mrad: float = Field(0.2, gt=0, le=2)
    """Standard deviation of the error-function edge of the aperture's amplitude."""
    pixel_size_inv_A: float = Field(0.013, gt=0, le=0.2)
    detector_px: int = Field(128, ge=32, le=1024, multiple_of=2)
    point_spread_px: float = Field(0.5, ge=0, le=4)
    """Standard deviation of the detector's Gaussian point spread, in pixels."""
    nuisances: Nuisances = Nuisances()


class Simulation(Settings):
    """Numerical settings of the simulator; results must not depend on them (docs/physics.md shows
    how far they do).
    """

    potential_sampling_A: float = Field(0.0625, gt=0, le=0.3)
    window_per_px: int = Field(2, ge=1, le=8)
    """The simulated window is this many times 1 / pixel_size_inv_A wide: so many samples span one
    detector pixel.
    """
    tile_A: float = Field(1100.0, ge=50, le=4000)
    """Edge of the tiles in which a scan is simulated; bounds memory and what a stopped run loses,
    not results.
    """
