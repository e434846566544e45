"""What a method gives and how it is loaded.

A method is a module with one function, found by where it lies (`ccstae.config.methods`):

    def map_strain(counts: Counts, settings: <its settings model>, device: str) -> Answer

It gets counts, calibration, the vacuum probe and the nominal lattice, never truth. `device` is
"cpu" or "cuda". A method that learns from a scan, and can map others with what it learned, has four
functions more:

    learn(counts, settings, device) -> Model, None where no pattern teaches anything
    apply(model, counts, device) -> Answer
    save(path, model)
    load(path, counts, settings, device) -> Model
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae.config.methods import modules
from ccstae.errors import InputError, unknown


@dataclass(frozen=True)
class Answer:
    """A method's answer for every pattern of a scan."""

    F: NDArray[np.float64]  # (Ry, Rx, 2, 2), NaN where the method gives up
    covariance: NDArray[np.float64] | None = None  # (Ry, Rx, 4, 4) of exx, eyy, exy, theta
    label: NDArray[np.int8] | None = None  # (Ry, Rx), 0 background, 1.. materials
    centre_px: NDArray[np.float64] | None = None  # (Ry, Rx, 2), direct beam (x, y)
    # (entries, Ky, Kx), averaged patterns over the whole detector, however fine
    dictionary: NDArray[np.float32] | None = None
    found: dict[str, Any] = field(
        default_factory=dict
    )  # what the method found by itself; kept beside its settings


def load(method: str) -> ModuleType:
    """The module of a method; InputError for a name that no module answers to.

    It is imported here, so that one method never pays for another's dependencies.
    """
    if method not in modules():
        raise InputError(unknown("method", method, modules()))
    return import_module(modules()[method])
