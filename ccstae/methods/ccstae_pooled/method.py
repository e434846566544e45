"""`ccstae` with neighbours: every pattern is solved as there, then one field is fitted to the whole
scan (`pool`).

Where a single pattern holds too little, only pooling can help. It has a price, which the tables
show: bias where the strain bends within a few positions, and resolution. Its weights are those of
`ccstae`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ccstae.io.counts import Counts
from ccstae.methods.base import Answer
from ccstae.methods.ccstae import method as ccstae
from ccstae.methods.ccstae.method import learn as learn
from ccstae.methods.ccstae.refine import inverse
from ccstae.methods.ccstae.settings import CcstaeSettings
from ccstae.methods.ccstae.trained import Trained
from ccstae.methods.ccstae.trained import load as load
from ccstae.methods.ccstae.trained import save as save
from ccstae.methods.ccstae_pooled import pool

FILLED = -1  # label of a position that its neighbours alone answer for


def map_strain(counts: Counts, settings: CcstaeSettings, device: str) -> Answer:
    """Map a scan as `ccstae`, with deformation and covariance from all patterns of a neighbourhood.

    A position without a lattice of its own gets the answer of its neighbours, and the label -1,
    where three quarters of them have one and determine it as well as `ccstae` asks of an answer.

    Args:
        counts: patterns (Ry, Rx, Qy, Qx), calibration and vacuum probe.
        settings: those of `ccstae`.
        device: "cpu" or "cuda".

    Returns:
        As `ccstae.map_strain`, with what single patterns say beside it.
    """
    return ccstae.mapped(counts, settings, device, apply)


def apply(model: Trained, counts: Counts, device: str) -> Answer:
    """`map_strain` with what was learned from this scan or another one.

    Args:
        model: what `learn` or `load` returned.
        counts: patterns (Ry, Rx, Qy, Qx), calibration and vacuum probe.
        device: "cpu" or "cuda".

    Returns:
        As `map_strain`.

    Raises:
        InputError: where the instrument or the nominal lattice is another one.
    """
    solved = ccstae.solve_scan(model, counts, device)
    if solved is None:
        return ccstae.no_answer(counts, model.finder)
    alone = ccstae.answer_of(counts, solved, solved.found.M.double(), solved.covariance)
    held = np.zeros(counts.scan, bool)
    held.ravel()[solved.rows] = True
    pooled = pool.pool(
        solved.found.M.double().reshape(-1, 4).cpu().numpy(),
        inverse(solved.covariance).cpu().numpy(),
        held,
        counts.calibration.rotational_symmetry,
        model.settings.seed,
    )
    own = held[pooled.answered]
    answer = ccstae.answer_of(
        counts,
        solved,
        torch.from_numpy(pooled.M[own]).reshape(-1, 2, 2).to(device),
        torch.from_numpy(pooled.covariance[own]).to(device),
    )
    _fill(answer, pooled, held)
    return replace(
        answer,
        F_per_pattern=alone.F,
        covariance_per_pattern=alone.covariance,
        found=answer.found | pooled.found,
    )


def _fill(answer: Answer, pooled: pool.Pooled, held: pool.Mask) -> None:
    """Write the answers of positions that have none of their own."""
    borrowed = ~held[pooled.answered]
    F, covariance = ccstae.deformation_and_covariance(
        torch.from_numpy(pooled.M[borrowed]).reshape(-1, 2, 2),
        torch.from_numpy(pooled.covariance[borrowed]),
    )
    sure = ccstae.determined(covariance)
    at = np.argwhere(pooled.answered & ~held)[sure]
    assert answer.covariance is not None
    assert answer.label is not None
    answer.F[tuple(at.T)] = F[sure]
    answer.covariance[tuple(at.T)] = covariance[sure]
    answer.label[tuple(at.T)] = FILLED
