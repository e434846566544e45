"""From readings of a camera to electrons, by the line on which their variance lies over their mean.

Counted electrons have a variance equal to their mean m. Readings of a gain g, a pedestal p and a
noise of readout r have the variance

    V(m) = g (m - p) + r^2 = g m + c,

the photon transfer curve (J. R. Janesick, Photon Transfer (2007)). Readings d are then as good as
d / g + c / g^2 electrons, whose variance is again their mean: pedestal and noise of readout need
not be told apart. The curve is measured on the residuals of patterns about their fitted model,
which knows where the disks have moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccstae.io.counts import Counts
from ccstae.machine.device import spread_over
from ccstae.methods.ccstae import expected, transformer
from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.dispersion import MIN_DISPERSION
from ccstae.methods.ccstae.refine import State
from ccstae.methods.ccstae.transformer import Patterns

POINTS = 64  # of the curve
MAX_PATTERNS = 128  # that make the curve
# Mean square distance of the points from their line, in standard errors. It is below 4 where
# readings are a camera's, since the model is not quite right yet. Where the model itself is wrong,
# as for structure inside the disks or for counts without noise, it is 40 or more.
MAX_DEPARTURE = 10.0
_ROUNDS = 10  # of the fit, whose weights follow from its line


@dataclass(frozen=True)
class PhotonTransfer:
    """The variance of readings over their mean m is `gain` m + `constant`, in their own units."""

    gain: float = 1.0
    constant: float = 0.0

    @property
    def counts_electrons(self) -> bool:
        """Whether readings are electrons as they are."""
        return self.gain == 1 and self.constant == 0

    def words(self) -> str:
        """What people must hear of it; nothing where readings are electrons."""
        if self.counts_electrons:
            return ""
        return (
            f"readings vary as those of a camera with a gain of {self.gain:.3g} (variance "
            f"{self.gain:.3g} times the mean {self.constant:+.3g}), and were converted to electrons"
        )

    def electrons(self, counts: Counts) -> Counts:
        """The scan in electrons."""
        if self.counts_electrons:
            return counts

        def convert(patterns: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
            readings = patterns.astype(np.float32)
            readings /= np.float32(self.gain)
            readings += np.float32(self.constant / self.gain**2)
            readings[..., ~counts.good] = 0
            return readings

        return counts.corrected(convert, np.dtype(np.float32))


def photon_transfer(dictionary: Dictionary, patterns: Patterns, state: State) -> PhotonTransfer:
    """The photon transfer curve of patterns, where it is a line that matters.

    It matters where the gain, or the variance that the readings give to the places of the disks, is
    not that of electrons within `MIN_DISPERSION`. Elsewhere readings are taken for electrons.

    Args:
        dictionary: what the patterns are made of.
        patterns: the n patterns.
        state: their refined parameters.
    """
    some = spread_over(len(patterns), MAX_PATTERNS)
    mean, variance, error, pixels, weight = _curve(dictionary, patterns[some], state[some])
    columns = torch.stack([mean, torch.ones_like(mean)], 1)
    level = float(variance.sum() / mean.sum())
    predicted, gain = level * mean, level
    for _ in range(_ROUNDS):
        root = _standard_error(error, predicted, gain, pixels).reciprocal()
        line = torch.linalg.lstsq(columns * root[:, None], (variance * root)[:, None]).solution
        predicted = torch.maximum((columns @ line)[:, 0], 1e-3 * level * mean)
        gain = max(float(line[0]), 1e-3 * level)
    on_line = (columns @ line)[:, 0]
    departure = float(((variance - on_line) * root).square().mean())
    of_counts = (variance - mean) / _standard_error(error, mean, 1.0, pixels)
    of_places = float((weight * on_line).sum() / (weight * mean).sum())
    matters = any(not 1 / MIN_DISPERSION < x < MIN_DISPERSION for x in (gain, of_places))
    if matters and departure < min(MAX_DEPARTURE, float(of_counts.square().mean())):
        return PhotonTransfer(gain, float(line[1]))
    return PhotonTransfer()


def _standard_error(seen: Tensor, variance: Tensor, gain: float, pixels: Tensor) -> Tensor:
    """Of variances of readings, (P,): as the squares of residuals scatter, and at least as they do
    by 2 V^2 + g^2 V, for few electrons may show none of it.
    """
    return torch.maximum(seen, ((2 * variance**2 + gain**2 * variance) / pixels).sqrt())


def _curve(dictionary: Dictionary, patterns: Patterns, state: State) -> tuple[Tensor, ...]:
    """The points of the curve, (P,) each: mean and variance of the readings of as many pixels, the
    standard error of the variance, the number of pixels, and their weight in the variance of the
    places of disks, (slope / mean)^2.
    """
    position = transformer.positions(state.M, state.centre, dictionary.g) + state.stray
    patch = patterns.windows(position[:, 1:], dictionary.offsets)
    images, expansion = dictionary.table(patch.shift(position[:, 1:]).reshape(-1, 2), 1)
    unit, along_x, along_y = (expansion @ images).unflatten(0, patch.index.shape[:2]).unbind(2)
    intensity = state.intensity[:, 1:, None]
    diffuse = state.background_scale[:, None, None] * patch.cut(patterns.background)
    disks = intensity * unit
    if dictionary.touching:
        disks = expected.all_disks(dictionary, state, patch)
    model = disks + diffuse + dictionary.floor
    used = patch.inside > 0
    m = model[used].double()
    square = (patch.cut(patterns.counts)[used].double() - m) ** 2
    slope2 = (intensity**2 * (along_x**2 + along_y**2))[used].double()
    order = m.argsort()
    point = torch.empty_like(order)
    point[order] = torch.arange(len(m), device=m.device) * POINTS // len(m)
    pixels = torch.bincount(point, minlength=POINTS).double()

    def sums(values: Tensor) -> Tensor:
        return torch.zeros(POINTS, dtype=m.dtype, device=m.device).index_add_(0, point, values)

    mean, variance = sums(m) / pixels, sums(square) / pixels
    error = ((sums(square**2) / pixels - variance**2) / pixels).clamp_min(0).sqrt()
    return mean, variance, error, pixels, sums(slope2 / m**2)
