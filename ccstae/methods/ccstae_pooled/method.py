"""`ccstae` with neighbours: every pattern is solved as there, then one field is fitted to the whole
scan (`pool`).

Where a single pattern holds too little, only pooling can help. It has a price, which the tables
show: bias where the strain bends within a few positions, and resolution. Its weights are those of
`ccstae`.
"""

from __future__ import annotations

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


def map_strain(counts: Counts, settings: CcstaeSettings, device: str) -> Answer:
    """Map a scan as `ccstae`, with deformation and covariance from all patterns of a neighbourhood.

    A pattern without a lattice of its own gets no answer. Lattices that an in-plane rotation has
    put on different branches of their symmetry are not neighbours.

    Args:
        counts: patterns (Ry, Rx, Qy, Qx), calibration and vacuum probe.
        settings: those of `ccstae`.
        device: "cpu" or "cuda".

    Returns:
        As `ccstae.map_strain`.
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
    solved_at = torch.zeros(len(counts.patterns), dtype=torch.bool)
    solved_at[solved.rows] = True
    M, pooled_covariance = pool.pool(
        solved.state.M.double().reshape(-1, 4).cpu().numpy(),
        inverse(solved.covariance).cpu().numpy(),
        solved_at.reshape(counts.scan).numpy(),
        model.settings.seed,
    )
    return ccstae.answer_of(
        counts,
        solved,
        torch.from_numpy(M).reshape(-1, 2, 2).to(device),
        torch.from_numpy(pooled_covariance).to(device),
    )
