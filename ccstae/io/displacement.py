"""Files of what `ccstae strain` makes of a map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ccstae.io.hdf5 import created


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


def write_displacement(path: Path | str, displacement: Displacement) -> None:
    """Write a file, whole or not at all.

    Raises:
        InputError: where the system takes no more of it.
    """
    with created(path) as file:
        file["u_A"] = displacement.u_A
        file["curl_inv_A"] = displacement.curl_inv_A
        file.attrs["step_A"] = displacement.step_A
