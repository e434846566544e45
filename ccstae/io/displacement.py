"""Displacements behind a map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Displacement:
    """Displacements of a map, and where there are none that fit it. Components are along the
    detector's x and y, both of the reference lattice.
    """

    # (Ry, Rx, 2), u at the place seen, of mean 0 over every connected part; NaN for no answer
    u_A: NDArray[np.float64]
    # (Ry - 1, Rx - 1, 2), Burgers vector over area of a cell of four positions; NaN likewise
    curl_inv_A: NDArray[np.float64]
    step_A: float
