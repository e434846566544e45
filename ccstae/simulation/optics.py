"""The probe-forming optics and the detector: aperture, probe, and the response of a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.special import erf, erfc

from ccstae import geometry
from ccstae.config.microscope import Microscope, Simulation

Array = NDArray[np.float64]

_GUARD_PX = 3.0  # the point spread brings in what falls this far outside the detector
# Of several layers: what one scatters beyond the detector, the next may bring back.
MAX_SLICED_SAMPLING_A = 0.07
_MIN_APERTURE = 1e-12  # of its maximum: less counts as outside the aperture
_MIN_TERM = 1e-9  # of the largest singular value: smaller terms of the probe are left out


@dataclass(frozen=True)
class Window:
    """The real-space window that one pattern is simulated in, and its reciprocal grid.

    The window is `per_px` / pixel_size wide, so `per_px` reciprocal samples span a detector pixel.
    The grid is just fine enough that no frequency of probe x transmission function that reaches the
    detector is aliased.
    """

    width_A: float
    samples: int
    per_px: int

    @property
    def sampling_A(self) -> float:
        return self.width_A / self.samples

    @property
    def frequencies(self) -> Array:
        """Reciprocal samples in 1/Angstrom, FFT order."""
        return np.asarray(np.fft.fftfreq(self.samples, self.sampling_A), np.float64)


def window(microscope: Microscope, simulation: Simulation, layers: int = 1) -> Window:
    """The window for these settings and a specimen of so many layers."""
    width = simulation.window_per_px / microscope.pixel_size_inv_A
    # A distorted or drifted pattern brings in more.
    nuisances = microscope.nuisances
    stretch = float(np.abs(np.linalg.inv(np.array(nuisances.distortion))).sum(1).max())
    drift = float(np.abs(np.array(nuisances.descan_px)).sum(0).max()) / 2
    half = (microscope.detector_px / 2 + _GUARD_PX) * stretch + drift
    radius = geometry.disk_radius_inv_A(microscope.semiangle_mrad, microscope.energy_keV)
    reach = half * microscope.pixel_size_inv_A + radius * 1.5
    samples_per_A = 2 * reach if layers == 1 else max(2 * reach, 1 / MAX_SLICED_SAMPLING_A)
    samples = 2 * next_fast_len(int(np.ceil(samples_per_A * width / 2)))  # even and fast
    return Window(width, samples, simulation.window_per_px)


def aperture(microscope: Microscope, q: Array) -> Array:
    """Amplitude of the aperture at |q| (1/Angstrom): erfc((|q| - alpha / lambda) / (sqrt 2 s)) / 2.

    The edge s keeps the probe's tail finite: with a perfectly sharp edge the tail falls as r^-3/2
    and no window holds it.
    """
    edge = microscope.aperture_edge_mrad * 1e-3 / geometry.wavelength_A(microscope.energy_keV)
    radius = geometry.disk_radius_inv_A(microscope.semiangle_mrad, microscope.energy_keV)
    return np.asarray(0.5 * erfc((q - radius) / (np.sqrt(2) * edge)))


def probe_fourier(microscope: Microscope, win: Window) -> Array:
    """Aperture on the window's reciprocal grid (n, n), rows y, of unit total intensity."""
    q = win.frequencies
    amplitude = aperture(microscope, np.hypot(q[:, None], q[None, :]))
    return np.asarray(amplitude / np.sqrt((amplitude**2).sum()))


def probe_terms(
    microscope: Microscope, win: Window
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Factors (2, terms, q) and cosines and sines (2 q, n) that a probe anywhere in the window is
    made of.

    The singular vectors of the aperture are its factors along y and x. One that covers few samples
    has few (13 by default, 308 samples), all even in q, and a probe at x0 in real space is a sum of
    as few products of a function of y and one of x, sum_q factor(q) cos(2 pi q (x - x0)) over q >=
    0: two small products of matrices and no Fourier transform. Every other sample has the other
    sign, which puts q = 0 in the middle of a wave's Fourier transform.
    """
    probe = probe_fourier(microscope, win)
    # The quarter q_y, q_x >= 0 that the aperture covers tells all of it: it is even in both.
    along_x = probe[0, : win.samples // 2]
    covered = np.flatnonzero(along_x > _MIN_APERTURE * probe.max())[-1] + 1
    q = np.arange(covered)
    # q > 0 stands for q and -q. Each side of the quarter carries sqrt(2) for that, so that the
    # singular vectors of the quarter are orthonormal over all of the aperture.
    both_signs = np.sqrt(np.where(q > 0, 2.0, 1.0))
    y, size, x = np.linalg.svd(probe[:covered, :covered] * both_signs[:, None] * both_signs)
    terms = size > _MIN_TERM * size[0]
    # A second sqrt(2) makes the sum over q >= 0 the sum over both signs.
    factors = np.stack([(y * size).T[terms], x[terms]]) * both_signs / win.samples
    phase = 2 * np.pi / win.samples * np.outer(q, np.arange(win.samples))
    signs = (-1.0) ** np.arange(win.samples)
    waves = np.concatenate([np.cos(phase), np.sin(phase)]) * signs
    return factors.astype(np.float32), waves.astype(np.float32)


def pixel_response(microscope: Microscope, win: Window) -> tuple[Array, Array]:
    """Response of the detector's pixels to the window's reciprocal samples, and its slope, both
    (detector_px, n), FFT order.

    A sample at u (pixels) counts in the pixel at j with R(u - j), the Gaussian point spread s
    integrated over the pixel: R(v) = [erf((v + 1/2) / (sqrt 2 s)) - erf((v - 1/2) / (sqrt 2 s))] /
    2. The slope dR/du is what a shift of the sample changes.
    """
    u = win.frequencies / microscope.pixel_size_inv_A
    pixel = np.arange(microscope.detector_px) - microscope.detector_px // 2
    return response(microscope, u[None, :] - pixel[:, None])


def response(microscope: Microscope, v: Array) -> tuple[Array, Array]:
    """R(v) and its slope at distances v (pixels) of a sample from a pixel; see `pixel_response`."""
    s = microscope.point_spread_px
    if s == 0:
        inside = (np.abs(v) < 0.5 - 1e-9) + 0.5 * (np.abs(np.abs(v) - 0.5) <= 1e-9)
        return inside.astype(float), np.zeros_like(v)
    value = 0.5 * (erf((v + 0.5) / (np.sqrt(2) * s)) - erf((v - 0.5) / (np.sqrt(2) * s)))
    slope = (np.exp(-((v + 0.5) ** 2) / (2 * s**2)) - np.exp(-((v - 0.5) ** 2) / (2 * s**2))) / (
        np.sqrt(2 * np.pi) * s
    )
    return value, slope


def probe_shells(
    microscope: Microscope, win: Window, shells: int = 14, angles: int = 16
) -> tuple[Array, Array]:
    """Quadrature of the probe's intensity: points (shells * angles, 2) in Angstrom and weights that
    sum to 1.

    The probe is round, so shells of equal intensity at their root mean square radius, with equally
    spaced angles, integrate exactly any field that is quadratic across the probe.
    """
    amplitude = np.fft.fftshift(np.fft.ifft2(probe_fourier(microscope, win)))
    x = (np.arange(win.samples) - win.samples // 2) * win.sampling_A
    r2 = (x[:, None] ** 2 + x[None, :] ** 2).ravel()
    intensity = (np.abs(amplitude) ** 2).ravel()
    inside = r2 <= (win.width_A / 2) ** 2
    order = np.argsort(r2[inside], kind="stable")
    r2, intensity = r2[inside][order], intensity[inside][order] / intensity[inside].sum()
    shell = np.minimum((np.cumsum(intensity) * shells).astype(int), shells - 1)
    weight = np.bincount(shell, intensity, shells)
    radius = np.sqrt(np.bincount(shell, intensity * r2, shells) / weight)
    # Every other shell is turned by half the step between its angles.
    half_step = (np.arange(shells)[:, None] % 2) / (2 * angles)
    turn = 2 * np.pi * (np.arange(angles)[None, :] / angles + half_step)
    points = radius[:, None, None] * np.stack([np.cos(turn), np.sin(turn)], -1)
    return points.reshape(-1, 2), np.repeat(weight / angles, angles)
