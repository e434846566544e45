"""Patterns without holes, for methods that look at windows rather than at single pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccstae.io import beside


def filler(good: NDArray[np.bool_], device: str) -> Callable[[Tensor], Tensor]:
    """What fills the bad pixels of patterns.

    Args:
        good: where a pixel tells something, (Qy, Qx).
        device: "cpu" or "cuda".

    Returns:
        A function of patterns (B, Qy, Qx). It gives their bad pixels the weighted mean of the good
        ones nearest to them, in a copy, and patterns without bad pixels as they are.
    """
    if good.all():
        return lambda patterns: patterns
    places, shares = beside.neighbours(good, ~good)
    index, weight = torch.from_numpy(places).to(device), torch.from_numpy(shares).to(device)
    bad = torch.from_numpy(~good).to(device)

    def filled(patterns: Tensor) -> Tensor:
        around = patterns.flatten(1)[:, index.flatten()].reshape(len(patterns), *index.shape)
        return patterns.masked_scatter(bad, (around * weight).sum(-1))

    return filled
