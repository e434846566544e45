"""What a method is: a module with one function, `map_strain`, and an entry in the registry below.

    def map_strain(counts: store.Counts, settings: <its settings model>, device: str) -> Answer

A method gets counts, calibration, the vacuum probe and the nominal lattice, never truth. `device`
is "cpu" or "cuda".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae.errors import InputError, unknown

# Modules are imported when they run, so that one method never pays for another's dependencies.
REGISTRY = {
    "zero": "ccstae.methods.zero",
    "com": "ccstae.methods.com.method",
    "template": "ccstae.methods.template.method",
    "cepstral": "ccstae.methods.cepstral.method",
    "ccstae": "ccstae.methods.ccstae.method",
    "ccstae-2023": "ccstae.methods.ccstae_2023.method",
    "ccstae-pooled": "ccstae.methods.ccstae_pooled.method",
}


# Methods that learn from a scan and can map others with what they learned: their modules also have
#     learn(counts, settings, device) -> Model, None where no pattern teaches anything
#     apply(model, counts, device) -> Answer
#     save(path, model), load(path, counts, settings, device) -> Model
LEARNERS = ("ccstae", "ccstae-pooled")


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


def load(name: str) -> Callable[..., Answer]:
    """`map_strain` of the method called `name`; InputError for a name that no module answers to."""
    if name not in REGISTRY:
        raise InputError(unknown("method", name, REGISTRY))
    map_strain: Callable[..., Answer] = import_module(REGISTRY[name]).map_strain
    return map_strain
