"""The contract of a method, held against ideal patterns of known F (`ccstae.simulation.ideal`).

Every method of this package keeps it, and `ccstae check-method` holds any program to it. There are
two groups of checks:

    FORM    what an answer looks like, whatever it says: shapes and kinds, inputs left alone, the
            same bytes twice
    STRAIN  what it says: exact F on clean patterns, NaN for vacuum, any orientation of the lattice,
            a direct beam off the nominal centre, a detector that is not square

The control `zero` measures nothing, so it keeps the checks of form alone.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ccstae import geometry
from ccstae.config.methods import Method, MethodSettings, modules
from ccstae.config.problem import first_problem
from ccstae.config.run import checked_settings
from ccstae.errors import InputError
from ccstae.io.counts import Counts, read_counts, write_counts
from ccstae.methods import base, external
from ccstae.methods.base import Answer
from ccstae.simulation.ideal import IdealCrystal, cropped, errors, random_deformations

# Maps a scan. Returns the answer, and the scan as the method left it.
Mapper = Callable[[Counts], tuple[Answer, Counts]]

FORM = ("shapes and kinds", "inputs left alone", "same bytes twice")
STRAIN = (
    "clean patterns",
    "vacuum",
    "any orientation",
    "beam off the nominal centre",
    "detector not square",
)

# Of the scan with noise.
ELECTRONS = 1e5
BACKGROUND = 0.25


@dataclass(frozen=True)
class Tolerance:
    """How far a method's answers may lie from the known F."""

    strain: float = 10e-4
    """Largest root mean square error of a component over a clean scan; radians for the rotation."""
    over_bound: float = 3.0
    """Largest root mean square error of a component over its Cramer-Rao bound, with noise."""


DEFAULT_TOLERANCE = Tolerance()
# What the methods of this package are held to. `cepstral` pulls all lattices inwards, alike
# everywhere; the scores take this off with the reference region.
TOLERANCES = {
    "com": Tolerance(0.2e-4, 2.3),
    "template": Tolerance(3e-4, 2.0),
    "cepstral": Tolerance(80e-4, 10.0),
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
    module = base.load(method)
    chosen = checked_settings(method, settings or {}, f"{method}: settings")
    assert isinstance(chosen, MethodSettings)

    def map_scan(counts: Counts) -> tuple[Answer, Counts]:
        answer: Answer = module.map_strain(counts, chosen, "cpu")
        base.check_answer(answer, counts.scan, method)
        return answer, counts

    return map_scan


def program(
    command: str, settings: dict[str, Any] | None = None, time_limit_s: float = 600.0
) -> Mapper:
    """A program from outside as the contract runs it, through a counts file and a map file.

    Args:
        command: what a config says after `command:`.
        settings: what the program gets after `--settings`, as JSON.
        time_limit_s: the longest that one scan may take.

    Raises:
        InputError: where the command is empty or cannot be split into words, its first word is no
            program, or the time is none.
    """
    try:
        entry = Method(command=command, settings=settings or {}, time_limit_s=time_limit_s)
    except ValidationError as error:
        raise InputError(first_problem(error, Method)) from None
    first = external.command_words("program", command)[0]
    if shutil.which(first) is None:
        raise InputError(
            f"{first!r} is neither a method of this package nor a program that can be started; "
            f"expected one of {', '.join(modules())}, or a command"
        )

    def map_scan(counts: Counts) -> tuple[Answer, Counts]:
        with tempfile.TemporaryDirectory(prefix="ccstae-") as folder:
            path = Path(folder) / "counts.h5"
            shape = counts.scan + counts.detector
            write_counts(
                path, counts.scan_rows(), shape, counts.calibration, counts.probe, ~counts.good
            )
            written = external.answer("program", entry, path, shape[:2])
            answer = Answer(
                written.F, written.covariance, written.label, written.centre_px, written.dictionary
            )
            return answer, read_counts(path)

    return map_scan


def check(
    map_scan: Mapper,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    only: Collection[str] = FORM + STRAIN,
) -> Iterator[Check]:
    """Hold a method to the contract.

    Args:
        map_scan: from `package_method` or `program`.
        tolerance: how far its answers may lie from the known F.
        only: names of the checks to make.

    Returns:
        The checks one by one, as they are made. Where a method gives no answer for a scan, every
        check on that scan fails, and `found` says why.
    """
    for names, checks in (
        (("clean patterns", *FORM), _clean),
        (("vacuum", "any orientation"), _noisy),
        (("beam off the nominal centre",), _beam_off_centre),
        (("detector not square",), _not_square),
    ):
        wanted = [name for name in names if name in only]
        if not wanted:
            continue
        try:
            for found in checks(map_scan, tolerance, wanted):
                if found.name in wanted:
                    yield found
        except InputError as error:
            yield Check(wanted[0], False, str(error), "an answer")
            for name in wanted[1:]:
                yield Check(name, False, "no answer for the same scan", "an answer")


def failures(
    map_scan: Mapper,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    only: Collection[str] = FORM + STRAIN,
) -> list[str]:
    """The checks that fail, in words; empty for a method that keeps the contract. For tests."""
    return [str(made) for made in check(map_scan, tolerance, only) if not made.passed]


def _clean(map_scan: Mapper, tolerance: Tolerance, wanted: Collection[str]) -> Iterator[Check]:
    F, scan = clean_scan()
    answer, left = map_scan(copy.deepcopy(scan))
    form = f"{answer.F.dtype} of shape {answer.F.shape}"
    yield Check("shapes and kinds", True, f"F is {form}", "floats of shape (3, 4, 2, 2)")
    changed = [
        name
        for name, before, after in (
            ("counts", scan.patterns[:], left.patterns[:]),
            ("probe", scan.probe, left.probe),
            ("lattice_inv_A", scan.calibration.lattice_inv_A, left.calibration.lattice_inv_A),
        )
        if not np.array_equal(before, after)
    ]
    yield Check(
        "inputs left alone", not changed, f"changed: {', '.join(changed) or 'nothing'}", "nothing"
    )
    if "same bytes twice" in wanted:
        again, _ = map_scan(copy.deepcopy(scan))
        differ = [
            name
            for name in ("F", "covariance", "label", "centre_px", "dictionary")
            if not _same_bytes(getattr(answer, name), getattr(again, name))
        ]
        yield Check(
            "same bytes twice",
            not differ,
            f"different: {', '.join(differ) or 'nothing'}",
            "nothing",
        )
    yield _exact("clean patterns", answer, F, tolerance)


def _noisy(map_scan: Mapper, tolerance: Tolerance, wanted: Collection[str]) -> Iterator[Check]:
    F, vacuum, scan, bound = _noisy_scan()
    answer, _ = map_scan(copy.deepcopy(scan))
    empty = np.asarray(np.isnan(answer.F).all((-1, -2)))
    yield Check(
        "vacuum",
        bool(empty[vacuum].all()),
        f"{int(empty[vacuum].sum())} of {vacuum.sum()} without an answer",
        f"{vacuum.sum()}: there is no lattice",
    )
    sample = ~vacuum
    missing = int(np.isnan(answer.F[sample]).any((-1, -2)).sum())
    ratio = _rms(errors(answer.F[sample], F[sample])) / bound
    yield Check(
        "any orientation",
        missing == 0 and bool(ratio.max() <= tolerance.over_bound),
        f"error over bound {ratio.max():.3g}, {missing} of {sample.sum()} without an answer",
        f"at most {tolerance.over_bound:g}, and 0",
    )


@cache
def clean_scan() -> tuple[NDArray[np.float64], Counts]:
    """F and counts of a scan of 3 x 4 without noise."""
    F = random_deformations((3, 4), strain=0.04, rotation=0.05)
    return F, IdealCrystal().counts(F)


@cache
def _noisy_scan() -> tuple[NDArray[np.float64], NDArray[np.bool_], Counts, NDArray[np.float64]]:
    """F, vacuum, counts and bound (4,) of a scan of 8 x 6: two rows of vacuum, then lattices of all
    orientations.
    """
    vacuum = np.zeros((8, 6), bool)
    vacuum[:2] = True
    turn = np.linspace(-1.2, 1.2, 36).reshape(6, 6)
    F = random_deformations((8, 6), seed=4)
    F[2:] = F[2:] @ geometry.rotation_matrix(turn)
    crystal = IdealCrystal()
    bound = crystal.limit(np.eye(2), ELECTRONS, BACKGROUND)
    return F, vacuum, crystal.counts(F, ELECTRONS, BACKGROUND, vacuum), bound


def _beam_off_centre(
    map_scan: Mapper, tolerance: Tolerance, wanted: Collection[str]
) -> Iterator[Check]:
    F = random_deformations((3, 3), seed=1)
    answer, _ = map_scan(IdealCrystal(offset_px=(1.7, -2.3)).counts(F))
    yield _exact("beam off the nominal centre", answer, F, tolerance)


def _not_square(map_scan: Mapper, tolerance: Tolerance, wanted: Collection[str]) -> Iterator[Check]:
    """A detector of 116 rows and 124 columns with the nominal centre off its middle."""
    F = random_deformations((3, 3), seed=2)
    scan = cropped(IdealCrystal().counts(F), slice(9, 125), slice(1, 125))
    answer, _ = map_scan(scan)
    yield _exact("detector not square", answer, F, tolerance)


def _exact(name: str, answer: Answer, F: NDArray[np.float64], tolerance: Tolerance) -> Check:
    """Whether an answer is the known F, but for turns of the lattice's symmetry."""
    missing = int(np.isnan(answer.F).any((-1, -2)).sum())
    worst = float(_rms(errors(answer.F, F)).max())
    return Check(
        name,
        missing == 0 and worst <= tolerance.strain,
        f"error {worst:.2g}, {missing} of {F[..., 0, 0].size} without an answer",
        f"at most {tolerance.strain:.2g}, and 0",
    )


def _rms(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square (4,) of errors (..., 4) over the positions with an answer; infinite where
    there is none.
    """
    answered = error[np.isfinite(error).all(-1)]
    return np.sqrt((answered**2).mean(0)) if len(answered) else np.full(4, np.inf)


def _same_bytes(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.tobytes() == other.tobytes()
