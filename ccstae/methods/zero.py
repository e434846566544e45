"""The control: no strain anywhere. A method that does not beat it has measured nothing."""

from __future__ import annotations

import numpy as np

from ccstae.config.methods import MethodSettings
from ccstae.io.counts import Counts
from ccstae.methods.base import Answer


class ZeroSettings(MethodSettings):
    """No strain anywhere: the control that every method must beat."""

    silent: bool = False
    """Give no answer at all instead: a control of how failures are scored, which is as no strain.
    """


def map_strain(counts: Counts, settings: ZeroSettings, device: str) -> Answer:
    """F = I at every position, or NaN everywhere where the settings say silent."""
    F = np.full((2, 2), np.nan) if settings.silent else np.eye(2)
    return Answer(F=np.broadcast_to(F, (*counts.scan, 2, 2)).copy())
