"""Pixel size and ellipse of a camera from the rings of a powder.

The middle is where the pattern is its own point reflection. Sectors are compared with the mean of
all: each is the same profile, stretched along the radius by 1 + c cos 2(angle) + s sin 2(angle)
where the camera shows a circle as an ellipse; the pattern is straightened by what is found, and
looked at again until nothing is left. The radii of the rings of a face-centred cubic metal,
sqrt(h^2 + k^2 + l^2) / a with h, k, l all even or all odd, then tell the pixel size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from ccstae.errors import InputError

Array = NDArray[np.float64]

# h^2 + k^2 + l^2 and a rough strength of the first rings of a face-centred cubic metal.
FCC_RINGS = ((3, 1.0), (4, 0.5), (8, 0.4), (11, 0.45), (12, 0.15), (19, 0.2), (20, 0.15))
SECTORS = 36
_ROUNDS = 8
_MAX_STRETCH = 0.12
MIN_INNER_SHARE = 0.12  # of the half side: nearer to the middle is the direct beam
# A profile's agreement with the rings, as a correlation.
MIN_AGREEMENT = 0.3
MAX_DISTORTION = 0.2


@dataclass(frozen=True)
class Rings:
    """What a powder tells of a camera."""

    distortion: Array  # (2, 2), symmetric, of determinant 1: a circle is seen as this ellipse
    pixel_size_inv_A: float
    centre: tuple[float, float]  # (x, y) in pixels
    agreement: float  # correlation of the profile with the rings


def measure(image: Array, a_A: float, where: str) -> Rings:
    """Pixel size and ellipse.

    Args:
        image: (Qy, Qx), the rings of a face-centred cubic powder.
        a_A: its lattice parameter.
        where: names the file in messages.

    Raises:
        InputError: where no rings are seen.
    """
    image = np.sqrt(np.clip(image - np.quantile(image, 0.01), 0, None))
    centre = _middle(image)
    E = np.eye(2)
    reach = min(*centre, image.shape[1] - 1 - centre[0], image.shape[0] - 1 - centre[1])
    # Radii are sampled in logarithms: a stretch is a shift.
    radii = np.geomspace(MIN_INNER_SHARE * reach, reach, 600)
    step = math.log(radii[1] / radii[0])
    angles = 2 * np.pi * np.arange(SECTORS * 10) / (SECTORS * 10)
    profile = np.zeros(len(radii))
    for _ in range(_ROUNDS):
        profiles = _profiles(image, centre, E, radii, angles)
        profile = profiles.mean(0)
        shift = np.array([_shift(part, profile) for part in profiles]) * step
        middle = angles.reshape(SECTORS, -1).mean(1)
        design = np.stack(
            [
                np.ones(SECTORS),
                np.cos(middle),
                np.sin(middle),
                np.cos(2 * middle),
                np.sin(2 * middle),
            ],
            1,
        )
        good = np.isfinite(shift)
        if good.sum() < SECTORS // 2:
            break
        _, x, y, c, s = np.linalg.lstsq(design[good], shift[good], rcond=None)[0]
        typical = float(np.exp(np.log(radii).mean()))
        centre = (centre[0] + x * typical, centre[1] + y * typical)
        stretch = np.eye(2) + np.array([[c, s], [s, -c]])
        E = stretch @ E
        E = 0.5 * (E + E.T)
        E /= math.sqrt(float(np.linalg.det(E)))
    pixel, agreement = _pixel_size(radii, profile, a_A)
    long, short = np.linalg.svd(E, compute_uv=False)
    if agreement < MIN_AGREEMENT or long / short - 1 > MAX_DISTORTION:
        raise InputError(
            f"{where}: no rings of a face-centred cubic powder are seen (agreement "
            f"{agreement:.2f}); expected at least {MIN_AGREEMENT}"
        )
    return Rings(E, pixel, (float(centre[0]), float(centre[1])), agreement)


def _middle(image: Array) -> tuple[float, float]:
    """Where an image is its own point reflection: half the place of the maximum of its convolution
    with itself.
    """
    flat = image - ndimage.gaussian_filter(image, max(image.shape) / 16)
    both = ndimage.gaussian_filter(signal.fftconvolve(flat, flat), 1)
    row, column = np.unravel_index(both.argmax(), both.shape)
    return float(column) / 2, float(row) / 2


def _profiles(
    image: Array, centre: tuple[float, float], E: Array, radii: Array, angles: Array
) -> Array:
    """Radial profiles (sectors, radii) of an image that E is taken off."""
    directions = E @ np.stack([np.cos(angles), np.sin(angles)])
    x = centre[0] + directions[0][:, None] * radii
    y = centre[1] + directions[1][:, None] * radii
    values = ndimage.map_coordinates(image, [y, x], order=1, mode="nearest")
    profiles = values.reshape(SECTORS, -1, len(radii)).mean(1)
    return profiles - ndimage.gaussian_filter1d(profiles, len(radii) / 12, axis=1)


def _shift(part: Array, profile: Array) -> float:
    """By how many samples a profile is moved outwards; NaN where it is not seen."""
    match = signal.correlate(part, profile, mode="same")
    half = len(profile) // 2
    reach = int(_MAX_STRETCH * len(profile) / 2)
    window = match[half - reach : half + reach + 1]
    k = int(window.argmax())
    if not 0 < k < len(window) - 1:
        return math.nan
    low, top, high = window[k - 1 : k + 2]
    return k - reach + 0.5 * (low - high) / (low - 2 * top + high)


def _pixel_size(radii: Array, profile: Array, a_A: float) -> tuple[float, float]:
    """The pixel size at which the rings agree best with a profile, and how well they do."""
    places = np.array([math.sqrt(number) / a_A for number, _ in FCC_RINGS])
    strength = np.array([weight for _, weight in FCC_RINGS])
    # The first ring lies somewhere on the profile.
    sizes = places[0] / np.geomspace(radii[0] * 1.05, radii[-1] * 0.9, 3000)
    width = math.log(radii[1] / radii[0]) * 5
    best = (0.0, -1.0)
    for size in sizes:
        away = np.log(radii[:, None] * size / places)
        model = (strength * np.exp(-0.5 * (away / width) ** 2)).sum(1)
        model -= ndimage.gaussian_filter1d(model, len(radii) / 12)
        agreement = float(np.corrcoef(model, profile)[0, 1])
        if agreement > best[1]:
            best = (float(size), agreement)
    return best
