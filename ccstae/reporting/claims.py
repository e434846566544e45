"""The five claims of the paper on CC-ST-AE, each with the measurement that decides it, and a
verdict that follows from the numbers.

Every claim is cut into tests. A test compares two numbers of one carrier: the published figures,
the model of 2023 as reproduced (`ccstae-2023`), or the reference implementation (`ccstae`). The
verdict follows from those tests whose numbers are there:

    holds                 every test is met
    holds in part         some are
    does not hold         none is
    cannot be told here   there is no number of a run

The strongest rival is the run's best method that takes each pattern alone, as the carriers do, and
is neither a control nor of the CC-ST-AE family; of the published figures it is the published
py4DSTEM.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from ccstae.config.run import Config
from ccstae.evaluation import published as measures
from ccstae.reporting import display, published, side_by_side
from ccstae.reporting.table import LEVEL, Table, with_not_run

Verdict = Literal["holds", "holds in part", "does not hold", "cannot be told here"]
FAMILY = ("ccstae", "ccstae-pooled", "ccstae-2023")
COM = "com"
PUBLISHED, PUBLISHED_RIVAL = "published CC-ST-AE", "published py4DSTEM"
MAX_SIGNIFICANT_RATIO = 0.8
"""Error over the rival's from which on a method is significantly better: by a fifth, more than the
figures differ from seed to seed."""
MAX_NOISE_FREE_ERROR = 3e-5
"""What simulation and conventions may leave without noise: errors below it are no different."""
MAX_TURNED_RATIO = 1.1
"""Error with large rotations over that without: a tenth is the scatter of a scene of some hundred
positions."""
MIN_FOUND = 0.9
"""Share of dislocations found, and of a ripple's strain shown, that counts as identified."""
MIN_TOLD_APART = 0.95
"""Share of positions rightly told for sample or background."""
STRUCTURES_LEVEL = 0.25  # background of the level at which structures are judged, or the nearest
CARRIERS = ("published", "ccstae-2023", "ccstae", "strongest rival")
HEAD = ("claim", "verdict", *CARRIERS, "measured", "in one sentence")


@dataclass(frozen=True)
class Claim:
    """One row: what was measured, for whom it came out how, and what follows."""

    claim: str
    measured: str
    cells: dict[str, str]
    """Texts of the columns published, ccstae-2023, ccstae, strongest rival; none where left out."""
    tests: dict[str, bool]
    """What each test found; those without numbers are left out."""
    numbers: dict[str, float]
    sentence: str
    from_run: bool = True
    """Whether a number is of a run and not of the paper alone."""

    @property
    def verdict(self) -> Verdict:
        return verdict(list(self.tests.values()), self.from_run)


def verdict(tests: list[bool], from_run: bool = True) -> Verdict:
    """What follows from tests.

    >>> verdict([True, True]), verdict([True, False]), verdict([False]), verdict([])
    ('holds', 'holds in part', 'does not hold', 'cannot be told here')
    >>> verdict([True], from_run=False)
    'cannot be told here'
    """
    if not tests or not from_run:
        return "cannot be told here"
    if all(tests):
        return "holds"
    return "holds in part" if any(tests) else "does not hold"


def table(
    config: Config, measured: pd.DataFrame, structures: pd.DataFrame | None = None
) -> Table | None:
    """The claims as a table; None where nothing was published of the run's truth.

    Args:
        config: of the run.
        measured: what `evaluation.published.read` gives.
        structures: scores of config/structures.yaml; None where it has not run.
    """
    if measured.empty:
        return None
    rows, numbers = [], []
    for place, claim in enumerate(every(config, measured, structures), 1):
        cells = [claim.cells.get(name, "-") for name in CARRIERS]
        rows.append(
            [f"{place}. {claim.claim}", claim.verdict, *cells, claim.measured, claim.sentence]
        )
        numbers += [(place, name, value) for name, value in claim.numbers.items()]
        numbers += [(place, f"test: {name}", float(met)) for name, met in claim.tests.items()]
    return Table(
        name="claims",
        title="The five claims",
        caption="Each claim of the paper with the measurement that decides it. Strain errors are "
        "mean absolute errors of exx, eyy and exy, averaged, over all positions, in units of 1e-4. "
        "A claim holds where every test of it is met, by the published figures, by the model of "
        "2023 as reproduced here and by this project's `ccstae`; in part where some are; not where "
        "none is. Without a number of a run it cannot be told. The strongest rival is the best "
        "method of the run beside these and the controls that takes each pattern alone. "
        "`ccstae-2023` is the published model at the size that the config gives it.",
        head=list(HEAD),
        rows=rows,
        keys=len(HEAD),
        best=frozenset(),
        numbers=pd.DataFrame(numbers, columns=["claim", "number", "value"]),
    )


def every(
    config: Config, measured: pd.DataFrame, structures: pd.DataFrame | None = None
) -> list[Claim]:
    """The five claims in the paper's order; arguments as in `table`."""
    errors = _Errors(config, measured)
    shown = None if structures is None or structures.empty else _Structures(structures)
    minimal, com_fails, noise = _minimal(errors), _where_com_fails(errors), _noise(errors)
    return [minimal, com_fails, _turned(shown), noise, _maps(shown)]


class _Errors:
    """Mean absolute errors over all positions of the first scene with published errors: medians
    over the seeds.
    """

    def __init__(self, config: Config, measured: pd.DataFrame):
        frame = published.beside(config, measured)
        frame = frame[frame["scene"] == next(iter(measures.scenes(config)))]
        frame = frame[frame["positions"] == "all"]
        self.values = frame.groupby(["quantity", *LEVEL, "method"])["value"].median()
        self.rivals = [
            method
            for method, row in config.methods.items()
            if (row.method or method) not in FAMILY
            and method not in display.controls(config)
            and not (row.denoise or row.smooth)
        ]
        self.controls = [m for m in config.methods if m in display.controls(config)]
        self.levels = [(level.background, level.electrons) for level in config.levels]

    def of(self, method: str, level: tuple[float, float], quantity: str = "strain") -> float:
        """nan where there is none."""
        return float(self.values.get((quantity, *level, method), math.nan))

    def rival(
        self, level: tuple[float, float], quantity: str = "strain", but: str = ""
    ) -> tuple[str, float]:
        """The best of the rivals, `but` left out, and its error."""
        found = {name: self.of(name, level, quantity) for name in self.rivals if name != but}
        found = {name: error for name, error in found.items() if math.isfinite(error)}
        if not found:
            return "none", math.nan
        best = min(found, key=lambda name: found[name])
        return best, found[best]

    def compared(
        self,
        level: tuple[float, float],
        largest_ratio: float = 1.0,
        but: str = "",
        enough: float = 0,
    ) -> tuple[dict[str, str], dict[str, bool], dict[str, float]]:
        """Cells, tests and numbers of strain errors at a level: each carrier's against its
        rival's, at most so many times as large, or small `enough` in itself.
        """
        rival, rival_error = self.rival(level, but=but)
        carriers = {
            "published": (self.of(PUBLISHED, level), self.of(PUBLISHED_RIVAL, level)),
            "ccstae-2023": (self.of("ccstae-2023", level), rival_error),
            "ccstae": (self.of("ccstae", level), rival_error),
        }
        cells = {name: _units(error) for name, (error, _) in carriers.items()}
        cells["strongest rival"] = f"{rival} {_units(rival_error)}"
        tests = {
            f"{name} against its rival": bool(error <= max(largest_ratio * other, enough))
            for name, (error, other) in carriers.items()
            if math.isfinite(error) and math.isfinite(other)
        }
        numbers = {name: error for name, (error, _) in carriers.items()}
        return cells, tests, {**numbers, "strongest rival": rival_error}


def _minimal(errors: _Errors) -> Claim:
    level = next((one for one in errors.levels if math.isinf(one[1])), None)
    name = "minimal error on simulated data"
    if level is None:
        return _untold(name, "strain error without noise", "the noise-free level `clean`")
    cells, tests, numbers = errors.compared(level, enough=MAX_NOISE_FREE_ERROR)
    return Claim(
        name,
        "strain error without noise, not above the strongest rival's, or at most "
        f"{_units(MAX_NOISE_FREE_ERROR)}",
        cells,
        tests,
        numbers,
        f"Without noise `ccstae` errs by {cells['ccstae']}, the strongest rival "
        f"({cells['strongest rival']}), and the published model by {cells['published']}.",
    )


def _where_com_fails(errors: _Errors) -> Claim:
    name = "strain and rotation where CoM fails, significantly better than template matching"
    what = f"`com`, and strain error at most {MAX_SIGNIFICANT_RATIO:g} of the strongest rival's"
    noisy = [one for one in errors.levels if one[1] == 1e5]
    if not noisy or not errors.controls:
        return _untold(name, what, "levels of 1e5 electrons and the control `zero`")
    fails = [one for one in noisy if errors.of(COM, one) >= errors.of(errors.controls[0], one)]
    level = min(fails) if fails else max(noisy)
    cells, tests, numbers = errors.compared(level, MAX_SIGNIFICANT_RATIO, but=COM)
    com, none = errors.of(COM, level), errors.of(errors.controls[0], level)
    if math.isfinite(com):
        tests["CoM fails"] = bool(fails)
        numbers |= {"com": com, "no strain": none}
    turn, rival_turn = (
        errors.of("ccstae", level, "rotation (deg)"),
        errors.rival(level, "rotation (deg)", but=COM)[1],
    )
    if math.isfinite(turn) and math.isfinite(rival_turn):
        tests["ccstae: rotation against its rival"] = turn <= rival_turn
        numbers |= {"ccstae: rotation": turn, "strongest rival: rotation": rival_turn}
    com_said = (
        f"`com` ({_units(com)}) errs {'more' if fails else 'less'} than the answer of no strain "
        f"({_units(none)})"
    )
    return Claim(
        name,
        f"at {display.level(*level)}: does `com` err more than the answer of no strain; is the "
        f"strain error at most {MAX_SIGNIFICANT_RATIO:g} of the strongest rival's, and the "
        "rotation's not above it",
        cells,
        tests,
        numbers,
        f"At {display.level(*level)} {com_said}, and `ccstae` by "
        f"{_ratio(numbers['ccstae'], numbers['strongest rival'])} of the strongest rival.",
    )


def _noise(errors: _Errors) -> Claim:
    name = "more robust to noise"
    noisy = [one for one in errors.levels if math.isfinite(one[1])]
    if not noisy:
        return _untold(name, "strain error at the worst noise", "levels with noise")
    worst = max(one for one in noisy if one[1] == max(e for w, e in noisy if w == max(noisy)[0]))
    cells, tests, numbers = errors.compared(worst)
    dose = min(noisy, key=lambda one: (one[1], one[0]))
    if dose[1] < worst[1]:
        _, of_dose, of_dose_numbers = errors.compared(dose)
        said = display.level(*dose)
        tests |= {f"{test}, {said}": met for test, met in of_dose.items()}
        numbers |= {f"{one}, {said}": value for one, value in of_dose_numbers.items()}
    met = sum(tests.values())
    return Claim(
        name,
        f"strain error at {display.level(*worst)}"
        + (f" and {display.level(*dose)}" if dose[1] < worst[1] else "")
        + ", not above the strongest rival's",
        cells,
        tests,
        numbers,
        f"{met} of {len(tests)} comparisons at the strongest background and the lowest dose are "
        f"won; at the background `ccstae` errs by "
        f"{_ratio(numbers['ccstae'], numbers['strongest rival'])} of the strongest rival.",
    )


class _Structures:
    """Scores of config/structures.yaml at one noisy level: medians over the seeds."""

    def __init__(self, metrics: pd.DataFrame):
        metrics = metrics if "not_run" in metrics else with_not_run(metrics, None)
        noisy = metrics[np.isfinite(metrics["electrons"])]
        away = (noisy["background"] - STRUCTURES_LEVEL).abs()
        self.metrics = noisy[away == away.min()]
        self.level = display.level(
            float(self.metrics["background"].iloc[0]), float(self.metrics["electrons"].iloc[0])
        )
        self.methods = list(dict.fromkeys(self.metrics["method"]))

    def of(self, scene: str, method: str, metric: str, region: str, quantity: str) -> float:
        rows = self.metrics[
            (self.metrics["scene"] == scene)
            & (self.metrics["method"] == method)
            & (self.metrics["metric"] == metric)
            & (self.metrics["region"] == region)
            & (self.metrics["quantity"] == quantity)
        ]
        return float(rows["value"].median()) if len(rows) else math.nan

    def error(self, scene: str, method: str) -> float:
        """Error over the bound in the interior."""
        rows = self.metrics[(self.metrics["scene"] == scene) & (self.metrics["method"] == method)]
        errors = side_by_side.error_over_bound(rows)
        return float(errors.median()) if len(errors) else math.nan


def _turned(shown: _Structures | None) -> Claim:
    name = "large and continuous rotations"
    what = "error / bound where the lattice turns by 75 degrees over that where it does not"
    if shown is None:
        return _untold(name, what, "`make CONFIG=config/structures.yaml`, then this run again")
    ratios = {
        method: shown.error("turned", method) / shown.error("unturned", method)
        for method in ("ccstae-2023", "ccstae", "template")
        if method in shown.methods
    }
    ratios = {method: ratio for method, ratio in ratios.items() if math.isfinite(ratio)}
    tests = {
        f"{method}: rotation costs nothing": ratio <= MAX_TURNED_RATIO
        for method, ratio in ratios.items()
        if method in FAMILY
    }
    cells = {m: f"{ratio:.2f}" for m, ratio in ratios.items() if m in FAMILY}
    if "template" in ratios:
        cells["strongest rival"] = f"template {ratios['template']:.2f}"
    return Claim(
        name,
        f"{what}, at most {MAX_TURNED_RATIO:g}, at {shown.level}",
        cells,
        tests,
        ratios,
        f"With the rotation `ccstae` errs {ratios.get('ccstae', math.nan):.2f} times as much as "
        "without.",
        bool(tests),
    )


def _maps(shown: _Structures | None) -> Claim:
    name = "maps dislocations and ripples, and tells background from sample"
    what = (
        f"dislocations found and ripple shown, at least {100 * MIN_FOUND:.0f} % each; background "
        f"told, at least {100 * MIN_TOLD_APART:.0f} %"
    )
    if shown is None:
        return _untold(name, what, "`make CONFIG=config/structures.yaml`, then this run again")
    cells, tests, numbers = {}, {}, {}
    for method in ("ccstae-2023", "ccstae", "template"):
        if method not in shown.methods:
            continue
        found = shown.of("dislocations", method, "cores_found", "all", "all")
        ripple = shown.of("ripple", method, "gain", "all", "exx")
        apart = shown.of("flake", method, "sample_accuracy", "all", "label")
        said = [
            f"{100 * share:.0f} %" if math.isfinite(share) else "-"
            for share in (found, ripple, apart)
        ]
        own = method in FAMILY
        cells[method if own else "strongest rival"] = ", ".join(said if own else [method, *said])
        for test, share, least in (
            ("dislocations found", found, MIN_FOUND),
            ("ripple shown", ripple, MIN_FOUND),
            ("background told", apart, MIN_TOLD_APART),
        ):
            if math.isfinite(share):
                numbers[f"{method}: {test}"] = share
                if own:
                    tests[f"{method}: {test}"] = bool(share >= least)
    return Claim(
        name,
        f"{what}, in this order, at {shown.level}",
        cells,
        tests,
        numbers,
        f"{sum(tests.values())} of {len(tests)} are met in simulated structures; the experimental "
        "half needs the recorded data.",
        bool(tests),
    )


def _untold(name: str, measured: str, needed: str) -> Claim:
    return Claim(name, measured, {}, {}, {}, f"It needs {needed}.", from_run=False)


def _units(error: float) -> str:
    return display.number(error / display.STRAIN_UNIT)


def _ratio(error: float, other: float) -> str:
    return f"{error / other:.2f}" if math.isfinite(error / other) else "-"
