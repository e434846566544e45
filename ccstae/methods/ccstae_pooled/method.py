"""`ccstae` with neighbours: every pattern as there, then one field for the whole scan
(model/pool.py).

Below the per-pattern bound nothing but pooling can see. It has a price, told in the table: bias
where the strain bends within a few positions, and resolution. Its weights are those of `ccstae`.
"""

from __future__ import annotations

import torch

from ccstae.io.counts import Counts
from ccstae.methods.base import Answer
from ccstae.methods.ccstae import method as ccstae
from ccstae.methods.ccstae.method import learn as learn
from ccstae.methods.ccstae.refine import covariance_of_M, inverse
from ccstae.methods.ccstae.settings import CcstaeSettings
from ccstae.methods.ccstae.trained import Trained
from ccstae.methods.ccstae.trained import load as load
from ccstae.methods.ccstae.trained import save as save
from ccstae.methods.ccstae_pooled import pool


def map_strain(counts: Counts, settings: CcstaeSettings, device: str) -> Answer:
    """As `ccstae`, with deformation and covariance from all patterns of a neighbourhood.

    A pattern without a lattice of its own gets no answer. Lattices that an in-plane rotation has
    put on different branches of their symmetry are not neighbours.
    """
    model = learn(counts, settings, device)
    return ccstae.nothing(counts) if model is None else apply(model, counts, device)


def apply(model: Trained, counts: Counts, device: str) -> Answer:
    """`map_strain` with what was learned from another scan."""
    solved = ccstae.solve_scan(model, counts, device)
    if solved is None:
        return ccstae.nothing(counts)
    covariance = covariance_of_M(solved.normal)
    held = torch.zeros(counts.counts.shape[0] * counts.counts.shape[1], dtype=torch.bool)
    held[solved.rows] = True
    M, pooled = pool.pool(
        solved.state.M.double().reshape(-1, 4).cpu().numpy(),
        inverse(covariance).cpu().numpy(),
        held.reshape(counts.counts.shape[:2]).numpy(),
        model.settings.seed,
    )
    return ccstae.answer(
        counts, solved, torch.from_numpy(M).reshape(-1, 2, 2), torch.from_numpy(pooled)
    )
