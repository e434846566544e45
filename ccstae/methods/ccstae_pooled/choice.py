"""Which of two laws holds where, by how well each foretells a pattern from the others.

A law's field at a position without that position's own pattern is normal again, and follows from
the field with it (hat matrix H = covariance x information):

    log p(M_i | others) = -1/2 r^T Lambda (1 - H)^-1 r + 1/2 log det (1 - H) + const,  r = M_i - x_i

(S. Geisser, J. Am. Stat. Assoc. 70, 320 (1975)). Summed over a region, its exponential is the
weight of the law there (Y. Yao et al., Bayesian Anal. 13, 917 (2018)).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ccstae.methods.ccstae_pooled.field import Data, Field
from ccstae.methods.ccstae_pooled.law import window

Array = NDArray[np.float64]

REGION = 3.0  # standard deviation of a region's window, in scan steps
# Log odds of the first law before the patterns are asked. In a window the sums of two laws that
# foretell equally well differ by half of this or less by chance.
_PRIOR_LOG_ODDS = 10.0
_MAX_OWN = (
    0.98  # share of its own answer that a pattern may have in it: beyond, samples are too few
)


def better(data: Data, fields: list[Field], place: Array) -> Field:
    """The mean of the fields, weighted by how well each foretells the patterns round a position.

    Args:
        data: of the n positions.
        fields: of the laws; the first is believed unless another is clearly better.
        place: of the positions, (n, 2), in scan steps.
    """
    scores = np.stack([window(place, foretold(data, field), REGION) for field in fields])
    scores[0] += _PRIOR_LOG_ODDS
    weight = np.exp(scores - scores.max(0))
    weight /= weight.sum(0)
    mean = np.einsum("fn,fna->na", weight, [field.mean for field in fields])
    apart = np.array([field.mean for field in fields]) - mean
    covariance = np.einsum("fn,fnab->nab", weight, [field.covariance for field in fields])
    return Field(mean, covariance + np.einsum("fn,fna,fnb->nab", weight, apart, apart))


def foretold(data: Data, field: Field) -> Array:
    """log p(M_i | others) of every position (n,), but for a constant of the pattern."""
    root = data.root
    hat = np.swapaxes(root, 1, 2) @ field.covariance @ root
    own, axes = np.linalg.eigh(hat)
    own = np.clip(own, 0, _MAX_OWN)
    residual = np.einsum("nba,ncb,nc->na", axes, root, data.M - field.mean)
    return np.asarray((-0.5 * residual**2 / (1 - own) + 0.5 * np.log(1 - own)).sum(1))
