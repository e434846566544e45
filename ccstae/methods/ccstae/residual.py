"""What the model has no word for: counts less those that it expects, the mean over a scan."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccstae.methods.ccstae import expected
from ccstae.methods.ccstae.dictionary import Dictionary
from ccstae.methods.ccstae.refine import State

_AT_A_TIME = {"cpu": 16, "cuda": 1024}  # patterns; on a CPU as many as its caches hold


def mean_residual(
    dictionary: Dictionary, patterns: Iterable[tuple[Tensor, State]], good: Tensor | None
) -> NDArray[np.float32] | None:
    """Mean over patterns of counts less model, pixel by pixel of the detector.

    Args:
        dictionary: what the patterns are made of.
        patterns: counts (n, Qy, Qx) and their states, in parts; one part is held at a time.
        good: True where a pixel tells something, (Qy, Qx); None where all do.

    Returns:
        (Qy, Qx) in counts, NaN on pixels that tell nothing; None where no climb arrived.
    """
    total, number = torch.zeros(dictionary.detector_px, dtype=torch.float64), 0
    for counts, states in patterns:
        size = _AT_A_TIME[counts.device.type]
        for some in (slice(i, i + size) for i in range(0, len(counts), size)):
            model = expected.pattern(dictionary, states[some])
            # A climb that ran off leaves numbers that are none.
            sound = model.sum((1, 2)).isfinite()
            difference = (counts[some] - model)[sound]
            total += difference.sum(0, dtype=torch.float64).cpu()
            number += int(sound.sum())
    if number == 0:
        return None
    mean = (total / number).float()
    if good is not None:
        mean[~good.cpu()] = torch.nan
    return mean.numpy()
