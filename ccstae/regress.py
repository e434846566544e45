"""The gate: scores of a run against a baseline. Green says as accurate as before; red says what got worse and by how much.

What is compared, and why it sees a change of 10 % without crying wolf. One root mean square error over a few dozen positions scatters
by about 10 % from seed to seed, so most numbers of a small run say little by themselves. These say much:

* the control `zero` and the bound depend on no noise: they are fingerprints of scene, truth, gauge, regions, scoring and noise
  model, and any change beyond 0.5 % is a breach, to whichever side;
* noise-free maps are the same in every seed: errors of the methods themselves, compared within 5 %;
* noisy errors over the bound, pooled: the geometric mean over components and noise levels scatters by a few per cent. Each
  single noisy error is there too, within 40 %, to catch one component that breaks at one level;
* seeds whose pooled errors are the very same, where the baseline's are not, have shared their noise.

An entry holds the median over seeds, the spread (standard deviation from seed to seed), the tolerance (the larger of a floor and
three spreads), which way is better, and whether it gates. The median over the run's seeds scatters less than one seed does, so an
unchanged run with other seeds stays well within three spreads. Time is watched and never gates: it depends on the machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, ValidationError
from rich.console import Console
from rich.table import Table

from ccstae import display, score, store
from ccstae.config import Level
from ccstae.errors import InputError
from ccstae.geometry import COMPONENTS
from ccstae.settings.base import Settings

CONTROL = "zero"
REGIONS = ("interior", "all")
LEAST_SEEDS = 6  # fewer do not tell a spread
ENVIRONMENT = ("commit", "edited", "platform", "cpu", "gpu", "python", "versions")

Better = Literal["lower", "higher", "same"]


@dataclass(frozen=True)
class Rule:
    """How a metric is compared: which way is better, and the floor of its tolerance (the larger of both)."""

    better: Better
    relative: float = 0.0
    absolute: float = 0.0
    gate: bool = True


FINGERPRINT = Rule("same", relative=0.005, absolute=1e-7)
NOISE_FREE = Rule("lower", relative=0.05, absolute=2e-6)
NOISY = Rule("lower", relative=0.4)
SHARE = Rule("lower", absolute=0.02)
POOLED = {
    "rmse_over_limit": Rule("lower", relative=0.05),
    "limit_ratio": Rule("lower", relative=0.05),
    "bias_over_limit": Rule("lower", absolute=0.1),
    "coverage95": Rule("same", absolute=0.03),
}


class Entry(Settings):
    """One line of a baseline."""

    value: FiniteFloat
    spread: FiniteFloat = Field(ge=0)
    tolerance: FiniteFloat = Field(gt=0)
    better: Better
    gate: bool


class Baseline(Settings):
    """A baseline file: entries by `scene method level region quantity metric`, and where they were measured."""

    environment: dict[str, Any]
    seeds: int
    entries: dict[str, Entry]


@dataclass(frozen=True)
class Row:
    """One entry compared."""

    metric: str
    baseline: float
    now: float
    allowed: float
    spread: float
    verdict: Literal["good", "better", "worse", "changed", "missing", "not a number", "not in the baseline", "seeds alike", "slower"]

    @property
    def breach(self) -> bool:
        return self.verdict not in ("good", "better", "slower")

    @property
    def change(self) -> str:
        """`+12.3 %, 4.1 spreads`; the plain difference where the baseline is 0."""
        difference = self.now - self.baseline
        if not math.isfinite(difference):
            return "-"
        size = f"{100 * difference / abs(self.baseline):+.1f} %" if self.baseline else f"{difference:+.2g}"
        return f"{size}, {abs(difference) / self.spread:.1f} spreads" if self.spread and difference else size


def measure(metrics: pd.DataFrame) -> dict[str, tuple[Rule, NDArray[np.float64]]]:
    """What is compared: for every key its rule and one value a seed."""
    out: dict[str, tuple[Rule, NDArray[np.float64]]] = {}
    frame = metrics.assign(level=[_level(w, n) for w, n in zip(metrics["background"], metrics["electrons"], strict=True)])
    columns = ["scene", "method", "level", "region", "quantity", "metric"]
    values = {key: rows["value"].to_numpy(float) for key, rows in frame.sort_values("seed").groupby(columns, sort=False)}
    first = {scene: (rows["method"].iloc[0], rows["level"].iloc[0]) for scene, rows in frame.groupby("scene", sort=False)}
    for key, samples in values.items():
        scene, method, level, region, quantity, metric = key
        inside, clean, component = region in REGIONS, level == "clean", quantity in COMPONENTS
        rule = None
        if metric == "limit" and method == first[scene][0] and inside and not clean:
            rule, key = FINGERPRINT, (scene, "bound", *key[2:])
        elif method == CONTROL:
            rule = FINGERPRINT if metric in ("rmse", "bias") and level == first[scene][1] else None
        elif metric in ("rmse", "bias") and clean and inside:
            rule, samples = NOISE_FREE, np.abs(samples)
        elif metric == "rmse" and region == "interior" and component:
            rule = NOISY
        elif metric == "failure_rate" and region == "all":
            rule = SHARE
        elif metric == "accuracy":
            rule = Rule("higher", absolute=SHARE.absolute)
        if rule is not None:
            out[" ".join(key)] = (rule, samples)
    for name, rule, samples in _pooled(frame[frame["method"] != CONTROL]):
        out[name] = (rule, samples)
    return out


def _level(background: float, electrons: float) -> str:
    return Level(background=background, electrons=electrons).name


def _pooled(frame: pd.DataFrame) -> Iterator[tuple[str, Rule, NDArray[np.float64]]]:
    """Over components and noisy levels, one value a seed: geometric mean of ratios, root mean square of biases, mean of shares."""
    noisy = frame[(frame["level"] != "clean") & frame["region"].isin(REGIONS) & frame["quantity"].isin(COMPONENTS)]
    for (scene, method, region), rows in noisy.groupby(["scene", "method", "region"], sort=False):
        wide = rows.pivot_table(index=["seed", "level", "quantity"], columns="metric", values="value", dropna=False)
        wide["bias_over_limit"] = wide["bias"] / wide["limit"]
        for metric in (name for name in POOLED if name in wide):
            samples = wide[metric].unstack("seed").to_numpy(float)
            if metric == "coverage95":
                pooled = samples.mean(0)
            elif metric == "bias_over_limit":
                pooled = np.sqrt(np.square(samples).mean(0))
            else:
                pooled = np.exp(np.log(np.maximum(samples, 1e-12)).mean(0))
            yield f"{scene} {method} noisy {region} pooled {metric}", POOLED[metric], pooled
    for (scene, method), rows in frame[frame["metric"] == "seconds"].groupby(["scene", "method"], sort=False):
        yield f"{scene} {method} every all all seconds", Rule("lower", relative=1.0, gate=False), rows.groupby("seed")["value"].median().to_numpy()


def compare(metrics: pd.DataFrame, baseline: Baseline) -> list[Row]:
    """Every entry of the baseline and of the run, breaches first."""
    found = measure(metrics)
    rows = [_compare(key, entry, found[key][1] if key in found else None) for key, entry in baseline.entries.items()]
    for key in found.keys() - baseline.entries.keys():
        rows.append(Row(key, math.nan, float(np.median(found[key][1])), math.nan, math.nan, "not in the baseline"))
    return sorted(rows, key=lambda row: (not row.breach, row.verdict == "good", row.metric))


def _compare(key: str, entry: Entry, samples: NDArray[np.float64] | None) -> Row:
    now = math.nan if samples is None else float(np.median(samples))
    worse = {"lower": now - entry.value, "higher": entry.value - now, "same": abs(now - entry.value)}[entry.better]
    verdict: Any = "good"
    if samples is None:
        verdict = "missing"
    elif not np.isfinite(samples).all():
        verdict = "not a number"
    elif len(samples) > 1 and key.endswith("rmse_over_limit") and entry.spread > 0 and np.ptp(samples) == 0:
        verdict = "seeds alike"
    elif worse > entry.tolerance:
        verdict = ("changed" if entry.better == "same" else "worse") if entry.gate else "slower"
    elif -worse > entry.tolerance:
        verdict = "better"
    return Row(key, entry.value, now, entry.tolerance, entry.spread, verdict)


def make_baseline(metrics: pd.DataFrame, environment: dict[str, Any]) -> Baseline:
    """A baseline from a run's scores. InputError where it has too few seeds or a value that is no number."""
    seeds = metrics["seed"].nunique()
    if seeds < LEAST_SEEDS:
        raise InputError(f"baseline: the run has {seeds} seeds; expected at least {LEAST_SEEDS}, from which to tell the spread")
    entries = {}
    for key, (rule, samples) in sorted(measure(metrics).items()):
        if not np.isfinite(samples).all():
            raise InputError(f"baseline: {key} is {samples.tolist()}; expected finite numbers")
        value, spread = float(np.median(samples)), float(np.std(samples, ddof=1))
        tolerance = max(rule.relative * abs(value), rule.absolute, 3 * spread) or 1e-12
        rounded = {name: float(f"{number:.5g}") for name, number in (("value", value), ("spread", spread), ("tolerance", tolerance))}
        entries[key] = Entry(**rounded, better=rule.better, gate=rule.gate)
    return Baseline(environment=environment, seeds=seeds, entries=entries)


def dump(baseline: Baseline) -> str:
    """The baseline as YAML, one line an entry, sorted."""

    def line(value: object) -> str:
        return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=math.inf).strip()

    head = "# Written by `ccstae regress --update`; CONTRIBUTING.md says when.\n"
    environment = yaml.safe_dump({"environment": baseline.environment, "seeds": baseline.seeds}, sort_keys=False)
    return head + environment + "entries:\n" + "".join(f"  {key}: {line(entry.model_dump())}\n" for key, entry in baseline.entries.items())


def load(path: Path) -> Baseline:
    """Read a baseline; InputError where it is missing or unfit."""
    try:
        return Baseline.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; expected a baseline, which `--update` writes") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {getattr(error, 'problem', error)}; expected a baseline") from None
    except ValidationError as error:
        problem = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}; expected a baseline") from None


def environment(metrics_path: Path) -> dict[str, Any]:
    """Where a run was made: from the provenance beside its scores."""
    path = metrics_path.parent / "provenance.json"
    try:
        made = json.loads(path.read_text())
        return {name: made[name] for name in ENVIRONMENT}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read: {error}; expected the provenance of the run that becomes the baseline") from None


HEAD = ("metric", "baseline", "now", "change", "allowed", "verdict")


def _cells(row: Row) -> tuple[str, ...]:
    return (row.metric, _number(row.baseline), _number(row.now), row.change, _number(row.allowed), row.verdict)


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "-"


def shown(rows: list[Row]) -> list[Row]:
    """What people read: all that is not good, and the pooled entries."""
    return [row for row in rows if row.verdict != "good" or " pooled " in row.metric]


def conclusion(rows: list[Row]) -> str:
    """One line: what it comes to, and what to do."""
    breaches, better = sum(row.breach for row in rows), sum(row.verdict == "better" for row in rows)
    said = f"{breaches} of {len(rows)} entries breach the baseline" if breaches else f"as accurate as before: {len(rows)} entries within tolerance"
    return said + (f"; {better} better beyond tolerance: make a new baseline with --update" if better else "")


def markdown(rows: list[Row]) -> str:
    """The table for a summary page."""
    lines = [HEAD, ("---",) * len(HEAD), *map(_cells, shown(rows))]
    return f"**{conclusion(rows)}**\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def as_json(rows: list[Row]) -> str:
    """Every entry, for programs; what is no number is null."""
    listed = [{**asdict(row), "change": row.change, "breach": row.breach} for row in rows]
    finite = [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in listed]
    return json.dumps({"passed": not any(row.breach for row in rows), "conclusion": conclusion(rows), "rows": finite}, indent=1) + "\n"


def regress(metrics_path: Path, baseline_path: Path, markdown_path: Path | None = None, json_path: Path | None = None) -> bool:
    """Compare, print the table, write it where asked; whether nothing breaches."""
    rows = compare(score.read(metrics_path), load(baseline_path))
    table = Table(*HEAD, box=None)
    for row in shown(rows):
        table.add_row(*_cells(row), style="red" if row.breach else None)
    console = Console()
    console = console if console.is_terminal else Console(width=160)
    console.print(table, conclusion(rows), sep="\n", highlight=False)
    for path, text in ((markdown_path, markdown), (json_path, as_json)):
        if path is not None:
            store.write_text(path, text(rows))
    return not any(row.breach for row in rows)


def update(metrics_path: Path, baseline_path: Path) -> None:
    """Write a new baseline from a run with several seeds."""
    store.write_text(baseline_path, dump(make_baseline(score.read(metrics_path), environment(metrics_path))))
