"""From a rough lattice to the most likely state, for a batch of patterns: refine, read the sparse
code, refine with the intensities that the code expects.
"""

from __future__ import annotations

from dataclasses import replace

import torch
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

FREE_SPREAD = 1.0
"""Relative spread of intensities that no entry holds."""


def solve(
    dictionary: Dictionary, data: Tensor, first: Encoded, rounds: int, steps: int = STEPS
) -> tuple[State, Evaluation, Tensor]:
    """Refine the encoder's answers on the likelihood.

    The first climb leaves the intensities free, so that the code is read from intensities that no
    entry has pulled at. Later rounds hold the intensities to those that the entry expects.

    Args:
        dictionary: what patterns are made of.
        data: counts of the patterns (n, Qy, Qx).
        first: their lattices as the encoder gives them.
        rounds: climbs.
        steps: of a climb, at most; 0 leaves the encoder's answer.

    Returns:
        The states of the n patterns, their evaluation, and the log odds of the entries (n, E).
    """
    n = len(data)
    prior = dictionary.intensity.mean(0).expand(n, -1)
    free = dictionary.with_spread(FREE_SPREAD)
    evaluate = affine.evaluate_warped if dictionary.affine else refine.evaluate
    state = State(first.M, first.centre, prior.clone(), torch.ones(n, device=data.device), prior)
    tolerance = DEVIANCE_TOLERANCE if rounds == 1 else ROUGH_DEVIANCE_TOLERANCE
    state, at = refine.refine(data, free, state, steps, evaluate, tolerance)
    expected, odds = entries.expected_intensity(dictionary, state, 1 / at.intensity_information)
    log_area = entries.log_area(state.M, covariance_of_M(at.information))
    entry = entries.likeliest(odds, dictionary.area, log_area)
    of_entry = expected[torch.arange(n, device=data.device), entry]
    prior = torch.cat([state.intensity[:, :1], of_entry], 1)
    for _ in range(rounds - 1):
        state, at = refine.refine(data, dictionary, replace(state, prior=prior), steps, evaluate)
    return state, at, odds
