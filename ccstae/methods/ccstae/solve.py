"""From a rough lattice to the most likely state, for a batch of patterns: refine, read the sparse
code, refine with the intensities that the code expects.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ccstae.methods.ccstae import affine, entries, refine
from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.encoder import Encoded
from ccstae.methods.ccstae.refine import (
    DEVIANCE_TOLERANCE,
    ROUGH_DEVIANCE_TOLERANCE,
    STEPS,
    Evaluation,
    State,
    covariance_of_M,
)
from ccstae.methods.ccstae.transformer import Patterns

FREE_SPREAD = 1.0
"""Relative spread of intensities that no entry holds."""


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
    patterns = dictionary.patterns(data, first.centre, dose, prior, good)
    free = replace(dictionary, spread=torch.full_like(dictionary.spread, FREE_SPREAD))
    evaluate = affine.evaluate_warped if dictionary.affine else refine.evaluate
    state = State(first.M, first.centre, prior.clone(), dose.clone(), prior)
    tolerance = DEVIANCE_TOLERANCE if rounds == 1 else ROUGH_DEVIANCE_TOLERANCE
    state, at = refine.refine(patterns, free, state, steps, evaluate, tolerance)
    expected, odds = entries.expected_intensity(dictionary, state, 1 / at.intensity_information)
    log_area = entries.log_area(state.M, covariance_of_M(at.information))
    entry = entries.likeliest(odds, dictionary.area, log_area)
    of_entry = expected[torch.arange(n, device=data.device), entry]
    prior = torch.cat([state.intensity[:, :1], of_entry], 1)
    for _ in range(rounds - 1):
        patterns = dictionary.patterns(
            data, state.centre, state.background_scale, state.intensity, good
        )
        begin = replace(state, prior=prior)
        state, at = refine.refine(patterns, dictionary, begin, steps, evaluate)
    return Solution(patterns, state, at, odds)
