"""Microscope, simulation and materials."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from ccstae.config.base import Settings

Shift = Annotated[float, Field(ge=-20, le=20)]
Stretch = Annotated[float, Field(ge=-1.2, le=1.2)]
Element = Annotated[str, StringConstraints(pattern="^[A-Z][a-z]?$")]


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


class Material(Settings):
    """A crystal seen along its zone axis: a prototype with species and lattice parameters, or a
    structure file.
    """

    prototype: Literal["mx2-2h", "graphene", "hbn", "square"] | None = None
    species: tuple[Element, ...] = ()
    a_A: float | None = Field(None, gt=0.5, le=50)
    """In-plane lattice parameter."""
    thickness_A: float = Field(0.0, ge=0, le=50)
    """Distance of the outer atomic planes (X-X in an MX2 layer)."""
    layer_distance_A: float | None = Field(None, gt=0, le=50)
    """From one layer to the next, where a scene has several; a structure file has its own: one
    repeat along the zone axis.
    """
    structure: Path | None = None
    """Any structure file that ASE reads; `zone_axis` then lies along the beam."""
    zone_axis: tuple[int, int, int] = (0, 0, 1)
    thermal_A: dict[Element, Annotated[float, Field(ge=0, le=0.5)]] = Field({})
    """Root mean square displacement of an element along one axis, sqrt(B / 8) / pi of the
    Debye-Waller factor B; none: atoms at rest.
    """
    source: str = ""
    """Where the numbers come from."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.prototype is None) == (self.structure is None):
            raise ValueError("give exactly one of prototype and structure")
        if self.prototype is not None:
            needed = {"mx2-2h": 2, "graphene": 1, "hbn": 2, "square": 1}[self.prototype]
            if len(self.species) != needed:
                raise ValueError(
                    f"prototype {self.prototype} takes {needed} species, got {len(self.species)}"
                )
            if self.a_A is None:
                raise ValueError(
                    f"prototype {self.prototype} needs a_A, the in-plane lattice parameter in "
                    f"Angstrom"
                )
            if self.layer_distance_A is not None and self.layer_distance_A <= self.thickness_A:
                raise ValueError(
                    "layer_distance_A must be more than thickness_A, or layers would overlap"
                )
        elif self.layer_distance_A is not None:
            raise ValueError(
                "give no layer_distance_A with a structure: it is one repeat along the zone axis"
            )
        return self
