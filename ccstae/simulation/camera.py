"""What lies between the electrons of a pattern and the numbers of a counts file: dose, halo, pixels
that see nothing, charge that is shared, and readout; and what methods are told of the instrument.

With I the clean pattern, R a halo on the first ring, B the background round the beam, all of sum 1,
d the dose of a position, T a mask of the pixels that see and H what hot ones count too much,
electrons count as

    Poisson(T d N ((1 - w) ((1 - h) I + h R) + w B + H)),

and the bound of a position is that of these. Charge sharing and readout come after them. Charge
that is shared counts an electron in a second pixel, from which no more can be told than from the
electrons themselves; a readout with little noise tells their number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.config.microscope import Microscope, Readout
from ccstae.config.scenes import Scan
from ccstae.io.calibration import Calibration
from ccstae.simulation import nuisance
from ccstae.simulation.background import background, background_round

Array = NDArray[np.float64]

_HALO_WIDTH = 0.15  # standard deviation of the halo's ring over its radius, as of amorphous carbon
_NEIGHBOURS = ((1, 0), (-1, 0), (0, 1), (0, -1))  # rows, columns


@dataclass(frozen=True)
class Camera:
    """The way from patterns to counts at some positions of a scan, shape (...), or at any."""

    dose: Array | None = None
    """Electrons of each position over the level's, (...); None: 1."""
    drift_px: Array | None = None
    """How far the beam has moved from the middle of the detector, (..., 2)."""
    halo: Array | None = None
    """The halo R (Qy, Qx), of sum 1."""
    halo_share: float = 0.0
    blind: NDArray[np.bool_] | None = None
    """Pixels (Qy, Qx) that see nothing."""
    hot: Array | None = None
    """What pixels (Qy, Qx) count too much, in electrons of the level."""
    mask: NDArray[np.bool_] | None = None
    """Pixels (Qy, Qx) that methods are told to be bad."""
    sharing: float = 0.0
    """Share of the electrons that count in a neighbouring pixel as well."""
    readout: Readout | None = None

    def at(self, index: Any) -> Camera:
        """The camera at some of its positions, an index into their shape."""
        return replace(
            self,
            dose=None if self.dose is None else self.dose[index],
            drift_px=None if self.drift_px is None else self.drift_px[index],
        )

    def scattered(self, clean: Array) -> Array:
        """Clean patterns (..., Qy, Qx) of sum 1 with the halo among them."""
        if self.halo is None:
            return clean
        return (1 - self.halo_share) * clean + self.halo_share * self.halo

    def background(self, shape: tuple[int, int]) -> Array:
        """The background (Qy, Qx) or (..., Qy, Qx) round the beam, of sum 1."""
        if self.drift_px is None:
            return background(shape)
        return background_round(shape, self.drift_px)

    def expected(self, share: Array, electrons: float) -> Array:
        """Expected counts (..., Qy, Qx) of a dose of electrons a pattern of which each pixel gets a
        `share`.
        """
        counts = electrons * share
        if self.hot is not None:
            counts = counts + electrons * self.hot
        return counts if self.dose is None and self.blind is None else counts * self.seen(counts)

    def seen(self, like: NDArray[Any]) -> Array:
        """What each pixel counts of an electron that the level sends to it: dose and mask, of the
        shape of patterns (..., Qy, Qx).
        """
        seen = np.ones(like.shape)
        if self.dose is not None:
            seen *= np.asarray(self.dose)[..., None, None]
        if self.blind is not None:
            seen[..., self.blind] = 0.0
        return seen

    def read(
        self, counts: NDArray[np.uint32], generator: np.random.Generator
    ) -> NDArray[np.uint32] | NDArray[np.float32]:
        """What the camera gives for the electrons (Qy, Qx) that its pixels got: whole numbers, or
        float32 electrons.
        """
        if self.sharing:
            counts = shared(counts, self.sharing, generator)
            if self.blind is not None:
                counts = np.where(self.blind, np.uint32(0), counts)
        if self.readout is None:
            return counts
        r = self.readout
        units = r.pedestal + r.gain * counts + r.noise * generator.standard_normal(counts.shape)
        units = np.rint(units).clip(0, None)
        if r.converted:
            return ((units - r.pedestal) / r.gain).astype(np.float32)
        return units.astype(np.uint32)

    @property
    def noise_free(self) -> Camera:
        """The camera at the noise-free level, where there is no dose."""
        return replace(self, dose=None)


COUNTING = Camera()
"""A camera that counts every electron once, everywhere and alike."""


def camera_of(microscope: Microscope, calibration: Calibration, scan: Scan) -> Camera:
    """The camera of a microscope at all positions (Ry, Rx) of a scan.

    Args:
        microscope: with the nuisances of the scene.
        calibration: the true one, whose lattice tells where the halo lies.
        scan: of the scene.
    """
    positions = geometry.scan_positions(scan.shape, scan.step_A)
    nuisances = microscope.nuisances
    shape = (microscope.detector_px, microscope.detector_px)
    drift, dose, halo = None, None, None
    if nuisances.drifts:
        drift = nuisance.drift_px(microscope, scan, positions)
    if nuisances.dose_ramp != 1:
        height_A = (scan.shape[0] - 1) * scan.step_A
        dose = nuisances.dose_ramp ** (positions[..., 1] / height_A)
    if nuisances.halo:
        halo = ring(shape, calibration)
    blind = nuisance.blind_pixels(microscope)
    dead, hot = nuisance.bad_pixels(microscope)
    return Camera(
        dose=dose,
        drift_px=drift,
        halo=halo,
        halo_share=nuisances.halo,
        blind=blind if blind.any() else None,
        hot=np.asarray(nuisances.hot_level * hot, np.float64) if hot.any() else None,
        mask=dead if nuisances.masked else None,
        sharing=nuisances.charge_sharing,
        readout=nuisances.readout,
    )


def ring(shape: tuple[int, int], calibration: Calibration) -> Array:
    """An amorphous halo (Qy, Qx) of sum 1: a ring, Gaussian across, round the middle of the
    detector at the length of the shortest lattice vector.
    """
    y, x = np.ogrid[: shape[0], : shape[1]]
    q = np.hypot(x - calibration.centre_px[0], y - calibration.centre_px[1])
    radius = np.linalg.norm(calibration.lattice_inv_A, axis=0).min() / calibration.pixel_size_inv_A
    image = np.exp(-((q / radius - 1) ** 2) / (2 * _HALO_WIDTH**2))
    return np.asarray(image / image.sum())


def shared(
    counts: NDArray[np.uint32], share: float, generator: np.random.Generator
) -> NDArray[np.uint32]:
    """Counts (Qy, Qx) in which a `share` of the electrons count in one of the four neighbours as
    well; over the edge they are lost.

    A pixel of mean m whose neighbours have the same mean then has mean and variance (1 + share) m,
    and a covariance of share m / 2 with each neighbour: a sum over many pixels has the mean
    (1 + share) M and the variance (1 + 3 share) M of its M electrons.
    """
    twice = generator.binomial(counts, share)
    to_each = generator.multinomial(twice, [0.25] * 4)  # (Qy, Qx, 4)
    out = np.pad(counts, 1)
    height, width = counts.shape
    for n, (down, right) in enumerate(_NEIGHBOURS):
        part = out[1 + down : 1 + down + height, 1 + right : 1 + right + width]
        part += to_each[..., n].astype(np.uint32)
    return out[1:-1, 1:-1]


def told(
    microscope: Microscope, calibration: Calibration, probe: NDArray[np.float32]
) -> tuple[Calibration, NDArray[np.float32]]:
    """What methods are told: the calibration with its errors, and the vacuum probe (Qy, Qx) as it
    was recorded.
    """
    nuisances = microscope.nuisances
    if nuisances.pixel_size_error:
        size = calibration.pixel_size_inv_A * (1 + nuisances.pixel_size_error)
        calibration = replace(calibration, pixel_size_inv_A=size)
    if nuisances.lattice_error:
        lattice = calibration.lattice_inv_A * (1 + nuisances.lattice_error)
        calibration = replace(calibration, lattice_inv_A=lattice)
    if nuisances.probe_halo:
        halo = probe.sum() * background(probe.shape)
        probe = (1 - nuisances.probe_halo) * probe + nuisances.probe_halo * halo
    right, down = nuisances.probe_shift_px
    if right or down:
        probe = np.roll(probe, (down, right), (0, 1))
    if math.isfinite(nuisances.probe_electrons):
        generator = np.random.default_rng(nuisances.seed)
        electrons = nuisances.probe_electrons
        probe = generator.poisson(electrons * (probe / probe.sum())) / electrons
    return calibration, np.asarray(probe, np.float32)
