"""How fine a map shows strain, and what its own scatter says of its error.

A small error may be bought with resolution: whatever averages over neighbours errs less and shows
less. Three measures of resolution, all against the probe-averaged truth:

* the gain, answer over truth, of all positions of a region;
* the modulation transfer function (MTF), the gain in each of a scene's strain waves, against their
  wavelength; a Gaussian average of standard deviation s has exp(-2 pi^2 s^2 / L^2) at wavelength L;
* the distance over which a step of strain goes from 10 to 90 %, 2 sqrt(2) erfinv(0.8) = 2.563
  standard deviations of the error function fitted to it.

`neighbour_deviation` is what a map tells of its precision without any truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import erf

from ccstae.geometry import COMPONENTS
from ccstae.io.truth import Truth

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

WAVE = "wave_"
"""Begins the region of a wave in the scores; its wavelength in scan steps follows."""
WIDTH_OVER_DEVIATION = 2.563103131089201  # 2 sqrt(2) erfinv(0.8)
_MIN_VARIATION = 1e-4  # standard deviation of a truth that has a gain
# Of the largest component of a wave: what is weaker comes of the waves' squares.
_MIN_WAVE_SHARE = 0.25
_REACH_STEPS = 6.0  # from the interface: far enough for a width of five steps
_MIN_SIDE_STEPS = 2.0  # that the scan reaches on either side of an interface
_MIN_STEP = 0.01  # of strain at an interface: the widths of smaller ones drown in noise
_MAX_TRUE_WIDTH_STEPS = 5.0  # what changes more slowly is no interface
_MIN_STEP_SHARE = 0.5  # of the true step: less is no answer to it
# A straight line over one scan step, the sharpest that a scan shows, goes from 10 to 90 % in 0.8.
MIN_WIDTH_STEPS = 0.8
_MIN_DEVIATION = MIN_WIDTH_STEPS / WIDTH_OVER_DEVIATION
_MAX_SHIFT_STEPS = 1.0  # of a step that a map shows beside the interface
# The neighbours of quantEM's estimate: a disk of 20, and the least of them that have an answer.
_WINDOW = 5
_MIN_NEIGHBOURS = 3


def gain(truth: Array, answer: Array, bound: Array | None) -> float | None:
    """Slope of answers over truths, one for all components, each about its own mean.

    Args:
        truth, answer: shape (n, components).
        bound: of the same shape, for the weights 1 / bound^2; None where there is no noise, and
            weights are equal.

    Returns:
        The slope; None where no truth varies.

    A method that shows four fifths of the strain, and adds a constant:

    >>> truth = np.array([[0.00], [0.01], [0.02]])
    >>> round(gain(truth, 0.8 * truth + 0.005, None), 9)
    0.8
    """
    weight = np.ones_like(truth) if bound is None else 1 / np.square(bound)
    truth = truth - np.average(truth, axis=0, weights=weight)
    if truth.std(0).max() < _MIN_VARIATION:
        return None
    return float((weight * truth * answer).sum() / (weight * truth**2).sum())


def half_wavelength(lengths: Sequence[float], mtf: Sequence[float]) -> float | None:
    """The wavelength below which less than half of a wave is shown.

    Args:
        lengths: wavelengths, rising.
        mtf: shown amplitude over true at each.

    Returns:
        The longest wavelength at which the MTF crosses one half, linear in the logarithm of the
        wavelength; the shortest one where it never falls so low; None where even the longest shows
        less than half.

    >>> round(half_wavelength([2, 4, 8], [0.0, 0.4, 0.6]), 3)
    5.657
    >>> half_wavelength([2, 4], [0.9, 1.0]), half_wavelength([2, 4], [0.1, 0.2])
    (2.0, None)
    """
    below = np.flatnonzero(np.asarray(mtf) < 0.5)
    if len(below) == 0:
        return float(lengths[0])
    last = int(below[-1])
    if last == len(lengths) - 1:
        return None
    pair = slice(last, last + 2)
    return float(np.exp(np.interp(0.5, mtf[pair], np.log(lengths[pair]))))


def step_width(distance: Array, values: Array) -> tuple[float, float]:
    """Width and height of a step of strain, by a fit of

        a + b d + h (1 + erf((d - d0) / (sqrt(2) s))) / 2

    that minds outliers little (soft L1 loss).

    Args:
        distance: d of each position from the interface, in scan steps, shape (n,).
        values: one component there.

    Returns:
        2.563 s in scan steps, never below `MIN_WIDTH_STEPS`, and h.

    >>> d = np.linspace(-6, 6, 97)
    >>> width, height = step_width(d, 0.02 * (1 + erf(d / np.sqrt(2))))
    >>> round(width, 3), round(height, 6)
    (2.563, 0.04)
    """
    unit = max(float(np.ptp(values)), 1e-12)
    scaled = values / unit

    def design(shift: float, deviation: float) -> Array:
        step = (1 + erf((distance - shift) / (np.sqrt(2) * deviation))) / 2
        return np.stack([np.ones_like(distance), distance, step], -1)

    def misfit(p: Array) -> Array:
        return np.asarray(design(p[3], p[4]) @ p[:3] - scaled)

    # The rest is linear: the nearest of a few widths is where the search begins.
    starts = []
    for deviation in np.geomspace(_MIN_DEVIATION, _REACH_STEPS / 2, 8)[1:-1]:
        linear = np.linalg.lstsq(design(0.0, deviation), scaled, rcond=None)[0]
        starts.append(np.array([*linear, 0.0, deviation]))
    first = min(starts, key=lambda p: float(np.square(misfit(p)).sum()))
    low = [-np.inf, -np.inf, -np.inf, -_MAX_SHIFT_STEPS, _MIN_DEVIATION]
    high = [np.inf, np.inf, np.inf, _MAX_SHIFT_STEPS, _REACH_STEPS / 2]
    spread = max(float(np.median(np.abs(misfit(first)))), 1e-6)
    best = least_squares(misfit, first, bounds=(low, high), loss="soft_l1", f_scale=spread).x
    return WIDTH_OVER_DEVIATION * float(best[4]), unit * float(best[2])


def neighbour_deviation(values: Array) -> Array:
    """Deviation of each position from the median of its neighbours, which quantEM 0.1.10 calls
    strain precision (`StrainMap.estimate_strain_precision`): its root mean square is to tell the
    error where there is no truth.

    Neighbours are the 20 positions within 2.5 steps, itself left out, that have an answer. Noise
    that is white comes out too large by the median's own noise, a few per cent; noise that
    neighbours share does not show, nor does any bias, and strain that curves does.

    Args:
        values: shape (Ry, Rx, components), NaN where there is no answer.

    Returns:
        Of the same shape; NaN where there is no answer, or fewer than three neighbours have one.

    One position that stands out of a flat map:

    >>> values = np.zeros((9, 9, 1))
    >>> values[4, 4] = 1.0
    >>> found = neighbour_deviation(values)
    >>> float(found[4, 4, 0]), float(np.abs(found).sum())
    (1.0, 1.0)
    """
    half = _WINDOW // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    is_neighbour = (y**2 + x**2 <= (_WINDOW / 2) ** 2) & ((y != 0) | (x != 0))
    padded = np.pad(values, ((half, half), (half, half), (0, 0)), constant_values=np.nan)
    windows = sliding_window_view(padded, (_WINDOW, _WINDOW), axis=(0, 1))
    # Sorted with NaN last: the median is the middle of those that are numbers.
    neighbours = np.sort(windows[..., is_neighbour], -1)
    count = np.isfinite(neighbours).sum(-1)[..., None]
    middle = [np.take_along_axis(neighbours, np.maximum(n, 0) // 2, -1) for n in (count - 1, count)]
    median = (middle[0] + middle[1])[..., 0] / 2
    return np.where(count[..., 0] >= _MIN_NEIGHBOURS, values - median, np.nan)


def scores(
    truth: Truth, expected: Array, answer: Array, bound: Array | None
) -> Iterator[tuple[str, str, str, float]]:
    """Rows (region, quantity, metric, value) of the waves and the interface of a scene.

    Args:
        truth: of the scene, which tells where they are.
        expected, answer: components (Ry, Rx, 4) of truth and map in the common gauge.
        bound: of the same shape; None where there is no noise.
    """
    yield from _waves(truth, expected, answer, bound)
    yield from _interface(truth, expected, answer)


def _waves(
    truth: Truth, expected: Array, answer: Array, bound: Array | None
) -> Iterator[tuple[str, str, str, float]]:
    """MTF of every wave and component, and the wavelength where it falls to one half."""
    if truth.waves is None:
        return
    mtf: dict[str, list[tuple[float, float]]] = {}
    for index, length in enumerate(truth.waves.length_steps):
        band = (truth.waves.band == index) & (truth.label != 0)
        if not band.any():
            continue
        size = expected[band].std(0)
        carried = np.flatnonzero(size >= _MIN_WAVE_SHARE * size.max())
        asked = [(COMPONENTS[c], [c]) for c in carried] + [("all", list(carried))]
        for quantity, c in asked:
            weights = None if bound is None else bound[band][:, c]
            value = gain(expected[band][:, c], answer[band][:, c], weights)
            if value is not None:
                yield f"{WAVE}{length:g}", quantity, "mtf", value
                mtf.setdefault(quantity, []).append((float(length), value))
    for quantity, of_waves in mtf.items():
        half = half_wavelength(*zip(*of_waves, strict=True))
        if half is not None:
            yield "all", quantity, "mtf_half_wavelength", half


def _interface(
    truth: Truth, expected: Array, answer: Array
) -> Iterator[tuple[str, str, str, float]]:
    """Width of the interface, in the map and in the truth, of every component that steps there."""
    if truth.interface_steps is None:
        return
    near = (np.abs(truth.interface_steps) <= _REACH_STEPS) & (truth.label != 0)
    distance = truth.interface_steps[near]
    if not near.any() or min(-distance.min(), distance.max()) < _MIN_SIDE_STEPS:
        return
    for c, component in enumerate(COMPONENTS):
        true = expected[near, c]
        if abs(true[distance > 0].mean() - true[distance < 0].mean()) < _MIN_STEP:
            continue
        true_width, true_step = step_width(distance, true)
        if abs(true_step) < _MIN_STEP or true_width > _MAX_TRUE_WIDTH_STEPS:
            continue
        yield "all", component, "width_10_90_truth", true_width
        width, step = step_width(distance, answer[near, c])
        if step / true_step >= _MIN_STEP_SHARE:
            yield "all", component, "width_10_90", width
