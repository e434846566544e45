"""Microscope, its nuisances, and the simulation's numerics."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ccstae.config.base import Settings

Shift = Annotated[float, Field(ge=-20, le=20)]
Stretch = Annotated[float, Field(ge=-1.2, le=1.2)]


Step = Annotated[int, Field(ge=-20, le=20)]
Error = Annotated[float, Field(ge=-0.2, le=0.2)]


def _off(value: Any) -> Callable[[Any], bool]:
    """Whether a nuisance is off, and then left out of a resolved config."""
    return lambda given: bool(given == value)


class Readout(Settings):
    """What a camera that does not count electrons makes of one: gain x electrons + pedestal +
    noise, rounded to whole numbers from 0 up.
    """

    gain: float = Field(gt=1, le=1000)
    """Units of the camera for one electron."""
    pedestal: float = Field(0.0, ge=0, le=10000)
    """Of every pixel, in units of the camera."""
    noise: float = Field(0.0, ge=0)
    """Standard deviation in units of the camera."""
    converted: bool = True
    """Whether the counts file holds (units - pedestal) / gain, which are electrons, or units."""

    @model_validator(mode="after")
    def _tells_one_electron_from_two(self) -> Self:
        # At five standard deviations from one number of electrons to half way to the next, the
        # units tell the number, and so as much as the electrons do: the bound is that of these.
        if self.noise > 0.1 * self.gain:
            raise ValueError(
                "noise must be at most a tenth of gain, or the bound would not be that of electrons"
            )
        return self


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
    """Of where dead and hot pixels lie, and of the noise of the vacuum probe."""
    distortion_known: bool = Field(False, exclude_if=_off(False))
    """Whether methods are told the lattice as the distorted detector shows it. The truth is then
    the deformation of that lattice.
    """
    precession_mrad: float = Field(0.0, ge=0, le=60, exclude_if=_off(0.0))
    """Half angle of the cone on which the beam precesses; the scan coils bring the pattern back.
    One layer does not feel it.
    """
    halo: float = Field(0.0, ge=0, le=0.9, exclude_if=_off(0.0))
    """Share of the scattered electrons in an amorphous halo, a ring at the radius of the first ring
    of disks.
    """
    dose_ramp: float = Field(1.0, ge=1e-3, le=1e3, exclude_if=_off(1.0))
    """Electrons of a pattern of the last row over those of the first. In between the logarithm is
    linear, and the level's electrons are the geometric mean. The noise-free level has no dose.
    """
    masked: bool = Field(False, exclude_if=_off(False))
    """Whether methods are told the dead pixels, by the counts file's mask."""
    dead_cross_px: int = Field(0, ge=0, le=16, exclude_if=_off(0))
    """Width of a cross of pixels through the middle of the detector that count nothing."""
    beam_stop_px: float = Field(0.0, ge=0, le=100, exclude_if=_off(0.0))
    """Radius of a beam stop round the middle of the detector; its arm, half as wide, comes from the
    first row.
    """
    charge_sharing: float = Field(0.0, ge=0, le=1, exclude_if=_off(0.0))
    """Share of the electrons that count in one of the four neighbouring pixels as well."""
    readout: Readout | None = Field(None, exclude_if=_off(None))
    """A camera that does not count; none: one that counts electrons."""
    probe_electrons: float = Field(math.inf, ge=100, allow_inf_nan=True, exclude_if=_off(math.inf))
    """In the recorded vacuum probe, Poisson distributed; .inf: without noise."""
    probe_shift_px: tuple[Step, Step] = Field((0, 0), exclude_if=_off((0, 0)))
    """How far (x, y) from the beam of the scan the vacuum probe was recorded."""
    probe_halo: float = Field(0.0, ge=0, le=0.9, exclude_if=_off(0.0))
    """Share of the vacuum probe's electrons in a halo, of the form of the diffuse background."""
    pixel_size_error: Error = Field(0.0, exclude_if=_off(0.0))
    """Share by which the pixel size that methods are told is too large."""
    lattice_error: Error = Field(0.0, exclude_if=_off(0.0))
    """Share by which the reciprocal lattice that methods are told is too large."""

    @model_validator(mode="after")
    def _keeps_an_image(self) -> Self:
        (a, b), (c, d) = self.distortion
        if not a * d - b * c > 0.1:
            raise ValueError(
                "distortion must have a determinant above 0.1, or the detector's image would be "
                "mirrored or a line"
            )
        if self.masked and not self.dead_px:
            raise ValueError("masked needs dead_px: there are no dead pixels to be told")
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
