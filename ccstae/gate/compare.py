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
* seeds whose pooled errors are the very same, where the baseline's are not, have shared their
  noise.

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
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ccstae.config.levels import Level
from ccstae.errors import InputError
from ccstae.evaluation import score
from ccstae.gate.baseline import (
    Baseline,
    Better,
    Entry,
    Roles,
    dump,
    false_breaches,
    load,
    seed_of,
)
from ccstae.geometry import COMPONENTS
from ccstae.io import atomic

REGIONS = ("interior", "all")
LEAST_SEEDS = 6  # fewer do not tell a spread
PAIRED_SEEDS = 3  # of the baseline's first seeds, kept one by one
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
class Rule:
    """Which way is better, and the floor of the tolerance: the larger of a share of the value and a
    plain number.
    """

    better: Better
    relative: float = 0.0
    absolute: float = 0.0
    gate: bool = True


FINGERPRINT = Rule("same", relative=0.005, absolute=1e-7)
NOISE_FREE = Rule("lower", relative=0.05, absolute=2e-6)
NOISY = Rule("lower", relative=0.6)
PAIRED = Rule("lower", relative=0.05)
FAILURES = Rule("lower", absolute=0.15)
LABELS = Rule("higher", absolute=0.15)
SECONDS = Rule("lower", relative=1.0, gate=False)
POOLED = {
    "rmse_over_limit": Rule("lower", relative=0.15),
    "limit_ratio": Rule("lower", relative=0.2),
    "bias_over_limit": Rule("lower", absolute=0.5),
    "coverage95": Rule("same", absolute=0.06),
}


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
        size = (
            f"{100 * difference / abs(self.baseline):+.1f} %"
            if self.baseline
            else f"{difference:+.2g}"
        )
        return (
            f"{size}, {abs(difference) / self.spread:.1f} spreads"
            if self.spread and difference
            else size
        )

    @property
    def cells(self) -> tuple[str, ...]:
        baseline, now, allowed = (
            f"{v:.4g}" if math.isfinite(v) else "-" for v in (self.baseline, self.now, self.allowed)
        )
        return self.metric, baseline, now, self.change, allowed, self.verdict


def measure(metrics: pd.DataFrame, roles: Roles) -> dict[str, tuple[Rule, Array]]:
    """What is compared: by key, the rule and one value a seed."""
    level = [
        Level(background=w, electrons=n).name
        for w, n in zip(metrics["background"], metrics["electrons"], strict=True)
    ]
    frame = metrics.assign(level=level).sort_values("seed", kind="stable")
    columns = ["scene", "method", "level", "region", "quantity", "metric"]
    return {
        " ".join(key): (replace(rule, gate=rule.gate and not _rounds(roles, *key)), values)
        for key, rule, values in (
            *_single(frame, columns, roles.controls),
            *_pooled(frame, roles.controls),
        )
    }


def _rounds(roles: Roles, _scene: str, method: str, level: str, *key: str) -> bool:
    """Whether an entry depends on how a processor rounds."""
    return (method in roles.watched and key[-1] != "failure_rate") or (
        method in roles.watched_noise_free and level == "clean" and key[-1] in ("rmse", "bias")
    )


def _single(
    frame: pd.DataFrame, columns: list[str], controls: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], Rule, Array]]:
    """The entries that are rows of the scores."""
    first = {
        scene: (rows["method"].iloc[0], rows["level"].iloc[0])
        for scene, rows in frame.groupby("scene", sort=False)
    }
    for key, rows in (
        (tuple(map(str, key)), rows) for key, rows in frame.groupby(columns, sort=False)
    ):
        scene, method, level, region, _, metric = key
        values, inside, clean = rows["value"].to_numpy(float), region in REGIONS, level == "clean"
        if metric == "limit" and method == first[scene][0] and inside and not clean:
            yield (scene, "bound", *key[2:]), FINGERPRINT, values
        elif method in controls:
            if metric in ("rmse", "bias", "failure_rate") and level == first[scene][1]:
                yield key, FINGERPRINT, values
        elif metric in ("rmse", "bias") and clean and inside:
            yield key, NOISE_FREE, np.abs(values)
        elif metric == "rmse" and region == "interior":
            yield key, NOISY, values
        elif metric == "failure_rate" and region == "all":
            yield key, replace(FAILURES, absolute=0.02) if clean else FAILURES, values
        elif metric == "accuracy":
            yield key, replace(LABELS, absolute=0.02) if clean else LABELS, values


def _pooled(
    frame: pd.DataFrame, controls: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], Rule, Array]]:
    """Over components and noisy levels: geometric mean of ratios, root mean square of biases, mean
    of shares. Also the time.
    """
    frame = frame[~frame["method"].isin(controls)]
    noisy = frame[
        (frame["level"] != "clean")
        & frame["region"].isin(REGIONS)
        & frame["quantity"].isin(COMPONENTS)
    ]
    for group, rows in noisy.groupby(["scene", "method", "region"], sort=False):
        scene, method, region = map(str, group)
        wide = {
            str(name): part.pivot(index=["level", "quantity"], columns="seed", values="value")
            for name, part in rows.groupby("metric")
        }
        pooled = {name: _geometric_mean(wide[name]) for name in ("rmse_over_limit", "limit_ratio")}
        pooled["bias_over_limit"] = np.sqrt(
            np.square((wide["bias"] / wide["limit"]).to_numpy(float)).mean(0)
        )
        if "coverage95" in wide:
            pooled["coverage95"] = wide["coverage95"].to_numpy(float).mean(0)
        for name, values in pooled.items():
            yield (scene, method, "noisy", region, "pooled", name), POOLED[name], values
        for level, errors in wide["rmse_over_limit"].groupby("level") if region == "all" else ():
            for seed, value in zip(errors.columns, _geometric_mean(errors), strict=True):
                yield (
                    (
                        scene,
                        method,
                        str(level),
                        region,
                        "pooled",
                        "rmse_over_limit",
                        f"seed={seed}",
                    ),
                    PAIRED,
                    np.array([value]),
                )
    for group, rows in frame[frame["metric"] == "seconds"].groupby(["scene", "method"], sort=False):
        yield (
            (*map(str, group), "every", "all", "all", "seconds"),
            SECONDS,
            rows.groupby("seed")["value"].median().to_numpy(),
        )


def _geometric_mean(ratios: pd.DataFrame) -> Array:
    with np.errstate(divide="ignore"):
        return np.asarray(np.exp(np.log(ratios.to_numpy(float)).mean(0)))


def compare(metrics: pd.DataFrame, baseline: Baseline) -> list[Row]:
    """Every entry of the baseline and of the run, breaches first."""
    found = measure(metrics, baseline.roles)
    known, seeds = baseline.entries, {f"seed={seed}" for seed in metrics["seed"].unique()}
    asked = [key for key in known if seed_of(key) is None or seed_of(key) in seeds]
    rows = [_compare(key, known[key], found[key][1] if key in found else None) for key in asked]
    rows += [
        Row(key, "not in the baseline", float(np.median(values)))
        for key, (_, values) in found.items()
        if key not in known and seed_of(key) is None
    ]
    return sorted(rows, key=lambda row: (not row.breach, row.verdict == "good", row.metric))


def _compare(key: str, entry: Entry, values: Array | None) -> Row:
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
        kind: Verdict = "slower" if key.endswith(" seconds") else "watched"
        verdict = kind if not entry.gate else "changed" if entry.better == "same" else "worse"
    elif -worse > entry.tolerance:
        verdict = "better"
    return Row(key, verdict, now, entry.value, entry.tolerance, entry.spread)


def make_baseline(metrics: pd.DataFrame, environment: dict[str, Any], roles: Roles) -> Baseline:
    """A baseline from a run's scores. InputError where it has too few seeds or a value that is no
    number.
    """
    seeds = sorted(metrics["seed"].unique())
    if len(seeds) < LEAST_SEEDS:
        raise InputError(
            f"baseline: the run has {len(seeds)} seeds; expected at least {LEAST_SEEDS}, from "
            f"which to tell the spread"
        )
    kept = {None, *(f"seed={seed}" for seed in seeds[:PAIRED_SEEDS])}
    entries = {}
    for key, (rule, values) in sorted(measure(metrics, roles).items()):
        if seed_of(key) not in kept:
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
        entries[key] = Entry(
            **{name: float(f"{number:.6g}") for name, number in numbers.items()},
            better=rule.better,
            gate=rule.gate,
        )
    return Baseline(roles=roles, environment=environment, seeds=len(seeds), entries=entries)


def conclusion(rows: list[Row]) -> str:
    """One line: what it comes to, and what to do."""
    breaches, better = sum(row.breach for row in rows), sum(row.verdict == "better" for row in rows)
    said = (
        f"{breaches} of {len(rows)} entries breach the baseline"
        if breaches
        else f"as accurate as the baseline in {len(rows)} entries"
    )
    return said + (
        f"; {better} are better beyond tolerance: make a new baseline with --update"
        if better
        else ""
    )


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
    return (
        json.dumps(
            {
                "passed": not any(row.breach for row in rows),
                "conclusion": conclusion(rows),
                "rows": finite,
            },
            indent=1,
        )
        + "\n"
    )


def write(
    metrics_path: Path,
    baseline_path: Path,
    markdown_path: Path | None = None,
    json_path: Path | None = None,
) -> bool:
    """Compare, print the table, write it where asked; whether nothing breaches."""
    rows = compare(score.read(metrics_path), load(baseline_path))
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
    """Write a new baseline from a run of several seeds and say how often it will cry wolf; where it
    was made is read from the provenance beside its scores, and the roles of methods from the
    baseline that it replaces, if there is one.
    """
    provenance = metrics_path.parent / "provenance.json"
    try:
        made = json.loads(provenance.read_text())
        environment = {name: made[name] for name in ENVIRONMENT}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{provenance}: cannot be read: {error}; expected the provenance of the run that "
            f"becomes the baseline"
        ) from None
    roles = load(baseline_path).roles if baseline_path.exists() else Roles()
    baseline = make_baseline(score.read(metrics_path), environment, roles)
    atomic.write_text(baseline_path, dump(baseline))
    told = f"{len(baseline.entries)} entries from {baseline.seeds} seeds"
    print(f"{told}; false breaches to expect in a run of three: {false_breaches(baseline):.2g}")
