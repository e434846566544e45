"""The contract of a method, held against ideal patterns of known F (`ccstae.simulation.ideal`).

Every method of this package must keep it, and `ccstae check-method` holds any program to it. There
are two groups of checks:

    FORM    what an answer looks like, whatever it says: shapes and kinds, inputs left alone, the
            same bytes twice
    STRAIN  what it says: exact F on clean patterns, NaN for vacuum, any orientation of the lattice,
            a direct beam off the nominal centre, a detector that is not square

The controls `zero` and `silent` measure nothing, so they keep the checks of form alone.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ccstae import geometry
from ccstae.config.methods import Method, validated
from ccstae.errors import InputError
from ccstae.io.counts import Counts, write_counts
from ccstae.methods import base, external
from ccstae.methods.base import Answer
from ccstae.simulation.ideal import IdealCrystal, cropped, errors, random_deformations

Mapper = Callable[[Counts], Answer]

FORM = ("shapes and kinds", "inputs left alone", "same bytes twice")
STRAIN = (
    "clean patterns",
    "vacuum",
    "any orientation",
    "beam off the nominal centre",
    "detector not square",
)


@dataclass(frozen=True)
class Tolerance:
    """How far a method's answers may lie from the known F."""

    strain: float = 10e-4
    """Largest root mean square error of a component, without noise."""
    over_bound: float = 3.0
    """The same over the Cramer-Rao bound, at 1e5 electrons and a background of a quarter."""
    centre_px: float = 0.1
    """Largest error of the direct beam's position, without noise, where a method gives it."""


# What the methods of this package are held to. `cepstral` pulls all lattices inwards, alike
# everywhere; the scores take this off with the reference region.
TOLERANCES = {
    "com": Tolerance(0.2e-4, 2.3, 2e-3),
    "template": Tolerance(3e-4, 2.0, 0.03),
    "cepstral": Tolerance(80e-4, 10.0, 0.03),
    "ccstae": Tolerance(1e-4, 1.5),
    "ccstae-pooled": Tolerance(1e-4, 1.5),
}


@dataclass(frozen=True)
class Check:
    """One thing that a method must do, and what it did."""

    name: str
    passed: bool
    found: str
    expected: str

    def __str__(self) -> str:
        mark = "pass" if self.passed else "FAIL"
        return f"{mark}  {self.name}: {self.found}; expected {self.expected}"


def package_method(method: str, settings: dict[str, Any] | None = None) -> Mapper:
    """A method of this package as the contract runs it, on the CPU.

    Args:
        method: its id, as `ccstae methods` lists it.
        settings: those that differ from the defaults.

    Raises:
        InputError: where there is no such method, or it has no such settings.
    """
    module, chosen = base.load(method), validated(method, settings or {}, "settings")

    def map_scan(counts: Counts) -> Answer:
        answer: Answer = module.map_strain(counts, chosen, "cpu")
        base.check_answer(answer, counts.counts.shape[:2], method)
        return answer

    return map_scan


def program(
    command: str, settings: dict[str, Any] | None = None, time_limit_s: float = 600.0
) -> Mapper:
    """A program from outside as the contract runs it, through a counts file and a map file.

    Args:
        command: what a config says after `command:`.
        settings: JSON that the program gets after `--settings`.
        time_limit_s: the longest that one scan may take.

    Raises:
        InputError: where the command is no words, or its first word is no program.
    """
    entry = Method(command=command, settings=settings or {}, time_limit_s=time_limit_s)
    first = external.command_words("program", command)[0]
    if shutil.which(first) is None:
        raise InputError(f"{first!r} is no method of this package and no program that can be run")

    def map_scan(counts: Counts) -> Answer:
        with tempfile.TemporaryDirectory(prefix="ccstae-") as folder:
            path = Path(folder) / "counts.h5"
            write_counts(
                path, iter(counts.counts), counts.counts.shape, counts.calibration, counts.probe
            )
            before = _digest(path)
            answer = external.answer_of("program", entry, path, counts.counts.shape[:2])
            if _digest(path) != before:
                counts.counts[...] = 0  # the caller sees that its input did not stay as it was
            return Answer(
                answer.F, answer.covariance, answer.label, answer.centre_px, answer.dictionary
            )

    return map_scan
