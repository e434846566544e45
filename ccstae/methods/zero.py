"""The control: no strain anywhere. A method that does not beat it has measured nothing."""

from __future__ import annotations

import numpy as np

from ccstae.config.methods import ZeroSettings
from ccstae.io.store import Counts
from ccstae.methods.base import Answer


def map_strain(counts: Counts, settings: ZeroSettings, device: str) -> Answer:
    """F = I at every position, or NaN where asked to be silent."""
    F = np.full((2, 2), np.nan) if settings.silent else np.eye(2)
    return Answer(F=np.broadcast_to(F, (*counts.counts.shape[:2], 2, 2)).copy())
