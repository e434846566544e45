"""From a rough lattice to the most likely state, for a batch of patterns: refine, read the code,
refine with what the code expects.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ccstae.methods.ccstae import affine, entries, refine
from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.encoder import Encoded
from ccstae.methods.ccstae.refine import ROUGHLY, STEPS, Evaluation, State, covariance_of_M

FREE = 1.0
"""Relative spread of intensities that no entry holds."""


def solve(
    dictionary: Dictionary, data: Tensor, first: Encoded, rounds: int, steps: int = STEPS
) -> tuple[State, Evaluation, Tensor]:
    """Refine the encoder's answers for patterns (n, Qy, Qx) on the likelihood; states, their
    evaluation, the entries' log odds (n, E).

    The code is read from intensities that no entry has pulled at; later rounds hold the intensities
    to what the entry expects.
    """
    n = len(data)
    prior = dictionary.intensity.mean(0).expand(n, -1)
    free = replace(dictionary, spread=torch.full_like(dictionary.spread, FREE))
    evaluate = affine.evaluate if dictionary.affine else refine.evaluate
    state = State(first.M, first.centre, prior.clone(), torch.ones(n, device=data.device), prior)
    ends = {} if rounds == 1 else {"converged": ROUGHLY}
    state, at = refine.refine(data, free, state, steps, evaluate, **ends)
    expected, odds = entries.expected(dictionary, state, 1 / at.own)
    entry = entries.likeliest(
        odds, dictionary.area, entries.log_area(state.M, covariance_of_M(at.normal))
    )
    prior = torch.cat(
        [state.intensity[:, :1], expected[torch.arange(n, device=data.device), entry]], 1
    )
    for _ in range(rounds - 1):
        state, at = refine.refine(data, dictionary, replace(state, prior=prior), steps, evaluate)
    return state, at, odds
