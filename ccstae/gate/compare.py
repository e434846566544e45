"""The gate: scores of a run against a baseline. Green says as accurate as before; red says what got
worse and by how much.

What is compared, and why it sees a change of 10 % without crying wolf. A root mean square error
over a few dozen positions scatters by 10 to 15 % from seed to seed, so most numbers of a small run
say little by themselves. These say much:

* the controls (`zero` answers no strain, `silent` nothing at all) and the bound depend on no noise:
  fingerprints of scene, truth, gauge, regions, scoring and noise model, in which any change beyond
  0.5 % is a breach, to whichever side;
* noise-free maps are the same in every seed: the methods' own errors, within 5 %;
* the first seeds of the baseline are kept one by one (`seed=1`). A run with the same seed has the
  same counts, so its errors over the bound (geometric mean over components) compare within 5 %,
  scatter or not. A run without that seed is not asked;
* medians over seeds, of single noisy errors and pooled over components and noise levels, within
  three spreads: what other seeds see;
* seeds whose pooled errors are the very same, where the baseline's are not, have shared noise.

An entry holds the median over seeds, the spread (standard deviation from seed to seed), the
tolerance (the larger of a floor and three spreads), which way is better, and whether it gates or is
only watched. The median over a run's seeds scatters less than one seed, so three spreads are more
than four of its standard deviations. But a spread told by few seeds is often too small, and there
are many entries: with twelve seeds 0.06 false breaches were to be expected in a run, and twenty
runs had one. So a baseline is made with 36, which leave 0.003 (`false_breaches`). And errors have
outliers: `encoder` is wrong by a tenth in one pattern of some thousands, which doubled its error in
a run of two seeds. So a run has three, whose median bears one seed with an outlier.

Which methods are controls or only watched stands in the baseline (`roles`), since their ids are
those of the run's config.

Time is watched: it depends on the machine; and so are the errors of `ccstae-2023`, whose training
lets rounding grow until another processor's answer is another answer. That it gives one still
gates. Of `encoder`, a net without the refinement that takes its slips back, the noise-free errors
are watched: on an Intel Xeon its bias is up to 0.4 of its rmse from that on an AMD EPYC. Its noisy
errors, and the errors of every method but `ccstae-2023`, agree to 0.5 % there.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ccstae.errors import InputError
from ccstae.gate.baseline import (
    Baseline,
    BaselineEntry,
    Roles,
    false_breaches,
    read_baseline,
    seed_of,
    write_baseline,
)
from ccstae.gate.measure import measure
from ccstae.io import atomic, layout
from ccstae.io.scores import read_scores

MIN_SEEDS = 6  # fewer do not tell a spread
PAIRED_SEEDS = 3  # of the baseline's first seeds, held one by one
ENVIRONMENT = ("commit", "edited", "platform", "cpu", "gpu", "python", "versions")
HEAD = ("metric", "baseline", "now", "change", "allowed", "verdict")

Array = NDArray[np.float64]
Verdict = Literal[
    "good",
    "better",
    "worse",
    "changed",
    "missing",
    "not a number",
    "not in the baseline",
    "seeds alike",
    "slower",
    "watched",
]


@dataclass(frozen=True)
class Row:
    """One entry compared; nan where there is no number."""

    metric: str
    verdict: Verdict
    now: float
    baseline: float = math.nan
    allowed: float = math.nan
    spread: float = math.nan

    @property
    def breach(self) -> bool:
        return self.verdict not in ("good", "better", "slower", "watched")

    @property
    def change(self) -> str:
        """`+12.3 %, 4.1 spreads`; the plain difference where the baseline is 0."""
        difference = self.now - self.baseline
        if not math.isfinite(difference):
            return "-"
        if self.baseline:
            size = f"{100 * difference / abs(self.baseline):+.1f} %"
        else:
            size = f"{difference:+.2g}"
        if self.spread and difference:
            size += f", {abs(difference) / self.spread:.1f} spreads"
        return size

    @property
    def cells(self) -> tuple[str, ...]:
        def text(value: float) -> str:
            return f"{value:.4g}" if math.isfinite(value) else "-"

        before, now, allowed = text(self.baseline), text(self.now), text(self.allowed)
        return self.metric, before, now, self.change, allowed, self.verdict


def compare(metrics: pd.DataFrame, baseline: Baseline) -> list[Row]:
    """Hold the scores of a run against a baseline.

    Args:
        metrics: the run's scores, with the columns `score.COLUMNS`.
        baseline: what they may be.

    Returns:
        A row for every entry of the baseline and of the run, breaches first. Entries of one seed
        that the run lacks are not asked for.
    """
    measured = measure(metrics, baseline.roles)
    known, seeds = baseline.entries, {f"seed={seed}" for seed in metrics["seed"].unique()}
    asked = [key for key in known if seed_of(key) is None or seed_of(key) in seeds]
    rows = [
        _compare(key, known[key], measured[key][1] if key in measured else None) for key in asked
    ]
    rows += [
        Row(key, "not in the baseline", float(np.median(values)))
        for key, (_, values) in measured.items()
        if key not in known and seed_of(key) is None
    ]
    return sorted(rows, key=lambda row: (not row.breach, row.verdict == "good", row.metric))


def _compare(key: str, entry: BaselineEntry, values: Array | None) -> Row:
    now = math.nan if values is None else float(np.median(values))
    worse = {
        "lower": now - entry.value,
        "higher": entry.value - now,
        "same": abs(now - entry.value),
    }[entry.better]
    verdict: Verdict = "good"
    if values is None:
        verdict = "missing"
    elif not np.isfinite(values).all():
        verdict = "not a number"
    elif (
        len(values) > 1
        and key.endswith("rmse_over_limit")
        and entry.spread > 0
        and len(np.unique(values)) < len(values)
    ):
        verdict = "seeds alike"
    elif worse > entry.tolerance:
        if not entry.gate:
            verdict = "slower" if key.endswith(" seconds") else "watched"
        else:
            verdict = "changed" if entry.better == "same" else "worse"
    elif -worse > entry.tolerance:
        verdict = "better"
    return Row(key, verdict, now, entry.value, entry.tolerance, entry.spread)


def make_baseline(metrics: pd.DataFrame, environment: dict[str, Any], roles: Roles) -> Baseline:
    """A baseline from a run's scores.

    Args:
        metrics: the scores, with the columns `score.COLUMNS`.
        environment: where they were made.
        roles: methods that are held otherwise.

    Raises:
        InputError: where they are of too few seeds, or a value is no number.
    """
    seeds = sorted(metrics["seed"].unique())
    if len(seeds) < MIN_SEEDS:
        raise InputError(
            f"baseline: the run has {len(seeds)} seeds; expected at least {MIN_SEEDS}, from "
            f"which to tell the spread"
        )
    of_seed = {None, *(f"seed={seed}" for seed in seeds[:PAIRED_SEEDS])}
    entries = {}
    for key, (rule, values) in sorted(measure(metrics, roles).items()):
        if seed_of(key) not in of_seed:
            continue
        if not np.isfinite(values).all():
            raise InputError(f"baseline: {key} is {values.tolist()}; expected finite numbers")
        value, spread = float(np.median(values)), 0.0
        if np.ptp(values) > 1e-9 * abs(value):  # less is rounding
            spread = float(np.std(values, ddof=1))
        numbers = {
            "value": value,
            "spread": spread,
            "tolerance": max(rule.relative * abs(value), rule.absolute, 3 * spread),
        }
        entries[key] = BaselineEntry(
            **{name: float(f"{number:.6g}") for name, number in numbers.items()},
            better=rule.better,
            gate=rule.gate,
        )
    return Baseline(roles=roles, environment=environment, seeds=len(seeds), entries=entries)


def conclusion(rows: list[Row]) -> str:
    """One line: what it comes to, and what to do."""
    breaches = sum(row.breach for row in rows)
    better = sum(row.verdict == "better" for row in rows)
    line = f"as accurate as the baseline in {len(rows)} entries"
    if breaches:
        line = f"{breaches} of {len(rows)} entries breach the baseline"
    if better:
        line += f"; {better} are better beyond tolerance: make a new baseline with --update"
    return line


def shown(rows: list[Row]) -> list[Row]:
    """What people read: all that is not good, and the pooled entries."""
    return [row for row in rows if row.verdict != "good" or " noisy " in row.metric]


def markdown(rows: list[Row]) -> str:
    """The table for a summary page."""
    lines = [HEAD, ("---",) * len(HEAD), *(row.cells for row in shown(rows))]
    return f"**{conclusion(rows)}**\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def as_json(rows: list[Row]) -> str:
    """Every entry, for programs; what is no number is null."""
    listed = [{**asdict(row), "change": row.change, "breach": row.breach} for row in rows]
    finite = [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        for row in listed
    ]
    whole = {
        "passed": not any(row.breach for row in rows),
        "conclusion": conclusion(rows),
        "rows": finite,
    }
    return json.dumps(whole, indent=1) + "\n"


def write(
    metrics_path: Path,
    baseline_path: Path,
    markdown_path: Path | None = None,
    json_path: Path | None = None,
) -> bool:
    """Compare a run with a baseline and print the table.

    Args:
        metrics_path: the run's scores.
        baseline_path: the baseline.
        markdown_path: where the table goes for a summary page, if anywhere.
        json_path: where every entry goes for programs, if anywhere.

    Returns:
        Whether nothing breaches.

    Raises:
        InputError: where a file is missing, unfit or cannot be written.
    """
    rows = compare(read_scores(metrics_path), read_baseline(baseline_path))
    table = Table(*HEAD, box=None)
    for row in shown(rows):
        table.add_row(*row.cells, style="red" if row.breach else None)
    console = Console(width=None if Console().is_terminal else 180)
    console.print(table, conclusion(rows), sep="\n", highlight=False)
    for path, text in ((markdown_path, markdown), (json_path, as_json)):
        if path is not None:
            atomic.write_text(path, text(rows))
    return not any(row.breach for row in rows)


def update(metrics_path: Path, baseline_path: Path) -> None:
    """Write a new baseline from a run of several seeds and say how often it will cry wolf.

    Args:
        metrics_path: the run's scores, with the run's provenance beside them, which says where they
            were made.
        baseline_path: where the baseline goes.

    Raises:
        InputError: where a file is missing or unfit, the run has too few seeds, or the baseline
            cannot be written.
    """
    provenance = metrics_path.with_name(layout.PROVENANCE)
    try:
        made = json.loads(provenance.read_text())
        environment = {name: made[name] for name in ENVIRONMENT}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{provenance}: cannot be read: {error}; expected the provenance of the run that "
            f"becomes the baseline"
        ) from None
    roles = read_baseline(baseline_path).roles if baseline_path.exists() else Roles()
    baseline = make_baseline(read_scores(metrics_path), environment, roles)
    write_baseline(baseline_path, baseline)
    size = f"{len(baseline.entries)} entries from {baseline.seeds} seeds"
    print(f"{size}; false breaches to expect in a run of three: {false_breaches(baseline):.2g}")
