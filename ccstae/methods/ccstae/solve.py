"""From a rough lattice to the most likely state, for a batch of patterns: refine, read the sparse
code, refine with the intensities that the code expects.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ccstae.methods.ccstae import affine, cell_area, entries, refine
from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.encoder import Encoded
from ccstae.methods.ccstae.refine import (
    DEVIANCE_TOLERANCE,
    FIRST_DAMPING,
    ROUGH_DEVIANCE_TOLERANCE,
    STEPS,
    Evaluation,
    State,
    covariance_of_M,
)
from ccstae.methods.ccstae.transformer import Patterns

FREE_SPREAD = 1.0
"""Relative spread of intensities that no entry holds."""


# Degrees of freedom of the Student law of strays, so that a disk that was taken for another does
# not pull the others along (K. L. Lange et al., J. Am. Stat. Assoc. 84, 881 (1989)).
_STRAY_DEGREES = 4.0


@dataclass(frozen=True)
class Solution:
    """The most likely states of n patterns."""

    patterns: Patterns  # as the last climb took them
    state: State
    at: Evaluation
    odds: Float[Tensor, "n E"]  # log odds of the entries from the intensities


def solve(
    dictionary: Dictionary,
    data: Tensor,
    first: Encoded,
    rounds: int,
    good: Tensor | None,
    steps: int = STEPS,
) -> Solution:
    """Refine the encoder's answers on the likelihood.

    The first climb leaves the intensities free, so that the code is read from intensities that no
    entry has pulled at. Later rounds hold the intensities to those that the entry expects.

    Every climb begins at the dose of the pattern itself, and measures the deviance against its own
    background. At the level of the scan, in a pattern of another dose, pixels beyond the disks
    would not cancel: every window that moves on would pay.

    Args:
        dictionary: what patterns are made of.
        data: counts of the patterns (n, Qy, Qx).
        first: their lattices as the encoder gives them.
        rounds: climbs.
        good: True where a pixel tells something, (Qy, Qx); None where all do.
        steps: of a climb, at most; 0 leaves the encoder's answer.

    """
    n = len(data)
    dose = dictionary.dose(data)
    prior = dictionary.intensity.mean(0) * dose[:, None]
    free = dictionary.with_spread(FREE_SPREAD)
    evaluate = affine.evaluate_warped if dictionary.affine else refine.evaluate
    stray = torch.zeros(*prior.shape, 2, device=data.device)
    firmness = stray_precision(dictionary, stray)
    patterns = dictionary.patterns(data, first.centre, dose, prior, good, firmness)
    state = State(first.M, first.centre, prior.clone(), dose.clone(), prior, stray)
    tolerance = DEVIANCE_TOLERANCE if rounds == 1 else ROUGH_DEVIANCE_TOLERANCE
    state, at = refine.refine(patterns, free, state, steps, evaluate, tolerance)
    # What is left to this maximum, and then to that with the intensities that the entry expects, is
    # gone on trust, from one evaluation: the next climb begins there.
    damping = torch.full_like(at.deviance, FIRST_DAMPING)
    top, gain = refine.step(state, at, damping, dictionary.g)
    near = gain < tolerance if steps else torch.zeros_like(gain, dtype=torch.bool)
    top = top.where(near, state)
    expected, odds = entries.expected_intensity(dictionary, top, 1 / at.intensity_information)
    log_area = cell_area.log_area(top.M, covariance_of_M(at.information))
    entry = entries.likeliest(odds, dictionary.area, log_area)
    of_entry = expected[torch.arange(n, device=data.device), entry]
    prior = torch.cat([top.intensity[:, :1], of_entry], 1)
    if rounds > 1:
        held = replace(state, prior=prior)
        at_held = refine.with_priors(at.of_pixels, patterns, dictionary, held)
        state = refine.step(held, at_held, damping, dictionary.g)[0].where(near, held)
    # The weights of strays settle in rounds of their own.
    for _ in range(rounds - 1 + 2 * (dictionary.stray_px > 0)):
        firmness = stray_precision(dictionary, top.stray)
        patterns = dictionary.patterns(
            data, top.centre, top.background_scale, top.intensity, good, firmness
        )
        begin = replace(state, prior=prior)
        state, at = refine.refine(patterns, dictionary, begin, steps, evaluate)
        top = state
    return Solution(patterns, state, at, odds)


def stray_precision(dictionary: Dictionary, stray: Tensor) -> Tensor | None:
    """How firmly disks are held to the lattice, (n, K), where their strays so far are (n, K, 2);
    None where disks do not stray.

    The strays follow Student's law: q = (nu + 2) / (nu tau^2 + |e|^2).
    """
    if dictionary.stray_px == 0:
        return None
    variance = dictionary.stray_px**2
    beyond = (stray.double() ** 2).sum(2)
    return (_STRAY_DEGREES + 2) / (_STRAY_DEGREES * variance + beyond)
