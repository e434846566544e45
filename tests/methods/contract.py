"""The contract of a method (`ccstae.evaluation.method_contract`) for the methods of this package:
which checks each must pass, and how to run it at little cost.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from ccstae.evaluation.method_contract import FORM, STRAIN, Mapper, package_method
from ccstae.io.counts import Counts
from ccstae.methods import base
from ccstae.methods.base import Answer
from ccstae.methods.ccstae.settings import CcstaeSettings

# A training too short to measure strain; tests/methods/test_ccstae_2023.py trains for longer.
SHORT_TRAINING = {
    "channels": 8,
    "pools": [3, 2, 1],
    "binning": 4,
    "upsample": 2,
    "epochs": [1, 2],
    "batch": [2, 2],
}
SETTINGS: dict[str, dict[str, Any]] = {"ccstae-2023": SHORT_TRAINING}
# `zero` is the control: it measures nothing. All others must pass every check.
ONLY: dict[str, Collection[str]] = {"zero": FORM, "ccstae-2023": FORM}

_learned: dict[Any, Any] = {}


def only(method: str) -> Collection[str]:
    """The checks that a method must pass."""
    return ONLY.get(method, FORM + STRAIN)


def mapper(method: str) -> Mapper:
    """How the contract runs a method. Those that share what `ccstae` learns, learn it once for all
    scans of one detector and dose.
    """
    module = base.load(method)
    if not hasattr(module, "learn"):
        return package_method(method, SETTINGS.get(method))

    def map_scan(counts: Counts) -> tuple[Answer, Counts]:
        electrons = counts.counts[-1, -1].sum(dtype=float)
        key = (module.learn, counts.probe.shape, round(np.log10(electrons)))
        if key not in _learned:
            _learned[key] = module.learn(counts, CcstaeSettings(), "cpu")
        answer = module.apply(_learned[key], counts, "cpu")
        base.check_answer(answer, counts.counts.shape[:2], method)
        return answer, counts

    return map_scan
