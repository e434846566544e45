"""Ideal diffraction patterns: soft-edged disks at exact lattice nodes, integrated over pixels, with
a known F.

A method is held against them before it meets simulated specimens. Each pattern has one disk, all of
one shape, at `centre + F^-T g` for every node g of a hexagonal lattice. A disk is the aperture with
an error-function edge, the detector's point spread. The direct beam has 97 % of the electrons.
Nothing of dynamical diffraction is in them: disks are of even strength, whatever the strain.

Everything that a method needs (counts, probe, calibration) comes in the package's own types.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from ccstae import geometry
from ccstae.io.calibration import Calibration
from ccstae.io.counts import Counts

Array = NDArray[np.float64]

# Shares of the electrons in one disk of the {10-10}, {11-20}, {20-20}, {21-30} rings, about those
# of a WS2 monolayer at 80 kV.
RINGS = (0.9e-3, 1.2e-3, 0.35e-3, 0.2e-3)


@dataclass(frozen=True)
class IdealCrystal:
    """An ideal crystal in its instrument. The defaults are about WS2 at 80 kV."""

    px: int = 128
    """Pixels along each side of the detector."""
    energy_keV: float = 80.0
    semiangle_mrad: float = 3.0
    pixel_size_inv_A: float = 0.013
    a_A: float = 3.153
    """Lattice constant; the hexagonal lattice's first vector lies along x."""
    edge_px: float = 0.5
    """Standard deviation of the disks' error-function edge (detector point spread)."""
    offset_px: tuple[float, float] = (0.0, 0.0)
    """Direct beam (x, y) from the nominal centre."""
    friedel: float = 0.25
    """Relative difference between the {10-10} disks of odd and even order."""
    G0: Array = field(init=False)
    """Reciprocal lattice vectors without deformation, columns, 1/Angstrom."""

    def __post_init__(self) -> None:
        lattice = self.a_A * np.array([[1.0, -0.5], [0.0, np.sqrt(3) / 2]])
        object.__setattr__(self, "G0", geometry.reciprocal(lattice))

    @property
    def radius_px(self) -> float:
        """Radius of a disk."""
        return (
            self.semiangle_mrad
            * 1e-3
            / geometry.wavelength_A(self.energy_keV)
            / self.pixel_size_inv_A
        )

    @property
    def calibration(self) -> Calibration:
        """What a method may know of all this."""
        return Calibration(
            self.energy_keV,
            self.semiangle_mrad,
            self.pixel_size_inv_A,
            20.0,
            (self.px // 2, self.px // 2),
            self.G0,
            6,
        )

    @property
    def nodes(self) -> tuple[NDArray[np.int64], Array]:
        """(h, k) of every disk and its share of the electrons."""
        hk = geometry.lattice_nodes(self.G0, 2.7 * float(np.linalg.norm(self.G0[:, 0])))
        length = np.linalg.norm(hk @ self.G0.T, axis=1) / np.linalg.norm(self.G0[:, 0])
        share = np.zeros(len(hk))
        for value, square in zip(RINGS, (1, 3, 4, 7), strict=True):
            share[np.isclose(length**2, square)] = value
        odd = np.isclose(length, 1) & ((hk[:, 0] - hk[:, 1]) % 3 == 1)
        share[np.isclose(length, 1)] *= 1 - self.friedel / 2
        share[odd] *= (1 + self.friedel / 2) / (1 - self.friedel / 2)
        share[0] = 1 - share.sum()
        return hk, share

    def pattern(
        self, F: Array, shift_px: tuple[float, float] = (0.0, 0.0), oversample: int = 5
    ) -> Array:
        """Expected share of the electrons in each pixel, (Qy, Qx), for the deformation gradient F
        (2, 2).
        """
        hk, share = self.nodes
        sites = hk @ (geometry.inverse_transpose(F) @ self.G0).T / self.pixel_size_inv_A
        sites = sites + self.px // 2 + np.array(self.offset_px) + np.array(shift_px)
        out = np.zeros((self.px, self.px))
        half = int(self.radius_px + 6 * self.edge_px) + 2
        fine = (np.arange((2 * half + 1) * oversample) + 0.5) / oversample - 0.5 - half
        for (x, y), value in zip(sites, share, strict=True):
            cx, cy = round(x), round(y)
            if not all(-half <= middle < self.px + half for middle in (cx, cy)):
                continue  # off the detector
            r = np.hypot(fine[None, :] + cx - x, fine[:, None] + cy - y)
            disk = 0.5 * (1 - erf((r - self.radius_px) / (np.sqrt(2) * self.edge_px)))
            disk = disk.reshape(2 * half + 1, oversample, 2 * half + 1, oversample).sum((1, 3))
            disk *= value / disk.sum()
            ys, xs = np.arange(cy - half, cy + half + 1), np.arange(cx - half, cx + half + 1)
            keep_y, keep_x = (ys >= 0) & (ys < self.px), (xs >= 0) & (xs < self.px)
            out[np.ix_(ys[keep_y], xs[keep_x])] += disk[np.ix_(keep_y, keep_x)]
        return out

    @property
    def background(self) -> Array:
        """The Lorentzian 1 / (1 + |q|^2 / 0.01^2), q in cycles per pixel of the frequency grid,
        summing to 1.
        """
        q = np.fft.fftshift(np.fft.fftfreq(self.px))
        out = 1 / (1 + (q[None, :] ** 2 + q[:, None] ** 2) / 0.01**2)
        return np.asarray(out / out.sum())

    @property
    def probe(self) -> NDArray[np.float32]:
        """Direct beam alone, at the nominal centre."""
        alone = replace(self, a_A=1e-2, offset_px=(0.0, 0.0))  # all other disks lie outside
        pattern = alone.pattern(np.eye(2))
        return np.asarray(pattern / pattern.sum(), np.float32)

    def counts(
        self,
        F: Array,
        electrons: float = np.inf,
        background: float = 0.0,
        vacuum: NDArray[np.bool_] | None = None,
        seed: int = 0,
    ) -> Counts:
        """A scan of patterns.

        Args:
            F: (Ry, Rx, 2, 2), deformation gradients.
            electrons: in a pattern. Infinitely many give expected counts of 1e9 electrons, rounded;
                any other number gives Poisson counts.
            background: the share of the electrons that `self.background` spreads out.
            vacuum: (Ry, Rx), where the direct beam is all there is.
            seed: of the Poisson counts.
        """
        rng = np.random.default_rng(seed)
        probe = self.probe
        patterns = np.empty((*F.shape[:2], self.px, self.px))
        for i, j in np.ndindex(F.shape[:2]):
            empty = vacuum is not None and vacuum[i, j]
            patterns[i, j] = (
                probe
                if empty
                else self.pattern(F[i, j], oversample=3 if np.isfinite(electrons) else 5)
            )
        patterns = (1 - background) * patterns + background * self.background
        drawn = (
            np.rint(patterns * 1e9) if np.isinf(electrons) else rng.poisson(patterns * electrons)
        )
        good = np.ones(probe.shape, bool)
        return Counts(drawn.astype(np.uint32), probe, self.calibration, Path("ideal.h5"), good)

    def limit(
        self,
        F: Array,
        electrons: float,
        background: float = 0.0,
        step: float = 1e-4,
        good: NDArray[np.bool_] | None = None,
    ) -> Array:
        """Cramer-Rao standard deviations of (exx, eyy, exy, theta), the centre a nuisance, by
        central differences of `pattern`, from the pixels that are good (Qy, Qx).
        """

        def mean(parameters: Array) -> Array:
            ideal = self.pattern(
                F + parameters[:4].reshape(2, 2), (parameters[4], parameters[5]), oversample=9
            )
            return electrons * ((1 - background) * ideal + background * self.background)

        steps = np.diag([step] * 4 + [step * 30] * 2)
        slopes = np.stack([(mean(s) - mean(-s)).ravel() / (2 * s.max()) for s in steps])
        m = mean(np.zeros(6)).ravel()
        seen = m > 1e-12 * m.max()
        if good is not None:
            seen &= good.ravel()
        fisher = (slopes[:, seen] / m[seen]) @ slopes[:, seen].T
        J = geometry.components_jacobian(F)
        covariance = J @ np.linalg.inv(fisher)[:4, :4] @ J.T
        return np.sqrt(np.diag(covariance))


def cropped(scan: Counts, rows: slice, columns: slice) -> Counts:
    """The scan on the part of its detector within `rows` and `columns`; the nominal centre moves
    along.
    """
    x, y = scan.calibration.centre_px
    centre = (x - (columns.start or 0), y - (rows.start or 0))
    return replace(
        scan,
        counts=np.ascontiguousarray(scan.held()[..., rows, columns]),
        probe=np.ascontiguousarray(scan.probe[rows, columns]),
        good=np.ascontiguousarray(scan.good[rows, columns]),
        calibration=replace(scan.calibration, centre_px=centre),
    )


def random_deformations(
    shape: tuple[int, int], strain: float = 0.02, rotation: float = 0.02, seed: int = 0
) -> Array:
    """F (Ry, Rx, 2, 2) with components drawn evenly from +-strain and +-rotation (radians)."""
    rng = np.random.default_rng(seed)
    e = rng.uniform(-strain, strain, (3, *shape))
    return geometry.deformation(e[0], e[1], e[2], rng.uniform(-rotation, rotation, shape))


def errors(F: Array, truth: Array, symmetry: int = 6) -> Array:
    """Components of F less those of the truth, (..., 4), rotation brought to the truth's branch."""
    return geometry.components(geometry.to_branch(F, truth, symmetry)) - geometry.components(truth)
